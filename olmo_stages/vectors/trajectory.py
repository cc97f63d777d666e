"""A trait vector along training: the jobs of a sweep that share a reference, put together.

Two questions are kept apart. What does the reference's vector, the same one throughout, separate in
each revision (`fixed`)? And how does each revision's own vector (`own`) compare with it? A vector
that turns while its trait stays readable answers the first with a fall and the second without one.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from olmo_stages.figures.axis import Axis
from olmo_stages.figures.palette import COLOURS, GREY, shade
from olmo_stages.figures.trajectory import Height, Line, View, trajectory
from olmo_stages.figures.wording import layer_name
from olmo_stages.revisions.axis import training_axis
from olmo_stages.types import EMBEDDING_LAYER, Finished, Headline, Measurement, Result
from olmo_stages.vectors import captions
from olmo_stages.vectors.formation import formation

SUFFIX = "_trajectory"
"""What the metrics of the assembled rows end in, so that they are not taken for those of a job."""

METRICS = (
    "cosine",
    "corrected_cosine",
    "reliability",
    "separation",
    "shift",
    "norm_to_spread",
    "norm_to_residual",
    "transfer_auroc",
)
"""What is put together of each job; its other rows are found with `olmo-stages report`."""

SCALES = ("raw", "standardised")
_COSINES = (-1.1, 1.5)  # corrected ones may be anything where a vector is hardly reliable
_RELABELLED, _UNRELATED = "same relabelling in both, 95 %", "unrelated contrasts, 95 %"
_OF_REFERENCE = re.compile(r"reference(:.*|->reference)?")

_Place = tuple[str, int | None]
"""A trait and a layer."""

_Line = tuple[str, str, str, int | None]
"""Metric, variant, trait and layer."""


@dataclass(frozen=True, eq=False)
class _Sweep:
    """Jobs with one reference, stages in the order of training."""

    reference: str
    rows: tuple[Measurement, ...]
    axis: Axis
    stages: tuple[str, ...]

    @cached_property
    def lines(self) -> dict[_Line, dict[str, Measurement]]:
        """Rows by what they are about and stage, stages in the order of the axis."""
        rank = {label: index for index, label in enumerate(self.axis.at)}
        lines: dict[_Line, dict[str, Measurement]] = {}
        for row in sorted(self.rows, key=lambda it: rank[it.stage]):
            key = (row.metric, row.variant, row.trait, row.layer)
            lines.setdefault(key, {})[row.stage] = row
        return lines

    @cached_property
    def kinds(self) -> dict[int | None, str]:
        """Type of each layer."""
        return {row.layer: row.layer_type for row in self.rows}

    @cached_property
    def several(self) -> bool:
        """Whether there are several traits, so that each must be named."""
        return len({row.trait for row in self.rows}) > 1

    @property
    def itself(self) -> dict[str, float]:
        """The cosine of the reference's vector with itself, where there is a reference."""
        return {self.reference: 1.0} if self.reference else {}

    def line(self, metric: str, variant: str, place: _Place) -> dict[str, Measurement]:
        """The rows of one number at one place, by stage in the order of the axis."""
        return self.lines.get((metric, variant, *place), {})

    def places(self, metrics: Sequence[str]) -> list[_Place]:
        """Traits and layers that these metrics tell of, traits in the order of the rows."""
        traits = list(dict.fromkeys(row.trait for row in self.rows))
        found = {
            (row.trait, row.layer)
            for row in self.rows
            if row.metric in metrics and row.layer is not None
        }
        return sorted(found, key=lambda it: (traits.index(it[0]), it[1]))


def trajectories(jobs: Sequence[Finished]) -> Result | None:
    """Put the jobs of a sweep together along training, those of each reference apart.

    Args:
        jobs: finished jobs of analysis=cosine, of one data set and one set of options.

    Returns:
        Rows `METRIC_trajectory` in the order of training, `formed_trajectory` (see
        `olmo_stages.vectors.formation`), and figures; None if no two stages share a reference.
    """
    by_reference: dict[str, list[Finished]] = {}
    for job in jobs:
        by_reference.setdefault(job.reference, []).append(job)
    alone = [it for it in by_reference.values() if len(it) < 2]
    sweeps = [
        _sweep(reference, own, jobs) for reference, own in by_reference.items() if len(own) > 1
    ]
    if not sweeps:
        return None
    rows: list[Measurement] = []
    figures: dict[str, str] = {}
    for sweep in sweeps:
        own = _rows(sweep)
        rows += own
        suffix = f"_vs_{sweep.reference or 'nothing'}" if len(sweeps) > 1 else ""
        figures |= {name + suffix: drawn for name, drawn in _figures(sweep, own).items()}
    left_out = sorted(job.stage for each in alone for job in each if not _is_reference(job, sweeps))
    warnings = []
    if left_out:
        warnings.append(
            f"no trajectory of {', '.join(left_out)}: a fixed reference is needed that several "
            "stages share, e.g. reference=base"
        )
    return Result(
        measurements=tuple(rows),
        figures=figures,
        headline=_headline(sweeps, rows),
        warnings=tuple(warnings),
    )


