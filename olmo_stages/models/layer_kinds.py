"""Sliding-window and full-attention layers: what the config says, and whether the model does it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from olmo_stages.errors import ModelError
from olmo_stages.models.rope import SLIDING, Rope

# cos and sin are made in float32; wrong frequencies or scalings are off by a percent and more.
TOLERANCE = 1e-4


def layer_types(name: str, config: Any) -> tuple[str, ...]:  # noqa: ANN401 (any model's config)
    """Kind of each block, as the config says.

    Raises:
        ModelError: another number of kinds than of blocks.
    """
    n = config.num_hidden_layers
    types = getattr(config, "layer_types", None)
    if types is None:
        # Older families give every layer the same window, and some switch it off by a flag.
        window = getattr(config, "sliding_window", None)
        sliding = window is not None and getattr(config, "use_sliding_window", True)
        types = ["sliding_attention" if sliding else "full_attention"] * n
    if len(types) != n:
        raise ModelError(f"{name}: {len(types)} layer_types for {n} layers; repair config.json")
    return tuple(types)


def check_windows(
    name: str,
    config: Any,  # noqa: ANN401 (any model's config)
    types: Sequence[str],
    modules: Sequence[nn.Module],
) -> None:
    """Refuse blocks whose attention has a window where the config says it has none, or no window.

    Families whose attention does not keep a `sliding_window` are not checked.

    Raises:
        ModelError: names the first block and both windows.
    """
    for i, (kind, module) in enumerate(zip(types, modules, strict=True)):
        wanted = getattr(config, "sliding_window", None) if kind == SLIDING else None
        for child in module.children():
            window = getattr(child, "sliding_window", wanted)
            if window != wanted:
                raise ModelError(
                    f"{name}, block {i}: {kind} in the config means a window of {wanted}, but the "
                    f"module has {window}; install transformers>=5.13"
                )


def check_rotary(
    where: str,
    ropes: Mapping[str, Rope] | None,
    types: Sequence[str],
    received: Sequence[tuple[torch.Tensor, torch.Tensor] | None],
) -> None:
    """Refuse a model whose blocks do not receive the rotary embedding of the checkpoint's config.

    Frequencies and scaling are read back from cosine and sine at the first two tokens, so that it
    does not matter how a release of transformers names or shares its modules.

    Args:
        where: the checkpoint, for messages.
        ropes: what each kind of layer must have; None = not known for this family.
        types: kind of each block.
        received: cosine and sine that each block receives, `[1, token, 2 * pair]`.

    Raises:
        ModelError: names the first block and both embeddings.
    """
    if ropes is None:
        return
    for i, (kind, pair) in enumerate(zip(types, received, strict=True)):
        wanted = ropes[kind]
        n = len(wanted.inverse)
        if pair is None or pair[0].shape[-1] != 2 * n:
            raise ModelError(
                f"{where}: looked for cosine and sine of {n} pairs of dimensions going into block "
                f"{i} and found none; install transformers>=5.13"
            )
        cos, sin = (part[0, :, :n].double().numpy() for part in pair)
        scaling, inverse = float(cos[0, 0]), np.arctan2(sin[1], cos[1])
        wrong = abs(scaling / wanted.scaling - 1) > TOLERANCE
        if wrong or not np.allclose(inverse, wanted.inverse, rtol=TOLERANCE, atol=0):
            raise ModelError(
                f"{where}: block {i} ({kind}) must have {wanted.kind} rotary embeddings (scaling "
                f"{wanted.scaling:.4f}, lowest frequency {wanted.inverse[-1]:.3g}) but receives "
                f"scaling {scaling:.4f}, frequency {inverse[-1]:.3g}; install transformers>=5.13 "
                "and write rope_parameters by kind of layer in config.json"
            )
