"""Layer-major extraction: each block's weights are read once, and all batches pass through it.

For models larger than memory: beside the hidden states of all batches, two blocks are in memory,
the one that computes and the one that is being read. Batches, masks and kernels are those of the
ordinary pass, so the numbers are the same.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from olmo_stages.errors import ModelError
from olmo_stages.models import layer_kinds
from olmo_stages.models.captures import Capture, Key
from olmo_stages.models.discovery import (
    Trace,
    check_embedding,
    find_taps,
    keep_around,
    keep_block,
    probe_ids,
)
from olmo_stages.models.forward import (
    Item,
    Stop,
    batches,
    check_finite,
    check_ids,
    padded,
    place,
    reader,
    stop,
    token_mask,
)
from olmo_stages.models.memory import TokenBudget, is_exhausted
from olmo_stages.models.room import Room
from olmo_stages.models.sites import Block, first_tensor, hooks, on_input, on_output
from olmo_stages.models.skeleton import Skeleton, handing_on
from olmo_stages.types import EMBEDDING_LAYER, MEANS, Position

Rows = dict[Key, torch.Tensor]
"""Activations of a shard, `[row d_model]`, as `olmo_stages.models.forward.pooled` gives them."""


@dataclass(frozen=True, eq=False)
class _Batch:
    """Examples that pass through a block together.

    Args:
        items: the examples.
        start: by position, the first of their rows in the shard's.
        rows: of the shard.
        hidden: what went out of the last block, `[example token d_model]`; written in place.
    """

    items: Sequence[Item]
    start: dict[Position, int]
    rows: Rows
    hidden: torch.Tensor

    @property
    def longest(self) -> int:
        return max(len(item.token_ids) for item in self.items)

    def part(self, chosen: slice) -> "_Batch":
        """Some of its examples, with the padding that they need."""
        before, items = self.items[: chosen.start], self.items[chosen]
        start = {
            position: first + sum(_n_rows(item, position) for item in before)
            for position, first in self.start.items()
        }
        longest = max(len(item.token_ids) for item in items)
        hidden = self.hidden[chosen, :longest] if self.hidden.numel() else self.hidden
        return replace(self, items=items, start=start, hidden=hidden)


@dataclass(frozen=True, eq=False)
class Memory:
    """What may be used.

    Args:
        budget: tokens in one batch, padding included; batches do not cross shards.
        scratch: an empty folder, for hidden states and results that memory has no room for.
    """

    budget: TokenBudget
    scratch: Path


def pooled(
    skeleton: Skeleton,
    shards: Sequence[Sequence[Item]],
    captures: Sequence[Capture],
    layers: Sequence[int],
    memory: Memory,
    on_layer: Callable[[], None] = lambda: None,
) -> list[Rows]:
    """Run shards of examples through the blocks, one block after the other.

    Args:
        skeleton: the model without its weights.
        shards: examples, in the order of the results.
        captures: sites and positions.
        layers: block indices; -1 = the embeddings (input of block 0), whatever the site.
        memory: for batches and for what lies between the blocks.
        on_layer: told after the embeddings and after each block.

    Returns:
        For each shard what `olmo_stages.models.forward.pooled` gives, bit for bit where the kernels
        are the same.

    Raises:
        ModelError: a checkpoint or an architecture that cannot be used, or too little memory for a
            single example.
        NonFiniteError: names the first layer and example whose activations are not finite.
    """
    for items in shards:
        check_ids(skeleton.n_embeddings, items)
    work = _Pass(skeleton, captures, memory.budget)
    with torch.inference_mode():
        found = work.cut(shards, sorted(layers), memory.scratch)
        with skeleton.filled_around():
            probe = _check_around(skeleton)
            work.advance(None, EMBEDDING_LAYER, wanted=EMBEDDING_LAYER in layers)
        on_layer()
        for layer, module in enumerate(skeleton.filled(max(layers) + 1)):
            block, probe = _look(skeleton, module, layer, probe)
            work.advance(block, layer, wanted=layer in layers)
            on_layer()
    skeleton.parts.check_rest()
    return found


@dataclass(eq=False)
class _Pass:
    """All batches on their way through the model."""

    skeleton: Skeleton
    captures: Sequence[Capture]
    budget: TokenBudget
    batches: list[_Batch] = field(default_factory=list)

    def cut(
        self, shards: Sequence[Sequence[Item]], layers: Sequence[int], scratch: Path
    ) -> list[Rows]:
        """Cut shards into batches; the results, still empty."""
        cuts = [[*batches([len(it.token_ids) for it in s], self.budget.tokens)] for s in shards]
        n_tokens = sum(
            (cut.stop - cut.start) * max(len(it.token_ids) for it in items[cut])
            for items, of_shard in zip(shards, cuts, strict=True)
            for cut in of_shard
        )
        n_rows = sum(
            _n_rows(item, capture.position)
            for items in shards
            for item in items
            for capture in self.captures
        )
        # Pooled means are float32.
        n_bytes = self.skeleton.d_model * (
            n_tokens * self.skeleton.dtype.itemsize + 4 * n_rows * len(layers)
        )
        room = Room(scratch, n_bytes)
        found: list[Rows] = []
        for items, of_shard in zip(shards, cuts, strict=True):
            rows = {
                Key(*capture, layer): room.take(
                    (sum(_n_rows(it, capture.position) for it in items), self.skeleton.d_model),
                    torch.float32 if capture.position in MEANS else self.skeleton.dtype,
                )
                for capture in self.captures
                for layer in layers
            }
            start: dict[Position, int] = {it.position: 0 for it in self.captures}
            whole = _Batch(items, start, rows, torch.empty(0))
            for cut in of_shard:
                shape = (
                    cut.stop - cut.start,
                    max(len(it.token_ids) for it in items[cut]),
                    self.skeleton.d_model,
                )
                hidden = room.take(shape, self.skeleton.dtype)
                self.batches.append(replace(whole.part(cut), hidden=hidden))
            found.append(rows)
        return found

    def advance(self, block: Block | None, layer: int, *, wanted: bool) -> None:
        """Let all batches go through a block, or be embedded where there is none."""
        done: list[_Batch] = []
        todo = self.batches[::-1]
        while todo:
            batch = todo.pop()
            pieces = [
                batch.part(cut)
                for cut in batches([len(it.token_ids) for it in batch.items], self.budget.tokens)
            ]
            if len(pieces) > 1:
                todo += pieces[::-1]
            elif self._attempt(block, layer, batch, wanted=wanted):
                done.append(batch)
            else:
                device = self.skeleton.device
                self.budget.halve(len(batch.items), batch.longest, [device])
                todo.append(batch)
        self.batches = done

    def _attempt(self, block: Block | None, layer: int, batch: _Batch, *, wanted: bool) -> bool:
        """Whether memory sufficed for a batch.

        Raises:
            RuntimeError: what else went wrong in the model.
        """
        try:
            self._step(block, layer, batch, wanted=wanted)
        except MemoryError:
            return False
        except RuntimeError as error:
            if is_exhausted(error):
                return False
            raise
        return True

    def _step(self, block: Block | None, layer: int, batch: _Batch, *, wanted: bool) -> None:
        device = self.skeleton.device
        ids, mask = padded(batch.items, device)
        hidden = batch.hidden.to(device)
        found: Rows = {}
        out: list[torch.Tensor] = []

        def register(stack: ExitStack) -> None:
            if block is not None:
                _put(stack, block.module, hidden)
            for capture in self.captures if wanted else ():
                chosen = token_mask(batch.items, capture.position, ids.shape[1], device)
                read = reader(found, Key(*capture, layer), chosen)
                if block is None:
                    on_input(stack, self.skeleton.blocks[0], read)
                else:
                    place(stack, block, capture.site, layer, read)
            if block is None:
                on_input(stack, self.skeleton.blocks[0], out.append)
                on_input(stack, self.skeleton.blocks[0], stop)
            else:
                on_output(stack, block.module, out.append)
                on_output(stack, block.module, stop)

        # Only its shape counts once there are hidden states, which are put into the block.
        given = {"input_ids": ids} if block is None else {"inputs_embeds": hidden}
        _run(self.skeleton.decoder, mask, register, given)
        for key, vectors in found.items():
            check_finite(key, batch.items, vectors)
            first = batch.start[key.position]
            batch.rows[key][first : first + len(vectors)] = vectors.cpu()
        batch.hidden.copy_(out[0])


def _run(
    decoder: Any,  # noqa: ANN401 (any decoder of transformers)
    mask: torch.Tensor,
    register: Callable[[ExitStack], None],
    given: dict[str, torch.Tensor],
) -> None:
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    with hooks(register), suppress(Stop):
        decoder(attention_mask=mask, position_ids=positions, use_cache=False, **given)


def _put(stack: ExitStack, module: nn.Module, hidden: torch.Tensor) -> None:
    """Give a module these hidden states in place of those that come, until the stack closes."""

    def hook(_module: nn.Module, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)


def _check_around(skeleton: Skeleton) -> torch.Tensor:
    """Check what happens to the stream outside of the blocks.

    Returns:
        A short prompt as it goes into block 0.

    Raises:
        ModelError: the structure is not what is needed, or a block would not receive the rotary
            embedding of config.json.
    """
    name, device = type(skeleton.model).__name__, skeleton.device
    around, traces = Trace(), [Trace() for _ in skeleton.blocks]

    def register(stack: ExitStack) -> None:
        for module, trace in zip(skeleton.blocks, traces, strict=True):
            keep_block(stack, module, trace)
        keep_around(stack, skeleton.decoder, around)

    ids = torch.tensor([probe_ids(skeleton.n_embeddings)], device=device)
    with handing_on(skeleton.blocks):
        _run(skeleton.decoder, torch.ones_like(ids), register, {"input_ids": ids})
    first = traces[0].pre
    assert first is not None
    check_embedding(name, first, around)
    for i, trace in enumerate(traces):
        if trace.pre is None or not torch.equal(trace.pre, first):
            raise ModelError(
                f"{name}: something is done to the stream before block {i}, which compute=streamed "
                "does not do; use compute=auto"
            )
    rotary = [trace.rotary for trace in traces]
    layer_kinds.check_rotary(skeleton.where, skeleton.ropes, skeleton.layer_types, rotary)
    return first.to(device)


def _look(
    skeleton: Skeleton, module: nn.Module, layer: int, probe: torch.Tensor
) -> tuple[Block, torch.Tensor]:
    """Find where a block is read, and what goes out of it for a short prompt."""
    trace = Trace()

    def register(stack: ExitStack) -> None:
        _put(stack, module, probe)
        keep_block(stack, module, trace)
        on_output(stack, module, stop)

    mask = torch.ones(probe.shape[:2], dtype=torch.long, device=probe.device)
    _run(skeleton.decoder, mask, register, {"inputs_embeds": probe})
    block = find_taps(f"{type(skeleton.model).__name__}, block {layer}", module, trace)
    assert trace.post is not None
    return block, first_tensor(trace.post).to(probe.device)


def _n_rows(item: Item, position: Position) -> int:
    return len(item.tokens[position]) if position == "tokens" else 1
