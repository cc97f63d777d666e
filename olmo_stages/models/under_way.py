"""Shards of examples on their way through the blocks of a model, and where they are written down.

Every batch knows the last block that it went through, so that a snapshot may be taken between any
two batches, and shards that were left at different blocks go on together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from olmo_stages.models.captures import Capture, Key
from olmo_stages.models.forward import Item, batches
from olmo_stages.models.memory import TokenBudget
from olmo_stages.models.room import Room
from olmo_stages.types import EMBEDDING_LAYER, MEANS, Position

Rows = dict[Key, torch.Tensor]
"""Activations of a shard, `[row d_model]`, as `olmo_stages.models.forward.pooled` gives them."""

NOWHERE = EMBEDDING_LAYER - 1
"""What a batch went through that was not even embedded."""

_HIDDEN = "hidden.{}"


@dataclass(eq=False)
class Batch:
    """Examples that pass through a block together.

    Args:
        shard: which one they are of.
        first: of them in the shard.
        items: the examples.
        start: by position, the first of their rows in the shard's.
        rows: of the shard.
        hidden: what went out of the last block, `[example token d_model]`; written in place.
        done: the last block that they went through, -1 = they are embedded.
    """

    shard: int
    first: int
    items: Sequence[Item]
    start: dict[Position, int]
    rows: Rows
    hidden: torch.Tensor
    done: int = NOWHERE

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(len(item.token_ids) for item in self.items)

    def part(self, chosen: slice) -> "Batch":
        """Some of its examples, with the padding that they need."""
        before, items = self.items[: chosen.start], self.items[chosen]
        start = {
            position: first + sum(n_rows(item, position) for item in before)
            for position, first in self.start.items()
        }
        longest = max(len(item.token_ids) for item in items)
        hidden = self.hidden[chosen, :longest] if self.hidden.numel() else self.hidden
        first = self.first + chosen.start
        return replace(self, first=first, items=items, start=start, hidden=hidden)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Where a shard is between two blocks, and all that is needed to go on.

    Args:
        facts: how it is cut, and how far each batch is; may be written as JSON.
        tensors: hidden states of each batch, and the rows so far.
    """

    facts: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def n_bytes(self) -> int:
        """Bytes of the tensors."""
        return sum(it.nbytes for it in self.tensors.values())

    @property
    def done(self) -> int:
        """The last block that all of it went through."""
        return min(done for _, _, done in self.facts["batches"])


@runtime_checkable
class Keep(Protocol):
    """Keeps snapshots for a process that goes on if this one is ended."""

    def found(self, shard: int) -> Snapshot | None:
        """Where an earlier process left a shard."""
        ...

    def pause(self, fleet: "Fleet") -> None:
        """Told after each batch: keep snapshots, if it is time; raise what ends the pass."""
        ...

    def leave(self, fleet: "Fleet") -> None:
        """Told when the pass is ended from outside."""
        ...


