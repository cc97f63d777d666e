"""Several processes compute one entry of the store together, shard by shard.

Nobody leads. Whoever wants an entry that is not complete takes a shard that is neither written nor
leased, computes it and writes it; whoever sees the last one written writes the manifest. A process
that is killed leaves one shard undone and a lease that runs out; one that is halted and wakes up
writes a shard that is there already, with the same content. So N processes share the work, each
shard is computed once, and whatever happens between them, what is written is the same.
"""

import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from olmo_stages.activations.bar import Bar
from olmo_stages.activations.entry import Entry, read_entry
from olmo_stages.activations.store import Store, leases_of
from olmo_stages.activations.task import Task
from olmo_stages.atomic import CACHE, disk_trouble
from olmo_stages.errors import ModelError, StoreError
from olmo_stages.leases import Lease, Owner
from olmo_stages.looking import make
from olmo_stages.progress import say
from olmo_stages.stopping import unit

PUBLISH = "publish"
"""Name of the lease of whoever checks the shards and writes the manifest."""


class Crew:
    """This process's part in one entry.

    Args:
        store: where it lies.
        folder: of the entry.
        begin: says what is to be computed, if anything is; it may take a while.

    Attributes:
        folder: of the entry.
        entry: the entry, as soon as it is complete.
    """

    def __init__(self, store: Store, folder: Path, begin: Callable[[], Task]) -> None:
        self.entry = read_entry(folder)
        self._store = store
        self.folder = folder
        self._begin = begin
        self._begun: Task | None = None
        self._leases: dict[str, Lease] = {}
        self._fitting: dict[int, str] = {}
        self._own: set[str] = set()
        self._bad: set[str] = set()
        self._changed = time.monotonic()
        self._company: float | None = None
        self._unable: ModelError | None = None

    def work(self, bar: Bar, *, join: bool) -> bool:
        """Compute what nobody else is at, until nothing of it is left.

        Args:
            bar: shows how far it is.
            join: take part where others are at work already.

        Returns:
            Whether anything was done.

        Raises:
            DataError: examples that cannot be read.
            ModelError: the checkpoint cannot be used.
            StoreError: the store is damaged or cannot be written.
        """
        done = False
        while not self.is_complete():
            missing = self.missing()
            self._show(bar, opens=False)
            if not (self._take(missing, bar, join=join or done) if missing else self._publish()):
                return done
            done = True
        return done

    def is_complete(self) -> bool:
        """Whether the manifest is there; looks for it.

        Raises:
            StoreError: it is damaged.
        """
        if self.entry is None:
            self.entry = read_entry(self.folder)
        return self.entry is not None

    @property
    def complete(self) -> Entry:
        """The entry, which must be complete."""
        assert self.entry is not None
        return self.entry

    def missing(self) -> list[int]:
        """The shards that nobody has written yet; looks for them."""
        before = dict(self._fitting)
        self._fitting = dict(self._look())
        if self._fitting != before:
            self._changed = time.monotonic()
            if not set(self._fitting.values()) <= {*before.values(), *self._own}:
                self._company = self._changed
        return [part for part in range(len(self._task.parts)) if part not in self._fitting]

    def owners(self) -> list[Owner | None]:
        """Who is at work on what is missing, each once; None = not known."""
        leases = [self._lease_of(part) for part in self.missing()] or [self._lease(PUBLISH)]
        return list(dict.fromkeys(it.owner() for it in leases))

    def waits_for(self) -> str:
        """The same as one line."""
        owners = dict.fromkeys(str(it or "another process") for it in self.owners())
        return f"{self._task.label}: waiting for {'; '.join(owners)}"

    def wait(self, bar: Bar, at_least_s: float) -> None:
        """Wait a little, or, for a living process that has shown nothing for hours, no longer.

        Args:
            bar: shows how far the others are.
            at_least_s: how long; a look at all leases, of which there may be many, takes time too.
        """
        self._show(bar, opens=True)
        if time.monotonic() - self._changed < self._store.lock_timeout_s:
            time.sleep(max(at_least_s, self._lease(PUBLISH).poll_s))
            return
        warnings.warn(
            f"{self.waits_for()} for {self._store.lock_timeout_s:.0f} s; computing all the same",
            RuntimeWarning,
            stacklevel=4,
        )
        if missing := self.missing():
            self._compute(missing[: self._task.at_once], [], bar)
        else:
            self.entry = self._checked()

    @property
    def _task(self) -> Task:
        if self._begun is None:
            make(f"entry {self.folder}")
            self._begun = self._begin()
        return self._begun

    def _take(self, missing: Sequence[int], bar: Bar, *, join: bool) -> bool:
        """Lease shards and compute them; whether any was free.

        Raises:
            ModelError: the model cannot be loaded, and nobody else is at work.
            StoreError: the store cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(disk_trouble(self.folder, error, CACHE)) from error
        if self._unable is not None:
            if self._is_alone(missing):
                raise self._unable
            return False
        with ExitStack() as held:
            mine = self._claim(missing, held, join=join)
            if not mine:
                return False
            self._revalidate()
            left = set(self.missing())
            wanted = [part for part in mine if part in left]
            if not wanted or self._is_able():
                self._compute(wanted, [self._lease_of(part) for part in wanted], bar)
                return True
        found = self._take(missing, bar, join=True)  # an error, unless others are at work
        say(f"{self._unable}; leaving {self._task.label} to who is at work on it")
        return found

    def _claim(self, missing: Sequence[int], held: ExitStack, *, join: bool) -> list[int]:
        """Lease as many shards as are computed in one go."""
        mine: list[int] = []
        for part in missing:
            if held.enter_context(self._lease_of(part).claim()):
                mine.append(part)
            else:
                self._company = time.monotonic()
                if not mine and not join:
                    break
            if len(mine) == self._task.at_once:
                break
        return mine

    def _is_alone(self, missing: Sequence[int]) -> bool:
        """Whether nobody else has been at work for as long as a lease lasts."""
        for part in missing:
            with self._lease_of(part).claim() as free:
                if not free:
                    self._company = time.monotonic()
                    return False
        # Between two shards a process holds no lease.
        since = None if self._company is None else time.monotonic() - self._company
        return since is None or since > self._lease(PUBLISH).silence_s

    def _is_able(self) -> bool:
        """Whether the model can be loaded; not so where another process took the GPU's memory."""
        try:
            self._task.ready()
        except ModelError as error:
            self._unable = error
        return self._unable is None

    def _compute(self, parts: Sequence[int], leases: Sequence[Lease], bar: Bar) -> None:
        if not parts:
            return
        task = self._task
        task.ready()
        advance = self._show(bar, opens=True)
        with unit():
            for part, found in task.compute(parts, advance):
                bar.counted.add(part)
                # Where somebody took over meanwhile, a file of theirs may be there.
                if any(it.lost for it in leases) and part not in self.missing():
                    continue
                name = task.add(part, found)
                self._own.add(name)
                self._bad.discard(name)

    def _publish(self) -> bool:
        with self._lease(PUBLISH).claim() as mine:
            self._revalidate()
            if mine and not self.is_complete():
                self.entry = self._checked()
            return mine

    def _checked(self) -> Entry | None:
        """The entry, once every shard has been read whole; None where one has to be redone."""
        names = dict(self._fitting)
        for part, name in names.items():
            if name not in self._own and not self._task.fits(name, part, whole=True):
                self._bad.add(name)
                with suppress(OSError):  # not this process's to remove: it is written over
                    (self.folder / name).unlink()
        if self._bad & set(names.values()) or self.missing():
            return None
        return self._task.publish([names[part] for part in range(len(names))])

    def _look(self) -> Iterator[tuple[int, str]]:
        """Shards that are there, by their heads."""
        try:
            there = set(os.listdir(self.folder)) - self._bad  # noqa: PTH208 (names alone)
        except (FileNotFoundError, NotADirectoryError):
            return
        by_part: dict[str, list[str]] = {}
        for name in sorted(there):
            by_part.setdefault(name.split(".")[0], []).append(name)
        for part in range(len(self._task.parts)):
            known = self._fitting.get(part)
            if known in there:
                yield part, known
                continue
            names = by_part.get(stem(part), [])
            found = next((it for it in names if self._task.fits(it, part, whole=False)), None)
            if found is not None:
                yield part, found

    def _revalidate(self) -> None:
        """Make a network file system list the folder as it is now, not as it was a minute ago.

        A client that has changed a folder itself asks the server for it anew.
        """
        path = self.folder / f".look.{uuid.uuid4().hex[:8]}.tmp"
        with suppress(OSError):
            path.touch()
            path.unlink()

    def _lease_of(self, part: int) -> Lease:
        return self._lease(stem(part))

    def _lease(self, name: str) -> Lease:
        if name not in self._leases:
            self._leases[name] = self._store.lease(self.folder, name)
        return self._leases[name]

    def clean(self) -> None:
        """Remove the leases that nobody needs now that the entry is complete."""
        names = {PUBLISH, *self._leases}
        if self._begun is not None:  # also those of others, who may have been killed
            names |= {stem(part) for part in range(len(self._task.parts))}
        for name in names if leases_of(self.folder).exists() else ():
            self._lease(name).remove()

    def _show(self, bar: Bar, *, opens: bool) -> Callable[[], None]:
        """Count the shards that are done, whoever computed them; what counts the next example."""
        task = self._task
        if not task.shows_examples:
            return lambda: None
        if opens:
            bar.open(self, task.label, sum(map(len, task.parts)))
        if not bar.shows(self):
            return lambda: None
        for part in set(self._fitting) - bar.counted:
            bar.counted.add(part)
            for _ in task.parts[part]:
                bar.advance()
        return bar.advance


def finish(crews: Sequence[Crew]) -> None:
    """Complete several entries: first what nobody is at, then with the others, then after them.

    Args:
        crews: of the entries; each has its `entry` afterwards.

    Raises:
        DataError: examples that cannot be read.
        ModelError: a checkpoint cannot be used.
        StoreError: the store is damaged or cannot be written.
    """
    with Bar() as bar:
        for crew in crews:
            crew.work(bar, join=False)
        told: Sequence[Owner | None] = ()
        waited = 0
        while pending := [it for it in crews if not it.is_complete()]:
            start = time.monotonic()
            worked = [it.work(bar, join=True) for it in pending]
            if any(worked):
                waited = 0
                continue
            # Not at once, since most waits are short and who begins signs a moment later.
            owners = [_without_time(it) for it in pending[0].owners()]
            if waited and owners != told and not (told and None in owners):
                told = owners
                say(pending[0].waits_for())
            waited += 1
            pending[0].wait(bar, time.monotonic() - start)
    for crew in crews:
        crew.clean()


def stem(part: int) -> str:
    """What the names of a shard's files begin with, before the first dot; its lease's name."""
    return f"part-{part:05d}"


def _without_time(owner: Owner | None) -> Owner | None:
    return owner and replace(owner, since="")
