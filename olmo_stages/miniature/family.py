"""Building the miniature family on first use: which stages are missing, and who builds them.

Training happens in worker processes of one thread each, two at a time where the lineage allows
it, so that neither the caller's threads nor its random state have a part in the result.
"""

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import olmo_stages
from olmo_stages import leases
from olmo_stages.atomic import CACHE, TEMPORARY, writing
from olmo_stages.errors import ConfigError, ModelError, StoreError
from olmo_stages.looking import make
from olmo_stages.miniature.recipe import PARENTS, STAGES, Recipe
from olmo_stages.types import check_choice

if TYPE_CHECKING:
    from olmo_stages.miniature.progress import BuildProgress

RECIPE = Recipe()
"""The recipe of the family that users see."""

MAX_WORKERS = 2
_UNWINDING_S = 5.0


def revisions(stage: str, *, recipe: Recipe = RECIPE) -> tuple[str, ...]:
    """Return the revisions of a stage in the order of training; the last is `main`.

    Raises:
        ConfigError: for an unknown stage.
    """
    check_choice("miniature stage", stage, STAGES)
    return recipe.revisions(stage)


def ensure(
    stage: str,
    revision: str = "main",
    *,
    root: Path,
    seed: int = 0,
    recipe: Recipe = RECIPE,
) -> Path:
    """Return the directory of a checkpoint, building it and its ancestors on first use.

    Args:
        stage: one of `STAGES`.
        revision: one of `revisions(stage)`.
        root: cache of the family; holds one directory a recipe and seed.
        seed: of the family.
        recipe: what to train.

    Returns:
        A directory in Hugging Face format, `root/<recipe digest>/<stage>/<revision>`.

    Raises:
        ConfigError: for an unknown stage or revision.
        ModelError: when a build fails.
        StoreError: the disk is full or the place cannot be written.
    """
    return ensure_many([(stage, revision)], root=root, seed=seed, recipe=recipe)[0]


def ensure_many(
    pairs: Iterable[tuple[str, str]],
    *,
    root: Path,
    seed: int = 0,
    recipe: Recipe = RECIPE,
) -> tuple[Path, ...]:
    """Return the directories of several checkpoints, building two stages at a time.

    Args:
        pairs: (stage, revision) each.
        root: cache of the family.
        seed: of the family.
        recipe: what to train.

    Returns:
        One directory a pair, in the same order.

    Raises:
        ConfigError: for an unknown stage or revision.
        ModelError: when a build fails.
        StoreError: the disk is full or the place cannot be written.
    """
    pairs = tuple(pairs)
    for stage, revision in pairs:
        known = revisions(stage, recipe=recipe)
        if revision not in known:
            raise ConfigError(
                f"miniature stage {stage!r} has no revision {revision!r}; "
                f"choose from {', '.join(known)}"
            )
    home = root / recipe.digest(seed)
    missing = _missing([stage for stage, _ in pairs], home)
    if missing:
        from olmo_stages.miniature.progress import BuildProgress  # late: once a machine

        make(f"miniature stage {missing[-1]}")
        with writing(home, CACHE):
            home.mkdir(parents=True, exist_ok=True)
        with BuildProgress({s: recipe.n_steps(s) for s in missing}, str(home)) as progress:
            _Crew(home, seed, recipe, missing, progress).build()
    return tuple(home / stage / revision for stage, revision in pairs)


def clean(root: Path) -> int:
    """Remove every family below `root` and nothing else; return the number of bytes freed."""
    freed = 0
    for home in root.glob("*"):
        if home.is_dir() and re.fullmatch(r"[0-9a-f]{16}", home.name):
            freed += sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
            shutil.rmtree(home)
    return freed


def _missing(stages: Iterable[str], home: Path) -> list[str]:
    """Return the stages to build, ancestors included, parents first."""
    needed: set[str] = set()
    for stage in stages:
        ancestor: str | None = stage
        while ancestor is not None and not (home / ancestor).is_dir():
            needed.add(ancestor)
            ancestor = PARENTS[ancestor]
    return [stage for stage in STAGES if stage in needed]


def _descent(stage: str, among: Iterable[str]) -> int:
    """Return the length of the longest line of descendants of a stage."""
    among = tuple(among)
    children = [child for child in among if PARENTS[child] == stage]
    return 1 + max((_descent(child, among) for child in children), default=0)


Events = queue.Queue[tuple["_Worker", dict[str, Any] | None]]
"""What workers report; None is the end of one's output."""


class _Worker:
    """A process that builds one stage at a time, and a thread that forwards what it reports."""

    def __init__(self, home: Path, seed: int, recipe: Recipe, events: Events) -> None:
        job = json.dumps({
            "home": str(home),
            "seed": seed,
            "recipe": recipe.to_json(),
            "heartbeat_s": leases.HEARTBEAT_S,
        })
        package = str(Path(olmo_stages.__file__).parents[1])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.stage: str | None = None
        with writing(Path("a temporary file"), TEMPORARY):
            self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in stop()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "olmo_stages.miniature.build", job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **one_thread, **offline, "PYTHONPATH": path},
        )
        output = self.process.stdout
        assert output is not None
        self.reader = threading.Thread(target=self._forward, args=(output, events), daemon=True)
        self.reader.start()

    # Not IO[str]: beartype takes the pipe of a process for no such thing.
    def _forward(self, output: Iterable[str], events: Events) -> None:
        try:
            for line in output:
                events.put((self, json.loads(line)))
        finally:
            # Whatever ends this thread must reach the one that waits for it.
            events.put((self, None))

    def start(self, stage: str) -> None:
        self.stage = stage
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{stage}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it died; its end of output says so

    def failure(self) -> ModelError:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # alive, but it wrote what is no event
            self.process.kill()
            code = self.process.wait()
        self.log.seek(0)
        lines = [line.strip() for line in self.log if line.strip()]
        reason = lines[-1] if lines else "it wrote nothing"
        return ModelError(
            f"building the miniature stage {self.stage or 'worker'!r} failed (exit code {code}): "
            f"{reason}; nothing half-built was kept, so running it again starts it anew"
        )

    def stop(self) -> None:
        self.process.terminate()  # so that it gives its lease back
        try:
            self.process.wait(timeout=_UNWINDING_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.log.close()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class _Crew:
    """Hands missing stages to workers as their parents become ready, longest lineage first."""

    def __init__(
        self, home: Path, seed: int, recipe: Recipe, missing: list[str], progress: "BuildProgress"
    ) -> None:
        self.progress = progress
        self.left = sorted(missing, key=lambda stage: -_descent(stage, missing))
        self.unfinished = set(missing)
        self.events: Events = queue.Queue()
        is_chain = _descent(self.left[0], missing) == len(missing)
        n_workers = 1 if is_chain else MAX_WORKERS
        self.workers = [_Worker(home, seed, recipe, self.events) for _ in range(n_workers)]

    def build(self) -> None:
        try:
            while self.unfinished:
                self._assign()
                worker, event = self.events.get()
                if event is None:
                    raise worker.failure()
                if event["state"] == "failed":
                    raise StoreError(event["what"])
                self.progress.show(**event)
                if event["state"] == "done":
                    self.unfinished.remove(event["stage"])
                    worker.stage = None
        finally:
            for worker in self.workers:
                worker.stop()

    def _assign(self) -> None:
        for worker in self.workers:
            ready = [stage for stage in self.left if PARENTS[stage] not in self.unfinished]
            if worker.stage is None and ready:
                self.left.remove(ready[0])
                worker.start(ready[0])
