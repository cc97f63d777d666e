"""Four launches on one store, and SIGKILL at random moments.

`python -m tests.faults.many --kills 50` does it as often as that.
What must hold is in `verdict`; figures go to standard output.
"""

import argparse
import collections
import contextlib
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.faults.launches import Launch, Place, kill, untrained

AIMED = (
    "leasing",
    "loading",
    "computing",
    "writing-shard",
    "before-shard",
    "after-shard",
    "writing-tokens",
    "writing-manifest",
    "before-manifest",
    "after-manifest",
    "writing-record",
    "before-record",
    "after-record",
    "writing-status",
)
"""Points of `interfering/sitecustomize.py`."""

ANYWHERE, PARENT = "anywhere", "launcher"
PATIENCE_S = 30.0
"""Seconds for which an aimed order stands before another one takes its place."""

STANDING = 3
"""Most orders that stand at a time."""

SLACK_S = 3.0
"""Beyond the lease: two polls, and the time of a busy machine to notice."""


@dataclass
class Killed:
    """One SIGKILL."""

    pid: int
    time: float
    point: str


@dataclass
class Ended:
    """What a round came to."""

    place: Place
    killed: list[Killed]
    failures: list[str]
    seconds: float
    leftovers: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)


class Round:
    """Launches until all have ended well, and their killer."""

    def __init__(self, place: Place, seed: int, n_kills: int, limit_s: float) -> None:
        self._place = place
        self._random = random.Random(seed)
        self._n_kills = n_kills
        self._limit_s = limit_s
        self._launches = [Launch(name, place) for name in place.jobs]
        self._outside: list[Killed] = []
        self._orders: dict[Path, float] = {}
        self._n_orders = 0
        self._deck: list[str] = []
        self._next = 0.0

    def run(self) -> Ended:
        begun = time.time()
        failures: list[str] = []
        try:
            for launch in self._launches:
                launch.start()
            while not all(launch.is_done for launch in self._launches):
                if time.time() > begun + self._limit_s:
                    left = [launch.name for launch in self._launches if not launch.is_done]
                    failures.append(f"not done after {self._limit_s:.0f} s: {', '.join(left)}")
                    break
                self._strike()
                pids = [it.pid for it in self.killed()]
                for launch in self._launches:
                    launch.look(pids)
                time.sleep(0.05)
        finally:
            for launch in self._launches:
                launch.end()
        failures += [it for launch in self._launches for it in launch.failures]
        return Ended(self._place, self.killed(), failures, time.time() - begun)

    def killed(self) -> list[Killed]:
        """Everyone who was killed so far, by an order or from outside."""
        orders = [it for it in self._place.events() if it["event"] == "killed"]
        ordered = [Killed(it["pid"], it["time"], it["point"]) for it in orders]
        return sorted([*ordered, *self._outside], key=lambda it: it.time)

    def _strike(self) -> None:
        """Put out an order, or kill somebody now, at random moments."""
        for order, until in list(self._orders.items()):
            if order.exists() and time.time() > until:
                with contextlib.suppress(FileNotFoundError):  # carried out just now
                    order.rename(order.with_suffix(".withdrawn"))
            if not order.exists():
                del self._orders[order]
        n_killed = len(self.killed())
        if time.time() < self._next or len(self._orders) >= STANDING:
            return
        if n_killed + len(self._orders) >= self._n_kills:
            return
        self._next = time.time() + self._random.expovariate(2.0)
        if not self._deck:  # every point comes up as often as any other
            self._deck = [*AIMED, ANYWHERE, ANYWHERE, PARENT, PARENT]
            self._random.shuffle(self._deck)
        chosen = self._deck.pop()
        if chosen in {ANYWHERE, PARENT}:
            self._kill_somebody(chosen)
            return
        self._n_orders += 1
        order = self._place.orders / f"{self._n_orders:04d}.{chosen}"
        late = self._random.choice([0.0, 0.0, self._random.uniform(0.0, 0.3)])
        order.with_suffix(".making").write_text(str(late))
        order.with_suffix(".making").rename(order)
        self._orders[order] = time.time() + PATIENCE_S

    def _kill_somebody(self, how: str) -> None:
        """Kill a process that has begun to work; for those that only start, orders are enough."""
        busy = {it["pid"] for it in self._place.events() if it["event"] != "started"}
        running = [it for it in self._launches if not it.is_done and busy & set(it.alive())]
        if how == PARENT:  # of a sweep whose jobs have processes of their own, where there is one
            running = [it for it in running if len(it.alive()) > 1] or running
        if not running:
            return
        launch = self._random.choice(running)
        alive = launch.alive()
        chosen = {launch.process.pid} if how == PARENT else busy & set(alive)
        for pid in chosen & set(alive):
            launch.pids |= set(alive)
            if kill(pid):
                self._outside.append(Killed(pid, time.time(), how))
            return


