"""Room for large tensors: in memory, or in files where memory has too little."""

import math
import os
from pathlib import Path

import torch

from olmo_stages.atomic import CACHE, disk_trouble
from olmo_stages.errors import StoreError
from olmo_stages.models.memory import free_bytes

SHARE = 0.5
"""Of the free memory that tensors may take; what needs more lies in files."""


class Room:
    """Hands out tensors, in memory where all of them fit, else in files.

    Args:
        folder: of the files.
        n_bytes: of all that will be taken.
    """

    def __init__(self, folder: Path, n_bytes: int) -> None:
        known = free_bytes(torch.device("cpu"))
        self._fits = known is None or n_bytes < SHARE * known[0]
        self._folder = folder

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor with arbitrary values.

        Raises:
            StoreError: the disk is full, or cannot be written.
        """
        size = math.prod(shape)
        if self._fits or not size:
            return torch.empty(shape, dtype=dtype)
        path = self._folder / "tensor"
        try:
            with path.open("wb") as file:
                # Reserved, because a full disk is found out by a crash when it is written to.
                os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
            found = torch.from_file(str(path), shared=True, size=size, dtype=dtype).reshape(shape)
            path.unlink()  # it is gone when nobody uses it, whatever becomes of this process
        except OSError as error:
            raise StoreError(disk_trouble(self._folder, error, CACHE)) from error
        return found
