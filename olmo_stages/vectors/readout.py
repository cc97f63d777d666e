"""Scores of single tokens along a vector: the table of them, and the means of each part."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.data.readings import RESPONSE, SPECIAL, TEMPLATE
from olmo_stages.errors import PairingError
from olmo_stages.types import Activations, Example, Reading, Table, labels_of

THINK, ANSWER = "think", "answer"
OF_RESPONSE = (THINK, ANSWER, RESPONSE)
"""Parts of tokens that make up the response at the end of a chat."""


@dataclass(frozen=True, eq=False)
class Readout:
    """The tokens that are scored, and their scores, layer by layer.

    Args:
        readings: of every example.
        owners: for each token the index of its example, ascending.
        token_index: for each token its index in the example's token ids.
        parts: what each token is a part of.
        layers: block index of each column of scores.
        scores: for each layer one float32 a token.
        means: by part, for each layer the mean over each example's tokens of it; NaN where it has
            none.
    """

    readings: tuple[Reading, ...]
    owners: Int[np.ndarray, " token"]
    token_index: Int[np.ndarray, " token"]
    parts: tuple[str, ...]
    layers: list[int] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    means: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @classmethod
    def of(cls, acts: Activations, readings: tuple[Reading, ...]) -> "Readout":
        """Find the tokens of activations at position `tokens` among their readings.

        Raises:
            PairingError: the readings are of other examples or tokens.
        """
        if acts.owners is None or acts.token_index is None:
            raise PairingError(
                f"activations of {acts.stage.label} at position {acts.position} are not of single "
                "tokens; read position tokens"
            )
        read = tuple((it.id, it.token_ids) for it in readings)
        if read != tuple(zip(acts.ids, acts.token_ids, strict=True)):
            raise PairingError(
                f"activations of {acts.stage.label} are of other examples or tokens than its "
                f"prompts ({len(acts.ids)} and {len(read)} examples, "
                f"{sum(map(len, acts.token_ids))} and {sum(len(it) for _, it in read)} tokens); "
                "read both from the same data"
            )
        where = zip(acts.owners.tolist(), acts.token_index.tolist(), strict=True)
        parts = tuple(readings[owner].parts[i] for owner, i in where)
        return cls(readings, acts.owners, acts.token_index, parts)

    @property
    def n_examples(self) -> int:
        """Number of examples."""
        return len(self.readings)

    def add(self, layer: int, scores: Float[np.ndarray, " token"]) -> None:
        """Add the scores of a layer."""
        self.layers.append(layer)
        self.scores.append(scores.astype(np.float32))
        for part, chosen in self._members.items():
            totals = np.bincount(
                self.owners[chosen], weights=scores[chosen], minlength=self.n_examples
            )
            with np.errstate(invalid="ignore"):
                self.means.setdefault(part, []).append(totals / self.counts[part])

    @cached_property
    def counts(self) -> dict[str, Int[np.ndarray, " example"]]:
        """How many tokens of each part every example has."""
        return {
            part: np.bincount(self.owners[chosen], minlength=self.n_examples)
            for part, chosen in self._members.items()
        }

    @cached_property
    def _members(self) -> dict[str, Int[np.ndarray, " chosen"]]:
        """Tokens of each part that is told apart; `response` is all of the response."""
        named = np.array(self.parts)
        found = {
            part: np.flatnonzero(named == part)
            for part in dict.fromkeys(self.parts)
            if part not in {SPECIAL, TEMPLATE, RESPONSE}
        }
        whole = np.flatnonzero(np.isin(named, OF_RESPONSE))
        return found | ({RESPONSE: whole} if len(whole) else {})

    def table(self, examples: Sequence[Example]) -> Table:
        """One row a token: example, label, index, token_id, text, part, and a column a layer.

        Examples without labels have no column of them.
        """
        where = list(zip(self.owners.tolist(), self.token_index.tolist(), strict=True))
        token_ids = [self.readings[owner].token_ids[i] for owner, i in where]
        return {
            "example": [self.readings[owner].id for owner, _ in where],
            **label_column([examples[owner] for owner, _ in where]),
            "index": self.token_index.astype(np.int32),
            "token_id": np.array(token_ids, dtype=np.int32),
            "text": [self.readings[owner].texts[i] for owner, i in where],
            "part": list(self.parts),
            **{f"layer_{layer}": it for layer, it in zip(self.layers, self.scores, strict=True)},
        }

    def matrix(self, example: int) -> Float[np.ndarray, "layer token"]:
        """Scores of one example's tokens."""
        chosen = self.owners == example
        return np.stack([it[chosen] for it in self.scores]).astype(np.float64)

    def tokens(self, example: int) -> list[tuple[int, str, str]]:
        """Index, text and part of one example's scored tokens."""
        reading = self.readings[example]
        chosen = self.token_index[self.owners == example].tolist()
        return [(i, reading.texts[i], reading.parts[i]) for i in chosen]


def label_column(examples: Sequence[Example]) -> Table:
    """The column `label` of a table with a row for each of these; none where none has a label.

    Raises:
        DataError: some have a label and some have none.
    """
    if all(example.label is None for example in examples):
        return {}
    return {"label": labels_of(examples).astype(np.int8)}
