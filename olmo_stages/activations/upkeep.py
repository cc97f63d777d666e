"""Looking after a cache: what is in the store and among derived weights, and whether it is sound.

What may go, and how it goes without harm to running jobs, is `cleaning`.
"""

import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmo_stages.activations import files
from olmo_stages.activations.entry import MANIFEST, Entry, read_entry
from olmo_stages.activations.kept import left_over
from olmo_stages.activations.store import Store, is_entry_folder, lock_path
from olmo_stages.errors import StoreError
from olmo_stages.models import derived

COMPLETE = "complete"
UNFINISHED = "unfinished"
LOCKED = "in use"
DAMAGED = "damaged"
RESPONSES = "responses"
WEIGHTS = "weights"

# A key, or what `once` calls the folder in which it is made.
_OF_WEIGHTS = re.compile(r"(?P<key>[^.]+)|\.(?P<begun>[^.]+?)-.+-\d+-[0-9a-f]{8}")


@dataclass(frozen=True)
class EntryRow:
    """One line about an entry, or about weights that were computed from others.

    Args:
        folder: where it lies.
        state: `complete`, `unfinished` (its writer was stopped), `in use` (being written) or
            `damaged`.
        stage: label of the stage, or what derived weights were made from.
        captures: site and position pairs, e.g. `resid_post/last`; `responses` for what a stage
            wrote, `weights` for derived ones.
        n_layers: number of layers, embeddings included.
        n_examples: number of examples.
        n_bytes: size on disk.
        used: when it was last read or written, seconds since 1970 on the file server's clock.
        lease: name of the lease that everyone holds who uses it.
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
    lease: Path
    problem: str = ""


def ls(store: Store, weights: Path | None = None) -> list[EntryRow]:
    """List all entries, most recently used first, by their manifests alone.

    Args:
        store: the store.
        weights: folder of derived weights, to be listed too.
    """
    clock = Clock(store.root)
    rows = [_row(store, folder, clock) for folder in _folders(store.root)]
    if weights is not None:
        rows += [_row_of_weights(folder, key) for folder, key in _weight_folders(weights)]
    return sorted((row for row in rows if row is not None), key=lambda row: -row.used)


def verify(store: Store, weights: Path | None = None) -> list[EntryRow]:
    """List all entries after reading every file of theirs; `problem` says what is wrong.

    Args:
        store: the store.
        weights: folder of derived weights, to be listed too; their files carry no digests.
    """
    return [_verified(row) for row in ls(store, weights)]


def is_weights(row: EntryRow) -> bool:
    """Whether it is about derived weights."""
    return row.captures == (WEIGHTS,)


def last_used(row: EntryRow) -> float:
    """When what a line is about was last read or written, as of now; 0 where it is gone."""
    mark = row.folder / (derived.RECORD if is_weights(row) else MANIFEST)
    with suppress(OSError):
        return mark.stat().st_mtime
    return _size(row.folder)[1]


class Clock:
    """The time of a file server, which tells how old its files are.

    Args:
        root: a folder there.
    """

    def __init__(self, root: Path) -> None:
        self._ahead_s = 0.0
        probe = root / f".clock.{uuid.uuid4().hex[:8]}.tmp"
        with suppress(OSError):  # what can only be read has a clock, too; nobody can ask it
            probe.touch()
            try:
                self._ahead_s = probe.stat().st_mtime - time.time()
            finally:
                probe.unlink()

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self._ahead_s


def _folders(root: Path) -> Iterator[Path]:
    for folder in sorted(root.glob("*/*/*/")):
        if is_entry_folder(folder):
            yield folder


def _weight_folders(root: Path) -> Iterator[tuple[Path, str]]:
    """Folders of derived weights, and of what was begun of them, with their keys."""
    for folder in sorted(root.glob("*/")):
        match = _OF_WEIGHTS.fullmatch(folder.name)
        if match is not None and folder.is_dir():
            yield folder, match["key"] or match["begun"]


def _row(store: Store, folder: Path, clock: Clock) -> EntryRow | None:
    """One line about an entry; None where it was removed meanwhile."""
    n_bytes, newest = _size(folder)
    row = EntryRow(folder, UNFINISHED, "", (), 0, 0, n_bytes, newest, lock_path(folder))
    try:
        entry = read_entry(folder)
        used = (folder / MANIFEST).stat().st_mtime if entry is not None else newest
    except StoreError as error:
        return replace(row, state=DAMAGED, problem=str(error))
    except FileNotFoundError:
        return None
    if entry is None:
        if not newest:
            return None
        silence_s = 3 * store.heartbeat_s
        is_alive = clock.now() - last_sign(row.lease) <= silence_s
        return replace(row, state=LOCKED if is_alive else UNFINISHED)
    return replace(
        row,
        state=COMPLETE,
        stage=entry.manifest["stage"]["label"],
        captures=tuple("/".join(capture) for capture in entry.captures) or (RESPONSES,),
        n_layers=len(entry.layers),
        n_examples=len(entry.ids),
        used=used,
    )


def _row_of_weights(folder: Path, key: str) -> EntryRow | None:
    """One line about derived weights; None where they were removed meanwhile."""
    n_bytes, newest = _size(folder)
    lease = derived.use_lease(folder.with_name(key))
    row = EntryRow(folder, UNFINISHED, "", (WEIGHTS,), 0, 0, n_bytes, newest, lease)
    if folder.name != key or not newest:
        return row if newest else None
    try:
        record = json.loads((folder / derived.RECORD).read_bytes())
        used = (folder / derived.RECORD).stat().st_mtime
    except (OSError, ValueError):
        record, used = {}, newest
    return replace(row, state=COMPLETE, stage=_source(record), used=used)


def _source(record: Mapping[str, Any]) -> str:
    """What derived weights were made from, as their record says."""
    if members := record.get("members"):
        return " + ".join(str(it["name"]) for it in members)
    for name in ("path", "weights", "untrained"):  # of an adapter, a checkpoint, a config
        if record.get(name):
            return Path(str(record[name])).name
    return ""


def _size(folder: Path) -> tuple[int, float]:
    """Bytes of the files of a folder, and when one was changed last; 0 where it is gone."""
    n_bytes, newest = 0, 0.0
    with suppress(OSError):
        newest = folder.stat().st_mtime
        for file in os.scandir(folder):
            with suppress(OSError):  # gone meanwhile
                stat = file.stat(follow_symlinks=False)
                n_bytes += stat.st_size
                newest = max(newest, stat.st_mtime)
    return n_bytes, newest


def _verified(row: EntryRow) -> EntryRow:
    if row.state in {UNFINISHED, LOCKED} and not is_weights(row):
        return _verified_kept(row)
    if row.state != COMPLETE or is_weights(row):
        return row
    try:
        entry = read_entry(row.folder)
        for name in entry.file_names if isinstance(entry, Entry) else ():
            files.verify(row.folder / name)
    except StoreError as error:
        if not row.folder.exists():
            return row
        return replace(row, state=DAMAGED, problem=str(error))
    return row


def _verified_kept(row: EntryRow) -> EntryRow:
    """What a pass that was ended is to go on with; what is damaged of it is done again."""
    for path in left_over(row.folder):
        try:
            files.check(path)
        except StoreError as error:
            if path.exists():
                again = "its shard is computed from the beginning"
                return replace(row, problem=f"{str(error).partition(';')[0]}; {again}")
    return row


def last_sign(lease: Path) -> float:
    """When a holder of a lease last showed that it lives; 0 where there is none."""
    newest = 0.0
    for record in lease.with_name(f"{lease.name}.rw").glob("holders/*"):
        with suppress(OSError):
            newest = max(newest, record.stat().st_mtime)
    return newest
