"""Leases: who computes or uses what, among processes of several machines on shared files.

A lease is a folder of small files (`filelock.SoftReadWriteLock`), since `flock` reaches no other
machine on many file systems. Its holder changes a file every heartbeat; whoever wants it counts,
by a clock of its own, how long that file has stayed the same, and takes over after three
heartbeats. No two clocks are ever compared, neither of machines nor of a file server.

A lease saves work and is no proof: a holder that was halted for longer than three heartbeats wakes
up beside its successor. What is written under a lease must be the same whoever writes it, and must
appear whole. Heartbeats are a thread's, so that a process that computes keeps its lease and one
that hangs or is halted as a whole loses it; one call into C that keeps Python's lock for longer
than three heartbeats loses it too, and then the work is done twice.
"""

import datetime
import errno
import json
import os
import shutil
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import SoftReadWriteLock, Timeout

from olmo_stages.atomic import CACHE, disk_trouble
from olmo_stages.errors import StoreError

HEARTBEAT_S = 10.0
"""Seconds between two signs of life."""

REMOVED = ".removed"
"""End of the name of a folder that is being removed."""

SILENT_HEARTBEATS = 3
"""Heartbeats after which a silent holder counts as dead."""

_FULL_OR_READ_ONLY = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_TRIES = 3


@dataclass(frozen=True)
class Owner:
    """Who holds a lease, for people.

    Args:
        host: name of the machine.
        pid: number of the process there.
        job: of Slurm, `ARRAY_TASK` or a number; empty outside of Slurm.
        since: time on that machine's clock, with its offset from UTC.
    """

    host: str
    pid: int
    job: str
    since: str

    def __str__(self) -> str:
        job = f", Slurm job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"


