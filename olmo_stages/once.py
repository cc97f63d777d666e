"""Folders that are expensive to make: made by one process, whole, while the others wait for it.

The processes may be on several machines of a shared file system. Whoever makes the folder holds a
lease; a builder that is killed blocks the next one for no longer than the lease.
"""

import os
import shutil
import socket
import uuid
from collections.abc import Callable
from pathlib import Path

from olmo_stages.atomic import CACHE, sync_folder, writing
from olmo_stages.leases import HEARTBEAT_S, Lease

_TRIES = 3


def make_once(
    folder: Path,
    fill: Callable[[Path], None],
    *,
    on_wait: Callable[[str], None],
    heartbeat_s: float = HEARTBEAT_S,
) -> None:
    """Make a folder unless it is there; it appears by one rename, and is never half there.

    Args:
        folder: what is wanted, in the cache folder.
        fill: writes its files into an empty folder beside it. May be called again, should this
            process be halted for so long that another one takes over.
        on_wait: called with who makes it, when another process does.
        heartbeat_s: seconds between two signs of life.

    Raises:
        StoreError: the disk is full or the place cannot be written, or another process makes it
            for hours.
    """
    lease = Lease(build_lease(folder), heartbeat_s=heartbeat_s)
    with writing(folder, CACHE):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for tries_left in reversed(range(_TRIES)):
            if folder.is_dir():
                break
            with lease.hold(on_wait=on_wait):
                if not folder.is_dir():
                    _make(folder, fill, lease, is_last=not tries_left)
        # Nobody needs it any more: whoever still waits for it finds the folder.
        lease.remove()


def build_lease(folder: Path) -> Path:
    """Name of the lease of whoever makes a folder."""
    return folder.with_name(f"{folder.name}.lock")


def _make(folder: Path, fill: Callable[[Path], None], lease: Lease, *, is_last: bool) -> None:
    """Make the folder, or leave it to the process that took over meanwhile."""
    if lease.is_held:
        for abandoned in folder.parent.glob(f".{folder.name}-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
    mark = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    hidden = folder.with_name(f".{folder.name}-{mark}")
    hidden.mkdir()
    try:
        fill(hidden)
        _settle(hidden)
        hidden.replace(folder)
    except Exception:
        # Whoever took over has removed what was made here, and makes it or has made it; this
        # process may have been awake for too short to know that it lost the lease.
        taken_over = lease.lost or not hidden.is_dir()
        if not folder.is_dir() and (is_last or not taken_over):
            raise
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    sync_folder(folder.parent)


def _settle(folder: Path) -> None:
    """Everything on the disk, and readable by whoever may read the folder."""
    # Safetensors leaves its files to their owner alone.
    readable = folder.stat().st_mode & 0o666
    for path in (*folder.rglob("*"), folder):
        if path.is_symlink():
            continue
        if path.is_file():
            path.chmod(readable)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
