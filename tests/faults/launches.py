"""Real launches of `python run.py` on one store, started again for as long as they are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

# Analyses in seconds: the same code with fewer resamples.
_LIGHT = ("reference=base", "tracking=none", "report=false", "compute.threads=1")
_PROBE = ("analysis=probe", "analysis.strengths=[0.01]", "analysis.n_folds=3", "analysis.n_inner=2")
_PROBE += ("analysis.n_permutations=0", "analysis.n_controls=1", "analysis.random_init=false")
_CKA = ("analysis=cka", "analysis.also=[]", "analysis.n_permutations=0", "analysis.n_halves=0")
_CKA += ("analysis.position=last", "analysis.n_resamples=100", "analysis.random_init=false")
_COSINE = ("analysis=cosine", "analysis.n_permutations=100", "analysis.n_unrelated=100")
_COSINE += ("analysis.n_resamples=100",)
_PROJECTION = ("analysis=projection", "analysis.n_permutations=0", "analysis.n_resamples=100")
MANY = {
    "probe": ("model=think_sft", "analysis.n_resamples=100", *_PROBE),
    "cka": ("-m", "model=think_sft,think_dpo", *_CKA),
    "cosine": ("model=think_dpo", *_COSINE),
    "projection": ("-m", "model=think_sft,think_dpo", *_PROJECTION),
}
"""Four launches, two of them sweeps, over the same stages, read at two positions: what one of them
computes another one reads."""

_BOTH = ("analysis=cosine,projection", "analysis.position=last", "analysis.n_permutations=100")
_BOTH += ("analysis.n_resamples=100", "hydra.launcher.n_jobs=4")
FEW = {"both": ("-m", "model=think_sft,think_dpo", *_BOTH)}
"""Four jobs at a time of one launch, which imports once."""


@dataclass(frozen=True)
class Place:
    """Where a round of launches works.

    Args:
        root: folder of everything, short-lived.
        family: cache folder with the trained miniature family.
        heartbeat_s: of leases.
        shard_examples: examples of a shard.
        slow_s: seconds by which each shard takes longer.
        jobs: the words of each launch, by its name.
    """

    root: Path
    family: Path
    heartbeat_s: float = 0.5
    shard_examples: int = 16
    slow_s: float = 0.1
    jobs: Mapping[str, Sequence[str]] = field(default_factory=lambda: MANY)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def store(self) -> Path:
        return self.cache / "activations"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def orders(self) -> Path:
        return self.root / "orders"

    @property
    def log(self) -> Path:
        return self.root / "events.jsonl"

    def make(self) -> None:
        """Folders, and links to the trained weights, which nobody writes to."""
        (self.orders / "taken").mkdir(parents=True)
        (self.root / "output").mkdir()
        for family in (self.family / "miniature").iterdir():
            (self.cache / "miniature" / family.name).mkdir(parents=True)
            for stage in family.iterdir():
                if stage.is_dir() and not stage.name.endswith(".rw"):
                    (self.cache / "miniature" / family.name / stage.name).symlink_to(stage)

    def environment(self) -> dict[str, str]:
        fields = {"heartbeat_s": self.heartbeat_s, "shard_examples": self.shard_examples}
        settings = {"log": str(self.log), "orders": str(self.orders), "fields": fields}
        settings |= {"slow_s": self.slow_s, "store": str(self.store), "outputs": str(self.outputs)}
        own = {key: value for key, value in os.environ.items() if not key.startswith("OLMO_STAGES")}
        return own | {
            "OLMO_STAGES_FAULTS": json.dumps(settings),
            "PYTHONPATH": f"{HERE / 'interfering'}:{ROOT}",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "disabled",
        }

    def events(self) -> list[dict]:
        """What the processes noted, in order."""
        try:
            lines = self.log.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]


def untrained(cache: Path) -> Path:
    """A cache with the stages that the launches read, untrained, which makes no difference here."""
    from olmo_stages.miniature.family import RECIPE
    from olmo_stages.miniature.model import new_model, save_checkpoint
    from olmo_stages.miniature.recipe import chats

    for seed, stage in enumerate(("base", "think_sft", "think_dpo")):
        folder = cache / "miniature" / RECIPE.digest(0) / stage / "main"
        folder.mkdir(parents=True)
        save_checkpoint(new_model(RECIPE.architecture, seed), folder, chat=chats(stage))
    return cache


@dataclass
class Launch:
    """One command, run until it ends well.

    Args:
        name: of the launch, one of `place.jobs`.
        place: where it works.
    """

    name: str
    place: Place
    process: subprocess.Popen | None = None
    started: list[float] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    is_done: bool = False

    @property
    def output(self) -> Path:
        return self.place.root / "output" / f"{self.name}.{len(self.started)}"

    def start(self) -> None:
        self.started.append(time.time())
        self.pids = set()
        words = [*self.place.jobs[self.name], *_LIGHT, f"cache={self.place.cache}"]
        words += [f"outputs={self.place.outputs}", f"sweep={self.name}"]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "run.py"), *words],
                cwd=self.place.root,
                env=self.place.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def look(self, killed: Sequence[int]) -> None:
        """Start it again if it ended because a process of it was killed."""
        assert self.process is not None
        self.pids |= set(self.alive())
        code = self.process.poll()
        if code is None or self.is_done:
            return
        if code == 0:
            self.is_done = True
            return
        if not self.pids & set(killed):
            text = self.output.read_text(errors="replace")[-2000:]
            self.failures.append(f"{self.name} ended with {code}, unkilled:\n{text}")
        if len(self.failures) > 2:
            self.is_done = True
            return
        self.start()

    def alive(self) -> list[int]:
        """Processes of its last start; orphans of an earlier one are not its own."""
        assert self.process is not None
        return [pid for pid, session in _sessions() if session == self.process.pid]

    def end(self) -> None:
        """Kill all that is left of it."""
        if self.process is not None:
            for pid in self.alive():
                kill(pid)
            self.process.kill()
            self.process.wait()


def kill(pid: int) -> bool:
    """SIGKILL; whether there was such a process."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _sessions() -> Iterator[tuple[int, int]]:
    """Every living process of this machine and its session."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                yield int(folder.name), int(fields[3])
