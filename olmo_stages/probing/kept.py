"""Held-out scores as a job keeps them, and as others read them back.

With the scores of two models of the same examples, folds and resamples their difference is paired
without a forward pass.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from olmo_stages import estimates
from olmo_stages.heldout import Estimate, HeldOut
from olmo_stages.probing.design import Design, Side
from olmo_stages.types import Finished, Table

STAGE, REFERENCE = "held_out", "held_out_reference"
"""Names of the tables."""

_LAYER = "layer_"


def tables(design: Design, stage: Side, reference: Side | None) -> dict[str, Table]:
    """One row an example: its fold, and its score by a probe that never saw its group.

    Args:
        design: examples and folds.
        stage: what was read in the stage.
        reference: what was read in its reference, where there is one.

    Returns:
        Tables by name, with columns `example`, `group`, `label`, `fold`; `prompt`, which is equal
        where the token ids are; `best_layer`, the layer that the training set of the fold chose,
        and `best_layer_score`, the score there; and `layer_N`, the score at each layer. Scores of
        different folds share no scale.
    """
    sides = {STAGE: stage} | ({} if reference is None else {REFERENCE: reference})
    return {name: _table(design, side) for name, side in sides.items()}


def _table(design: Design, side: Side) -> Table:
    held_out, layers = design.held_out, np.array(side.acts.layers)
    return {
        "example": [it.id for it in design.examples],
        "group": list(held_out.groups),
        "label": held_out.labels,
        "fold": held_out.folds,
        "prompt": [_digest(ids) for ids in side.acts.token_ids],
        "best_layer": layers[side.probes.validation.argmin(1)[held_out.folds]],
        "best_layer_score": side.probes.of_best_layer(side.scores)[0],
        **{
            f"{_LAYER}{layer}": scores
            for layer, scores in zip(side.acts.layers, side.scores, strict=True)
        },
    }


def _digest(token_ids: Sequence[int]) -> str:
    return hashlib.sha256(repr(tuple(token_ids)).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Kept:
    """The held-out scores of one model.

    Args:
        label: of the model.
        examples: their ids.
        prompts: equal where the token ids are.
        held_out: labels, groups, folds and resamples.
        layers: block indices.
        kinds: type of each layer.
        scores: by layer.
        nested: at the layer that each fold's training set chose.
        seed: of the resamples.
    """

    label: str
    examples: tuple[str, ...]
    prompts: tuple[str, ...]
    held_out: HeldOut
    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    scores: Float[np.ndarray, "head example"]
    nested: Float[np.ndarray, "1 example"]
    seed: int

    @cached_property
    def auroc(self) -> Estimate:
        """By layer."""
        return self.held_out.auroc(self.scores)

    @cached_property
    def best(self) -> Estimate:
        """Of the layer that each fold's training set chose."""
        return self.held_out.auroc(self.nested)

    def equals(self, other: "Kept") -> bool:
        """Whether every score is the same, of the same examples in the same folds."""
        mine, its = self.held_out, other.held_out
        return (
            (self.examples, self.prompts, mine.groups)
            == (other.examples, other.prompts, its.groups)
            and np.array_equal(mine.labels, its.labels)
            and np.array_equal(mine.folds, its.folds)
            and np.array_equal(mine.weights, its.weights)
            and np.array_equal(self.scores, other.scores)
            and np.array_equal(self.nested, other.nested)
        )


def read(job: Finished) -> dict[str, Kept]:
    """What a job kept, by label; empty where it is a result without held-out scores."""
    labels = {STAGE: job.stage, REFERENCE: job.reference}
    found = {name: label for name, label in labels.items() if name in job.result.tables}
    return {label: _kept(job, label, job.result.tables[name]) for name, label in found.items()}


def _kept(job: Finished, label: str, table: Mapping[str, Any]) -> Kept:
    rows, tensors = job.result.measurements, job.result.tensors
    seed, groups = rows[0].seed, tuple(table["group"])
    kinds = {row.layer: row.layer_type for row in rows}
    layers = tuple(int(it.removeprefix(_LAYER)) for it in table if it.startswith(_LAYER))
    weights = estimates.group_weights(groups, int(tensors["n_resamples"][0]), seed)
    return Kept(
        label=label,
        examples=tuple(table["example"]),
        prompts=tuple(table["prompt"]),
        held_out=HeldOut(groups, table["fold"], weights, table["label"]),
        layers=layers,
        kinds=tuple(kinds.get(layer, "") for layer in layers),
        scores=np.stack([table[f"{_LAYER}{layer}"] for layer in layers]),
        nested=table["best_layer_score"][None],
        seed=seed,
    )
