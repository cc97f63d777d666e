"""Agreement and nulls of kinds that are linear in the labels, as matrix products."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from olmo_stages.dominant import Variant
from olmo_stages.vectors.agreement import Agreement
from olmo_stages.vectors.cells import Cells, Moments, Products
from olmo_stages.vectors.dots import Dots
from olmo_stages.vectors.kinds import LDA, coefficients, mean_differences
from olmo_stages.vectors.layer import ROUNDING, Layer
from olmo_stages.vectors.plan import ARITHMETIC, Evidence, Null, Plan, flat_rounding
from olmo_stages.vectors.refitted import agreement

Rows = Float32[np.ndarray, "_ _"]
Pair = tuple[Rows, Rows]
Rounding = dict[Null, Float64[np.ndarray, " sample"]]


@dataclass(frozen=True, eq=False)
class Lengths:
    """Moments of a stage's vector, of its reference's, and of both together."""

    xx: Moments
    yy: Moments | None = None
    xy: Moments | None = None

    @classmethod
    def of(cls, products: Sequence[Products], cells: Cells) -> "Lengths":
        """From one product, of a stage alone, or from three."""
        return cls(*(Moments.of(its, cells) for its in products))


def mean_lengths(layer: Layer, plan: Plan, variants: Sequence[Variant]) -> dict[Variant, Lengths]:
    """Moments of the mean difference, the columns that variants have in common once."""
    sums = [plan.cells.sums(layer.stage.x)]
    if layer.reference is not None:
        same = layer.reference is layer.stage
        sums.append(sums[0] if same else plan.cells.sums(layer.reference.x))
    few = [its[:, layer.dominant] for its in sums]
    for its in sums:
        its[:, layer.dominant] = 0
    common = _products(sums, plan.cells)
    found: dict[Variant, Lengths] = {}
    for variant in variants:
        factor = layer.factor(variant)[layer.dominant]
        own = _products([its * factor for its in few], plan.cells)
        both = [a + b for a, b in zip(common, own, strict=True)]
        found[variant] = Lengths.of(both, plan.cells)
    return found


def _products(sums: Sequence[Float[np.ndarray, "cell column"]], cells: Cells) -> list[Products]:
    x, y = sums[0], sums[-1]
    xx = Products.of(x, x, cells)
    if len(sums) == 1:
        return [xx]
    if y is x:
        return [xx, xx, xx]
    return [xx, Products.of(y, y, cells), Products.of(x, y, cells)]


@dataclass(frozen=True, eq=False)
class NullDots:
    """Inner products of the vectors of all nulls; they add over columns.

    Args:
        relabelled: of the relabellings.
        others: of the unrelated contrasts, then of the controls.
    """

    relabelled: Dots
    others: Dots

    def __add__(self, other: "NullDots") -> "NullDots":
        return NullDots(self.relabelled + other.relabelled, self.others + other.others)

    def samples(self, plan: Plan) -> dict[Null, Float64[np.ndarray, " sample"]]:
        """Cosines under each null."""
        return {
            "relabelled": self.relabelled.cosines(),
            "independent": self.relabelled.crossed(plan.nulls.partner),
            "unrelated": self.others.cosines()[: len(plan.nulls.unrelated)],
        }

    def controls(self, plan: Plan) -> dict[str, float]:
        """Cosines of the controls."""
        found = self.others.cosines()[len(plan.nulls.unrelated) :].tolist()
        return dict(zip(plan.controls, found, strict=True))


class NullVectors:
    """Vectors of all nulls in both stages, dominant columns apart."""

    def __init__(
        self, x: Rows, y: Rows, plan: Plan, dominant: Int[np.ndarray, " dominant"]
    ) -> None:
        self.plan, self.dominant = plan, dominant
        self.weights = other_weights(plan).astype(np.float32)
        self.units, self.few_units = self._apart(x, y, plan.units.sums)
        self.others, self.few_others = self._apart(x, y, lambda rows: self.weights @ rows)
        self.common = self._dots(self.units, self.others)

    def dots(self, factor: Float32[np.ndarray, " dominant"]) -> NullDots:
        """Inner products with every dominant column multiplied."""
        if not len(self.dominant):
            return self.common
        return self.common + self._dots(
            _each(self.few_units, lambda its: its * factor),
            _each(self.few_others, lambda its: its * factor),
        )

    def _apart(self, x: Rows, y: Rows, make: Callable[[Rows], Rows]) -> tuple[Pair, Pair]:
        """What is made of both stages, and of it the dominant columns, which become zero there.

        Beside them the others would lose their digits in sums.
        """
        first = make(x)
        both = first, first if y is x else make(y)
        few = _each(both, lambda its: its[:, self.dominant])
        for its in both:
            its[:, self.dominant] = 0
        return both, few

    def _dots(self, units: Pair, others: Pair) -> NullDots:
        nulls, each = self.plan.nulls, np.arange(len(self.weights))
        return NullDots(
            Dots.products(self.plan.units.signs, *units, nulls.partner), Dots.of(*others, each)
        )


def _each(pair: Pair, change: Callable[[Rows], Rows]) -> Pair:
    """Both changed; the same object twice stays one."""
    first = change(pair[0])
    return first, first if pair[1] is pair[0] else change(pair[1])


def other_weights(plan: Plan) -> Float64[np.ndarray, "target row"]:
    """Weights of the rows in the unrelated contrasts, then in the controls."""
    labels = [plan.nulls.unrelated.labels, *(its.labels for its in plan.controls.values())]
    return coefficients(np.concatenate(labels))


def mean_difference(
    layer: Layer, plan: Plan, lengths: Mapping[Variant, Lengths]
) -> Iterator[tuple[Variant, Evidence]]:
    """Evidence about the mean difference.

    Args:
        layer: both stages.
        plan: the contrast and its nulls.
        lengths: moments of the variants that are asked for.

    Yields:
        A variant and its evidence.
    """
    x, y, targets = layer.stage, layer.reference, plan.contrast.targets()
    nulls = None if y is None else NullVectors(x.x, y.x, plan, layer.dominant)
    vector = mean_differences(x.x, targets)[0]
    other = None if y is None else mean_differences(y.x, targets)[0]
    for variant, its in lengths.items():
        factor = layer.factor(variant)
        agreement = Agreement.of(its.xx, its.yy, its.xy)
        if nulls is None or other is None:
            yield variant, Evidence(agreement, vector * factor, None)
            continue
        dots = nulls.dots(factor[layer.dominant])
        yield (
            variant,
            Evidence(
                agreement,
                vector * factor,
                other * factor,
                dots.samples(plan),
                _rounding(layer, plan, variant, dots),
                dots.controls(plan),
            ),
        )


def _rounding(layer: Layer, plan: Plan, variant: Variant, dots: NullDots) -> Rounding:
    """What independent noise of the size of rounding takes from each cosine.

    Noise whose length is a small share e of a vector's length takes e^2/2 from its cosine with
    whatever it was.
    """
    noise = [
        (ROUNDING * layer.resolution) ** 2 / 2 * side.mean_square()
        for side in layer.sides(variant)
        if side is not None
    ]
    n_unrelated = len(plan.nulls.unrelated)
    weights = np.square(other_weights(plan)[:n_unrelated]).sum(1)
    its, others = dots.relabelled, dots.others
    # A relabelling is a sum over all rows, each with weight 1 or -1.
    n = len(plan.contrast.rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = n * noise[0] / its.stage, n * noise[1] / its.reference
        unrelated = noise[0] / others.stage + noise[1] / others.reference
        return {
            "relabelled": ARITHMETIC + x + y,
            "independent": ARITHMETIC + x + y[plan.nulls.partner],
            "unrelated": ARITHMETIC + weights * unrelated[:n_unrelated],
        }


def discriminant(
    layer: Layer, plan: Plan, extract: LDA, variants: Sequence[Variant]
) -> Iterator[tuple[Variant, Evidence]]:
    """Evidence about the discriminant, a variant at a time, since the covariance mixes dimensions.

    The nulls are mean differences of whitened features. Reliability is not: what whitens the
    examples is made of them, so that the contributions of two groups are not independent (they are
    even opposed, as the rows of an inverse are). It comes from halves with a covariance each.

    Yields:
        A variant and its evidence.
    """
    targets, none = plan.contrast.targets(), np.arange(0)
    for variant in variants:
        x, y = layer.sides(variant)
        found = agreement(x.x, None if y is None else y.x, plan)
        features = [extract.features(x.x)]
        vectors = [mean_differences(features[0], targets)[0]]
        if y is None:
            yield variant, Evidence(found, vectors[0], None)
            continue
        if y is not x:
            features.append(extract.features(y.x))
            vectors.append(mean_differences(features[-1], targets)[0])
        dots = NullVectors(features[0], features[-1], plan, none).dots(np.ones(0, np.float32))
        samples = dots.samples(plan)
        yield (
            variant,
            Evidence(
                found,
                vectors[0],
                vectors[-1],
                samples,
                flat_rounding(samples, (x, y), layer, plan),
                dots.controls(plan),
            ),
        )
