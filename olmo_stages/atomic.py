"""Files and folders that appear whole or not at all, whoever is killed while writing them."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import uuid
from collections.abc import Collection
from pathlib import Path

from olmo_stages.errors import StoreError
from olmo_stages.looking import is_looking, make

_LONGEST_NAME = 64
_RETRIES = 20


def safe_name(text: str) -> str:
    """One path component made of letters, digits and `._@+=-`, at most 64 characters long.

    Text that had to be changed gets eight digits of its own hash, so that two texts never share
    a name by having been changed.

    Returns:
        The text itself where it is safe already.
    """
    name = re.sub(r"[^A-Za-z0-9._@+=-]+", "_", text).lstrip(".").strip("_")
    if name == text and 0 < len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9] or 'x'}-{digest}"


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, atomically and durably, making its folder where needed.

    Raises:
        StoreError: if the disk is full or the place cannot be written.
    """
    make(str(path))
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_durably(temporary, data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(disk_trouble(path, error)) from error


def write_folder(folder: Path, files: "dict[str, bytes]", own: Collection[str]) -> None:
    """Make `folder` hold `files`, written in their order; an older folder stays until then.

    Args:
        folder: where the files shall be.
        files: contents by path relative to `folder`.
        own: top-level names that belong to this kind of folder: those of the older folder are
            dropped; everything else somebody put there is moved over.

    Raises:
        StoreError: if the disk is full or the place cannot be written.
    """
    make(str(folder))
    mark = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary = folder.with_name(f".{folder.name}.tmp-{mark}")
    old = folder.with_name(f".{folder.name}.old-{mark}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(folder)
        try:
            _fill(temporary, files)
            _swap(temporary, folder, old)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(folder.parent)
        with contextlib.suppress(FileNotFoundError):  # there was none, or another writer took it
            _keep_foreign(old, folder, own)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StoreError(disk_trouble(folder, error)) from error


def restore_folder(folder: Path) -> None:
    """Put back the older folder of a writer that was killed between its two renames."""
    if is_looking() or folder.exists() or not folder.parent.is_dir():
        return
    for old in sorted(folder.parent.glob(f".{_glob_safe(folder.name)}.old-*")):
        try:
            old.rename(folder)
        except OSError:  # another process was quicker, or the disk is read-only
            continue
        return


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:  # network file systems may refuse; the rename itself has been done
        pass
    finally:
        os.close(descriptor)


def disk_trouble(path: Path, error: OSError) -> str:
    """Return one line for a full disk, a missing permission or a read-only place."""
    reason = error.strerror or str(error)
    is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    remedy = "free some space or choose another folder" if is_full else "choose another folder"
    return f"cannot write {path}: {reason}; {remedy}"


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _fill(folder: Path, files: "dict[str, bytes]") -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _write_durably(folder / name, data)
    for inner in {(folder / name).parent for name in files}:
        sync_folder(inner)


def _swap(temporary: Path, folder: Path, old: Path) -> None:
    # A folder cannot be renamed over a full one, so the old one steps aside first. Another writer
    # or reader may put one there in between; then the loser of that race tries again.
    for _ in range(_RETRIES):
        try:
            temporary.rename(folder)
        except OSError as error:
            # Not by asking whether the folder is there: the next writer may just have moved it.
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        else:
            return
        shutil.rmtree(old, ignore_errors=True)
        try:
            folder.rename(old)
        except FileNotFoundError:
            continue
    raise StoreError(f"cannot write {folder}: other processes keep writing it; try again")


def _keep_foreign(old: Path, folder: Path, own: Collection[str]) -> None:
    for item in old.iterdir():
        if item.name not in own and not (folder / item.name).exists():
            item.rename(folder / item.name)


def _clear_leftovers(folder: Path) -> None:
    """Remove what killed writers of this machine left beside `folder`."""
    restore_folder(folder)
    host = socket.gethostname()
    for kind in ("tmp", "old"):
        pattern = f".{_glob_safe(folder.name)}.{kind}-{_glob_safe(host)}-*"
        for leftover in folder.parent.glob(pattern):
            pid = leftover.name.split("-")[-2]
            if pid.isdigit() and not process_runs(int(pid)):
                shutil.rmtree(leftover, ignore_errors=True)


def process_runs(pid: int) -> bool:
    """Return whether a process of this machine with that id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _glob_safe(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)
