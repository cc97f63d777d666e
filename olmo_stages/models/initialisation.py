"""Random initialisation, one part of a model at a time, the same however the model is loaded."""

import copy
import hashlib
from typing import Any

import torch
from torch import nn

from olmo_stages.errors import ModelError

Weights = dict[str, torch.Tensor]
"""Parameters of a part by their name within it."""


def initialised(model: Any, part: nn.Module, name: str, seed: int) -> Weights:  # noqa: ANN401
    """Weights of a block, or of another module with weights of its own, as training starts.

    transformers' own `_init_weights` with random numbers that depend on the seed and on the part's
    name alone, so that a part does not depend on what was initialised before it.

    Args:
        model: that it is a part of; knows the initialisation of its family.
        part: need not hold values, and is left as it is.
        name: of the part in the model.
        seed: of the initialisation.

    Returns:
        New tensors on the CPU, in the dtype of the part.

    Raises:
        ModelError: the family leaves a weight as it comes.
    """
    filled = copy.deepcopy(part)
    for module in filled.modules():
        for key, parameter in module.named_parameters(recurse=False):
            unset = torch.full(parameter.shape, torch.nan, dtype=parameter.dtype)
            setattr(module, key, nn.Parameter(unset, requires_grad=False))
    number = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(number)
        filled.apply(model._init_weights)
    found = {key: it.detach() for key, it in filled.named_parameters()}
    for key, weight in found.items():
        if bool(weight.isnan().any()):
            raise ModelError(
                f"{type(model).__name__} does not say how {name}.{key} is initialised; use "
                "analysis.random_init=false"
            )
    return found


def initialise(model: Any, blocks: tuple[nn.Module, ...], seed: int) -> None:  # noqa: ANN401
    """Fill a whole model, whose parameters need no storage."""
    inside = {module for block in blocks for module in block.modules()} - set(blocks)
    parts = {
        name: part
        for name, part in model.named_modules()
        if part in blocks
        or (part not in inside and any(True for _ in part.parameters(recurse=False)))
    }
    for name, part in parts.items():
        part.load_state_dict(initialised(model, part, name, seed), assign=True, strict=False)
    model.tie_weights()
