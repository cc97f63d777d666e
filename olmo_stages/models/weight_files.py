"""Reading the weights of a model that memory does not hold: in order, once, into memory used again.

Mapped files cost a fault a page, and new memory as much again; read into the same memory over and
over, with the pages given back that nobody will read again, weights come as fast as the disk.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from olmo_stages.errors import ModelError
from olmo_stages.models import memory
from olmo_stages.models.tensors import Tensors

STEP = 8 << 20
"""Bytes that are read at a time."""

STAYS = 0.5
"""Of the free memory that the files may take, so that they are still cached for the next pass."""


@dataclass(frozen=True)
class _Span:
    """Where a tensor lies in a file, in bytes."""

    file: Path
    start: int
    end: int


class WeightFiles:
    """The files of a checkpoint.

    Args:
        where: the checkpoint, for messages.
        tensors: its tensors.
    """

    def __init__(self, where: str, tensors: Tensors) -> None:
        self._where, self._tensors = where, tensors

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Names of tensors in the order in which they lie on the disk."""

        def place(name: str) -> tuple[str, int]:
            span = self._spans[name]
            return span.file.name, span.start

        return sorted(names, key=place)

    def read(self, name: str, into: torch.Tensor) -> None:
        """Read a tensor.

        Args:
            name: of the tensor.
            into: on the CPU and contiguous, of its shape; converted where its dtype is another.

        Raises:
            ModelError: it cannot be read.
        """
        stored = self._tensors.layouts[name].floating
        if stored is None:
            into.copy_(self._tensors.read(name))
            return
        span = self._spans[name]
        try:
            with span.file.open("rb", buffering=0) as file:
                self._read(file.fileno(), span, stored, into.view(-1))
        except OSError as error:
            raise ModelError(
                f"{self._where}: {name} cannot be read ({error.strerror}); look at the disk of "
                f"{span.file}"
            ) from error

    def _read(self, file: int, span: _Span, stored: torch.dtype, into: torch.Tensor) -> None:
        n_step = STEP // stored.itemsize
        staging = torch.empty(0 if into.dtype == stored else n_step, dtype=stored)
        for begin in range(0, into.numel(), n_step):
            part = into[begin : begin + n_step]
            got = staging[: part.numel()] if staging.numel() else part
            self._fill(file, got, span, span.start + begin * stored.itemsize)
            if staging.numel():
                part.copy_(got)
        if self._goes:
            os.posix_fadvise(file, span.start, span.end - span.start, os.POSIX_FADV_DONTNEED)

    def _fill(self, file: int, part: torch.Tensor, span: _Span, at: int) -> None:
        """Read as many bytes as a tensor holds.

        Raises:
            ModelError: the file ends before.
        """
        view = memoryview(part.view(torch.uint8).numpy().data)
        done = 0
        while done < len(view):
            n = os.preadv(file, [view[done:]], at + done)
            if n == 0:
                raise ModelError(f"{self._where}: {span.file} ends too early; download it again")
            done += n

    @cached_property
    def _spans(self) -> dict[str, _Span]:
        found: dict[str, _Span] = {}
        for file in sorted({it.file for it in self._tensors.layouts.values()}):
            with file.open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
                header = json.loads(opened.read(length))
            header.pop("__metadata__", None)
            for name, it in header.items():
                begin, end = it["data_offsets"]
                found[name] = _Span(file, 8 + length + begin, 8 + length + end)
        return found

    @cached_property
    def _goes(self) -> bool:
        """Whether the files are too large to stay cached, and would only push out what is."""
        if not hasattr(os, "posix_fadvise"):  # macOS
            return False
        size = sum(
            it.file.stat().st_size for it in {s.file: s for s in self._spans.values()}.values()
        )
        known = memory.free_bytes(torch.device("cpu"))
        return known is not None and size > STAYS * known[0]
