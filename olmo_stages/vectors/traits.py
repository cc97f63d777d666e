"""How the vectors of several traits of one stage lie to one another, in one layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from olmo_stages.dominant import VARIANTS, Variant
from olmo_stages.vectors.layer import Layer
from olmo_stages.vectors.plan import ARITHMETIC, Plan, paired_cosines, tried_rounding


@dataclass(frozen=True, eq=False)
class TraitCosines:
    """Cosines of all pairs of traits.

    Args:
        value: of the vectors.
        samples: of vectors of other labels, a different relabelling for either trait.
        rounding: how far rounding of the forward pass may have moved each of them.
    """

    value: Float64[np.ndarray, "trait trait"]
    samples: Float64[np.ndarray, "trait trait permutation"]
    rounding: Float64[np.ndarray, "trait trait permutation"]


def trait_cosines(
    values: Float32[np.ndarray, "example d_model"],
    plans: Sequence[Plan],
    resolution: float,
    where: str,
) -> dict[Variant, TraitCosines]:
    """Compare the vectors of all traits.

    Dominant dimensions are found in the examples of all traits together, and every vector is made
    from activations scaled alike.

    Args:
        values: activations of all examples in one layer.
        plans: one a trait, with equally many relabellings.
        resolution: relative spread below which a dimension is rounding.
        where: names stage and layer in errors.

    Raises:
        NonFiniteError: an activation is not finite.
        DataError: no dimension varies by more than rounding.
    """
    rows = np.unique(np.concatenate([plan.contrast.rows for plan in plans]))
    together = Layer.of(values, None, rows, resolution, (where, ""))
    found: dict[Variant, TraitCosines] = {}
    for variant in VARIANTS:
        if variant == "raw" or len(together.dominant):
            found[variant] = _cosines(together, rows, plans, variant)
        else:
            found[variant] = found["raw"]
    return found


def _cosines(
    layer: Layer, rows: np.ndarray, plans: Sequence[Plan], variant: Variant
) -> TraitCosines:
    side = layer.sides(variant)[0]
    n, n_samples = len(plans), len(plans[0].nulls.relabelled)
    vectors, null, tried = [], [], []
    for plan in plans:
        own = side.of_rows(np.searchsorted(rows, plan.contrast.rows))
        vectors.append(plan.extract(own.x, plan.contrast.targets()))
        null.append(plan.extract(own.x, plan.nulls.relabelled))
        tried.append(tried_rounding(own, layer, plan))
    value = np.eye(n)
    samples, rounding = np.ones((n, n, n_samples)), np.zeros((n, n, n_samples))
    for i in range(n):
        for j in range(i):
            value[i, j] = value[j, i] = paired_cosines(vectors[i], vectors[j])[0]
            other = null[j][plans[i].nulls.partner]
            samples[i, j] = samples[j, i] = paired_cosines(null[i], other)
            rounding[i, j] = rounding[j, i] = ARITHMETIC + tried[i] + tried[j]
    return TraitCosines(value, samples, rounding)
