"""A real Slurm of one's own, seen from the tests."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.slurm.settings import environment

_HERE = Path(__file__).resolve().parents[2]
_STOP_S = 60.0


class ClusterError(Exception):
    """It did not start; one message with what its logs say."""


@dataclass
class Cluster:
    """A cluster of its own, seen from outside; `start` it once.

    Attributes:
        root: its folder.
        start_s: seconds that the start took.
    """

    root: Path = Path()
    start_s: float = 0.0
    _supervisor: subprocess.Popen | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it, in place of the whole environment."""
        return {**environment(), "SLURM_CONF": f"{self.root}/slurm.conf"}

    def start(self) -> None:
        """Start it.

        Raises:
            ClusterError: it does not start.
        """
        before = time.monotonic()
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "tests.slurm.daemons", "--supervised"],
            cwd=_HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._supervisor.stdout is not None
        told = json.loads(self._supervisor.stdout.readline() or '{"error": "it ended"}')
        if "error" in told:
            self.stop()
            raise ClusterError(told["error"])
        self.root, self.start_s = Path(told["root"]), time.monotonic() - before

    def stop(self) -> None:
        """End it and everything that it started; does nothing the second time."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            try:
                supervisor.communicate(timeout=_STOP_S)  # ends its input, too
            except subprocess.TimeoutExpired:
                supervisor.kill()
                supervisor.communicate()

    def ask(self, *command: str, timeout_s: float = 20) -> str:
        """Standard output of one of Slurm's commands.

        Raises:
            AssertionError: the command failed.
        """
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
        return done.stdout

    def wait_for(self, *jobs: str, timeout_s: float = 60) -> None:
        """Wait until jobs have left the queue.

        Raises:
            AssertionError: they do not.
        """
        end = time.monotonic() + timeout_s
        while left := self.ask("squeue", "-h", "-r", "-j", ",".join(jobs)):
            assert time.monotonic() < end, left
            time.sleep(0.1)

    def accounted(self, *jobs: str, timeout_s: float = 20) -> dict[str, str]:
        """What the accounting says of jobs that have ended, which it does with a delay.

        Args:
            jobs: ids; of an array, all its elements.
            timeout_s: longest delay.

        Returns:
            State by id.

        Raises:
            AssertionError: of some it never says that they ended.
        """
        end = time.monotonic() + timeout_s
        while True:
            lines = self.ask("sacct", "-n", "-P", "-X", "-o", "JobID,State", "-j", ",".join(jobs))
            found = dict(line.split("|") for line in lines.splitlines())
            if found and not {"PENDING", "RUNNING", "REQUEUED"} & set(found.values()):
                return {job: state.split()[0] for job, state in found.items()}
            assert time.monotonic() < end, lines
            time.sleep(0.2)

    def cut_off(self, node: str) -> None:
        """Do to a node what a power cut does: nothing of it runs any more, and Slurm notices."""
        daemons, tasks = set(), set()
        for folder, words in _processes(f"SLURM_CONF={self.root}/slurm.conf"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().split(b"\0")
                if command[:4] == [b"slurmd", b"-D", b"-N", node.encode()]:
                    daemons.add(int(folder.name))
                elif f"SLURMD_NODENAME={node}" in words:
                    tasks.add(int(folder.name))
                    status = (folder / "status").read_text()
                    daemons.add(int(status.partition("PPid:")[2].split()[0]))
        # First those that could still tell how the others ended.
        for pid in [*(daemons - tasks - {1, os.getpid()}), *tasks]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=cut off")

    def logs(self) -> str:
        """The end of each daemon's log."""
        files = sorted((self.root / "log").glob("*.log"))
        return "\n".join(f"{it.name}: {it.read_text(errors='replace')[-2000:]}" for it in files)


def _processes(setting: str) -> Iterator[tuple[Path, list[str]]]:
    """Folder in /proc and environment of what runs with a setting."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            if setting in words:
                yield folder, words
