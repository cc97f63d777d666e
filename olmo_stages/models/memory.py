"""What happens when memory runs out: smaller batches, and in the end an error with the numbers."""

import gc
import re
from collections.abc import Callable, Collection
from pathlib import Path

import torch

from olmo_stages.errors import ModelError, OlmoStagesError

STREAMED = "compute=streamed (block by block, the same numbers)"
REMEDIES = "use compute=int8 or compute=int4, compute.device_map=auto, or a shorter max_length"
NOT_LOADED = (
    f"out of memory while loading; use compute=int8 or compute=int4, {STREAMED}, "
    "compute.device_map=auto, or a device with more memory (olmo-stages plan says how much)"
)

# torch's CPU allocator and cuBLAS raise a plain RuntimeError.
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|Cannot allocate memory|ALLOC_FAILED"
)


class TokenBudget:
    """How many tokens a batch may hold; halved when memory runs out, and never raised again.

    One budget serves all batches of a model, so that each halving is paid for once.

    Args:
        tokens: tokens in one batch, padding included.
        say: told each halving in one line.
    """

    def __init__(self, tokens: int, say: Callable[[str], None] = lambda _line: None) -> None:
        self.tokens = tokens
        self._say = say

    def halve(self, n_examples: int, longest: int, devices: Collection[torch.device]) -> None:
        """Make the budget half of what a batch held for which there was no memory.

        Memory that the failed batch held must be free by then: call it outside of `except`, where
        the traceback no longer keeps the batch's tensors.

        Args:
            n_examples: examples of that batch.
            longest: tokens of its longest example.
            devices: where it ran.

        Raises:
            ModelError: the batch was one example, which cannot be made smaller.
        """
        gc.collect()
        if any(device.type == "cuda" for device in devices):
            torch.cuda.empty_cache()  # of all of them
        if n_examples == 1:
            raise ModelError(
                f"out of memory with one example of {longest} tokens (token budget {self.tokens}"
                f"{_free(devices)}); {REMEDIES}"
            )
        before, padded = self.tokens, n_examples * longest
        # What the batch held may be less than the budget, half of which may then change nothing.
        self.tokens = max(min(before, padded) // 2, 1)
        self._say(
            f"out of memory with a batch of {n_examples} x {longest} tokens{_free(devices)}; "
            f"token budget {before} -> {self.tokens}, going on"
        )


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OlmoStagesError):
        return False
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


def _free(devices: Collection[torch.device]) -> str:
    """`; 1.2 of 80.0 GB free on cuda:0`, or nothing where it is not known."""
    found = [(device, free_bytes(device)) for device in devices]
    told = [
        f"{known[0] / 1e9:.1f} of {in_gb(known[1])} free on {device}"
        for device, known in found
        if known is not None
    ]
    return f"; {', '.join(told)}" if told else ""


def free_bytes(device: torch.device) -> tuple[int, int] | None:
    """Free and total bytes of a device's memory; None where they are not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    found = _meminfo("MemAvailable", "MemTotal")
    return None if found is None else (found[0], found[1])


def total_bytes() -> int | None:
    """Bytes of this machine's memory with its swap; None where they are not known."""
    found = _meminfo("MemTotal", "SwapTotal")
    return None if found is None else sum(found)


def in_gb(n_bytes: int) -> str:
    """`1.2 GB`."""
    return f"{n_bytes / 1e9:.1f} GB"


def _meminfo(*names: str) -> list[int] | None:
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as stream:
            fields = dict(line.split(":") for line in stream)
        return [int(fields[name].split()[0]) * 1024 for name in names]
    except (OSError, KeyError, ValueError):
        return None
