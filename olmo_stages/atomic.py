"""Files and folders that appear whole or not at all, whoever is killed while writing them."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from safetensors import SafetensorError

from olmo_stages.errors import StoreError
from olmo_stages.looking import is_looking, make

OUTPUTS = "outputs=DIR"
CACHE = "cache=DIR"
TEMPORARY = "TMPDIR=DIR"
"""Settings that choose another folder, for the remedy in a message."""

SCRATCH = "scratch-"
"""Beginning of the names of folders that whoever made them removes."""

_LONGEST_NAME = 64
_RETRIES = 20
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
REFUSALS = frozenset(_REMEDIES)
"""Numbers of the errors by which the system refuses to write, for want of room or at all."""

# How libraries written in Rust and C++ spell the number of an error of the system.
_NUMBER = re.compile(r"\bos error (\d+)\b|\bcode: (\d+),|\(errno:? ?(\d+)\)|\[Errno (\d+)\]")


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


def write_file(path: Path, data: bytes, setting: str = "") -> None:
    """Write `data` to `path`, atomically and durably, making its folder where needed.

    Args:
        path: the file.
        data: its content.
        setting: chooses another folder, for the remedy.

    Raises:
        StoreError: if the disk is full or the place cannot be written.
    """
    make(str(path))
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}.tmp")
    with writing(path, setting):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_durably(temporary, data)
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):  # on a read-only disk even where there is none
                temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_folder(
    folder: Path, files: "dict[str, bytes]", own: Collection[str], setting: str = ""
) -> None:
    """Make `folder` hold `files`, written in their order; an older folder stays until then.

    Args:
        folder: where the files shall be.
        files: contents by path relative to `folder`.
        own: top-level names that belong to this kind of folder: those of the older folder are
            dropped; everything else somebody put there is moved over.
        setting: chooses another folder, for the remedy.

    Raises:
        StoreError: if the disk is full or the place cannot be written.
    """
    make(str(folder))
    mark = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary = folder.with_name(f".{folder.name}.tmp-{mark}")
    old = folder.with_name(f".{folder.name}.old-{mark}")
    with writing(folder, setting):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(folder)
        try:
            _fill(temporary, files)
            _swap(temporary, folder, old)
        except BaseException:
            # The disk may refuse the new folder when the old one has just stepped aside.
            restore_folder(folder)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(folder.parent)
        with contextlib.suppress(FileNotFoundError):  # there was none, or another writer took it
            _keep_foreign(old, folder, own)
        shutil.rmtree(old, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Put back the older folder of a writer that was killed between its two renames."""
    with contextlib.suppress(OSError):  # whoever cannot look cannot put anything back
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


@contextlib.contextmanager
def writing(path: Path, setting: str = "") -> Iterator[None]:
    """Tell in one line what the disk refuses inside, whichever library meets it.

    Args:
        path: what is written.
        setting: chooses another folder, for the remedy.

    Raises:
        StoreError: the disk is full or the place cannot be written.
    """  # noqa: DOC501  (whatever else went wrong inside)
    try:
        yield
    except StoreError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        refused = refusal(error)
        if refused is None:
            raise
        raise StoreError(disk_trouble(path, refused, setting)) from error


@contextlib.contextmanager
def scratch(root: Path | None = None, setting: str = TEMPORARY) -> Iterator[Path]:
    """A folder that is gone afterwards.

    Args:
        root: where it is made, and which is made where needed; None = the system's folder for
            temporary files.
        setting: chooses another root, for the remedy.

    Raises:
        StoreError: it cannot be made.
    """
    # Asked for its folder, `tempfile` says of a full disk that there is none.
    place = root or Path(os.environ.get("TMPDIR") or "/tmp")
    with writing(place, setting):
        if root is not None:
            root.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory("", SCRATCH, place, ignore_cleanup_errors=True)
    with made as folder:
        yield Path(folder)


def refusal(error: BaseException) -> OSError | None:
    """What the system said where a library tells it in words; None where it was not the system."""
    found = _NUMBER.search(str(error))
    if (isinstance(error, OSError) and error.errno is not None) or found is None:
        return error if isinstance(error, OSError) else None
    number = int(next(filter(None, found.groups())))
    return OSError(number, os.strerror(number))


def disk_trouble(path: Path, error: OSError, setting: str = "") -> str:
    """Return one line for a full disk, a missing permission or a read-only place.

    Args:
        path: what was written.
        error: what the system said.
        setting: chooses another folder, for the remedy.
    """
    reason = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0)
    other = f"choose another folder with {setting}" if setting else "choose another folder"
    return f"cannot write {path}: {reason}; {f'{remedy} or {other}' if remedy else other}"


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
