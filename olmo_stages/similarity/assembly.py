"""Stage x stage matrices of a sweep, from the tables that its jobs kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from olmo_stages.dominant import VARIANTS, Variant
from olmo_stages.figures import of_jobs, stage_curves, stage_matrix
from olmo_stages.lineage import lineage_order
from olmo_stages.similarity import captions, choice
from olmo_stages.similarity.design import Design
from olmo_stages.similarity.inference import Scores, diagonal, from_error
from olmo_stages.similarity.measure import Declared, PairTable
from olmo_stages.similarity.tables import Comparison, Tables, standard_error
from olmo_stages.similarity.tidy import Labels, at, colour_limits
from olmo_stages.types import Finished, Measurement, Result


@dataclass(frozen=True, eq=False)
class _Kept:
    """One stage's tables, as a job kept them."""

    label: str
    job: Finished
    side: str
    layers: tuple[int, ...]
    kinds: tuple[str, ...]

    def tables(self, variant: Variant, design: Design, measure: PairTable) -> Tables:
        tensors = self.job.result.tensors
        # Without a dominant dimension both variants are the same, and one is kept.
        packed = tensors.get(f"tables.{self.side}.{variant}", tensors[f"tables.{self.side}.raw"])
        return Tables.unpacked(packed, design, measure.order)


def stage_matrices(jobs: Sequence[Finished]) -> Result | None:
    """Compare all stages of a sweep, references included, without reading an activation.

    Args:
        jobs: finished jobs of one analysis, data set and set of options, in lineage order.

    Returns:
        For every pair of stages the score of each layer with the same layer and its mean over
        layers (`METRIC_stages`), and each layer's best match (`best_match_stages`, in both
        directions); None if fewer than two stages kept their tables.
    """
    jobs = [job for job in jobs if "compared" in job.result.tensors]
    warnings: list[str] = []
    if jobs:
        first = jobs[0].result.tensors["compared"]
        alike = [job for job in jobs if np.array_equal(job.result.tensors["compared"], first)]
        if len(alike) < len(jobs):
            warnings.append(f"{len(jobs) - len(alike)} jobs compare other rows and are left out")
        jobs = alike
    stages = _stages(jobs)
    if len(stages) < 2:
        return None
    name = next(row.metric for row in jobs[0].result.measurements if row.metric.endswith("_map"))
    # Tables are made already: only what the measure declares is needed, not its options.
    measure = choice.pair_table(name.removesuffix("_map"), batch=4, neighbours=1)
    rows = [
        row
        for variant in VARIANTS
        for one, other in combinations(stages, 2)
        for row in _pair(one, other, variant, measure)
    ]
    return Result(
        measurements=tuple(rows),
        figures=_figures(rows, jobs, [stage.label for stage in stages], measure),
        headline={"stages": len(stages)},
        warnings=tuple(warnings),
    )


def _stages(jobs: Sequence[Finished]) -> list[_Kept]:
    """Every stage once, references included, in the order of the lineage."""
    found: dict[str, _Kept] = {}
    own = {job.stage for job in jobs}
    for job in jobs:
        rows = [row for row in job.result.measurements if row.metric.endswith("_map")]
        # A reference that is a stage of the sweep itself comes in its own place.
        if job.reference and job.reference not in own:
            kinds = {it.reference_layer: it.reference_layer_type for it in rows}
            found.setdefault(job.reference, _kept(job.reference, job, "reference", kinds))
        kinds = {it.layer: it.layer_type for it in rows}
        found.setdefault(job.stage, _kept(job.stage, job, "stage", kinds))
    place = lineage_order()
    return sorted(found.values(), key=lambda kept: place(kept.label))


def _kept(label: str, job: Finished, side: str, kinds: dict[int | None, str]) -> _Kept:
    return _Kept(
        label, job, side, tuple(it for it in kinds if it is not None), tuple(kinds.values())
    )


