"""Models without weights, of which the next revision of the same architecture needs no other.

It is the one that was built last, as it was then: without weights, with the buffers it came with.
Whatever is checked of weights and files is checked for each checkpoint.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from olmo_stages.models.skeleton import build

_GROWING = ("dynamic", "longrope")
"""Kinds of rotary embeddings that depend on what went through them before."""


@dataclass(frozen=True, eq=False)
class _Plan:
    """A model, and what its modules hold besides weights.

    Args:
        key: all that it depends on.
        model: of transformers.
        buffers: module, name, and a copy of each.
    """

    key: str
    model: Any
    buffers: tuple[tuple[nn.Module, str, torch.Tensor], ...]

    def fresh(self) -> Any:  # noqa: ANN401 (any model of transformers)
        """The model as it was built, whatever a pass left in it."""
        self.model.to("meta")
        for module, name, buffer in self.buffers:
            module._buffers[name] = buffer.clone()
        return self.model


_last: list[_Plan] = []


def model(config: Any, dtype: torch.dtype, device: torch.device) -> Any:  # noqa: ANN401 (of transformers)
    """A model without storage for its parameters, built now or earlier.

    Args:
        config: of transformers.
        dtype: of the arithmetic.
        device: of the buffers.

    Raises:
        ConfigError: an architecture that keeps some weights in another dtype.
    """
    what = {key: it for key, it in config.to_dict().items() if key != "_name_or_path"}
    key = json.dumps([what, str(dtype), str(device)], sort_keys=True, default=str)
    if _last and _last[0].key == key:
        return _last[0].fresh()
    built = build(config, dtype, device)
    _last.clear()
    kinds = str([getattr(module, "rope_type", None) for module in built.modules()])
    if not any(kind in kinds for kind in _GROWING):
        _last.append(_Plan(key, built, tuple(_buffers(built))))
    return built


def _buffers(built: Any) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:  # noqa: ANN401
    for module in built.modules():
        for name, buffer in module.named_buffers(recurse=False):
            yield module, name, buffer.clone()
