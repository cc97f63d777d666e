"""Layer-major extraction: each block's weights are read once, and all batches pass through it.

For models larger than memory: beside the hidden states of all batches, two blocks are in memory,
the one that computes and the one that is being read. Batches, masks and kernels are those of the
ordinary pass, so the numbers are the same.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from olmo_stages.errors import ModelError
from olmo_stages.models import layer_kinds
from olmo_stages.models.captures import Capture, Key
from olmo_stages.models.discovery import (
    PROBE_TOKENS,
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
    check_finite,
    check_ids,
    padded,
    place,
    reader,
    stop,
    token_mask,
)
from olmo_stages.models.memory import TokenBudget, is_exhausted
from olmo_stages.models.sites import Block, first_tensor, hooks, on_input, on_output
from olmo_stages.models.skeleton import Skeleton, handing_on
from olmo_stages.models.under_way import Batch, Fleet, Keep, Rows
from olmo_stages.types import EMBEDDING_LAYER


@dataclass(frozen=True, eq=False)
class Memory:
    """What may be used.

    Args:
        budget: tokens in one batch, padding included; batches do not cross shards.
        scratch: an empty folder, for hidden states and results that memory has no room for.
        keep: keeps how far the pass is; None = who ends it loses it.
    """

    budget: TokenBudget
    scratch: Path
    keep: Keep | None = None


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
    fleet = Fleet(
        shards,
        captures,
        sorted(layers),
        skeleton.d_model,
        skeleton.dtype,
        memory.budget,
        memory.scratch,
    )
    work = _Pass(skeleton, fleet, memory.keep)
    with torch.inference_mode():
        fleet.launch(memory.keep.found if memory.keep else lambda _shard: None)
        with work.kept():
            work.run(max(layers), on_layer)
    skeleton.parts.check_rest()
    return fleet.rows


@dataclass(eq=False)
class _Pass:
    """All batches going through the model."""

    skeleton: Skeleton
    fleet: Fleet
    keep: Keep | None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep how far it is where it is ended from outside."""  # noqa: DOC501
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            if self.keep is not None and self.fleet.is_sure:
                self.keep.leave(self.fleet)
            raise

    def run(self, last: int, on_layer: Callable[[], None]) -> None:
        """Let all batches go through the blocks, from where they are."""
        skeleton, fleet = self.skeleton, self.fleet
        first = fleet.done + 1
        with skeleton.filled_around():
            probe = _check_around(skeleton)
            if first == EMBEDDING_LAYER:
                self.advance(None, EMBEDDING_LAYER)
                first = 0
        for _ in range(EMBEDDING_LAYER, first):
            on_layer()
        if first > 0:
            skeleton.skip(first, fleet.zeros)
            probe = self._as_probe(first - 1)
        with closing(skeleton.filled(first, last + 1)) as filled:
            for layer, module in filled:
                fleet.zeros.update(skeleton.parts.zeros)
                block, probe = _look(skeleton, module, layer, probe)
                self.advance(block, layer)
                on_layer()

    def advance(self, block: Block | None, layer: int) -> None:
        """Let all batches go through a block that they are before, or be embedded."""
        place = 0
        while place < len(self.fleet.batches):
            batch = self.fleet.batches[place]
            if batch.done >= layer:
                place += 1
            elif self.fleet.split(place):
                continue
            elif self._attempt(block, layer, batch):
                place += 1
                if self.keep is not None:
                    self.keep.pause(self.fleet)
            else:
                device = self.skeleton.device
                self.fleet.budget.halve(len(batch.items), batch.longest, [device])

    def _as_probe(self, done: int) -> torch.Tensor:
        """The beginning of an example that has just gone through a block, as a short prompt."""
        batch = next(it for it in self.fleet.batches if it.done == done)
        length = min(PROBE_TOKENS, len(batch.items[0].token_ids))
        return batch.hidden[:1, :length].to(self.skeleton.device, copy=True)

    def _attempt(self, block: Block | None, layer: int, batch: Batch) -> bool:
        """Whether memory sufficed for a batch.

        Raises:
            RuntimeError: what else went wrong in the model.
        """
        try:
            self._step(block, layer, batch)
        except MemoryError:
            return False
        except RuntimeError as error:
            if is_exhausted(error):
                return False
            raise
        return True

    def _step(self, block: Block | None, layer: int, batch: Batch) -> None:
        device = self.skeleton.device
        ids, mask = padded(batch.items, device)
        hidden = batch.hidden.to(device)
        found: Rows = {}
        out: list[torch.Tensor] = []

        def register(stack: ExitStack) -> None:
            if block is not None:
                _put(stack, block.module, hidden)
            for capture in self.fleet.captures if layer in self.fleet.layers else ():
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
        self.fleet.step(batch, out[0], layer)


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
