"""What a comparison of two sides says: the main measure in full, others along the diagonal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from olmo_stages.dominant import Variant
from olmo_stages.errors import DataError
from olmo_stages.similarity import refits
from olmo_stages.similarity.canonical import few_rows
from olmo_stages.similarity.design import exchangeable_groups, permutations
from olmo_stages.similarity.inference import (
    Scores,
    diagonal,
    ends_of,
    from_error,
    from_samples,
)
from olmo_stages.similarity.measure import Fitted, PairTable
from olmo_stages.similarity.procrustes import Procrustes
from olmo_stages.similarity.sides import Plan, Side
from olmo_stages.similarity.tables import Comparison, Tables, standard_error
from olmo_stages.similarity.tidy import Labels, at
from olmo_stages.types import Measurement

MOVABLE = 0.5
"""Share of groups that can change places, below which the null is no zero to calibrate against."""


@dataclass(frozen=True, eq=False)
class Lead:
    """The main measure's diagonal, for the headline.

    Args:
        rows: by layer.
        mean: over layers.
        drop: the largest fall from one layer to the next, where there are two layers.
    """

    rows: tuple[Measurement, ...]
    mean: Measurement
    drop: Measurement | None


@dataclass(eq=False)
class Findings:
    """Collects the measurements of a comparison.

    Args:
        x: the stage.
        y: the reference; the same object where a stage is compared with itself.
        floor: the stage randomly initialised.
        plan: what was made of every layer.
        labels: what all rows share.
        weights: resamples of the groups.
        n_permutations: of the main measure.
        n_permutations_also: of the others.
        keep_tables: whether to keep the main measure's tables.
    """

    x: Side
    y: Side
    floor: Side | None
    plan: Plan
    labels: Labels
    weights: Float[np.ndarray, "resample row"]
    n_permutations: int
    n_permutations_also: int
    keep_tables: bool
    rows: list[Measurement] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    lead: Lead | None = None

    def __post_init__(self) -> None:
        self.main = self.plan.tables[0]
        self.design = self.plan.design(self.main)

    @property
    def aligned(self) -> bool:
        """Whether both sides have the same layers, so that there is a diagonal."""
        return self.x.indices == self.y.indices

    @property
    def dominated(self) -> bool:
        """Whether a dimension dominates anywhere, so that the variants differ."""
        sides = (side for side in (self.x, self.y, self.floor) if side is not None)
        return any(layer.dominant for side in sides for layer in side.layers)

    def repeat(self, variant: Variant) -> None:
        """Say of a variant what was found for `raw`, which it is without a dominant dimension."""
        same = [row for row in self.rows if "raw" in row.variant]
        self.rows += [replace(row, variant=row.variant.replace("raw", variant)) for row in same]
        self.tensors[f"map.{variant}"] = self.tensors["map.raw"]

    def compare(self, variant: Variant, advance: Callable[[], None]) -> None:
        """The main measure: map, diagonal, floor, ceiling, and where the stages part."""
        x, y = (side.tables(self.main, variant) for side in (self.x, self.y))
        comparison = Comparison(x, y, self.design)
        shuffled = permutations(self.design, self.n_permutations, self.labels.seed)
        null = comparison.null(shuffled, advance)
        if self.keep_tables:
            for name, side, tables in (("stage", self.x, x), ("reference", self.y, y)):
                if variant == "raw" or any(layer.dominant for layer in side.layers):
                    self.tensors[f"tables.{name}.{variant}"] = tables.packed()
        self.tensors[f"map.{variant}"] = comparison.value
        declared, n = self.main.declared, self.design.n_groups
        cells = from_error(comparison.value, comparison.error, n, declared)
        cells = cells.against(null, declared.high)
        if self.aligned:
            self._diagonal(variant, comparison, x, null, cells)
        self._best_matches(variant, cells)
        self.rows += self.labels.map(f"{declared.name}_map", variant, cells)

    def _diagonal(
        self,
        variant: Variant,
        comparison: Comparison,
        x: Tables,
        null: np.ndarray,
        cells: Scores,
    ) -> None:
        declared, n = self.main.declared, self.design.n_groups
        samples = comparison.resampled(self.weights)
        null = np.diagonal(null, axis1=1, axis2=2)
        if self.x is self.y:  # 1 by construction, which no null makes a finding
            null = null[:0]
        scores = from_samples(diagonal(comparison), samples, n, declared)
        scores = scores.against(null, declared.high)
        if scores.p is not None and cells.p_max is not None:
            scores = replace(scores, p_max=np.diagonal(cells.p_max))
        floor = self._floor(x, variant)
        # Rounding can bring a score to 1, but not its error to 0.
        same = (scores.value == 1) & (np.diagonal(comparison.error) == 0)
        notes = [self._note(i, scores, floor, bool(same[i])) for i in range(len(same))]
        rows = self.labels.diagonal(declared.name, variant, scores, notes)
        self.rows += rows
        self._beside(variant, scores, floor)
        means = self._means(variant, scores.value, samples, null)
        self.rows += means
        drop = self._changes(variant, scores.value, samples)
        if variant == "raw":
            self.lead = Lead(tuple(rows), means[0], drop)

    def _floor(self, x: Tables, variant: Variant) -> Scores | None:
        """The diagonal against the randomly initialised model."""
        if self.floor is None:
            return None
        comparison = Comparison(x, self.floor.tables(self.main, variant), self.design)
        errors = np.diagonal(comparison.error)
        return from_error(diagonal(comparison), errors, self.design.n_groups, self.main.declared)

    def _note(self, i: int, scores: Scores, floor: Scores | None, same: bool) -> str:  # noqa: FBT001  (of this class only)
        if self.x is not self.y and same:
            return "identical: exactly 1"
        if floor is not None and scores.low[i] <= floor.value[i]:
            return f"not above the random initialisation ({floor.value[i]:.2f})"
        return ""

    def _beside(self, variant: Variant, scores: Scores, floor: Scores | None) -> None:
        """Calibrated scores, floor and ceiling."""
        declared = self.main.declared
        movable = exchangeable_groups(self.design) / self.design.n_groups
        if scores.calibrated is not None and movable >= MOVABLE:
            assert scores.calibrated_low is not None
            assert scores.calibrated_high is not None
            above = Scores(scores.calibrated, scores.calibrated_low, scores.calibrated_high)
            self.rows += self.labels.diagonal(f"{declared.name}_calibrated", variant, above)
        if floor is not None:
            own = replace(self.labels, reference=f"{self.labels.stage} (random)")
            notes = ["the stage randomly initialised"] * len(self.x.layers)
            self.rows += own.diagonal(declared.name, f"floor:{variant}", floor, notes)
        lacking = [it.lacking["ceiling"] for it in self.x.layers if "ceiling" in it.lacking]
        if lacking and variant == "raw":
            self.warnings.append(f"the ceiling is left out: {lacking[0]}")
        if self.plan.n_halves and not lacking:
            halves = [layer.halves[variant] for layer in self.x.layers]
            value = np.array([score for score, _ in halves])
            errors = standard_error(np.stack([influence for _, influence in halves]))
            ceiling = from_error(value, errors, self.design.n_groups, declared)
            own = replace(self.labels, reference=self.labels.stage)
            notes = ["two halves of the stage's dimensions; no upper bound"] * len(value)
            self.rows += own.diagonal(declared.name, f"ceiling:{variant}", ceiling, notes)

    def _best_matches(self, variant: Variant, cells: Scores) -> None:
        """For each layer of the stage the layer of the reference that is most like it."""
        # The best of several is no single test: only the p over the whole map allows for that.
        cells = replace(cells, p=None)
        for i, j in enumerate(cells.value.argmax(axis=1).tolist()):
            self.rows.append(
                self.labels.row(
                    "best_match",
                    variant,
                    layer=self.x.indices[i],
                    layer_type=self.x.kinds[i],
                    reference_layer=self.y.indices[j],
                    reference_layer_type=self.y.kinds[j],
                    **at(cells, (i, j)),
                )
            )

    def _means(
        self, variant: Variant, value: np.ndarray, samples: np.ndarray, null: np.ndarray
    ) -> list[Measurement]:
        """Mean of the diagonal over all layers, and over each type of layer."""
        kinds = np.array(self.x.kinds)
        rows: list[Measurement] = []
        for kind in ["", *dict.fromkeys(kinds)]:
            chosen = (kinds == kind) | (kind == "")
            mean = from_samples(
                value[chosen].mean(keepdims=True),
                samples[:, chosen].mean(axis=1, keepdims=True),
                self.design.n_groups,
                self.main.declared,
            ).against(null[:, chosen].mean(axis=1, keepdims=True), self.main.declared.high)
            name = f"{self.main.declared.name}_mean"
            mean = replace(mean, p_max=None)  # of one number, which is no maximum
            rows.append(self.labels.row(name, variant, layer_type=kind, **at(mean, 0)))
        return rows

    def _changes(
        self, variant: Variant, value: np.ndarray, samples: np.ndarray
    ) -> Measurement | None:
        """How the diagonal changes from one layer to the next; returns the largest fall."""
        if len(value) < 2 or self.x is self.y:
            return None
        change, changes = np.diff(value), np.diff(samples, axis=1)
        at_fall = int(change.argmin())
        share = float((np.nan_to_num(changes).argmin(axis=1) == at_fall).mean())
        largest: Measurement | None = None
        for i in range(len(change)):
            ends = ends_of(changes[:, i], self.design.n_groups)
            low, high = (it if np.isfinite(it) else None for it in ends)
            row = self.labels.row(
                f"{self.main.declared.name}_change",
                variant,
                value=float(change[i]),
                ci_low=low,
                ci_high=high,
                layer=self.x.indices[i + 1],
                layer_type=self.x.kinds[i + 1],
                note=self._step(i),
            )
            # A fall that resampling does not tell from none is not one.
            if i == at_fall and high is not None and high < 0:
                said = f"largest fall, in {share:.0%} of resamples too"
                row = replace(row, note="; ".join(filter(None, [said, row.note])))
                largest = row
            self.rows.append(row)
        return largest

    def also(self, measure: PairTable | Fitted, variant: Variant) -> None:
        """Another measure along the diagonal; left out with a warning where it cannot be had."""
        if not self.aligned:
            return
        try:
            self._also(measure, variant)
        except DataError as error:
            self.warnings.append(f"{measure.declared.name} left out: {error}")

    def _step(self, i: int) -> str:
        """From which layer a change is counted, where it is not the one before."""
        before, after = self.x.indices[i], self.x.indices[i + 1]
        return "" if after == before + 1 else f"from layer {before}"

    def _also(self, measure: PairTable | Fitted, variant: Variant) -> None:
        declared, n_parts = measure.declared, self.design.n_groups
        n_permutations = 0 if self.x is self.y else self.n_permutations_also
        if isinstance(measure, PairTable):
            design = self.plan.design(measure)
            shuffled = permutations(design, n_permutations, self.labels.seed)
            comparison = Comparison(
                self.x.tables(measure, variant), self.y.tables(measure, variant), design
            )
            null = np.diagonal(comparison.null(shuffled), axis1=1, axis2=2)
            value, errors = diagonal(comparison), np.diagonal(comparison.error)
        else:
            shuffled = permutations(self.design, n_permutations, self.labels.seed)
            sides = (self.x.reduced(measure, variant), self.y.reduced(measure, variant))
            groups = self.design.groups
            value = refits.scores(measure, *sides, groups)
            if isinstance(measure, Procrustes):
                errors, n_parts = refits.jackknife_errors(measure, *sides, groups)
            else:
                errors = np.full(len(value), np.nan)
                self._warn_of_canonical(declared.name, variant, [*sides[0], *sides[1]])
            null = refits.null(measure, *sides, groups, shuffled)
        scores = from_error(value, errors, n_parts, declared).against(null, declared.high)
        self.rows += self.labels.diagonal(declared.name, variant, scores)

    def _warn_of_canonical(self, name: str, variant: Variant, layers: Sequence[np.ndarray]) -> None:
        if variant != "raw":
            return
        caution = few_rows(len(self.plan.rows), max(layer.shape[1] for layer in layers))
        without = (
            "no interval: with the kept directions fixed a jackknife is several times too short"
        )
        self.warnings.append(f"{name}: {'; '.join(filter(None, [without, caution]))}")
