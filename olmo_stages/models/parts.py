"""Where the weights of the parts of a model come from that is never in memory whole."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from olmo_stages.models import guards
from olmo_stages.models.initialisation import Weights, initialised
from olmo_stages.models.tensors import Tensors
from olmo_stages.models.weight_files import WeightFiles

Used = dict[str, torch.Tensor]
"""Memory that is used again, by the name of what lies there within its part."""


@runtime_checkable
class Parts(Protocol):
    """Where the weights of the parts of a model come from."""

    def of(self, name: str, part: nn.Module, used: Used | None = None) -> Weights:
        """Weights of a part by their name within it, on the CPU, in the arithmetic's dtype.

        Args:
            name: of the part.
            part: its module.
            used: where they may lie; what it has no memory for is added. Nobody may hold any more
                what lies there. None = memory of their own.
        """
        ...

    def skip(self, name: str, part: nn.Module, zeros: Collection[str]) -> None:
        """Take the weights of a part as looked at by another process, which found these zero."""
        ...

    @property
    def zeros(self) -> Collection[str]:
        """Names of the matrices so far that are zero."""
        ...

    def check_rest(self) -> None:
        """Look at the weights that nobody asked for."""
        ...


class Read:
    """Weights from the files of a checkpoint, each looked at before it is handed out.

    Args:
        where: the checkpoint, for messages.
        tensors: its tensors.
        dtype: of the arithmetic.
    """

    def __init__(self, where: str, tensors: Tensors, dtype: torch.dtype) -> None:
        self._layouts, self._dtype = tensors.layouts, dtype
        self._files = WeightFiles(where, tensors)
        self._values = guards.Values(where, dtype)
        self._unseen = dict.fromkeys(tensors.layouts)

    def of(self, name: str, part: nn.Module, used: Used | None = None) -> Weights:
        """Weights of a part by their name within it.

        Raises:
            ModelError: weights that are not finite, or cannot be read.
        """
        keys = {f"{name}.{key}": key for key in part.state_dict()}
        return {
            keys[it]: self._look(it, keys[it], {} if used is None else used)
            for it in self._files.in_order(keys)
        }

    def skip(self, name: str, part: nn.Module, zeros: Collection[str]) -> None:
        """Take the weights of a part as looked at by another process, which found these zero."""
        for key in part.state_dict():
            whole = f"{name}.{key}"
            if self._is_new(whole) and len(self._layouts[whole].shape) == 2:
                self._values.note(whole, is_zero=whole in zeros)

    @property
    def zeros(self) -> Collection[str]:
        """Names of the matrices so far that are zero."""
        return self._values.zeros

    def check_rest(self) -> None:
        """Look at the weights that nobody asked for, so that a broken checkpoint is refused.

        Raises:
            ModelError: values that are not finite, or zero.
        """
        for name in self._files.in_order(self._unseen):
            self._look(name, name, {})
        self._values.check_zeros()

    def _look(self, name: str, key: str, used: Used) -> torch.Tensor:
        shape = self._layouts[name].shape
        if key not in used or used[key].shape != shape:
            used[key] = torch.empty(shape, dtype=self._dtype)
        weight = used[key]
        self._files.read(name, weight)
        if self._is_new(name):
            self._values.look(name, weight)
        return weight

    def _is_new(self, name: str) -> bool:
        """Whether nobody looked at a weight before."""
        is_new = name in self._unseen
        self._unseen.pop(name, None)
        return is_new


@dataclass(frozen=True)
class Random:
    """Weights of a random initialisation.

    Args:
        model: that is initialised.
        seed: of the initialisation.
    """

    model: Any
    seed: int
    zeros: Collection[str] = ()

    def of(self, name: str, part: nn.Module, used: Used | None = None) -> Weights:
        """Weights of a part by their name within it."""
        del used  # they are made by transformers, in memory of their own
        return initialised(self.model, part, name, self.seed)

    def skip(self, name: str, part: nn.Module, zeros: Collection[str]) -> None:
        """There is nothing to look at."""

    def check_rest(self) -> None:
        """There is nothing to look at."""
