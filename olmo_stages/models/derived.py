"""Checkpoints that are computed from others: kept in the cache, written once. Imports no torch."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from olmo_stages.atomic import disk_trouble, sync_folder
from olmo_stages.errors import StoreError
from olmo_stages.looking import make

FOLDER = "derived"
"""Where they are kept, below the cache folder."""

RECORD = "derived.json"
"""File that tells what a derived checkpoint was made from."""


def ensure(
    key: str,
    cache: Path,
    write: Callable[[Path], None],
    record: Mapping[str, Any],
) -> Path:
    """Return a derived checkpoint; computed once, by one process, and there whole or not at all.

    Args:
        key: digest of everything it is made from.
        cache: the cache folder.
        write: fills an empty folder.
        record: what it is made from, for whoever finds the folder.

    Raises:
        StoreError: the disk is full or the place cannot be written.
    """
    folder = cache / FOLDER / key
    if folder.is_dir():
        return folder
    make(f"{folder}, computed from other checkpoints")
    hidden = folder.with_name(f".{key}.tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{key}.lock")):
            if folder.is_dir():  # another process was quicker
                return folder
            shutil.rmtree(hidden, ignore_errors=True)  # of a process that was killed
            hidden.mkdir()
            try:
                write(hidden)
                (hidden / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
                for file in hidden.iterdir():
                    if not file.is_symlink():
                        file.chmod(0o644)  # safetensors leaves its files to their owner alone
                        _flush(file)
                hidden.replace(folder)
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
            sync_folder(folder.parent)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(disk_trouble(folder, error)) from error
    return folder


def copy_small(files: Iterable[Path], folder: Path) -> None:
    """Copy config and tokenizer files under their names; a later one replaces an earlier one."""
    for file in files:
        if file.is_file():
            shutil.copyfile(file, folder / file.name)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