@dataclass(eq=False)
class Fleet:
    """All batches of all shards.

    Args:
        shards: the examples.
        captures: what is read of them.
        layers: where, ascending.
        d_model: width of the stream.
        dtype: of the stream.
        budget: tokens in one batch; halved when memory runs out.
        scratch: folder for what memory has no room for.

    Attributes:
        batches: all of them, shard by shard.
        rows: of each shard; where no batch has been yet, they hold anything.
        zeros: names of the matrices of weights so far that are zero.
    """

    shards: Sequence[Sequence[Item]]
    captures: Sequence[Capture]
    layers: Sequence[int]
    d_model: int
    dtype: torch.dtype
    budget: TokenBudget
    scratch: Path
    batches: list[Batch] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    zeros: set[str] = field(default_factory=set)
    _is_torn: bool = False

    def launch(self, found: Callable[[int], Snapshot | None]) -> None:
        """Cut shards into batches, and put them where they were left.

        Args:
            found: where each was left, if it was begun.
        """
        known = {i: it for i in range(len(self.shards)) if (it := found(i)) is not None}
        for it in known.values():
            self.budget.tokens = min(self.budget.tokens, it.facts["budget"])
            self.zeros.update(it.facts["zeros"])
        cuts = [self._cut(i, known.get(i)) for i in range(len(self.shards))]
        room = Room(self.scratch, self._n_bytes(cuts))
        for shard, cut in enumerate(cuts):
            self.rows.append(self._take_rows(shard, room))
            self.batches += self._take_batches(shard, cut, room)
            if shard in known:
                self._put(shard, known.pop(shard))

    @property
    def done(self) -> int:
        """The last block that all batches went through."""
        return min((it.done for it in self.batches), default=NOWHERE)

    @property
    def n_row_bytes(self) -> int:
        """Bytes of all rows."""
        return sum(it.nbytes for rows in self.rows for it in rows.values())

    @property
    def is_sure(self) -> bool:
        """Whether every batch is where it says; not so if this was interrupted at one moment."""
        return not self._is_torn

    def step(self, batch: Batch, hidden: torch.Tensor, layer: int) -> None:
        """A batch went through a block.

        Args:
            batch: which.
            hidden: what came out.
            layer: index of the block.
        """
        self._is_torn = True
        batch.hidden.copy_(hidden)
        batch.done = layer
        self._is_torn = False

    def split(self, place: int) -> bool:
        """Cut a batch in place into smaller ones, if the budget asks for it."""
        batch = self.batches[place]
        lengths = [len(it.token_ids) for it in batch.items]
        pieces = [batch.part(cut) for cut in batches(lengths, self.budget.tokens)]
        if len(pieces) == 1:
            return False
        self.batches[place : place + 1] = pieces
        return True

    def snapshot(self, shard: int) -> Snapshot | None:
        """Where a shard is; None where it has not begun."""
        own = [it for it in self.batches if it.shard == shard]
        furthest = max((it.done for it in own), default=NOWHERE)
        if furthest == NOWHERE:
            return None
        # Each a tensor of its own, which a part of a batch is not.
        tensors = {_HIDDEN.format(i): _alone(it.hidden) for i, it in enumerate(own)}
        tensors |= {
            key.tensor_name: it for key, it in self.rows[shard].items() if key.layer <= furthest
        }
        facts = {
            "batches": [[it.first, it.first + len(it.items), it.done] for it in own],
            "budget": self.budget.tokens,
            "zeros": sorted(self.zeros),
        }
        return Snapshot(facts, tensors)

    def _cut(self, shard: int, known: Snapshot | None) -> list[slice]:
        if known is not None:
            return [slice(first, end) for first, end, _ in known.facts["batches"]]
        lengths = [len(item.token_ids) for item in self.shards[shard]]
        return list(batches(lengths, self.budget.tokens))

    def _n_bytes(self, cuts: Sequence[Sequence[slice]]) -> int:
        """Bytes of hidden states and rows; pooled means are float32."""
        n_tokens = sum(
            (cut.stop - cut.start) * max(len(it.token_ids) for it in items[cut])
            for items, of_shard in zip(self.shards, cuts, strict=True)
            for cut in of_shard
        )
        rows = sum(
            n_rows(item, capture.position)
            for items in self.shards
            for item in items
            for capture in self.captures
        )
        return self.d_model * (n_tokens * self.dtype.itemsize + 4 * rows * len(self.layers))

    def _take_rows(self, shard: int, room: Room) -> Rows:
        return {
            Key(*capture, layer): room.take(
                (sum(n_rows(it, capture.position) for it in self.shards[shard]), self.d_model),
                torch.float32 if capture.position in MEANS else self.dtype,
            )
            for capture in self.captures
            for layer in self.layers
        }

    def _take_batches(self, shard: int, cut: Sequence[slice], room: Room) -> list[Batch]:
        start: dict[Position, int] = {it.position: 0 for it in self.captures}
        items = self.shards[shard]
        whole = Batch(shard, 0, items, start, self.rows[shard], torch.empty(0))
        parts = [whole.part(chosen) for chosen in cut]
        for part in parts:
            shape = (len(part.items), part.longest, self.d_model)
            part.hidden = room.take(shape, self.dtype)
        return parts

    def _put(self, shard: int, known: Snapshot) -> None:
        """Put a shard where it was left."""
        own = [it for it in self.batches if it.shard == shard]
        for i, (batch, (_, _, done)) in enumerate(zip(own, known.facts["batches"], strict=True)):
            _copy(known.tensors[_HIDDEN.format(i)], batch.hidden)
            batch.done = done
        for key, rows in self.rows[shard].items():
            if key.tensor_name in known.tensors:
                _copy(known.tensors[key.tensor_name], rows)


def n_rows(item: Item, position: Position) -> int:
    """Rows of an example at a position."""
    return len(item.tokens[position]) if position == "tokens" else 1


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that shares its memory with no other."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _copy(source: torch.Tensor, into: torch.Tensor) -> None:
    # `copy_` would spread what is smaller.
    assert (source.shape, source.dtype) == (into.shape, into.dtype)
    into.copy_(source)