class Lease:
    """One lease, to be kept for as long as it is wanted: that is how a dead holder is found out.

    An object is for one thread and one hold at a time.

    Args:
        path: names it; its files lie beside, at `PATH.rw` and `PATH.owner`.
        heartbeat_s: seconds between two signs of life. Processes may differ in it; each is given
            three of its own.
    """

    def __init__(self, path: Path, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.path = path
        self.silence_s = SILENT_HEARTBEATS * heartbeat_s
        self._heartbeat_s = heartbeat_s
        self._pid = 0
        self._made: SoftReadWriteLock | None = None

    @property
    def poll_s(self) -> float:
        """Seconds to wait before asking for it again."""
        return min(1.0, self._heartbeat_s / 4)

    @property
    def lost(self) -> bool:
        """Whether somebody else took over, or may have, since it was acquired."""
        return self._made is not None and self._made.compromise is not None

    @property
    def is_held(self) -> bool:
        """Whether this object holds it for certain; not so where nothing can be leased."""
        if self._made is None or self._pid != os.getpid():
            return False
        return self._made.generation is not None and not self.lost

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Hold it alone if nobody living holds it; without waiting.

        A dead holder is found out by asking the same object again, at least three heartbeats after
        the first time.

        Yields:
            False where somebody holds it. True where it is held, and, with a warning, where nothing
            can be leased: then work may be done twice.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        held = self._acquire(wait_s=0.0)
        try:
            yield held is not False
        finally:
            if held:
                self._release()

    @contextmanager
    def hold(
        self, *, timeout_s: float = 6 * 3600.0, on_wait: Callable[[str], None] = lambda _: None
    ) -> Iterator[None]:
        """Hold it alone, waiting for whoever holds it.

        Args:
            timeout_s: longest wait for a holder that lives.
            on_wait: called once before waiting, with who holds it.

        Raises:
            StoreError: the disk is full or cannot be written, or the wait was too long.
        """
        held = self._acquire(wait_s=0.0)
        if held is False:
            on_wait(self.held_by())
            held = self._acquire(wait_s=timeout_s)
        if held is False:
            raise StoreError(
                f"{self.path} has been held for {timeout_s:.0f} s by {self.held_by()}; end that "
                "process, or wait for it"
            )
        try:
            yield
        finally:
            if held:
                self._release()

    @contextmanager
    def use(self) -> Iterator[None]:
        """Hold it together with others, so that nobody is given it alone.

        Where that is impossible (a store that can only be read, a full disk) it is not held, since
        reading needs no permission. Waits for who holds it alone, up to six heartbeats.
        """
        held = self._acquire_together()
        try:
            yield
        finally:
            if held:
                self._release()

    def owner(self) -> Owner | None:
        """Who holds it alone, or did last without giving it back; None = not known."""
        try:
            return Owner(**json.loads(self._owner_path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def held_by(self) -> str:
        """The same in words."""
        return str(self.owner() or "another process")

    def remove(self) -> None:
        """Remove its files; for whoever knows that nobody wants it any more.

        Who asks for it at this moment finds them all or none.
        """
        files = self.path.with_name(f"{self.path.name}.rw")
        doomed = files.with_name(f".{files.name}.{uuid.uuid4().hex[:8]}{REMOVED}")
        with suppress(OSError):
            files.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        with suppress(OSError):
            self._owner_path.unlink()

    @property
    def _owner_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.owner")

    def _lock(self) -> SoftReadWriteLock:
        # A forked child must not act for its parent.
        if self._made is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._made = SoftReadWriteLock(
                self.path,
                is_singleton=False,
                heartbeat_interval=self._heartbeat_s,
                poll_interval=self.poll_s,
            )
        return self._made

    def _acquire(self, wait_s: float) -> bool | None:
        """Whether it is held now; None = nothing can be leased here.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        lock = self._lock()
        why: Exception | None = None
        for _ in range(_TRIES):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                lock.acquire_write(timeout=wait_s, blocking=wait_s > 0)
            except Timeout:
                return False
            # RuntimeError: its folder was replaced, or the system has no thread left.
            except (OSError, RuntimeError) as error:
                self._check_writable(error)
                why = error
                time.sleep(self.poll_s / _TRIES)  # its folder may just have been removed
            else:
                self._sign()
                return True
        warnings.warn(
            f"{self.path} cannot be leased ({why}); work may be done twice",
            RuntimeWarning,
            stacklevel=5,
        )
        return None

    def _acquire_together(self) -> bool:
        """Whether it is held now, together with others."""
        for _ in range(_TRIES):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock().acquire_read(timeout=2 * self.silence_s)
            except Timeout:
                return False
            except (OSError, RuntimeError) as error:
                if self._is_refused(error):
                    return False
                self._made = None
                time.sleep(self.poll_s / _TRIES)  # as above: whoever cleans up removes it
            else:
                return True
        return False

    def _check_writable(self, error: OSError | RuntimeError) -> None:
        """Tell a disk that is full or only to be read from one on which nothing can be leased.

        Raises:
            StoreError: nothing can be written.
        """
        if isinstance(error, OSError) and self._is_refused(error):
            raise StoreError(disk_trouble(self.path, error, CACHE)) from error

    def _is_refused(self, error: OSError | RuntimeError) -> bool:
        """Whether nothing can be written here at all."""
        if not isinstance(error, OSError):
            return False
        # Files of a lease are its maker's alone; of a store that accounts share others may write
        # the rest.
        refused = isinstance(error, PermissionError) and not _is_writable(self.path.parent)
        return refused or error.errno in _FULL_OR_READ_ONLY

    def _release(self) -> None:
        lock = self._made
        if lock is None or self._pid != os.getpid():
            return
        if not self.lost:
            with suppress(OSError):
                self._owner_path.unlink()
        # A lease that cannot be given back runs out.
        with suppress(OSError, RuntimeError):
            lock.release(force=True)

    def _sign(self) -> None:
        with suppress(OSError):
            self._owner_path.write_text(json.dumps(asdict(_this_process())))


def claim(path: Path, *, heartbeat_s: float = HEARTBEAT_S) -> AbstractContextManager[bool]:
    """`Lease.claim`, asked once: a dead holder is not found out."""
    return Lease(path, heartbeat_s=heartbeat_s).claim()


def hold(
    path: Path,
    *,
    timeout_s: float = 6 * 3600.0,
    on_wait: Callable[[str], None] = lambda _: None,
    heartbeat_s: float = HEARTBEAT_S,
) -> AbstractContextManager[None]:
    """`Lease.hold`."""
    return Lease(path, heartbeat_s=heartbeat_s).hold(timeout_s=timeout_s, on_wait=on_wait)


def use(path: Path, *, heartbeat_s: float = HEARTBEAT_S) -> AbstractContextManager[None]:
    """`Lease.use`."""
    return Lease(path, heartbeat_s=heartbeat_s).use()


def _this_process() -> Owner:
    environ = os.environ
    job = environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in environ:
        job = f"{environ['SLURM_ARRAY_JOB_ID']}_{environ.get('SLURM_ARRAY_TASK_ID', '?')}"
    now = datetime.datetime.now().astimezone().isoformat(" ", timespec="seconds")
    return Owner(socket.gethostname(), os.getpid(), job, now)


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in what is to hold it."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)
