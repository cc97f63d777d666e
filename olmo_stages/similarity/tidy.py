"""Scores as measurements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from olmo_stages.similarity.inference import Scores
from olmo_stages.types import Measurement

SMALLEST = 1e-7
"""Distance from the top that is drawn for anything nearer; float32 does not tell them apart."""

PALE = 0.001
"""Values that differ by less have nearly the same colour."""


@dataclass(frozen=True)
class Labels:
    """What all measurements of a comparison share.

    Args:
        stage: label of the stage.
        reference: label of the other side.
        layers: the stage's layers.
        kinds: their types.
        others: the other side's layers.
        other_kinds: their types.
        n: number of rows compared.
        n_groups: number of groups resampled.
        seed: of every random choice.
    """

    stage: str
    reference: str
    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    others: tuple[int, ...]
    other_kinds: tuple[str, ...]
    n: int
    n_groups: int
    seed: int

    def turned(self) -> "Labels":
        """The other side seen from its own point of view."""
        return replace(
            self,
            stage=self.reference,
            reference=self.stage,
            layers=self.others,
            kinds=self.other_kinds,
            others=self.layers,
            other_kinds=self.kinds,
        )

    def diagonal(
        self, metric: str, variant: str, scores: Scores, notes: Sequence[str] = ()
    ) -> list[Measurement]:
        """One measurement a layer, about the same layer of both sides."""
        return [
            self.row(
                metric,
                variant,
                layer=self.layers[i],
                layer_type=self.kinds[i],
                reference_layer=self.others[i],
                reference_layer_type=self.other_kinds[i],
                note=notes[i] if notes else "",
                **at(scores, i),
            )
            for i in range(len(self.layers))
        ]

    def map(self, metric: str, variant: str, scores: Scores) -> list[Measurement]:
        """One measurement for each pair of layers."""
        return [
            self.row(
                metric,
                variant,
                layer=self.layers[i],
                layer_type=self.kinds[i],
                reference_layer=self.others[j],
                reference_layer_type=self.other_kinds[j],
                **at(scores, (i, j)),
            )
            for i in range(len(self.layers))
            for j in range(len(self.others))
        ]

    def row(self, metric: str, variant: str, **fields: Any) -> Measurement:  # noqa: ANN401  (fields of Measurement)
        """One measurement."""
        return Measurement(
            metric=metric,
            variant=variant,
            stage=self.stage,
            reference=self.reference,
            n=self.n,
            n_groups=self.n_groups,
            seed=self.seed,
            **fields,
        )


def distances(rows: Sequence[Measurement], top: float) -> list[Measurement]:
    """How far numbers are below `top`, for a logarithmic axis, which has no place for 0.

    Args:
        rows: numbers with intervals.
        top: the number that identical inputs have.

    Returns:
        A row for each that is not at the top; what is nearer than `SMALLEST` is drawn there.
    """

    def below(value: float | None) -> float | None:
        return None if value is None else max(top - value, SMALLEST)

    return [
        replace(
            row,
            value=max(top - row.value, SMALLEST),
            ci_low=below(row.ci_high),
            ci_high=below(row.ci_low),
            null=None,
            p=None,
            p_max=None,
        )
        for row in rows
        if row.value < top
    ]


def colour_limits(rows: Sequence[Measurement]) -> tuple[float, float]:
    """Colours from the lowest value to 1: stages of a lineage are near 1."""
    lowest = min((row.value for row in rows if math.isfinite(row.value)), default=0.0)
    return min(lowest, 1 - PALE), 1.0


def at(scores: Scores, cell: int | tuple[int, int]) -> dict[str, float | None]:
    """Fields of the measurement of one cell."""
    found = {
        "value": scores.value,
        "ci_low": scores.low,
        "ci_high": scores.high,
        "null": scores.null,
        "p": scores.p,
        "p_max": scores.p_max,
    }
    return {
        name: None if values is None or not np.isfinite(values[cell]) else float(values[cell])
        for name, values in found.items()
    } | {"value": float(scores.value[cell])}
