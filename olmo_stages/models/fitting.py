"""Whether a model's weights fit on one device, and over which GPUs they are spread where not."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from olmo_stages.errors import ModelError
from olmo_stages.models.discovery import block_modules
from olmo_stages.models.memory import STREAMED, in_gb, total_bytes
from olmo_stages.models.skeleton import build

SHARE = 0.9
"""Of a GPU's free memory that weights may take where there is a choice; batches take the rest."""


@dataclass(frozen=True)
class Gpu:
    """Memory of one GPU.

    Args:
        index: as torch counts the visible ones.
        free: bytes.
        total: bytes.
    """

    index: int
    free: int
    total: int

    def __str__(self) -> str:
        return f"cuda:{self.index} has {in_gb(self.free)} of {in_gb(self.total)} free"


@dataclass(frozen=True, eq=False)
class Weights:
    """The sizes of a model's weights, known before any of them is read.

    Args:
        model: without storage, in the dtype of what is not quantised.
        quantisation: `none`, `int8` or `int4`.
    """

    model: Any
    quantisation: str

    @property
    def n_bytes(self) -> int:
        """Bytes of all weights."""
        from accelerate.utils import compute_module_sizes

        return int(compute_module_sizes(self.model, special_dtypes=self._quantised())[""])

    def over(self, room: Mapping[int, int]) -> dict[str, int] | None:
        """A GPU for each part of the model; no block is cut in two.

        Args:
            room: bytes that weights may take, by index of the GPU.

        Returns:
            By name of the part, the index of its GPU; None if something does not fit.
        """
        from accelerate.utils import get_balanced_memory, infer_auto_device_map

        special = self._quantised()
        whole = list({type(block).__name__ for block in block_modules(self.model)})
        filled: dict[Any, Any] = dict(room)  # accelerate takes names of devices, too
        balanced = get_balanced_memory(self.model, dict(filled), whole, special_dtypes=special)
        # Where evenly is too tight for the sizes of the blocks, one GPU is filled after the other.
        for most in (balanced, filled):
            with warnings.catch_warnings(action="ignore"):  # of parts that are left for the disk
                found = infer_auto_device_map(self.model, most, whole, special_dtypes=special)
            places = {name: place for name, place in found.items() if isinstance(place, int)}
            if len(places) == len(found):
                return places
        return None

    def _quantised(self) -> dict[str, Any]:
        """The weights that are quantised, all matrices but embeddings and head, and as what."""
        from accelerate.utils import CustomDtype

        if self.quantisation == "none":
            return {}
        dtype = torch.int8 if self.quantisation == "int8" else CustomDtype.INT4
        head = self.model.get_output_embeddings()
        return {
            f"{name}.weight": dtype
            for name, module in self.model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }


def weights_of(config: Any, dtype: str, quantisation: str) -> Weights:  # noqa: ANN401 (of transformers)
    """The sizes of the weights of a model, from its config alone.

    Args:
        config: of transformers.
        dtype: of what is not quantised.
        quantisation: `none`, `int8` or `int4`.
    """
    model = build(config, getattr(torch, dtype), torch.device("meta"))
    model.tie_weights()  # or they would be counted twice, and come apart
    return Weights(model, quantisation)


def places(
    where: str, weights: Weights, device: str, say: Callable[[str], None]
) -> dict[str, int] | None:
    """Over which GPUs a model has to be spread, if one is not enough.

    As few as hold it, those with most free memory first: they compute one after the other, so that
    more would make nothing faster.

    Args:
        where: the stage, for messages.
        weights: their sizes.
        device: `cpu` or `cuda`.
        say: told in one line that it is spread.

    Returns:
        By name of a part of the model, the index of its GPU; None where it lies on one device.

    Raises:
        ModelError: the weights do not fit on all visible GPUs together, or into the memory of this
            machine; says what else to do.
    """
    needed = weights.n_bytes
    if device == "cpu":
        total = total_bytes()
        if total is not None and needed > total:
            room = f"into the memory of this machine ({in_gb(total)} with swap)"
            raise ModelError(f"{_no_room(where, weights, room)}, or a GPU")
        return None
    here = _gpu(torch.cuda.current_device())
    if needed <= SHARE * here.free:
        return None
    others = [_gpu(i) for i in range(torch.cuda.device_count()) if i != here.index]
    gpus = sorted([here, *others], key=lambda it: -it.free)
    if found := _over_fewest(weights, gpus):
        used = " and ".join(f"cuda:{index}" for index in sorted(set(found.values())))
        say(
            f"{where}: weights of {in_gb(needed)} do not fit on one GPU beside its batches "
            f"({here}); spread over {used}"
        )
        return found
    if needed <= here.free:
        return None
    visible = "; ".join(str(it) for it in sorted(gpus, key=lambda it: it.index))
    room = f"on the visible {'GPU' if len(gpus) == 1 else f'{len(gpus)} GPUs'} ({visible})"
    raise ModelError(
        f"{_no_room(where, weights, room)}, more GPUs, or compute.device_map=auto (what is left "
        "over waits on the CPU, which is slow)"
    )


def _over_fewest(weights: Weights, gpus: Sequence[Gpu]) -> dict[str, int] | None:
    for n in range(2, len(gpus) + 1):
        room = {it.index: int(SHARE * it.free) for it in gpus[:n]}
        if sum(room.values()) >= weights.n_bytes and (found := weights.over(room)):
            return found
    return None


def _no_room(where: str, weights: Weights, room: str) -> str:
    smaller = {"none": ("int8", "int4"), "int8": ("int4",)}.get(weights.quantisation, ())
    sizes = [in_gb(replace(weights, quantisation=it).n_bytes) for it in smaller]
    quantised = [f"compute={it} ({size})" for it, size in zip(smaller, sizes, strict=True)]
    return (
        f"{where}: weights of {in_gb(weights.n_bytes)} do not fit {room}; use "
        f"{', '.join([STREAMED, *quantised])}"
    )


def _gpu(index: int) -> Gpu:
    """The memory of a GPU; none of one that cannot be used, as when another process owns it."""
    try:
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError:
        free, total = 0, 0
    return Gpu(index, free, total)
