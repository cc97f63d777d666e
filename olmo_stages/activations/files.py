"""Files whose names carry the digest of their content; safetensors are read tensor by tensor.

A shard may hold the tokens of many examples in all layers, so that no file is ever held in memory
whole: its digest is computed while it streams by, and a tensor is read from its offset.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from olmo_stages.atomic import CACHE, write_file
from olmo_stages.errors import StoreError

_DTYPES = {"F32": "<f4", "F16": "<f2", "I32": "<i4", "I64": "<i8"}
_BLOCK = 1 << 20

TENSORS, LINES = "safetensors", "jsonl"
"""Kinds of files, as their names end."""


def write_digested(folder: Path, stem: str, content: bytes, suffix: str = TENSORS) -> str:
    """Write `stem.DIGEST.SUFFIX` and return its name."""
    name = f"{stem}.{xxhash.xxh3_128_hexdigest(content)}.{suffix}"
    write_file(folder / name, content, CACHE)
    return name


def read_whole(path: Path) -> bytes:
    """Read a small file at once.

    Raises:
        StoreError: it is damaged, missing or unreadable.
    """
    with _opened(path) as file:
        content = file.read()
    if xxhash.xxh3_128_hexdigest(content) != path.name.split(".")[-2]:
        raise StoreError(_damaged(path))
    return content


def verify(path: Path) -> None:
    """Check a file of either kind against the digest in its name.

    Raises:
        StoreError: it is damaged, missing or unreadable.
    """
    if path.suffix == f".{TENSORS}":
        check(path)
    else:
        read_whole(path)


@dataclass(frozen=True)
class Checked:
    """A safetensors file that was undamaged when it was opened.

    Args:
        path: the file.
        mark: inode, size and time of the last change when it was checked.
        header: name, dtype, shape and offsets of each tensor, and the metadata.
        start: offset of the data in the file.
    """

    path: Path
    mark: tuple[int, int, int]
    header: Mapping[str, Any]
    start: int

    @property
    def metadata(self) -> Mapping[str, str]:
        """Metadata in the header."""
        return self.header.get("__metadata__", {})

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it.

        Raises:
            StoreError: the file does not hold it.
        """
        if name not in self.header:
            raise StoreError(f"{self.path} does not hold {name}; {_remedy(self.path)}")
        return tuple(self.header[name]["shape"])

    def tensor(self, name: str) -> np.ndarray:
        """Read one tensor and nothing else; bfloat16 becomes float32, which holds it exactly.

        Raises:
            StoreError: the file has been removed or changed since it was checked, or does not hold
                the tensor.
        """
        shape = self.shape(name)
        begin, end = self.header[name]["data_offsets"]
        with _opened(self.path) as file:
            file.seek(self.start + begin)
            data = file.read(end - begin)
            if _mark(file) != self.mark or len(data) != end - begin:
                raise StoreError(
                    f"{self.path} was changed while it was in use; {_remedy(self.path)}"
                )
        dtype = self.header[name]["dtype"]
        if dtype == "BF16":
            bits = np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16
            return bits.view(np.float32).reshape(shape)
        return np.frombuffer(data, dtype=_DTYPES[dtype]).reshape(shape)


def check(path: Path) -> Checked:
    """Check a file against the digest in its name, holding one block of it at a time.

    Raises:
        StoreError: it is damaged, missing or unreadable.
    """
    hasher = xxhash.xxh3_128()
    block = memoryview(bytearray(_BLOCK))
    with _opened(path) as file:
        # Before the first byte is read, so that any later change shows.
        mark = _mark(file)
        while n := file.readinto(block):
            hasher.update(block[:n])
        if hasher.hexdigest() != path.name.split(".")[-2]:
            raise StoreError(_damaged(path))
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length <= mark[1] else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise StoreError(f"{path} is damaged: it is no safetensors file; {_remedy(path)}")
    return Checked(path, mark, header, 8 + length)


def is_complete(path: Path, expected: Mapping[str, str]) -> bool:
    """Whether the metadata of a safetensors file are as expected and its end is there.

    Reads its head alone, so that what the bytes in between are is not known.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            header = json.loads(file.read(length)) if length <= size else {}
        metadata = header.pop("__metadata__", {})
        end = max((it["data_offsets"][1] for it in header.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False
    return metadata == dict(expected) and size == 8 + length + end


def is_sound(path: Path, expected: Mapping[str, str]) -> bool:
    """Whether a file is undamaged and its metadata is as expected."""
    try:
        return dict(check(path).metadata) == dict(expected)
    except StoreError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        with path.open("rb") as file:
            yield file
    except StoreError:  # an OSError too, but it already says what happened
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); {_remedy(path)}") from error


def _mark(file: BufferedReader) -> tuple[int, int, int]:
    stat = os.fstat(file.fileno())
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _damaged(path: Path) -> str:
    return f"{path} is damaged: its content does not fit its digest; {_remedy(path)}"


def _remedy(path: Path) -> str:
    return f"delete the folder {path.parent} to have it computed again"
