"""Looking after a store: what is in it, whether it is sound, and what may go."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import SoftReadWriteLock, Timeout

from olmo_stages.activations import files
from olmo_stages.activations.entry import MANIFEST, Entry, read_entry
from olmo_stages.activations.store import REMOVED, Store, is_entry_folder, lock_path
from olmo_stages.errors import StoreError

COMPLETE = "complete"
UNFINISHED = "unfinished"
LOCKED = "in use"
DAMAGED = "damaged"
RESPONSES = "responses"


@dataclass(frozen=True)
class EntryRow:
    """One line about an entry.

    Args:
        folder: where it lies.
        state: `complete`, `unfinished` (its writer was stopped), `in use` (being written) or
            `damaged`.
        stage: label of the stage.
        captures: site and position pairs, e.g. `resid_post/last`; `responses` for what a stage
            wrote.
        n_layers: number of layers, embeddings included.
        n_examples: number of examples.
        n_bytes: size on disk.
        used: when it was last read or written, seconds since 1970.
        problem: what is damaged, and the remedy.
    """

    folder: Path
    state: str
    stage: str
    captures: tuple[str, ...]
    n_layers: int
    n_examples: int
    n_bytes: int
    used: float
    problem: str = ""


def ls(store: Store) -> list[EntryRow]:
    """List all entries, most recently used first, by their manifests alone."""
    rows = [_row(store, folder) for folder in _folders(store.root)]
    return sorted(rows, key=lambda row: -row.used)


def verify(store: Store) -> list[EntryRow]:
    """List all entries after reading every file of theirs; `problem` says what is wrong."""
    return [_verified(row) for row in ls(store)]


def gc(
    store: Store,
    older_than_days: float | int | None = None,
    max_bytes: int | None = None,
    *,
    damaged: bool = False,
) -> list[EntryRow]:
    """Remove leftovers of stopped writers, and entries by age or size; never one in use.

    Args:
        store: the store.
        older_than_days: remove entries that have not been used for so long; None = keep.
        max_bytes: then remove the least recently used ones until the rest is this small; None =
            no limit.
        damaged: read every file first, and remove the entries that `verify` finds damaged.

    Returns:
        What was removed.

    Raises:
        StoreError: something cannot be removed.
    """
    _remove_stray_files(store)
    removed: list[EntryRow] = []
    kept = 0
    limit = None if older_than_days is None else time.time() - 86400 * older_than_days
    for row in verify(store) if damaged else ls(store):  # most recently used first
        old = limit is not None and row.used < limit
        large = max_bytes is not None and kept + row.n_bytes > max_bytes
        if row.state != LOCKED and (row.state != COMPLETE or old or large) and _remove(store, row):
            removed.append(row)
        else:
            kept += row.n_bytes
    _remove_idle_locks(store)
    return removed


def _folders(root: Path) -> Iterator[Path]:
    for folder in sorted(root.glob("*/*/*/")):
        if is_entry_folder(folder):
            yield folder


def _row(store: Store, folder: Path) -> EntryRow:
    contents = [path.stat() for path in folder.iterdir()]
    n_bytes = sum(stat.st_size for stat in contents)
    newest = max((stat.st_mtime for stat in contents), default=folder.stat().st_mtime)
    try:
        entry = read_entry(folder)
    except StoreError as error:
        return EntryRow(folder, DAMAGED, "", (), 0, 0, n_bytes, newest, str(error))
    if entry is None:
        state = LOCKED if _is_locked(store, folder) else UNFINISHED
        return EntryRow(folder, state, "", (), 0, 0, n_bytes, newest)
    return EntryRow(
        folder=folder,
        state=COMPLETE,
        stage=entry.manifest["stage"]["label"],
        captures=tuple("/".join(capture) for capture in entry.captures) or (RESPONSES,),
        n_layers=len(entry.layers),
        n_examples=len(entry.ids),
        n_bytes=n_bytes,
        used=(folder / MANIFEST).stat().st_mtime,
    )


def _verified(row: EntryRow) -> EntryRow:
    if row.state != COMPLETE:
        return row
    try:
        entry = read_entry(row.folder)
        for name in entry.file_names if isinstance(entry, Entry) else ():
            files.verify(row.folder / name)
    except StoreError as error:
        return replace(row, state=DAMAGED, problem=str(error))
    return row


def _lock_folder(folder: Path) -> Path:
    path = lock_path(folder)
    return path.with_name(f"{path.name}.rw")


def _is_locked(store: Store, folder: Path) -> bool:
    """Whether a living process holds the lock or waits for it."""
    newest = max(
        (_modified(path) for path in (_lock_folder(folder) / "holders").glob("*")), default=0.0
    )
    return time.time() - newest <= 3 * store.heartbeat_s


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _remove(store: Store, row: EntryRow) -> bool:
    """Remove an entry under its lock; False where it came into use meanwhile.

    Raises:
        StoreError: it cannot be removed.
    """
    lock = SoftReadWriteLock(
        lock_path(row.folder),
        is_singleton=False,
        heartbeat_interval=store.heartbeat_s,
        poll_interval=min(0.25, store.heartbeat_s / 4),
    )
    try:
        # Long enough to outlast the record of a dead holder, which blocks for three heartbeats.
        with lock.write_lock(timeout=4 * store.heartbeat_s):
            if row.state == UNFINISHED and (row.folder / MANIFEST).exists():
                return False
            # Renamed first, so that nobody sees a manifest whose shards are half gone.
            doomed = row.folder.with_name(f"{row.folder.name}.{os.getpid()}{REMOVED}")
            row.folder.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
    except Timeout:
        return False
    except OSError as error:
        raise StoreError(f"{row.folder} cannot be removed ({error}); check its owner") from error
    return True


def _remove_stray_files(store: Store) -> None:
    """Temporary files in complete entries, and folders whose removal was interrupted."""
    for path in sorted(store.root.glob(f"*/*/*{REMOVED}")):
        shutil.rmtree(path, ignore_errors=True)
    for path in sorted(store.root.glob("*/*/*/.*.tmp")):
        if not _is_locked(store, path.parent):
            path.unlink(missing_ok=True)


def _remove_idle_locks(store: Store) -> None:
    for path in sorted(store.root.glob("*/*/*.lock.rw")):
        folder = path.with_name(path.name.removesuffix(".lock.rw"))
        if not any((path / "holders").glob("*")) and not folder.exists():
            shutil.rmtree(path, ignore_errors=True)
