"""How far the vector of one layer turned between two stages, with what it takes to believe it.

All of it for one layer, so that an analysis can stream layers through threads. Every number exists
twice: for activations as they are, and with dominant dimensions scaled down by one factor a
dimension that both stages share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64

from olmo_stages.dominant import VARIANTS, Variant
from olmo_stages.vectors.agreement import Size
from olmo_stages.vectors.jackknife import UNKNOWN, Interval, jackknifed
from olmo_stages.vectors.kinds import LDA
from olmo_stages.vectors.layer import Centred, Layer
from olmo_stages.vectors.linear import discriminant, mean_difference, mean_lengths
from olmo_stages.vectors.plan import Evidence, Null, Plan
from olmo_stages.vectors.refitted import refits


@dataclass(frozen=True, eq=False)
class Side:
    """The vector of one stage.

    Args:
        vector: from the negative to the positive side, in the variant's scale.
        midpoint: middle between the class means, along the unit vector, from the origin.
        separation: distance of the class means along the unit vector.
        reliability: share of signal in the squared length, or stepped-up split-half agreement.
        size: length of the difference of the class means, whatever the kind of the vector, and of
            the activations as they are, whatever the variant.
    """

    vector: Float32[np.ndarray, " d_model"]
    midpoint: float
    separation: float
    reliability: Interval
    size: Size


@dataclass(frozen=True, eq=False)
class Turn:
    """One layer, one variant.

    Args:
        stage: the stage's vector.
        reference: the reference's; None = there is none, and what follows is NaN or empty.
        cosine: of the two vectors, from all examples.
        corrected: the cosine without attenuation; NaN where a reliability is not above 0.
        ceiling: root of the product of the reliabilities; NaN where one is not above 0.
        samples: cosines under each null.
        rounding: how far rounding of the forward pass may have lowered each of them, for ties.
        controls: cosines of other contrasts of the same examples.
        dominant: number of dimensions that are scaled down where the variant says so.
    """

    stage: Side
    reference: Side | None
    cosine: Interval = UNKNOWN
    corrected: Interval = UNKNOWN
    ceiling: float = float("nan")
    samples: Mapping[Null, Float64[np.ndarray, " sample"]] = field(default_factory=dict)
    rounding: Mapping[Null, Float64[np.ndarray, " sample"]] = field(default_factory=dict)
    controls: Mapping[str, float] = field(default_factory=dict)
    dominant: int = 0


def turn(
    stage: Float32[np.ndarray, "example d_model"],
    reference: Float32[np.ndarray, "example_too d_model_too"] | None,
    plan: Plan,
    resolution: float,
    where: tuple[str, str],
) -> dict[Variant, Turn]:
    """Compare the vectors of one layer of two stages.

    Args:
        stage: activations of all examples in the stage.
        reference: the same examples in the reference; None gives the stage's own numbers only.
        plan: the contrast, the kind of vector, and the nulls.
        resolution: relative spread below which a dimension is rounding, see
            `olmo_stages.estimates.RESOLUTION`; the larger one of the two stages.
        where: names of stage and reference in errors.

    Returns:
        One turn a variant; the same one twice where no dimension dominates.

    Raises:
        PairingError: the stages have other examples or another d_model.
        NonFiniteError: an activation is not finite.
        DataError: no dimension varies by more than rounding.
    """
    layer = Layer.of(stage, reference, plan.contrast.rows, resolution, where)
    variants = VARIANTS if len(layer.dominant) else VARIANTS[:1]
    own = plan.extract.kind == "mean_difference"
    lengths = mean_lengths(layer, plan, variants if own else VARIANTS[:1])
    raw = lengths["raw"]
    sizes = [Size.of(raw.xx, layer.stage, plan.cells)]
    if layer.reference is not None and raw.yy is not None:
        sizes.append(Size.of(raw.yy, layer.reference, plan.cells))
    if own:
        found = dict(mean_difference(layer, plan, lengths))
    elif isinstance(plan.extract, LDA):
        found = dict(discriminant(layer, plan, plan.extract, variants))
    else:
        found = dict(refits(layer, plan, variants))
    turns = {variant: _turn(layer, variant, its, plan, sizes) for variant, its in found.items()}
    return {variant: turns.get(variant, turns["raw"]) for variant in VARIANTS}


def _turn(layer: Layer, variant: Variant, its: Evidence, plan: Plan, sizes: Sequence[Size]) -> Turn:
    x, y = layer.sides(variant)
    stage = _side(x, its.vector, its.agreement.stage, sizes[0], plan)
    dominant = len(layer.dominant)
    if y is None or its.reference_vector is None:
        return Turn(stage, None, dominant=dominant)
    return Turn(
        stage=stage,
        reference=_side(y, its.reference_vector, its.agreement.reference, sizes[-1], plan),
        cosine=jackknifed(its.agreement.cosine, "cosine"),
        corrected=jackknifed(its.agreement.corrected, "plain"),
        ceiling=its.agreement.ceiling,
        samples=its.samples,
        rounding=its.rounding,
        controls=its.controls,
        dominant=dominant,
    )


def _side(
    side: Centred,
    vector: Float32[np.ndarray, " d_model"],
    reliability: Float64[np.ndarray, " left_out"],
    size: Size,
    plan: Plan,
) -> Side:
    unit = vector.astype(np.float64)
    length = float(np.linalg.norm(unit))
    unit = unit / length if length > 0 else unit
    scores = (side.x @ unit.astype(np.float32)).astype(np.float64) + side.mean @ unit
    negative, positive = (float(scores[plan.contrast.labels == label].mean()) for label in (0, 1))
    return Side(
        vector=vector,
        midpoint=(negative + positive) / 2,
        separation=positive - negative,
        reliability=jackknifed(reliability, "reliability"),
        size=size,
    )
