"""What is asked of every layer about one trait, and what a kind answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from olmo_stages.vectors.agreement import Agreement
from olmo_stages.vectors.cells import Cells
from olmo_stages.vectors.contrast import Contrast, Targets
from olmo_stages.vectors.dots import Units
from olmo_stages.vectors.kinds import Extractor
from olmo_stages.vectors.layer import ROUNDING, Centred, Layer
from olmo_stages.vectors.nulls import Nulls

Null = Literal["relabelled", "independent", "unrelated"]

ARITHMETIC = 1e-6
"""Cosines closer than this are ties whatever the forward pass: sums in float32."""

TRIED = 8
"""Relabellings on which the effect of rounding is tried out, for kinds without a formula."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is asked of every layer about one trait.

    Args:
        contrast: its examples.
        extract: makes the vectors.
        nulls: drawn for this contrast.
        controls: other contrasts of the same examples, by name, one target each.
        seed: of halves and blocks, for kinds that are refitted.
    """

    contrast: Contrast
    extract: Extractor
    nulls: Nulls
    controls: Mapping[str, Targets] = field(default_factory=dict)
    seed: int = 0

    @cached_property
    def cells(self) -> Cells:
        """The examples by group and label."""
        return Cells.of(self.contrast)

    @cached_property
    def units(self) -> Units:
        """What the relabellings move together."""
        return Units.of(self.nulls.relabelled.labels)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a kind finds out about one variant of a layer.

    Args:
        agreement: values with all groups, and without each.
        vector: of the stage, in the variant's scale.
        reference_vector: of the reference.
        samples: cosines under each null.
        rounding: how far rounding of the forward pass may have lowered each of them.
        controls: cosines of the plan's other contrasts.
    """

    agreement: Agreement
    vector: Float32[np.ndarray, " d_model"]
    reference_vector: Float32[np.ndarray, " d_model"] | None
    samples: Mapping[Null, Float64[np.ndarray, " sample"]] = field(default_factory=dict)
    rounding: Mapping[Null, Float64[np.ndarray, " sample"]] = field(default_factory=dict)
    controls: Mapping[str, float] = field(default_factory=dict)


def flat_rounding(
    samples: Mapping[Null, Float64[np.ndarray, " _"]],
    sides: tuple[Centred, Centred],
    layer: Layer,
    plan: Plan,
) -> dict[Null, Float64[np.ndarray, " _"]]:
    """How far rounding may have lowered samples: one number for all, tried out.

    Args:
        samples: by null.
        sides: rows of both stages.
        layer: which they come from.
        plan: which they were drawn for.
    """
    first = tried_rounding(sides[0], layer, plan)
    both = first + (first if sides[1] is sides[0] else tried_rounding(sides[1], layer, plan))
    return {name: np.full(len(its), ARITHMETIC + both) for name, its in samples.items()}


def tried_rounding(side: Centred, layer: Layer, plan: Plan) -> float:
    """By how much rounding lowers the cosine of a null vector with itself, tried out.

    Args:
        side: rows of a stage.
        layer: which they come from.
        plan: whose first relabellings are fitted, with and without noise.

    Returns:
        Twice the median over `TRIED` relabellings.
    """
    targets = plan.nulls.relabelled.of(np.arange(min(TRIED, len(plan.nulls.relabelled))))
    if not len(targets):
        return 0.0
    noise = np.random.default_rng(0).standard_normal(side.x.shape, dtype=np.float32)
    noise *= side.x + side.mean.astype(np.float32)
    noisy = side.x + np.float32(ROUNDING * layer.resolution) * noise
    exact, moved = plan.extract(side.x, targets), plan.extract(noisy, targets)
    return float(2 * np.median(1 - paired_cosines(exact, moved)))


def paired_cosines(
    x: Float32[np.ndarray, "target d_model"], y: Float32[np.ndarray, "target d_model"]
) -> Float64[np.ndarray, " target"]:
    """Cosine of each vector of the one with its counterpart; NaN where one has no length."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(1) / np.sqrt(np.square(x).sum(1) * np.square(y).sum(1))
