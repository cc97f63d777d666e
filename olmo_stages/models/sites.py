"""Where a decoder is read: the modules behind each site, found by what they compute.

The modules are not looked up by name. A short prompt runs through the model, and in each block the
module whose output *is* the contribution to the residual stream is found by the residual identity
itself (facts for OLMo 2 and 3: the outputs of `post_attention_layernorm` and
`post_feedforward_layernorm`, not those of `self_attn` and `mlp`; for Llama-shaped models the other
way round). So the sites are additive by construction, and a model where they cannot be is refused.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from olmo_stages.errors import ModelError, NonFiniteError

Hidden = Float[torch.Tensor, "example token d_model"]

PROBE_TOKENS = 8
# Relative to the size of the contribution. The identity is exact when added in the model's dtype,
# as here; a wrong module is off by about 1 or more.
TOLERANCE = 1e-4


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
    """

    model: nn.Module
    blocks: tuple[Block, ...]
    layer_types: tuple[str, ...]
    n_embeddings: int


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


def find_decoder(model: nn.Module) -> Decoder:
    """Find decoder, blocks and taps of a causal language model of transformers.

    Args:
        model: in eval mode, weights finite.

    Returns:
        The decoder; the residual identity has been checked on each of its blocks.

    Raises:
        ModelError: the architecture does not have the structure that is needed.
    """
    decoder: Any = getattr(model, "base_model", model)
    config: Any = decoder.config.get_text_config()
    name = type(model).__name__
    stacks = [
        child
        for child in decoder.children()
        if isinstance(child, nn.ModuleList) and len(child) == config.num_hidden_layers
    ]
    if len(stacks) != 1:
        raise ModelError(
            f"{name}: looked for one list of {config.num_hidden_layers} decoder blocks and found "
            f"{len(stacks)}; only decoder-only language models are supported"
        )
    modules = tuple(stacks[0])
    embedding: Any = decoder.get_input_embeddings()
    traces = _trace(decoder, modules, embedding)
    blocks = tuple(
        _find_taps(f"{name}, block {i}", module, trace)
        for i, (module, trace) in enumerate(zip(modules, traces, strict=True))
    )
    return Decoder(decoder, blocks, _layer_types(config, name), embedding.num_embeddings)


def _layer_types(config: Any, name: str) -> tuple[str, ...]:  # noqa: ANN401 (any model's config)
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


@dataclass(eq=False)
class _Trace:
    """Hidden states in and out of a block and of its children, in the order of their calls."""

    pre: torch.Tensor | None
    post: torch.Tensor | None
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]


def _trace(
    decoder: nn.Module, modules: tuple[nn.Module, ...], embedding: nn.Embedding
) -> list[_Trace]:
    traces = [_Trace(None, None, {}, {}) for _ in modules]
    device = embedding.weight.device
    ids = torch.arange(1, PROBE_TOKENS + 1, device=device) * 7919 % embedding.num_embeddings

    def register(stack: ExitStack) -> None:
        for module, trace in zip(modules, traces, strict=True):
            stack.callback(
                module.register_forward_pre_hook(_keep_pre(trace), with_kwargs=True).remove
            )
            stack.callback(module.register_forward_hook(_keep_post(trace)).remove)
            for name, child in module.named_children():
                hook = _keep_child(trace, name)
                stack.callback(child.register_forward_hook(hook, with_kwargs=True).remove)

    with hooks(register), torch.inference_mode():
        decoder(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], use_cache=False)
    return traces


def _keep_pre(trace: _Trace) -> Callable[..., None]:
    def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        trace.pre = first_input(args, kwargs)

    return hook


def _keep_post(trace: _Trace) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:  # noqa: ANN401
        trace.post = first_tensor(output)

    return hook


def _keep_child(trace: _Trace, name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:  # noqa: ANN401
        given, made = args[0] if args else kwargs.get("hidden_states"), output
        made = made[0] if isinstance(made, tuple) else made
        if isinstance(given, torch.Tensor) and isinstance(made, torch.Tensor):
            trace.inputs[name], trace.outputs[name] = given, made

    return hook


def _find_taps(where: str, module: nn.Module, trace: _Trace) -> Block:
    """The children whose outputs add up to the block's output, through an input in between.

    Raises:
        ModelError: no children do.
        NonFiniteError: the output is not finite.
    """
    pre, post = trace.pre, trace.post
    if pre is None or post is None or pre.shape != post.shape:
        raise ModelError(
            f"{where}: looked for hidden states in and out of it; it was not called so"
        )
    if not bool(torch.isfinite(post).all()):
        raise NonFiniteError(
            f"{where}: its output is not finite on a short prompt; try compute.dtype=float32"
        )
    children = dict(module.named_children())
    names = list(trace.outputs)
    for i, attn in enumerate(names):
        for j, mid in enumerate(names[i + 1 :], start=i + 1):
            if not _adds(pre, trace.outputs[attn], trace.inputs[mid]):
                continue
            for mlp in reversed(names[j:]):
                if _adds(trace.inputs[mid], trace.outputs[mlp], post):
                    return Block(module, children[attn], children[mid], children[mlp])
    raise ModelError(
        f"{where}: looked for two modules among {', '.join(children)} with input + first = input "
        "of a later one and that + second = output, one after the other; this architecture is not "
        "supported (parallel blocks and scaled residuals are not additive in that way)"
    )


def _adds(before: torch.Tensor, contribution: torch.Tensor, after: torch.Tensor) -> bool:
    """Whether `before + contribution == after`, relative to the size of the contribution."""
    if contribution.shape != before.shape or after.shape != before.shape:
        return False
    error = (before + contribution - after).double().norm()
    return bool(error <= TOLERANCE * contribution.double().norm())
