"""Where a decoder is read, and the hooks that read it.

Which modules stand behind the sites is found by `olmo_stages.models.discovery`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import nn

Hidden = Float[torch.Tensor, "example token d_model"]


@dataclass(frozen=True, eq=False)
class Block:
    """One decoder block and its taps.

    Args:
        module: the block; its input is resid_pre, its output resid_post.
        attn: its output is attn_out.
        mid: its input is resid_mid.
        mlp: its output is mlp_out.
    """

    module: nn.Module
    attn: nn.Module
    mid: nn.Module
    mlp: nn.Module


@dataclass(frozen=True, eq=False)
class Decoder:
    """The part of a causal language model that makes activations, without the vocabulary head.

    Args:
        model: called with input_ids, attention_mask and position_ids.
        blocks: in order.
        layer_types: `sliding_attention` or `full_attention` (or what the config says), per block.
        n_embeddings: rows of the token embedding; token ids are below it.
        rotary: cosine and sine that each block receives for the first tokens of a prompt, on the
            CPU; None for blocks that receive none.
    """

    model: nn.Module
    blocks: tuple[Block, ...]
    layer_types: tuple[str, ...]
    n_embeddings: int
    rotary: tuple[tuple[torch.Tensor, torch.Tensor] | None, ...]


def device_of(model: Any) -> torch.device:  # noqa: ANN401 (a decoder of transformers)
    """Where a decoder takes its token ids: the device that computes its embeddings.

    Embeddings that accelerate keeps elsewhere until they are used have none of their own.
    """
    embedding = model.get_input_embeddings()
    device = embedding.weight.device
    if device.type == "meta":
        device = torch.device(embedding._hf_hook.execution_device)
    return device


def devices_of(model: Any) -> tuple[torch.device, ...]:  # noqa: ANN401 (a decoder of transformers)
    """Every device that computes a part of a decoder, that of its embeddings first."""
    others = (it.device for it in model.parameters() if it.device.type != "meta")
    return tuple(dict.fromkeys([device_of(model), *others]))


def first_tensor(value: Any) -> torch.Tensor:  # noqa: ANN401 (what a module returns is its own choice)
    """Hidden states from a module's output, which is a Tensor or, in some families, a tuple."""
    return value[0] if isinstance(value, tuple) else value


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """Hidden states from a module's arguments, however they were passed."""
    return args[0] if args else kwargs["hidden_states"]


@contextmanager
def hooks(register: Callable[[ExitStack], None]) -> Iterator[None]:
    """Install hooks and remove them whatever happens.

    Args:
        register: gets a stack on which it puts the removal of each hook that it installs.
    """
    with ExitStack() as stack:
        register(stack)
        yield


def on_input(stack: ExitStack, module: nn.Module, read: Callable[[torch.Tensor], None]) -> None:
    """Call `read` with the hidden states that go into `module`, until the stack closes."""

    def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        read(first_input(args, kwargs))

    stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)


def on_output(stack: ExitStack, module: nn.Module, read: Callable[[torch.Tensor], None]) -> None:
    """Call `read` with the hidden states that come out of `module`, until the stack closes."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:  # noqa: ANN401
        read(first_tensor(output))

    stack.callback(module.register_forward_hook(hook).remove)
