"""Tensors of a checkpoint directory: read one at a time, and written file by file."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from olmo_stages.errors import ModelError, StoreError
from olmo_stages.models import digests
from olmo_stages.progress import progress

SHARD_BYTES = 2**30
"""Bytes of weights in one file; what is in memory while they are written."""

_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True)
class Layout:
    """What a safetensors file says of a tensor.

    Args:
        file: where it is.
        dtype: as safetensors spells it.
        shape: its shape.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def floating(self) -> torch.dtype | None:
        """Its dtype if it can be averaged, else None."""
        return _FLOATS.get(self.dtype)


class Tensors:
    """The tensors of a checkpoint directory; one is read at a time.

    Args:
        path: the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """What there is, by name, in the order of the names.

        Raises:
            ModelError: a file cannot be read.
        """
        found: dict[str, Layout] = {}
        for file in digests.weight_files(self.path):
            try:
                with safe_open(file, framework="pt") as opened:
                    for name in opened.keys():  # noqa: SIM118  (it is no mapping)
                        part = opened.get_slice(name)
                        found[name] = Layout(file, part.get_dtype(), tuple(part.get_shape()))
            except (OSError, SafetensorError) as error:
                raise ModelError(
                    f"{file}: cannot be read ({error}); download or save it again"
                ) from error
        return dict(sorted(found.items()))

    def read(self, name: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor, or some of its rows, as it is stored."""
        with safe_open(self.layouts[name].file, framework="pt") as opened:
            return opened.get_tensor(name) if rows is None else opened.get_slice(name)[rows]


Make = Callable[[str], torch.Tensor]
"""Computes a tensor by its name."""


def write_weights(
    folder: Path, sizes: Mapping[str, int], make: Make, what: str, limit: int = SHARD_BYTES
) -> None:
    """Write tensors as safetensors, with an index if they are more than one file.

    Args:
        folder: where to.
        sizes: bytes of each tensor by name.
        make: computes one of them; those of one file are in memory at a time.
        what: what progress calls it.
        limit: bytes of one file; a larger tensor has a file of its own.

    Raises:
        StoreError: the disk has not enough space.
        SafetensorError: the disk refuses what is written.
    """
    total = sum(sizes.values())
    free = shutil.disk_usage(folder).free
    if total > free:
        raise StoreError(
            f"cannot write {folder.parent}: {what} needs {total / 1e9:.1f} GB and {free / 1e9:.1f} "
            "GB are free; free some space or choose another folder with cache=DIR"
        )
    shards = _shards(sizes, limit)
    where: dict[str, str] = {}
    with progress(what, total=len(sizes)) as advance:
        for i, names in enumerate(shards):
            file = digests.SINGLE
            if len(shards) > 1:
                file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
            tensors: dict[str, torch.Tensor] = {}
            for name in names:
                tensors[name] = make(name)
                advance()
            save_file(tensors, folder / file, metadata={"format": "pt"})
            where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / digests.INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def n_bytes(layout: Layout, dtype: torch.dtype | None = None) -> int:
    """Bytes of a tensor, in its own dtype or in another."""
    known = dtype or layout.floating
    each = known.itemsize if known is not None else 8  # whole numbers: at most
    return math.prod(layout.shape) * each


def _shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards
