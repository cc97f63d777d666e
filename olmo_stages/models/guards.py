"""What a loaded checkpoint must pass before a number is taken from it."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from olmo_stages.errors import ModelError

# These give every layer of an OLMo 3 the YaRN embedding of its full-attention layers, silently.
_WRONG_ROPE = ((5, 0), (5, 13))


def check_transformers(version: str) -> None:
    """Refuse the versions of transformers that compute OLMo 3 wrongly.

    Source: huggingface/transformers#46911, allenai/OLMo-core#685.

    Raises:
        ModelError: transformers is between 5.0.0 and 5.12.1.
    """
    major, minor = (int(number) for number in re.findall(r"\d+", version)[:2])
    if _WRONG_ROPE[0] <= (major, minor) < _WRONG_ROPE[1]:
        raise ModelError(
            f"transformers {version} computes OLMo 3 wrongly (YaRN in the sliding-window layers); "
            "install transformers>=5.13"
        )


def check_keys(where: str, info: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose weights are not exactly those of the model.

    Args:
        where: the checkpoint, for the message.
        info: `output_loading_info` of transformers, which counts no tied weight as missing.

    Raises:
        ModelError: missing, unexpected or mismatched weights, by name.
    """
    missing = sorted(info["missing_keys"])
    unexpected = sorted(info["unexpected_keys"])
    mismatched = sorted(
        str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]
    )
    for kind, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("misshapen", mismatched),
    ):
        if names:
            raise ModelError(
                f"{where}: {len(names)} {kind} weights, e.g. {', '.join(names[:3])}; the "
                "checkpoint is incomplete or of another architecture"
            )


def check_finite(where: str, model: torch.nn.Module) -> None:
    """Refuse weights that are not finite.

    Raises:
        ModelError: names the first such parameter.
    """
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError(
                f"{where}: weight {name} is not finite in {parameter.dtype}; download the "
                "checkpoint again or use compute.dtype=float32"
            )
