"""Starts and ends the daemons of a cluster; `python -m tests.slurm.daemons` runs one until Ctrl-C.

A supervising process owns them and ends them all when whoever started it goes away, however it
goes: it reads its standard input to the end. Everything lies in one short folder that is removed.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.slurm.settings import NODES, environment, unavailable, write

_START_S, _STOP_S = 60.0, 10.0


class NotStartedError(Exception):
    """A daemon did not start; one message with what the logs say."""


@contextlib.contextmanager
def running() -> Iterator[Path]:
    """A cluster while the block runs; its folder, in which `slurm.conf` is.

    Raises:
        NotStartedError: it does not start.
    """
    # `munged` can only have a short path for its socket, whatever TMPDIR is.
    where = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"
    root = Path(tempfile.mkdtemp(prefix="slurm-", dir=where))
    daemons = _Daemons(root)
    try:
        daemons.start()
        yield root
    finally:
        daemons.stop()
        shutil.rmtree(root, ignore_errors=True)


@dataclass
class _Daemons:
    root: Path
    started: list[tuple[str, subprocess.Popen]] = field(default_factory=list)

    def start(self) -> None:
        # One after another only where one needs the other: a start takes seconds otherwise.
        write(self.root)
        database = self._once("mariadb-install-db", *self._database_options())
        self._munge()
        if database.wait(_START_S):
            raise NotStartedError(self._told("mariadb-install-db"))
        self._database()
        self._run("slurmdbd", "-D")
        self._await("slurmdbd", ["sacctmgr", "-n", "list", "cluster"])
        # Known to the accounting before it runs, or the first jobs are not accounted.
        self._check(["sacctmgr", "-i", "-Q", "add", "cluster", "tests"])
        self._run("slurmctld", "-D")
        for node in NODES:
            self._run("slurmd", "-D", "-N", node, called=f"slurmd.{node}")
        up = f'[ "$(sinfo -h -N -t idle -o %N | sort -u | wc -l)" = {len(NODES)} ]'
        self._await("slurmctld", ["sh", "-c", up])

    def stop(self) -> None:
        # Jobs first: their slurmstepd is no child of slurmd and would outlive it.
        if any(name == "slurmctld" and it.poll() is None for name, it in self.started):
            with contextlib.suppress(subprocess.SubprocessError, OSError):
                ids = self._ask(["squeue", "-h", "-o", "%A"]).split()
                if ids:
                    self._ask(["scancel", *sorted(set(ids))])
                self._wait_for_jobs(_STOP_S)
        self._kill_leftovers()
        for _, process in reversed(self.started):
            _end(process)

    def _munge(self) -> None:
        root = self.root
        self._run(
            *("munged", "--foreground", "--force", f"--key-file={root}/munge.key"),
            *(f"--socket={root}/munge.sock", f"--pid-file={root}/munged.pid"),
            *(f"--seed-file={root}/munge.seed", f"--log-file={root}/log/munged.own.log"),
        )
        self._await("munged", ["munge", "-n", "-S", f"{root}/munge.sock"])

    def _database_options(self) -> tuple[str, ...]:
        own = ("--no-defaults", "--user=root", f"--datadir={self.root}/mysql")
        return (*own, "--auth-root-authentication-method=normal", "--skip-test-db")

    def _database(self) -> None:
        root = self.root
        self._run(
            *("mariadbd", "--no-defaults", "--user=root", f"--datadir={root}/mysql"),
            *(f"--socket={root}/mysql.sock", "--skip-networking", f"--pid-file={root}/mysql.pid"),
            *("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=48M"),
            *("--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0"),
        )
        ask = ["mariadb", "--no-defaults", "-uroot", "-S", f"{root}/mysql.sock", "-e"]
        self._await("mariadbd", [*ask, "select 1"])
        self._check([*ask, "create database slurm_acct_db"])

    def _run(self, *command: str, called: str = "") -> None:
        name = called or command[0]
        self.started.append((name, self._once(*command, called=name)))

    def _once(self, *command: str, called: str = "") -> subprocess.Popen:
        with (self.root / "log" / f"{called or command[0]}.log").open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(self.root),
                cwd=self.root,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def _await(self, name: str, command: Sequence[str]) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if any(it.poll() is not None for _, it in self.started):
                break
            with contextlib.suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
                self._ask(command)
                return
            time.sleep(0.05)
        raise NotStartedError(self._told(name))

    def _check(self, command: Sequence[str]) -> None:
        try:
            self._ask(command)
        except subprocess.SubprocessError as error:
            raise NotStartedError(f"{error}\n{getattr(error, 'stderr', '')}") from error

    def _ask(self, command: Sequence[str]) -> str:
        return subprocess.run(
            command,
            env=environment(self.root),
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout

    def _told(self, name: str) -> str:
        logs = sorted((self.root / "log").glob("*.log"))
        said = [f"{it.name}: {it.read_text(errors='replace')[-1500:]}" for it in logs]
        return "\n".join([f"{name} did not start", *said])

    def _wait_for_jobs(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(True for _ in self._leftovers()):
            time.sleep(0.05)

    def _kill_leftovers(self) -> None:
        for pid in self._leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _leftovers(self) -> Iterator[int]:
        """Processes of jobs of this cluster, and of what looks after them."""
        mark = f"SLURM_CONF={self.root}/slurm.conf".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                words = (folder / "environ").read_bytes().split(b"\0")
                name = (folder / "comm").read_text().strip()
                ours = mark in words and (
                    name == "slurmstepd" or any(it.startswith(b"SLURM_JOB_ID=") for it in words)
                )
                if ours and (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    yield int(folder.name)


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_with_parent() -> None:
    # PR_SET_PDEATHSIG: not even a killed supervisor leaves daemons behind.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main() -> None:
    """Run a cluster until standard input ends (`--supervised`), or until Ctrl-C."""
    supervised = "--supervised" in sys.argv
    if (reason := unavailable()) is not None:
        sys.exit(reason)
    # Ended from outside, too, it ends the daemons.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with running() as root:
            _say({"root": str(root)} if supervised else f"export SLURM_CONF={root}/slurm.conf")
            while os.read(0, 1) if supervised else signal.pause() is None:
                pass
    except NotStartedError as error:
        _say({"error": str(error)} if supervised else str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        pass


def _say(what: str | dict[str, str]) -> None:
    sys.stdout.write(f"{what if isinstance(what, str) else json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
