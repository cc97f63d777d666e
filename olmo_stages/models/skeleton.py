"""A causal language model whose blocks hold their weights one at a time.

The model is built without weights; each block is filled when its turn comes, while the weights of
the next one are read, and emptied after it. The model's own forward pass makes masks and rotary
embeddings, with all blocks before the filled one handing on what they are given.
"""

from collections.abc import Collection, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from olmo_stages.errors import ConfigError, ModelError
from olmo_stages.models import guards, layer_kinds
from olmo_stages.models.checkpoints import ATTENTION
from olmo_stages.models.discovery import block_modules
from olmo_stages.models.initialisation import Weights
from olmo_stages.models.parts import Parts, Used
from olmo_stages.models.rope import Rope
from olmo_stages.models.tensors import Tensors


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
        try:
            for part in around:
                self._fill(part, self.parts.of(self._names[part], part))
            yield
        finally:
            _empty(self.decoder.get_input_embeddings())

    def skip(self, n_blocks: int, zeros: Collection[str]) -> None:
        """Take the first blocks as looked at by another process, which found these weights zero."""
        for block in self.blocks[:n_blocks]:
            self.parts.skip(self._names[block], block, zeros)

    def filled(self, first: int, end: int) -> Generator[tuple[int, nn.Module], None, None]:
        """Blocks one after the other, each with its weights until the next one comes.

        The weights of the next block are read while the caller computes.

        Args:
            first: index of the first block.
            end: index of the one after the last.

        Yields:
            Index and block.

        Raises:
            ModelError: weights that are not finite.
        """
        # Of the block that computes and of the one that is read; each is empty before its memory
        # is used for the next but one.
        used: tuple[Used, Used] = ({}, {})
        with ThreadPoolExecutor(1, thread_name_prefix="weights") as reader:

            def read(i: int) -> Future[Weights]:
                block = self.blocks[i]
                return reader.submit(self.parts.of, self._names[block], block, used[i % 2])

            coming = read(first) if first < end else None
            for i in range(first, end):
                block = self.blocks[i]
                assert coming is not None
                self._fill(block, coming.result())
                coming = read(i + 1) if i + 1 < end else None
                try:
                    with handing_on(self.blocks[:i]):
                        yield i, block
                finally:
                    _empty(block)

    @cached_property
    def _names(self) -> dict[nn.Module, str]:
        return {module: name for name, module in self.model.named_modules()}

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


def _empty(part: nn.Module) -> None:
    """Let go of the weights of a part; its buffers stay, for the next pass."""
    for module in part.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(weight.to("meta"), requires_grad=False))
