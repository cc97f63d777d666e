"""A user's place on a cluster: `python run.py` there, what it printed, what its jobs did."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from olmo_stages.statuses import Status, read_statuses
from tests.slurm.cluster import Cluster

REPOSITORY = Path(__file__).resolve().parents[2]
OWN = Path(__file__).resolve().parent / "own"
LONGEST_S = 240.0


@dataclass
class Bench:
    """A folder of one's own on a cluster.

    Args:
        folder: where commands are given; results go there.
        cache: folder of activations and checkpoints.
        cluster: the cluster.
    """

    folder: Path
    cache: Path
    cluster: Cluster
    started: list["Launch"] = field(default_factory=list)

    @classmethod
    def at(cls, folder: Path, cluster: Cluster, family: Path) -> "Bench":
        """A bench in an empty folder, with a cache of its own in which only the models are."""
        (folder / "cache").mkdir()
        (folder / "cache" / "miniature").symlink_to(family / "miniature")
        return cls(folder, folder / "cache", cluster)

    @property
    def observed(self) -> Path:
        """The folder in which tests and jobs meet."""
        return self.folder / "observed"

    def launch(self, *arguments: str) -> "Launch":
        """Start `python run.py -m hydra/launcher=slurm ...` and do not wait for it."""
        return self.run("hydra/launcher=slurm", "hydra.launcher.poll_s=1", *arguments)

    def run(self, *arguments: str) -> "Launch":
        """Start `python run.py -m ...` and do not wait for it."""
        quick = ["analysis=observed", "data=manners", "tracking=none", "report=false", "sweep=here"]
        given = {it.partition("=")[0] for it in arguments}
        quick = [it for it in quick if it.partition("=")[0] not in given]
        words = ["-m", "--config-dir", str(OWN / "conf"), *quick, *arguments]
        return self.start([sys.executable, str(REPOSITORY / "run.py"), *words])

    def start(self, command: list[str] | str) -> "Launch":
        """Start a command, or a line for the shell, here."""
        self.observed.mkdir(parents=True, exist_ok=True)
        launch = Launch(self, command, self.folder / f"command{len(self.started)}")
        self.started.append(launch)
        return launch

    @property
    def environment(self) -> dict[str, str]:
        """What commands see: this cluster, this cache, nobody's accounts."""
        kept = ("HOME", "LANG", "TMPDIR", "USER", "VIRTUAL_ENV")
        found = {key: os.environ[key] for key in kept if key in os.environ}
        cluster = self.cluster.environment
        return found | {
            "SLURM_CONF": cluster["SLURM_CONF"],
            "PATH": f"{Path(sys.executable).parent}:{cluster['PATH']}",
            "PYTHONPATH": str(OWN),
            "OBSERVED": str(self.observed),
            "OLMO_STAGES_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "offline",
            "COLUMNS": "200",
        }

    def put(self, *names: str) -> None:
        """Hold up analyses of stages (`hold-STAGE`), or make them fail (`fail-STAGE`)."""
        self.observed.mkdir(exist_ok=True)
        for name in names:
            (self.observed / name).touch()

    def take(self, *names: str) -> None:
        """Let them go on, and be well."""
        for name in names:
            (self.observed / name).unlink()

    def pace(self, seconds: float) -> None:
        """Make each shard take at least so long."""
        self.put("pace")
        (self.observed / "pace").write_text(str(seconds))

    def done(self, what: str) -> list[dict]:
        """What jobs noted of one kind: `shard` (computed and written) or `analysis` (begun)."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.observed / "log").read_text().splitlines()
            return [it for it in map(json.loads, lines) if it["what"] == what]
        return []

    def shards(self) -> list[tuple[str, int]]:
        """Entry and number of each shard that was computed, once for each time it was."""
        return [(it["entry"], it["part"]) for it in self.done("shard")]

    def analysing(self) -> set[str]:
        """Stages whose analysis has begun."""
        return {it["stage"] for it in self.done("analysis")}

    @property
    def sweep(self) -> Path:
        """Folder of the sweep."""
        return self.folder / "outputs" / "sweeps" / "here"

    def statuses(self) -> dict[str, Status]:
        """How each job is getting on, by stage."""
        return {it.about.get("stage", it.job): it for it in read_statuses(self.sweep)}

    def results(self) -> list[str]:
        """Stages that there are results of."""
        return sorted(it.parent.name.partition(".")[0] for it in self.result_folders())

    def result_folders(self) -> list[Path]:
        """Folders of the results."""
        return sorted(it.parent for it in (self.folder / "outputs").glob("*/*/*/result.json"))

    def accounted(self) -> list[dict[str, str]]:
        """Every start of every job that was submitted from here, as accounting knows it so far."""
        names = ("JobID", "State", "Start", "End", "NodeList", "Partition", "WorkDir")
        shown = self.cluster.ask("sacct", "-a", "-n", "-P", "-X", "-D", "-o", ",".join(names))
        rows = [dict(zip(names, line.split("|"), strict=True)) for line in shown.splitlines()]
        return [it for it in rows if it["WorkDir"] == str(self.folder)]

    def submitted(self) -> set[str]:
        """Ids of all jobs that were ever submitted from here."""
        return {it["JobID"] for it in self.accounted()}

    def until(self, condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
        """Wait until something holds; all there is to see where it never does."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {seconds:.0f} s\n{self.told()}")
            time.sleep(0.05)

    def told(self) -> str:
        """What commands and jobs printed, and what the cluster says of the jobs."""
        logs = [*self.folder.rglob("*_log.out"), *self.folder.rglob("*_log.err")]
        parts = [f"== {it.command}\n{it.out}\n{it.err}" for it in self.started]
        parts += [f"== {it.name}\n{it.read_text(errors='replace')[-3000:]}" for it in logs]
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            parts.append(self.cluster.ask("squeue", "-a", "-o", "%i %P %T %r %N"))
            shown = "JobID,State,ExitCode,NodeList,Start,End"
            parts.append(self.cluster.ask("sacct", "-P", "-X", "-D", "-o", shown))
        return "\n".join(parts)

    def close(self) -> None:
        """End what still runs of this bench: commands, then jobs."""
        for launch in self.started:
            launch.kill()
        if left := self.queued():
            self.cluster.ask("scancel", *left)

    def queued(self) -> list[str]:
        """Ids of jobs that commands given here have in the queue, pending or running."""
        shown = self.cluster.ask("squeue", "-h", "-r", "-o", "%i %Z").splitlines()
        return [line.split()[0] for line in shown if line.split()[1:] == [str(self.folder)]]


class Launch:
    """A command that runs, or ran."""

    def __init__(self, bench: Bench, command: list[str] | str, place: Path) -> None:
        self.command = command if isinstance(command, str) else shlex.join(command)
        self.bench = bench
        self._files = place.with_suffix(".out"), place.with_suffix(".err")
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self._process = subprocess.Popen(
                command,
                shell=isinstance(command, str),
                cwd=bench.folder,
                env=bench.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._files[0].read_text(errors="replace")

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._files[1].read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs."""
        return self._process.poll()

    def interrupt(self) -> None:
        """Do what Ctrl-C in a terminal does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def ended(self, seconds: float = LONGEST_S) -> "Launch":
        """This, after its end; one that does not end fails with all there is to see."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            told = self.bench.told()
            self.kill()
            raise AssertionError(f"runs for more than {seconds:.0f} s\n{told}") from None
        return self

    def kill(self) -> None:
        """End it and its children at once, if it runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
