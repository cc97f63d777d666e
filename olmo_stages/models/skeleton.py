"""A causal language model whose blocks hold their weights one at a time.

The model is built without weights; each block is filled when its turn comes, while the weights of
the next one are read, and emptied after it. The model's own forward pass makes masks and rotary
embeddings, with all blocks before the filled one handing on what they are given.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from olmo_stages.errors import ConfigError, ModelError
from olmo_stages.models import guards, layer_kinds
from olmo_stages.models.checkpoints import ATTENTION
from olmo_stages.models.discovery import block_modules
from olmo_stages.models.initialisation import Weights, initialised
from olmo_stages.models.rope import Rope
from olmo_stages.models.tensors import Tensors


@runtime_checkable
class Parts(Protocol):
    """Where the weights of the parts of a model come from."""

    def of(self, name: str, part: nn.Module) -> Weights:
        """Weights of a part by their name within it, on the CPU, in the arithmetic's dtype."""
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
        self._tensors, self._dtype = tensors, dtype
        self._values = guards.Values(where, dtype)
        self._unseen = dict.fromkeys(tensors.layouts)

    def of(self, name: str, part: nn.Module) -> Weights:
        """Weights of a part by their name within it.

        Raises:
            ModelError: weights that are not finite.
        """
        return {key: self._look(f"{name}.{key}") for key in part.state_dict()}

    def check_rest(self) -> None:
        """Look at the weights that nobody asked for, so that a broken checkpoint is refused.

        Raises:
            ModelError: values that are not finite, or zero.
        """
        for name in tuple(self._unseen):
            self._look(name)
        self._values.check_zeros()

    def _look(self, name: str) -> torch.Tensor:
        # A copy, so that it is read here and not page by page in the computation.
        weight = self._tensors.read(name).to(self._dtype, copy=True)
        self._values.look(name, weight)
        self._unseen.pop(name, None)
        return weight


@dataclass(frozen=True)
class Random:
    """Weights of a random initialisation.

    Args:
        model: that is initialised.
        seed: of the initialisation.
    """

    model: Any
    seed: int

    def of(self, name: str, part: nn.Module) -> Weights:
        """Weights of a part by their name within it."""
        return initialised(self.model, part, name, self.seed)

    def check_rest(self) -> None:
        """There is nothing to look at."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A model without weights, and where they come from.

    Args:
        where: the checkpoint, for messages.
        model: the causal language model; parameters without storage, buffers on `device`.
        parts: gives the weights.
        dtype: of the arithmetic.
        device: where blocks are filled and computed.
        ropes: the rotary embedding that each kind of layer must receive; None = not known.
    """

    where: str
    model: Any
    parts: Parts
    dtype: torch.dtype
    device: torch.device
    ropes: Mapping[str, Rope] | None

    @cached_property
    def decoder(self) -> Any:  # noqa: ANN401 (any decoder of transformers)
        """The part that makes activations."""
        return getattr(self.model, "base_model", self.model)

    @cached_property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The blocks in order, empty."""
        return block_modules(self.model)

    @cached_property
    def layer_types(self) -> tuple[str, ...]:
        """Kind of each block."""
        name, config = type(self.model).__name__, self.decoder.config.get_text_config()
        types = layer_kinds.layer_types(name, config)
        layer_kinds.check_windows(name, config, types, self.blocks)
        return types

    @cached_property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.decoder.config.get_text_config().hidden_size

    @cached_property
    def n_embeddings(self) -> int:
        """Rows of the token embedding."""
        return self.decoder.get_input_embeddings().num_embeddings

    @contextmanager
    def filled_around(self) -> Iterator[None]:
        """What the decoder has around its blocks holds its weights; the embeddings lose theirs.

        Raises:
            ModelError: weights that are not finite.
        """
        inside = {module for block in self.blocks for module in block.modules()}
        around = [it for it in self.decoder.modules() if it not in inside and _owns(it)]
        for part in around:
            self._fill(part, self.parts.of(self._names[part], part))
        try:
            yield
        finally:
            self.decoder.get_input_embeddings().to("meta")

    def filled(self, n_blocks: int) -> Iterator[nn.Module]:
        """The first blocks one after the other, each with its weights until the next one comes.

        The weights of the next block are read while the caller computes.

        Raises:
            ModelError: weights that are not finite.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="weights") as reader:
            coming: Future[Weights] = reader.submit(self._weights, 0)
            for i, block in enumerate(self.blocks[:n_blocks]):
                self._fill(block, coming.result())
                if i + 1 < n_blocks:
                    coming = reader.submit(self._weights, i + 1)
                try:
                    with handing_on(self.blocks[:i]):
                        yield block
                finally:
                    block.to("meta")

    @cached_property
    def _names(self) -> dict[nn.Module, str]:
        return {module: name for name, module in self.model.named_modules()}

    def _weights(self, i: int) -> Weights:
        return self.parts.of(self._names[self.blocks[i]], self.blocks[i])

    def _fill(self, part: nn.Module, weights: Weights) -> None:
        state = {name: it.to(self.device) for name, it in weights.items()}
        part.load_state_dict(state, assign=True, strict=False)
        part.requires_grad_(requires_grad=False)


def build(config: Any, dtype: torch.dtype, device: torch.device) -> Any:  # noqa: ANN401 (of transformers)
    """A model without storage for its parameters; its buffers are real.

    Raises:
        ConfigError: an architecture that keeps some weights in another dtype.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model: Any = AutoModelForCausalLM.from_config(
            config, trust_remote_code=False, dtype=dtype, attn_implementation=ATTENTION
        )
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
    return model.eval()


def check_dtype(model: Any, dtype: torch.dtype) -> None:  # noqa: ANN401 (any model of transformers)
    """Refuse an architecture that keeps some weights in another dtype.

    Raises:
        ConfigError: names them.
    """
    kept = {*model._keep_in_fp32_modules, *model._keep_in_fp32_modules_strict}
    if kept and dtype != torch.float32:
        raise ConfigError(
            f"compute=streamed: {type(model).__name__} keeps {', '.join(sorted(kept))} in float32; "
            "use compute.dtype=float32 or compute=auto"
        )


def check_names(where: str, model: Any, tensors: Tensors) -> None:  # noqa: ANN401 (any model)
    """Refuse a checkpoint whose weights are not exactly those of the model.

    Raises:
        ModelError: missing, unexpected or misshapen weights, by name, or a head that is not tied.
    """
    wanted = {name: tuple(it.shape) for name, it in model.state_dict().items()}
    found = {name: it.shape for name, it in tensors.layouts.items()}
    tied = model.all_tied_weights_keys
    misshapen = [name for name, shape in found.items() if wanted.get(name, shape) != shape]
    info = {
        "missing_keys": wanted.keys() - found.keys() - set(tied),
        "unexpected_keys": found.keys() - wanted.keys(),
        "mismatched_keys": misshapen,
    }
    guards.check_keys(where, info)
    for name, source in tied.items():
        if name in found and not torch.equal(tensors.read(name), tensors.read(source)):
            raise ModelError(
                f"{where}: config.json ties {name} to {source}, but the file holds another; take "
                "the config.json that was saved with these weights"
            )


@contextmanager
def handing_on(blocks: tuple[nn.Module, ...]) -> Iterator[None]:
    """Let blocks hand on the hidden states that they are given, as they are."""
    for block in blocks:
        block.forward = _hand_on
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _hand_on(hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:  # noqa: ANN401
    return hidden_states


def _owns(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))
