"""The content-addressed store: `ROOT/PASS[:2]/PASS/ENTRY/`, safe for several processes.

An entry holds what was kept of one forward pass over one data set; its folder is named by the
digest of everything that changes a number. The manifest is written last, and readers ignore a
folder without one. Because content and name go together and files appear whole, two writers of the
same entry are wasteful but never wrong; the lock only saves their time.
"""

import errno
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import SoftReadWriteLock, Timeout

from olmo_stages.activations.entry import Entry, Writer, read_entry
from olmo_stages.activations.identity import PassIdentity, entry_key
from olmo_stages.atomic import disk_trouble
from olmo_stages.errors import StoreError
from olmo_stages.looking import make
from olmo_stages.models.captures import Capture

SHARD_EXAMPLES = 512
"""Examples of one shard; independent of batch size, so that a later run can reuse it."""

SHARD_ROWS = 4096
"""Most rows of position `tokens` in a shard, all captures together; in all layers of a 7B model in
bfloat16 about a gigabyte, of which a writer holds a few copies."""

REMOVED = ".removed"
"""End of the name of a folder that is being removed."""

_NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}


def lock_path(folder: Path) -> Path:
    """Path of the lock of an entry's folder."""
    return folder.with_name(f"{folder.name}.lock")


def default_store(cache: Path) -> "Store":
    """The store inside a cache folder."""
    return Store(cache / "activations")


def is_entry_folder(folder: Path) -> bool:
    """Whether a folder is an entry, not a lock or something that is being removed."""
    return folder.is_dir() and not folder.name.endswith((".rw", REMOVED))


@dataclass(frozen=True)
class Store:
    """A store of activations.

    Args:
        root: its folder, made on first use.
        heartbeat_s: how often a writer shows that it is alive; one that has been silent for three
            heartbeats counts as dead, on whatever machine it was.
        lock_timeout_s: how long to wait for a living writer before computing all the same.
        shard_examples: examples of one shard.
        shard_rows: most rows of position `tokens` in a shard.
    """

    root: Path
    heartbeat_s: float = 10.0
    lock_timeout_s: float = 6 * 3600.0
    shard_examples: int = SHARD_EXAMPLES
    shard_rows: int = SHARD_ROWS

    def find(
        self, identity: PassIdentity, captures: Sequence[Capture], layers: Sequence[int]
    ) -> Entry | None:
        """Find a complete entry that holds the captures in these layers, and maybe more.

        Raises:
            StoreError: a manifest of this forward pass is damaged.
        """
        for folder in sorted(self._pass_folder(identity).glob("*/")):
            entry = read_entry(folder) if is_entry_folder(folder) else None
            if entry is not None and entry.covers(captures, layers):
                entry.touch()
                return entry
        return None

    def writer(
        self, identity: PassIdentity, captures: Sequence[Capture], layers: Sequence[int]
    ) -> Writer:
        """Writer of the entry that holds exactly these captures and layers."""
        key = entry_key(identity, captures, layers)
        folder = self._pass_folder(identity) / key
        return Writer(folder, identity, tuple(sorted(set(captures))), tuple(sorted(set(layers))))

    def folder(self, key: str, name: str) -> Path:
        """Folder of the entry `name` of what `key` identifies."""
        return self.root / key[:2] / key / name

    @contextmanager
    def lock(self, folder: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock of an entry's folder; without it after a time-out, with a warning.

        Args:
            folder: folder of the entry.
            on_wait: called when another process holds it.

        Raises:
            StoreError: the store cannot be written.
        """
        make(f"entry {folder}")
        lock = self._lock(folder)
        held = self._acquire(lock, on_wait)
        try:
            yield
        finally:
            if held:
                with suppress(OSError):  # a lost lock costs nothing but time
                    lock.release()

    def _acquire(self, lock: SoftReadWriteLock, on_wait: Callable[[], None]) -> bool:
        try:
            with suppress(Timeout):
                lock.acquire_write(blocking=False)
                return True
            on_wait()
            lock.acquire_write(timeout=self.lock_timeout_s)
        except Timeout:
            why = f"another process has held {lock.lock_file} for {self.lock_timeout_s:.0f} s"
        except OSError as error:
            if error.errno in _NOT_WRITABLE:
                raise StoreError(disk_trouble(Path(lock.lock_file), error)) from error
            why = f"{lock.lock_file} cannot be locked ({error})"
        else:
            return True
        warnings.warn(f"{why}; computing all the same", RuntimeWarning, stacklevel=4)
        return False

    def _lock(self, folder: Path) -> SoftReadWriteLock:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(disk_trouble(folder.parent, error)) from error
        return SoftReadWriteLock(
            lock_path(folder),
            is_singleton=False,
            heartbeat_interval=self.heartbeat_s,
            poll_interval=min(0.25, self.heartbeat_s / 4),
        )

    def _pass_folder(self, identity: PassIdentity) -> Path:
        return self.root / identity.key[:2] / identity.key
