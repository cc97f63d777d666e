"""What may go of a cache, and how it goes while jobs run and others clean, too.

Whoever reads or writes an entry holds its lease together with all others who do. Cleaning takes
that lease alone, without waiting, for as long as a rename takes; where somebody has it, the entry
stays. A killed job is found out like any silent holder, after three heartbeats.
"""

import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from olmo_stages.activations.entry import MANIFEST
from olmo_stages.activations.kept import left_over
from olmo_stages.activations.store import LEASES, Store, lock_path
from olmo_stages.activations.upkeep import (
    COMPLETE,
    DAMAGED,
    LOCKED,
    Clock,
    EntryRow,
    is_weights,
    last_sign,
    last_used,
    ls,
    verify,
)
from olmo_stages.atomic import FULL, SCRATCH
from olmo_stages.errors import StoreError
from olmo_stages.leases import REMOVED, Lease
from olmo_stages.models import derived

DAY_S = 86400.0

ABANDONED_S = 7 * DAY_S
"""Age of an unfinished entry that nobody is going to finish; a job that was told to stop may wait
for its turn in a queue for days."""

IN_USE = "in use by a running job"
RESUMABLE = "unfinished; the job that was stopped may go on with it"
JUST_USED = "used a moment ago"

_LONG_DEAD_S = 3600.0
"""Silence of a holder that is dead by any clock."""


@dataclass(frozen=True)
class Limits:
    """What may go.

    Args:
        older_than_s: seconds since an entry was used last; None = whatever its age.
        max_bytes: of all that stays; what was not used for longest goes first. None = no limit.
        damaged: read every file, and remove the entries that are damaged.
        dry_run: remove nothing, and say what would be.
    """

    older_than_s: float | None = None
    max_bytes: int | None = None
    damaged: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Cleaned:
    """What went, or would go, and what stays although it is old, large, damaged or unfinished.

    Args:
        removed: what went.
        kept: what stays, each with the reason.
    """

    removed: Sequence[EntryRow]
    kept: Sequence[tuple[EntryRow, str]]


NO_LIMITS = Limits()


def gc(
    store: Store,
    limits: Limits = NO_LIMITS,
    weights: Path | None = None,
    on_wait: Callable[[int, float], None] = lambda _n, _seconds: None,
) -> Cleaned:
    """Remove leftovers of stopped writers, and entries by age or size; never one in use.

    Args:
        store: the store.
        limits: what may go.
        weights: folder of derived weights, which count like entries.
        on_wait: called with the number of entries that are held, and the seconds until it is known
            whether their holders live.

    Raises:
        StoreError: something cannot be removed.
    """
    rows = verify(store, weights) if limits.damaged else ls(store, weights)
    now = Clock(store.root).now()
    if not limits.dry_run:
        _sweep_dead(store, weights, now)
    leases = {row.folder: Lease(row.lease, heartbeat_s=store.heartbeat_s) for row in rows}
    removed: list[EntryRow] = []
    kept: list[tuple[EntryRow, str]] = []
    for row, why in _decided(rows, limits, now, leases, on_wait):
        reason = why
        if not (reason or limits.dry_run):
            try:
                reason = _remove(row, leases[row.folder])
            except FileNotFoundError:  # somebody else cleans, too
                continue
        if reason:
            kept.append((row, reason))
        else:
            removed.append(row)
    if not limits.dry_run:
        _sweep(store, weights, now)
    return Cleaned(removed, kept)


def _decided(
    rows: Sequence[EntryRow],
    limits: Limits,
    now: float,
    leases: dict[Path, Lease],
    on_wait: Callable[[int, float], None],
) -> Iterator[tuple[EntryRow, str]]:
    """What is to go, each with what keeps it all the same, as far as is known beforehand."""
    asked: set[Path] = set()
    busy: set[Path] = set()
    # What stays because it is used makes others too many, who may be used, too.
    while True:
        chosen = list(_chosen(rows, limits, now, busy))
        new = [row.folder for row, why in chosen if not why and row.folder not in asked]
        if not new:
            return iter(chosen)
        asked.update(new)
        busy.update(_in_use({folder: leases[folder] for folder in new}, on_wait))


def _chosen(
    rows: Iterable[EntryRow], limits: Limits, now: float, busy: set[Path]
) -> Iterator[tuple[EntryRow, str]]:
    kept_bytes = 0
    for row in rows:  # most recently used first
        age_s = now - row.used
        old = limits.older_than_s is not None and age_s >= limits.older_than_s
        large = limits.max_bytes is not None and kept_bytes + row.n_bytes > limits.max_bytes
        damaged = limits.damaged and row.state == DAMAGED
        unfinished = row.state not in {COMPLETE, DAMAGED}
        why = IN_USE if row.folder in busy else ""
        # Of weights nothing that was begun is used again.
        is_resumable = unfinished and row.n_bytes > 0 and not is_weights(row)
        if is_resumable and not (old or large or age_s >= ABANDONED_S):
            why = IN_USE if row.state == LOCKED else RESUMABLE
        wanted = old or large or damaged or unfinished
        if why or not wanted:
            kept_bytes += row.n_bytes
        if wanted:
            yield row, why