def _is_reference(job: Finished, sweeps: Sequence[_Sweep]) -> bool:
    return job.stage in {sweep.reference for sweep in sweeps}


def _sweep(reference: str, own: Sequence[Finished], jobs: Sequence[Finished]) -> _Sweep:
    """The rows of jobs with one reference, which itself adds what its own job says of it."""
    itself = [
        replace(row, reference=reference)
        for job in jobs
        if reference and job.stage == reference
        for row in job.result.measurements
        if row.metric == "separation" and row.variant == "own"
    ]
    stages = {job.stage for job in own}
    axis = training_axis(stages | ({reference} - {""}))
    rows = [row for job in own for row in job.result.measurements if row.stage == job.stage]
    # Along the reference, fixed and own are the same vector.
    rows += [replace(row, variant=variant) for row in itself for variant in ("fixed", "own")]
    order = tuple(label for label in axis.at if label in stages)
    return _Sweep(reference, tuple(rows), axis, order)


def _rows(sweep: _Sweep) -> list[Measurement]:
    rows = [
        replace(
            row,
            metric=row.metric + SUFFIX,
            note="; ".join(filter(None, [sweep.axis.told[row.stage], row.note])),
        )
        for (metric, variant, *_), line in sorted(sweep.lines.items(), key=_order)
        if metric in METRICS and not _OF_REFERENCE.fullmatch(variant)
        for row in line.values()
    ]
    for place in sweep.places(["cosine"]):
        raw, corrected = (sweep.line(it, "raw", place) for it in ("cosine", "corrected_cosine"))
        formed = formation(raw, corrected, sweep.reference)
        rows += [] if formed is None else [formed]
    return rows


def _order(item: tuple[_Line, dict[str, Measurement]]) -> tuple[int, bool]:
    """Lines in the order of their metrics, what is about the fixed vector first."""
    metric, variant = item[0][:2]
    return METRICS.index(metric) if metric in METRICS else len(METRICS), variant == "own"


def _headline(sweeps: Sequence[_Sweep], rows: Sequence[Measurement]) -> Headline:
    first = sweeps[0]
    place = _shown(first)
    headline: dict[str, str | float | int | Measurement | None] = {"stages": len(first.stages)}
    if first.reference:
        headline["reference"] = first.reference
    if place is None:
        return headline
    headline["layer"] = place[1]
    own = (first.reference, *place)
    line = [
        row
        for row in rows
        if (row.metric, row.variant) == (f"corrected_cosine{SUFFIX}", "raw")
        and (row.reference, row.trait, row.layer) == own
    ]
    defined = [row for row in line if math.isfinite(row.value)]
    if line and len({row.stage.partition("@")[0] for row in line}) == 1:
        headline |= {"last": line[-1].stage, "its corrected cosine": line[-1]}
    elif defined:  # branches have no last one
        row = min(defined, key=lambda it: it.value)
        headline |= {"farthest": row.stage, "its corrected cosine": row}
    for row in rows:
        if row.metric == f"formed{SUFFIX}" and (row.reference, row.trait, row.layer) == own:
            headline |= {"half of it by": row.stage, "null there": row.null, "p (max)": row.p_max}
    return headline


