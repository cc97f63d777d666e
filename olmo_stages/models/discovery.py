"""Finds where a decoder is read: the modules behind each site, by what they compute.

The modules are not looked up by name. A short prompt runs through the model, and in each block the
module whose output *is* the contribution to the residual stream is found by the residual identity
itself (facts for OLMo 2 and 3: the outputs of `post_attention_layernorm` and
`post_feedforward_layernorm`, not those of `self_attn` and `mlp`; for Llama-shaped models the other
way round). So the sites are additive by construction, and a model where they cannot be is refused.
Nothing may happen to the stream outside the blocks either: embeddings, perhaps scaled or with
positions, then one block after the other, then at most a final norm.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from olmo_stages.errors import ModelError, NonFiniteError
from olmo_stages.models import layer_kinds
from olmo_stages.models.sites import Block, Decoder, device_of, first_input, first_tensor, hooks

PROBE_TOKENS = 8
# Relative to the size of the contribution. The identity is exact when added in the model's dtype,
# as here; a wrong module is off by about 1 or more.
TOLERANCE = 1e-4
# Embeddings may be scaled in bfloat16, which rounds by up to 2^-8.
EMBEDDING_TOLERANCE = 1e-2


def find_decoder(model: nn.Module) -> Decoder:
    """Find decoder, blocks and taps of a causal language model of transformers.

    Args:
        model: in eval mode, weights finite.

    Returns:
        The decoder; the residual identity has been checked on each of its blocks, and the stream
        between them.

    Raises:
        ModelError: the architecture does not have the structure that is needed.
    """
    decoder: Any = getattr(model, "base_model", model)
    config: Any = decoder.config.get_text_config()
    name = type(model).__name__
    modules = block_modules(model)
    embedding: Any = decoder.get_input_embeddings()
    traces, around = _trace(decoder, modules, embedding)
    blocks = tuple(
        find_taps(f"{name}, block {i}", module, trace)
        for i, (module, trace) in enumerate(zip(modules, traces, strict=True))
    )
    _check_stream(name, traces, around)
    types = layer_kinds.layer_types(name, config)
    layer_kinds.check_windows(name, config, types, modules)
    rotary = tuple(trace.rotary for trace in traces)
    return Decoder(decoder, blocks, types, embedding.num_embeddings, rotary)


def block_modules(model: Any) -> tuple[nn.Module, ...]:  # noqa: ANN401 (any model of transformers)
    """The decoder blocks of a causal language model, in order.

    Raises:
        ModelError: there is no one list of as many as the config says.
    """
    decoder: Any = getattr(model, "base_model", model)
    n_blocks = decoder.config.get_text_config().num_hidden_layers
    stacks = [
        child
        for child in decoder.children()
        if isinstance(child, nn.ModuleList) and len(child) == n_blocks
    ]
    if len(stacks) != 1:
        raise ModelError(
            f"{type(model).__name__}: looked for one list of {n_blocks} decoder blocks and found "
            f"{len(stacks)}; only decoder-only language models are supported"
        )
    return tuple(stacks[0])


@dataclass(eq=False)
class Trace:
    """Hidden states in and out of a module and of its children, in the order of their calls."""

    pre: torch.Tensor | None = None
    post: torch.Tensor | None = None
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    embeddings: list[torch.Tensor] = field(default_factory=list)
    rotary: tuple[torch.Tensor, torch.Tensor] | None = None


def _trace(
    decoder: nn.Module, modules: tuple[nn.Module, ...], embedding: nn.Embedding
) -> tuple[list[Trace], Trace]:
    """What goes through each block, and through the decoder around them."""
    traces, around = [Trace() for _ in modules], Trace()
    ids = torch.tensor(probe_ids(embedding.num_embeddings), device=device_of(decoder))

    def register(stack: ExitStack) -> None:
        for module, trace in zip(modules, traces, strict=True):
            keep_block(stack, module, trace)
        keep_around(stack, decoder, around)

    with hooks(register), torch.inference_mode():
        found = decoder(
            input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], use_cache=False
        )
    around.post = found.last_hidden_state.cpu()
    return traces, around


def probe_ids(n_embeddings: int) -> list[int]:
    """Token ids of the short prompt, spread over the vocabulary."""
    return [i * 7919 % n_embeddings for i in range(1, PROBE_TOKENS + 1)]


def keep_block(stack: ExitStack, module: nn.Module, trace: Trace) -> None:
    """Keep what goes through a block, until the stack closes."""
    stack.callback(module.register_forward_pre_hook(_keep_pre(trace), with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(_keep_post(trace)).remove)
    _keep_children(stack, module, trace)


def keep_around(stack: ExitStack, decoder: Any, trace: Trace) -> None:  # noqa: ANN401
    """Keep what goes through a decoder outside of its blocks, until the stack closes."""
    _keep_children(stack, decoder, trace)
    embedding = decoder.get_input_embeddings()
    for part in {embedding, *(c for c in decoder.children() if isinstance(c, nn.Embedding))}:
        stack.callback(part.register_forward_hook(_keep_embedding(trace)).remove)


def _keep_pre(trace: Trace) -> Callable[..., None]:
    def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        trace.pre = first_input(args, kwargs).cpu()
        pair = kwargs.get("position_embeddings")
        if isinstance(pair, tuple) and all(isinstance(part, torch.Tensor) for part in pair):
            cos, sin = pair
            trace.rotary = cos.cpu(), sin.cpu()

    return hook


def _keep_post(trace: Trace) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:  # noqa: ANN401
        trace.post = first_tensor(output).cpu()

    return hook


def _keep_embedding(trace: Trace) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:  # noqa: ANN401
        trace.embeddings.append(output.cpu())

    return hook


def _keep_children(stack: ExitStack, module: nn.Module, trace: Trace) -> None:
    for name, child in module.named_children():
        hook = _keep_child(trace, name)
        stack.callback(child.register_forward_hook(hook, with_kwargs=True).remove)


def _keep_child(trace: Trace, name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:  # noqa: ANN401
        given, made = args[0] if args else kwargs.get("hidden_states"), output
        made = made[0] if isinstance(made, tuple) else made
        if isinstance(given, torch.Tensor) and isinstance(made, torch.Tensor):
            trace.inputs[name], trace.outputs[name] = given.cpu(), made.cpu()

    return hook


def find_taps(where: str, module: nn.Module, trace: Trace) -> Block:
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


def _check_stream(name: str, traces: Sequence[Trace], around: Trace) -> None:
    """Check that the stream goes from the embeddings through the blocks to at most a final norm.

    Raises:
        ModelError: something else happens to it on the way.
    """
    first, last = traces[0].pre, traces[-1].post
    assert first is not None
    assert last is not None
    assert around.post is not None
    check_embedding(name, first, around)
    for i, (before, after) in enumerate(pairwise(traces)):
        if not _same(before.post, after.pre):
            raise ModelError(
                f"{name}: looked for the output of block {i} as the input of block {i + 1}; "
                "something is done to it in between, and this architecture is not supported"
            )
    normed = [n for n, given in around.inputs.items() if _same(given, last)]
    if not _same(last, around.post) and not any(
        _same(around.outputs[n], around.post) for n in normed
    ):
        raise ModelError(
            f"{name}: looked for one final norm from the output of the last block to the model's "
            "hidden states; this architecture is not supported"
        )


def check_embedding(name: str, first: torch.Tensor, around: Trace) -> None:
    """Check that the input of block 0 is what was looked up, at most scaled or with positions.

    Raises:
        ModelError: it is something else.
    """
    if not _is_embedding(first, around.embeddings):
        raise ModelError(
            f"{name}: looked for the token embeddings, at most scaled or with positions added, as "
            "the input of block 0; this architecture is not supported"
        )


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and torch.equal(a, b)


def _is_embedding(first: torch.Tensor, embeddings: Sequence[torch.Tensor]) -> bool:
    """Whether the input of block 0 is the sum of what was looked up, up to one factor."""
    if any(part.shape[-2:] != first.shape[-2:] for part in embeddings) or not embeddings:
        return False
    looked_up = torch.stack([p.double().reshape(first.shape) for p in embeddings]).sum(0)
    x = first.double()
    factor = (x * looked_up).sum() / looked_up.square().sum()
    return bool((x - factor * looked_up).norm() <= EMBEDDING_TOLERANCE * x.norm())