def results(outputs: Path) -> dict[str, dict[str, str]]:
    """Digest of every file of every result but where and when it was made."""
    from olmo_stages import records

    found = {}
    for mark in sorted(outputs.glob("*/*/*/result.json")):
        records.read(mark.parent)  # each file as its digest says
        files = json.loads(mark.read_text())["files"]
        found[str(mark.parent.relative_to(outputs))] = {
            name: it["sha256"] for name, it in files.items() if name != records.PROVENANCE
        }
    return found


def verdict(ended: Ended, expected: dict[str, dict[str, str]]) -> list[str]:
    """What is wrong at the end, one line each; empty = nothing."""
    place = ended.place
    wrong = list(ended.failures)
    found = results(place.outputs)
    wrong += [f"no result {name}" for name in expected.keys() - found.keys()]
    wrong += [f"a result nobody asked for: {name}" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        if expected[name] != found[name]:
            differ = [it for it in expected[name] if expected[name][it] != found[name].get(it)]
            wrong.append(f"another result: {name}, {', '.join(differ)}")
    wrong += _store_is_sound(place)
    wrong += _computed_once(place.events(), {it.pid for it in ended.killed})
    longest = max(idle_waits(place, ended.killed), default=0.0)
    lease = 3 * place.heartbeat_s
    if longest > lease + SLACK_S:
        wrong.append(f"waited {longest:.1f} s for nobody; leases last {lease:.1f} s")
    return wrong


def _store_is_sound(place: Place) -> list[str]:
    from olmo_stages.activations.store import Store
    from olmo_stages.activations.upkeep import COMPLETE, verify

    rows = verify(Store(place.store, heartbeat_s=place.heartbeat_s))
    return [
        f"store: {row.folder.name[:8]} is {row.state} {row.problem}"
        for row in rows
        if row.state != COMPLETE
    ]


def _computed_once(events: Sequence[dict], killed: set[int]) -> list[str]:
    """Each shard was written once, and computed more often only where its process was killed."""
    wrong = []
    written = collections.Counter(
        "/".join(Path(it["path"]).parts[-2:]).split(".")[0]
        for it in events
        if it["event"] == "shard"
    )
    wrong += [
        f"shard {name[:8]}{name[64:]} written {n} times" for name, n in written.items() if n > 1
    ]
    begun = collections.Counter(it["pid"] for it in events if it["event"] == "computing")
    ended = collections.Counter(it["pid"] for it in events if it["event"] == "shard")
    for pid, n in begun.items():
        lost = n - ended[pid]
        if not 0 <= lost <= (pid in killed):
            fate = "killed" if pid in killed else "unkilled"
            wrong.append(f"process {pid} ({fate}) computed {n} shards and wrote {ended[pid]}")
    return wrong


def idle_waits(place: Place, killed: Sequence[Killed]) -> list[float]:
    """How long processes waited for somebody without anybody else being at work, each time.

    That is the time it takes to find out that somebody was killed. A kill begins it anew, since
    each may leave a lease of its own.
    """
    events = place.events()
    works = list(_works(events, {it.pid: it.time for it in killed}))
    found = []
    for pid, begun, ended in _waiting(events):
        others = [(start, end) for who, start, end in works if who != pid]
        kills = [it.time for it in killed if begun < it.time < ended]
        for start, end in itertools.pairwise([begun, *kills, ended]):
            found.append(end - start - _covered(start, end, others))
    return found


def _waiting(events: Sequence[dict]) -> Iterator[tuple[int, float, float]]:
    """Process, begin and end of each wait, however often it looked meanwhile."""
    spans: dict[tuple[int, str], list[list[float]]] = {}
    for it in events:
        if it["event"] == "wait":
            own = spans.setdefault((it["pid"], it["entry"]), [])
            if own and it["begun"] - own[-1][1] < 0.5:
                own[-1][1] = it["time"]
            else:
                own.append([it["begun"], it["time"]])
    for (pid, _entry), own in spans.items():
        for begun, ended in own:
            yield pid, begun, ended


def _works(
    events: Sequence[dict], killed: Mapping[int, float]
) -> Iterator[tuple[int, float, float]]:
    """Process, begin and end of each loading of a model and each computing of a shard."""
    open_: dict[int, float] = {}
    for it in events:
        if it["event"] in {"loading", "computing"}:
            open_.setdefault(it["pid"], it["time"])
        elif it["event"] in {"loading done", "shard"} and it["pid"] in open_:
            yield it["pid"], open_.pop(it["pid"]), it["time"]
    for pid, begun in open_.items():
        yield pid, begun, killed.get(pid, begun)


def _covered(start: float, end: float, spans: Sequence[tuple[float, float]]) -> float:
    """How much of a time lies in any of the spans."""
    total, at = 0.0, start
    for begun, ended in sorted(spans):
        first, last = max(begun, at), min(ended, end)
        if last > first:
            total, at = total + last - first, last
    return total


def leftovers(place: Place) -> list[str]:
    """Temporary files and folders that somebody left."""
    marks = (".tmp", ".old-", ".removed", ".making")
    return [
        str(path.relative_to(place.root))
        for root in (place.cache, place.outputs)
        for path in sorted(root.rglob("*"))
        if any(mark in path.name for mark in marks) or path.name.startswith("scratch-")
    ]


def undisturbed(place: Place) -> dict[str, dict[str, str]]:
    """The results of the same launches that nobody kills."""
    place.make()
    ended = Round(place, 0, 0, 600.0).run()
    if ended.failures:
        raise SystemExit("\n".join(ended.failures))
    return results(place.outputs)


def figures(ended: Ended) -> str:
    events = ended.place.events()
    count = collections.Counter(it["event"] for it in events)
    entries = {Path(it["path"]).parent for it in events if it["event"] == "shard"}
    points = collections.Counter(it.point for it in ended.killed)
    waits = idle_waits(ended.place, ended.killed)
    lease = 3 * ended.place.heartbeat_s
    return (
        f"{len(ended.killed)} kills in {ended.seconds:.0f} s ("
        + ", ".join(f"{n} {point}" for point, n in sorted(points.items()))
        + f"); {count['started']} processes started; {len(entries)} entries of "
        f"{count['shard']} shards, {count['computing']} computed ("
        f"{count['computing'] - count['shard']} lost); longest wait for nobody "
        f"{max(waits, default=0.0):.1f} s (lease {lease:.1f} s); "
        f"{len(ended.leftovers)} temporary files left before gc"
    )


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def rounds(place: Place, n_kills: int, seed: int, limit_s: float) -> list[Ended]:
    """Rounds, each on an empty store, until so many were killed."""
    expected = undisturbed(replace(place, root=place.root / "undisturbed"))
    ended: list[Ended] = []
    left = n_kills
    while left > 0:
        here = replace(place, root=place.root / f"round-{len(ended)}")
        here.make()
        one = Round(here, seed + len(ended), left, limit_s).run()
        one.leftovers = leftovers(here)
        one.found = verdict(one, expected)
        ended.append(one)
        left -= len(one.killed)
        say(f"round {len(ended)}: {figures(one)}")
        for line in one.found:
            say(f"  WRONG: {line}")
        if not one.killed or one.failures:
            break
    return ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--heartbeat", type=float, default=1.0)
    parser.add_argument("--slow", type=float, default=0.1, help="seconds added to each shard")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds of a round")
    parser.add_argument("--family", type=Path, help="cache with a trained miniature family")
    parser.add_argument("--keep", type=Path, help="folder to leave everything in")
    given = parser.parse_args()
    root = given.keep or Path(tempfile.mkdtemp(prefix="faults-"))
    place = Place(
        root,
        given.family or untrained(root / "family"),
        heartbeat_s=given.heartbeat,
        slow_s=given.slow,
    )
    try:
        ended = rounds(place, given.kills, given.seed, given.limit)
    finally:
        if given.keep is None:
            shutil.rmtree(root, ignore_errors=True)
    sys.exit(1 if any(it.found for it in ended) else 0)


if __name__ == "__main__":
    main()