def _shown(sweep: _Sweep) -> _Place | None:
    """The first trait, at the layer where the reference's vector is most reliable.

    That layer is chosen on the reference alone, not for the curve that is then shown.
    """
    places = sweep.places(["cosine", "separation"])
    if not places:
        return None
    trait = places[0][0]
    known: dict[_Place, float] = {}
    for place in places:
        for row in sweep.line("reliability", "reference:raw", place).values():
            known[place] = row.value  # of one reference, the same in each job
    layers = [it for it in places if it[0] == trait and it[1] != EMBEDDING_LAYER]
    defined = [it for it in layers if math.isfinite(known.get(it, math.nan))]
    if defined:
        return max(defined, key=lambda it: known[it])
    return layers[len(layers) // 2] if layers else places[0]


def _figures(sweep: _Sweep, rows: Sequence[Measurement]) -> dict[str, str]:
    figures: dict[str, str] = {}
    against = f" with that of {sweep.reference}" if sweep.reference else ""
    along = f" along the vector of {sweep.reference} and their own" if sweep.reference else ""
    if places := sweep.places(["cosine"]):
        for scale in _differing(sweep):
            views = [_cosine(sweep, scale, place) for place in places]
            names = " ".join(line.name for view in views for line in view.nulls)
            figures[f"cosine_{scale}"] = trajectory(
                views,
                sweep.axis,
                title=f"Cosine of each stage's own vector{against}, {scale}",
                height=Height("cosine", 0.0, _COSINES),
                caption=captions.of_curve(
                    scale, relabelled=_RELABELLED in names, unrelated=_UNRELATED in names
                ),
                rows=_behind(
                    rows, ("cosine", "corrected_cosine", "reliability"), (scale, f"stage:{scale}")
                ),
                first=_first(sweep, places),
            )
        figures["cosine_layers"] = trajectory(
            [_all_layers(sweep, trait, places) for trait in dict.fromkeys(it[0] for it in places)],
            sweep.axis,
            title=f"Cosine of each stage's own vector{against}, corrected, by layer",
            height=Height("corrected cosine", 0.0, _COSINES),
            caption=captions.of_layers(),
            rows=_behind(rows, ("corrected_cosine",), ("raw",)),
        )
    for metric, title, unit, caption in (
        (
            "separation",
            f"Separation of the held-out classes{along}",
            "within-class standard deviations",
            captions.of_separation(),
        ),
        (
            "shift",
            f"Drift of all examples along the vector of {sweep.reference}",
            "distances of its classes",
            captions.of_shift(),
        ),
    ):
        if places := sweep.places([metric]):
            figures[metric] = trajectory(
                [_fixed_and_own(sweep, metric, place) for place in places],
                sweep.axis,
                title=title,
                height=Height(unit, 0.0),
                caption=caption,
                rows=_behind(rows, (metric,), ("fixed", "own")),
                first=_first(sweep, places),
            )
    return figures


def _first(sweep: _Sweep, places: Sequence[_Place]) -> int:
    shown = _shown(sweep)
    return places.index(shown) if shown in places else 0


def _behind(
    rows: Sequence[Measurement], metrics: Sequence[str], variants: Sequence[str]
) -> list[Measurement]:
    """The assembled rows that a figure is made of."""
    names = {metric + SUFFIX for metric in metrics}
    return [row for row in rows if row.metric in names and row.variant in variants]


def _differing(sweep: _Sweep) -> list[str]:
    """The scales that are to be drawn: the second only where it says something else."""
    values = {
        scale: {
            (row.stage, row.trait, row.layer): row.value
            for row in sweep.rows
            if row.metric == "cosine" and row.variant == scale and math.isfinite(row.value)
        }
        for scale in SCALES
    }
    raw, other = (values[scale] for scale in SCALES)
    return [scale for scale in SCALES if values[scale] and (scale == SCALES[0] or other != raw)]


def _name(sweep: _Sweep, place: _Place) -> str:
    trait, layer = place
    return " · ".join([trait] * sweep.several + [layer_name(layer, sweep.kinds.get(layer, ""))])


def _cosine(sweep: _Sweep, scale: str, place: _Place) -> View:
    lines = [
        Line(name, sweep.line(metric, scale, place), colour, defined=sweep.itself)
        for metric, name, colour in (
            ("cosine", "cosine", COLOURS[0]),
            ("corrected_cosine", "corrected for sampling noise", COLOURS[1]),
        )
    ]
    lines += [
        Line(
            "reliability of the stage's own vector",
            sweep.line("reliability", f"stage:{scale}", place),
            COLOURS[3],
            dash="dot",
            band=False,
        ),
    ]
    nulls = [
        Line(f"null: {name}", sweep.line("null_cosine", f"{scale}:{kind}", place), colour)
        for kind, name, colour in (
            ("relabelled", _RELABELLED, GREY),
            ("unrelated", _UNRELATED, COLOURS[2]),
        )
    ]
    return View(_name(sweep, place), lines, [it for it in nulls if it.rows])


def _all_layers(sweep: _Sweep, trait: str, places: Sequence[_Place]) -> View:
    own = [place for place in places if place[0] == trait]
    lines = [
        Line(
            _name(sweep, place),
            sweep.line("corrected_cosine", "raw", place),
            shade(index / max(1, len(own) - 1)),
            band=False,
            defined=sweep.itself,
        )
        for index, place in enumerate(own)
    ]
    return View(trait, lines)


def _fixed_and_own(sweep: _Sweep, metric: str, place: _Place) -> View:
    names = {"fixed": f"along the vector of {sweep.reference}", "own": "along its own vector"}
    lines = [
        Line(names[variant], sweep.line(metric, variant, place), colour)
        for variant, colour in (("fixed", COLOURS[0]), ("own", COLOURS[1]))
    ]
    return View(_name(sweep, place), [it for it in lines if it.rows])
