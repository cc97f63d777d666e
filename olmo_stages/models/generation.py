"""Responses written by a model: batches padded on the left, each example as if it were alone.

Padding is hidden by the attention mask and left out of the position ids, so that in float32 a batch
writes what its examples would write alone. In half precision the sums of another batch may round
otherwise and two nearly equally likely tokens change places; what was written once is therefore
kept, never written anew.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int

from olmo_stages.errors import ModelError, NonFiniteError
from olmo_stages.models.forward import batches
from olmo_stages.models.loading import Loaded
from olmo_stages.models.memory import TokenBudget, is_exhausted
from olmo_stages.models.sites import device_of, devices_of


@dataclass(frozen=True)
class Asked:
    """One prompt, ready for the model.

    Args:
        id: for error messages, and for the stream of random numbers.
        token_ids: without padding.
        room: how many tokens may be written.
    """

    id: str
    token_ids: tuple[int, ...]
    room: int


@dataclass(frozen=True)
class Written:
    """What was written to a prompt.

    Args:
        token_ids: without the token at which it stopped.
        is_cut: whether it ended because there was no more room.
    """

    token_ids: tuple[int, ...]
    is_cut: bool


@dataclass(frozen=True)
class Writing:
    """How tokens are chosen, and where a response ends.

    Args:
        stops: tokens that end a response and are no part of it.
        n_tokens: ids below it are tokens; those above only fill up the vocabulary head.
        temperature: 0 = the likeliest token; else tokens are sampled.
        seed: of the sampling.
        ends: told the tokens so far, says how many of them are the response, or None to go on.
    """

    stops: frozenset[int]
    n_tokens: int
    temperature: float = 0.0
    seed: int = 0
    ends: Callable[[Sequence[int]], int | None] = lambda _token_ids: None


def write(
    loaded: Loaded,
    asked: Sequence[Asked],
    writing: Writing,
    *,
    token_budget: int | TokenBudget,
    on_batch: Callable[[int], None] = lambda _n_examples: None,
) -> list[Written]:
    """Let a model respond to prompts.

    Args:
        loaded: the model.
        asked: in the order of the result; sorted by length they waste the least padding.
        writing: how tokens are chosen.
        token_budget: tokens of a batch, with padding and all the room for responses; a
            `TokenBudget` is told, and keeps, how far it was halved. A batch for which memory does
            not suffice is done again in smaller ones.
        on_batch: told after each batch how many examples it held.

    Returns:
        One response a prompt.

    Raises:
        ModelError: a token id that the model has no embedding for, or too little memory for a
            single example.
        NonFiniteError: names the first example for which the next token has no finite score.
    """
    budget = TokenBudget(token_budget) if isinstance(token_budget, int) else token_budget
    for each in asked:
        if not each.token_ids or max(each.token_ids) >= loaded.decoder.n_embeddings:
            raise ModelError(
                f"example {each.id!r}: token ids {each.token_ids[:3]}... do not fit the model's "
                f"{loaded.decoder.n_embeddings} embeddings; tokenizer and weights do not belong "
                "together"
            )
    lengths = [len(each.token_ids) + each.room for each in asked]
    found: list[Written] = []
    while len(found) < len(asked):
        batch = asked[len(found) :][next(batches(lengths[len(found) :], budget.tokens))]
        written = _attempt(loaded, batch, writing)
        if written is None:
            longest = max(len(each.token_ids) + each.room for each in batch)
            budget.halve(len(batch), longest, devices_of(loaded.decoder.model))
            continue
        found += written
        on_batch(len(batch))
    return found


def _attempt(loaded: Loaded, batch: Sequence[Asked], writing: Writing) -> list[Written] | None:
    """What one batch writes; None if memory ran out, which leaves nothing behind.

    Raises:
        RuntimeError: what else went wrong in the model.
    """
    try:
        with torch.inference_mode():
            return _Batch(loaded, batch, writing).run()
    except MemoryError:
        return None
    except RuntimeError as error:
        if is_exhausted(error):
            return None
        raise


@dataclass(eq=False)
class _Row:
    """One response as it grows."""

    asked: Asked
    generator: torch.Generator | None
    token_ids: list[int] = field(default_factory=list)
    is_cut: bool = False

    def take(self, token_id: int, writing: Writing) -> bool:
        """Append a token; whether the response goes on."""
        if token_id in writing.stops:
            return False
        self.token_ids.append(token_id)
        kept = writing.ends(self.token_ids)
        if kept is not None:
            del self.token_ids[kept:]
            return False
        self.is_cut = len(self.token_ids) >= self.asked.room
        return not self.is_cut


class _Batch:
    """One batch on its way: the rows still being written, and what the model remembers of them."""

    def __init__(self, loaded: Loaded, batch: Sequence[Asked], writing: Writing) -> None:
        from transformers import DynamicCache  # late: it is slow

        self._model: Any = loaded.model
        self._device = device_of(loaded.decoder.model)
        self._writing = writing
        self._rows = [_Row(each, _stream(writing, each.id)) for each in batch]
        self._live = list(self._rows)
        self._cache = DynamicCache(config=self._model.config)
        ids, mask = _pad(batch)
        self._ids, self._mask = ids.to(self._device), mask.to(self._device)
        # Padding gets position 0; nothing attends to it.
        self._positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)

    def run(self) -> list[Written]:
        """Write until every response has ended."""
        while self._live:
            tokens = self._choose(self._step())
            goes_on = [
                row.take(token, self._writing)
                for row, token in zip(self._live, tokens, strict=True)
            ]
            self._continue(tokens, [i for i, on in enumerate(goes_on) if on])
        return [Written(tuple(row.token_ids), row.is_cut) for row in self._rows]

    def _step(self) -> Float[torch.Tensor, "example token"]:
        """Scores of the next token.

        Raises:
            NonFiniteError: names the first example that has none.
        """
        output = self._model(
            input_ids=self._ids,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        scores = output.logits[:, -1, : self._writing.n_tokens].float()
        finite = torch.isfinite(scores).all(dim=-1).tolist()
        if not all(finite):
            first = self._live[finite.index(False)].asked.id
            raise NonFiniteError(
                f"the response to example {first!r}: the scores of its next token are not finite; "
                "use compute.dtype=float32 or leave the example out"
            )
        return scores

    def _choose(self, scores: Float[torch.Tensor, "example token"]) -> list[int]:
        if not self._writing.temperature:
            return scores.argmax(dim=-1).tolist()
        # The largest of scores / temperature + Gumbel noise is a draw from their softmax, and the
        # noise is each example's own (Gumbel 1954; Maddison et al. 1411.0030).
        noise = torch.stack([_gumbel(row.generator, scores.shape[1]) for row in self._live])
        drawn = scores.double().cpu() / self._writing.temperature + noise
        return drawn.argmax(dim=-1).tolist()

    def _continue(self, tokens: Sequence[int], on: Sequence[int]) -> None:
        """Prepare the next step for the rows that go on."""
        self._live = [self._live[i] for i in on]
        if not on:
            return
        # On the CPU, whence it selects on every device that a model may be spread over.
        chosen = torch.tensor(on)
        if len(on) < len(tokens):
            self._cache.batch_select_indices(chosen)
        self._ids = torch.tensor([[tokens[i]] for i in on], device=self._device)
        mask = self._mask[chosen]
        self._mask = torch.cat([mask, mask.new_ones(len(on), 1)], dim=1)
        self._positions = self._mask.sum(dim=1, keepdim=True) - 1


def _stream(writing: Writing, example_id: str) -> torch.Generator | None:
    if not writing.temperature:
        return None
    digest = hashlib.sha256(f"{writing.seed}:{example_id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _gumbel(generator: torch.Generator | None, n: int) -> Float[torch.Tensor, " token"]:
    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    # 0 may be drawn, 1 may not.
    return -torch.log(-torch.log(uniform.clamp(min=torch.finfo(torch.float64).tiny)))


def _pad(
    batch: Collection[Asked],
) -> tuple[Int[torch.Tensor, "example token"], Int[torch.Tensor, "example token"]]:
    """Token ids padded on the left with 0, and the mask that hides the padding."""
    longest = max(len(each.token_ids) for each in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    for row, each in enumerate(batch):
        ids[row, longest - len(each.token_ids) :] = torch.tensor(each.token_ids)
        mask[row, longest - len(each.token_ids) :] = 1
    return ids, mask
