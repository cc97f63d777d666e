"""Models without weights, of which the next revision of the same architecture needs no other.

It is the one that was built last; its blocks are empty whenever no pass is under way. Whatever is
checked of weights and files is checked for each checkpoint.
"""

import json
from typing import Any

import torch

from olmo_stages.models.skeleton import build

_GROWING = ("dynamic", "longrope")
"""Kinds of rotary embeddings that depend on what went through them before."""

_last: list[tuple[str, Any]] = []


def model(config: Any, dtype: torch.dtype, device: torch.device) -> Any:  # noqa: ANN401 (of transformers)
    """A model without storage for its parameters, built or as the last pass left it.

    Args:
        config: of transformers.
        dtype: of the arithmetic.
        device: of the buffers.

    Raises:
        ConfigError: an architecture that keeps some weights in another dtype.
    """
    what = {key: it for key, it in config.to_dict().items() if key != "_name_or_path"}
    key = json.dumps([what, str(dtype), str(device)], sort_keys=True, default=str)
    if _last and _last[0][0] == key:
        return _last[0][1]
    built = build(config, dtype, device)
    _last.clear()
    kinds = str([getattr(module, "rope_type", None) for module in built.modules()])
    if not any(kind in kinds for kind in _GROWING):
        _last.append((key, built))
    return built