def _in_use(leases: dict[Path, Lease], on_wait: Callable[[int, float], None]) -> Iterator[Path]:
    """Those that a living process holds."""
    held = {folder: lease for folder, lease in leases.items() if not _is_free(lease)}
    if held:
        # A holder that was killed is told from a living one by its silence.
        pause_s = max(lease.silence_s + 2 * lease.poll_s for lease in held.values())
        on_wait(len(held), pause_s)
        time.sleep(pause_s)
    for folder, lease in held.items():
        if not _is_free(lease):
            yield folder


def _is_free(lease: Lease) -> bool:
    """Whether nobody holds a lease.

    Raises:
        StoreError: nothing can be leased here, so that nobody knows.
    """
    if not lease.path.with_name(f"{lease.path.name}.rw").exists():
        return True  # nobody ever did; and whoever only looks leaves nothing behind
    try:
        with lease.claim() as mine:
            return mine and _is_held(lease)
    except StoreError as error:
        if not _is_full(error):
            raise
        return not last_sign(lease.path)


def _is_held(lease: Lease) -> bool:
    """Whether it is held for certain.

    Raises:
        StoreError: nothing can be leased here.
    """
    if not lease.is_held:
        raise StoreError(
            f"{lease.path} cannot be leased, so that nobody knows what is in use; remove by hand "
            "what no job uses"
        )
    return True


def _is_full(error: StoreError) -> bool:
    # Whoever is to make room must not need room for it. No job can sign there either; one that
    # reads all the same makes an entry again that is gone.
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL


def _remove(row: EntryRow, lease: Lease) -> str:
    """Remove an entry, or say what keeps it.

    Raises:
        FileNotFoundError: it is gone already.
        StoreError: it cannot be removed.
    """
    try:
        with lease.claim() as mine:
            return _take_away(row) if mine and _is_held(lease) else IN_USE
    except StoreError as error:
        if not _is_full(error):
            raise
        return IN_USE if last_sign(row.lease) else _take_away(row)


def _take_away(row: EntryRow) -> str:
    """Remove an entry that nobody uses, unless it was used since it was looked at.

    Raises:
        FileNotFoundError: it is gone already.
        StoreError: it cannot be removed.
    """
    if last_used(row) > row.used:
        return JUST_USED
    # Renamed first, so that nobody sees a manifest whose shards are half gone.
    doomed = _doomed(row.folder)
    try:
        row.folder.rename(doomed)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(
            f"{row.folder} cannot be removed ({error.strerror}); check its owner"
        ) from error
    _drop_leases(row.lease)
    shutil.rmtree(doomed, ignore_errors=True)
    return ""


def _drop_leases(use: Path) -> None:
    """Remove an entry's leases; who asks for one at this moment finds all of them or none.

    Args:
        use: name of the one that everyone holds who uses it.
    """
    if use.parent.name.endswith(LEASES):
        _drop(use.parent)
    else:
        for lease in derived.leases(use):
            Lease(lease).remove()


def _drop(folder: Path) -> None:
    doomed = _doomed(folder)
    with suppress(OSError):
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _doomed(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{REMOVED}")


def _leases(store: Store, weights: Path | None) -> Iterator[Path]:
    """Names of the leases that users hold."""
    for folder in store.root.glob(f"*/*/*{LEASES}"):
        yield lock_path(folder.with_name(folder.name.removesuffix(LEASES)))
    for files in weights.glob(f"*{derived.USED}.rw") if weights else ():
        yield files.with_suffix("")


def _sweep_dead(store: Store, weights: Path | None, now: float) -> None:
    """Remove leases whose holders died long ago, so that nobody has to be waited for."""
    for lease in list(_leases(store, weights)):
        if 0 < last_sign(lease) < now - _LONG_DEAD_S:
            _drop_leases(lease)


def _sweep(store: Store, weights: Path | None, now: float) -> None:
    """Remove what interrupted writers and cleaners left, and leases that nobody holds."""
    _sweep_files(store, weights, now)
    for name in list(_leases(store, weights)):
        lease = Lease(name, heartbeat_s=store.heartbeat_s)
        # What cannot be leased now is for the next time.
        with suppress(StoreError), lease.claim() as mine:
            if mine and lease.is_held:
                _drop_leases(name)


def _sweep_files(store: Store, weights: Path | None, now: float) -> None:
    places = [store.root.glob(f"*/*/*{REMOVED}"), weights.glob(f"*{REMOVED}") if weights else ()]
    for doomed in chain(*places):
        shutil.rmtree(doomed, ignore_errors=True)
    for path in chain(store.root.glob(".*.tmp"), store.root.glob("*/*/*/.*.tmp")):
        with suppress(OSError):
            if path.stat().st_mtime < now - _LONG_DEAD_S:
                path.unlink()
    for path in chain(*(left_over(it.parent) for it in store.root.glob(f"*/*/*/{MANIFEST}"))):
        with suppress(OSError):
            path.unlink()
    for folder in store.root.glob(f"{SCRATCH}*"):
        with suppress(OSError):
            if folder.stat().st_mtime < now - ABANDONED_S:
                shutil.rmtree(folder)