def _pair(one: _Kept, other: _Kept, variant: Variant, measure: PairTable) -> Iterator[Measurement]:
    tensors = one.job.result.tensors
    blocks = tensors["blocks"]
    rows = tuple(np.flatnonzero(blocks == block) for block in np.unique(blocks))
    design = Design(tensors["units"], tensors["groups"], rows)
    comparison = Comparison(
        one.tables(variant, design, measure), other.tables(variant, design, measure), design
    )
    template = one.job.result.measurements[0]
    labels = Labels(
        stage=other.label,
        reference=one.label,
        layers=other.layers,
        kinds=other.kinds,
        others=one.layers,
        other_kinds=one.kinds,
        n=template.n,
        n_groups=template.n_groups,
        seed=template.seed,
    )
    value, influence = comparison.value, comparison.influence
    if one.layers == other.layers:
        yield from _same_layers(labels, comparison, variant, measure)
    yield from _best_matches(labels.turned(), value, influence, variant, measure)
    yield from _best_matches(labels, value.T, influence.transpose(1, 0, 2), variant, measure)


def _same_layers(
    labels: Labels, comparison: Comparison, variant: Variant, measure: PairTable
) -> Iterator[Measurement]:
    n, declared = labels.n_groups, measure.declared
    metric = f"{declared.name}_stages"
    errors = np.diagonal(comparison.error)
    scores = from_error(diagonal(comparison), errors, n, declared)
    yield from labels.diagonal(metric, variant, scores)
    influence = np.diagonal(comparison.influence).T
    yield labels.row(metric, variant, **at(_mean(scores.value, influence, n, declared), 0))


def _best_matches(
    labels: Labels,
    value: np.ndarray,
    influence: np.ndarray,
    variant: Variant,
    measure: PairTable,
) -> Iterator[Measurement]:
    """The layer of the reference that is most like each layer of the stage."""
    n, declared = labels.n_groups, measure.declared
    metric = "best_match_stages"
    best = value.argmax(axis=1)
    cells = (np.arange(len(value)), best)
    scores = from_error(value[cells], standard_error(influence[cells]), n, declared)
    for i, j in enumerate(best.tolist()):
        yield labels.row(
            metric,
            variant,
            layer=labels.layers[i],
            layer_type=labels.kinds[i],
            reference_layer=labels.others[j],
            reference_layer_type=labels.other_kinds[j],
            **at(scores, i),
        )
    mean = _mean(scores.value, influence[cells], n, declared)
    yield labels.row(metric, variant, **at(mean, 0))


def _mean(value: np.ndarray, influence: np.ndarray, n: int, declared: Declared) -> Scores:
    """Mean over layers, its error from the layers' joint influences [layer, group]."""
    error = standard_error(influence.mean(axis=0, keepdims=True))
    return from_error(value.mean(keepdims=True), error, n, declared)


def _figures(
    rows: Sequence[Measurement],
    jobs: Sequence[Finished],
    order: Sequence[str],
    measure: PairTable,
) -> dict[str, str]:
    title, n_groups = measure.declared.title, rows[0].n_groups
    declared = measure.declared
    figures: dict[str, str] = {}
    metric = f"{declared.name}_stages"
    # The variants are set beside each other, so that they share their colours.
    limits = {
        it: colour_limits([row for row in rows if row.metric == it])
        for it in (metric, "best_match_stages")
    }
    for variant in VARIANTS:
        own = [row for row in rows if row.variant == variant]
        if any(row.metric == metric for row in own):
            figures[f"stages_{variant}"] = stage_matrix(
                own,
                metric,
                order=order,
                title=f"{title} of all stages, {variant}",
                caption=captions.of_stages(title, variant, n_groups),
                limits=limits[metric],
            )
        figures[f"best_match_{variant}"] = stage_matrix(
            own,
            "best_match_stages",
            order=order,
            title=f"Best-matching layer: {title}, {variant}",
            caption=captions.of_best_match(title, variant, n_groups),
            limits=limits["best_match_stages"],
            symmetric=False,
        )
    curves = [
        row
        for job in jobs
        for row in job.result.measurements
        if row.metric == declared.name and row.variant == "raw" and row.reference != row.stage
    ]
    if curves:
        drawn = stage_curves(
            curves,
            declared.name,
            title=f"{title} by layer, raw",
            y_label=title,
            caption=captions.of_curves(
                title, n_groups, null=any(row.null is not None for row in curves)
            ),
            labels=order,
        )
        figures["diagonals"] = of_jobs(drawn)
    return figures
