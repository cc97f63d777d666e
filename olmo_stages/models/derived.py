"""Checkpoints that are computed from others: kept in the cache, written once. Imports no torch."""

import atexit
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from olmo_stages.errors import StoreError
from olmo_stages.leases import use
from olmo_stages.looking import is_looking, make
from olmo_stages.once import build_lease, make_once
from olmo_stages.progress import say

FOLDER = "derived"
"""Where they are kept, below the cache folder."""

RECORD = "derived.json"
"""File that tells what a derived checkpoint was made from; changed last when it was used last."""

USED = ".used"
"""End of the name of the lease of whoever uses a derived checkpoint."""

_TRIES = 3
_used: dict[tuple[int, Path], ExitStack] = {}


def ensure(
    key: str,
    cache: Path,
    write: Callable[[Path], None],
    record: Mapping[str, Any],
) -> Path:
    """Return a derived checkpoint; computed once, by one process, and there whole or not at all.

    It is not cleaned away before this process ends.

    Args:
        key: digest of everything it is made from.
        cache: the cache folder.
        write: fills an empty folder.
        record: what it is made from, for whoever finds the folder.

    Raises:
        StoreError: the disk is full or the place cannot be written.
    """
    folder = cache / FOLDER / key

    def fill(hidden: Path) -> None:
        write(hidden)
        (hidden / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")

    def on_wait(owner: str) -> None:
        say(f"waiting for {folder}, which is made by {owner}")

    for _ in range(_TRIES):  # it may be cleaned away before it is known to be used
        _use(folder)
        if folder.is_dir():
            _touch(folder)
            return folder
        make(f"{folder}, computed from other checkpoints")
        make_once(folder, fill, on_wait=on_wait)
    raise StoreError(f"{folder} is removed again and again; end whatever cleans the cache folder")


def use_lease(folder: Path) -> Path:
    """Name of the lease that is held together by all processes that use a derived checkpoint."""
    return folder.with_name(f"{folder.name}{USED}")


def leases(used: Path) -> tuple[Path, Path]:
    """Names of all leases of a derived checkpoint, given the one that `use_lease` gave."""
    return used, build_lease(used.with_name(used.name.removesuffix(USED)))


def copy_small(files: Iterable[Path], folder: Path) -> None:
    """Copy config and tokenizer files under their names; a later one replaces an earlier one."""
    for file in files:
        if file.is_file():
            shutil.copyfile(file, folder / file.name)


def _use(folder: Path) -> None:
    """Hold a derived checkpoint until this process ends."""
    known = (os.getpid(), folder)  # a forked child holds nothing of its parent's
    if is_looking() or known in _used:
        return
    _used[known] = ExitStack()
    _used[known].enter_context(use(use_lease(folder)))


@atexit.register
def _release() -> None:
    for (pid, _), held in _used.items():
        if pid == os.getpid():
            held.close()
    _used.clear()


def _touch(folder: Path) -> None:
    if not is_looking():
        with suppress(OSError):  # a cache that can only be read is still a cache
            os.utime(folder / RECORD)
