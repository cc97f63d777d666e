"""Which rows an entry holds: its examples, their tokens, and how they are cut into shards."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from olmo_stages.data.positions import left_out, reads_sink, resolve_all
from olmo_stages.data.spans import Prompt
from olmo_stages.errors import DataError
from olmo_stages.types import Position


@dataclass(frozen=True)
class Chosen:
    """What one position reads.

    Args:
        tokens: per example, ascending indices into its token ids.
        left_out: tokens of all examples that are left out, by reason; see
            `olmo_stages.data.positions.left_out`.
        n_at_sink: how many examples are read at sequence position 0 and nowhere else.
    """

    tokens: Sequence[tuple[int, ...]]
    left_out: Mapping[str, int]
    n_at_sink: int


@dataclass(frozen=True)
class Rows:
    """The examples of an entry.

    Args:
        ids: in the data set's order.
        order: in which the shards hold them, as indices into `ids`.
        token_ids: per example, in the data set's order.
        n_truncated: how many examples were cut.
        chosen: what each position reads.
        n_joined: of how many examples prompt and response were tokenised apart.
    """

    ids: Sequence[str]
    order: Sequence[int]
    token_ids: Sequence[tuple[int, ...]]
    n_truncated: int
    chosen: Mapping[Position, Chosen]
    n_joined: int = 0

    def tokens(self, i: int) -> dict[Position, tuple[int, ...]]:
        """What each position reads of example `i`."""
        return {position: chosen.tokens[i] for position, chosen in self.chosen.items()}

    def shards(self, n_examples: int, n_rows: int) -> Iterator[Sequence[int]]:
        """Cut `order` into shards.

        Args:
            n_examples: examples of a shard; the last one may hold fewer.
            n_rows: most rows of position `tokens` in a shard; an example that has more is a shard
                by itself.

        Yields:
            Neighbours of `order`.
        """
        chosen = self.chosen.get("tokens")
        shard: list[int] = []
        filled = 0
        for i in self.order:
            size = 0 if chosen is None else len(chosen.tokens[i])
            if len(shard) == n_examples or (shard and filled + size > n_rows):
                yield shard
                shard, filled = [], 0
            shard.append(i)
            filled += size
        if shard:
            yield shard

    def positions(self) -> dict[str, Any]:
        """What the manifest says about each position."""
        return {
            position: {"left_out": dict(chosen.left_out), "n_at_sink": chosen.n_at_sink}
            for position, chosen in sorted(self.chosen.items())
        }


def lay_out(
    prompts: Sequence[Prompt],
    positions: Collection[Position],
    also: Collection[Position] = (),
) -> Rows:
    """Decide what is read of each prompt, and in which order.

    Args:
        prompts: in the data set's order.
        positions: names of the positions.
        also: those that are read too, where no example lacks them.

    Returns:
        The rows.

    Raises:
        DataError: some examples lack what a position reads.
    """
    chosen: dict[Position, Chosen] = {
        position: _choose(prompts, position) for position in positions
    }
    for position in also:
        with suppress(DataError):
            chosen[position] = _choose(prompts, position)
    # Longest first: memory runs out at once or never. Ties keep the data set's order.
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i].token_ids), i))
    return Rows(
        ids=[prompt.id for prompt in prompts],
        order=order,
        token_ids=[prompt.token_ids for prompt in prompts],
        n_truncated=sum(prompt.n_dropped > 0 for prompt in prompts),
        chosen=chosen,
        n_joined=sum(prompt.joined for prompt in prompts),
    )


def _choose(prompts: Sequence[Prompt], position: Position) -> Chosen:
    tokens = resolve_all(prompts, position)
    total: dict[str, int] = {}
    for prompt in prompts:
        for reason, n in left_out(prompt, position).items():
            total[reason] = total.get(reason, 0) + n
    return Chosen(
        tokens=tokens,
        left_out=total,
        n_at_sink=sum(reads_sink(prompt, position) for prompt in prompts),
    )
