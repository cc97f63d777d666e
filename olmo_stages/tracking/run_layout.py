"""How a result is laid out as a tracked run: name, tags, one row a layer, summary.

Metrics are called `analysis/metric` for the main variant and `analysis/variant/metric` for others,
the same in every run, so that the stages of a sweep overlay in one chart; where a result is about
several traits, the trait follows the analysis. Numbers about pairs of
different layers have no place in a chart over layers; they are in the run's table and figures.
"""

import re
from collections.abc import Sequence
from typing import Any

from olmo_stages.records import Job
from olmo_stages.types import Measurement, Result

TABLE = "measurements"
"""Name of the table of all measurements of a run."""

_LONGEST_TAG = 64  # W&B refuses longer ones
_LONGEST_GROUP = 128


def run_name(job: Job) -> str:
    """Return a readable name of the run."""
    reference = "" if job.reference is None else f" vs {job.reference.label}"
    return f"{job.analysis} {job.stage.label} {job.stage.size}{reference} {job.data}"


def run_tags(job: Job, more: Sequence[str]) -> list[str]:
    """Return stage, size, data set, analysis and `more`, each once and short enough."""
    tags = [job.stage.label, job.stage.size, job.data, job.analysis, *map(str, more)]
    return list(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags if tag))


def group_name(sweep: str) -> str:
    """Return the group of the runs of a sweep."""
    return sweep[:_LONGEST_GROUP]


def artifact_name(analysis: str, run_id: str) -> str:
    """Return the name of the artifact with the files of a result."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{analysis}-{run_id}")


def figure_name(name: str) -> str:
    """Return the name under which a figure of a result is logged."""
    return f"figures/{metric_name(name)}"


def history(measurements: Sequence[Measurement], analysis: str) -> list[dict[str, float | int]]:
    """Return one mapping a layer, ascending: the metrics of all variants at that layer."""
    rows = [row for row in _off_maps(measurements) if row.layer is not None]
    points: dict[int, dict[str, float | int]] = {}
    by_trait = _has_several_traits(measurements)
    for row in sorted(rows, key=lambda row: row.layer or 0):
        assert row.layer is not None
        point = points.setdefault(row.layer, {"layer": row.layer})
        point |= _with_ends(_full_name(row, analysis, by_trait=by_trait), row)
    return list(points.values())


def curves(measurements: Sequence[Measurement], analysis: str) -> dict[str, tuple[str, ...]]:
    """Return the names of the curves by layer in `history`, with those of their intervals' ends.

    They stand in the order of the measurements.
    """
    logged = {name for point in history(measurements, analysis) for name in point}
    by_trait = _has_several_traits(measurements)
    names = dict.fromkeys(_full_name(row, analysis, by_trait=by_trait) for row in measurements)
    return {
        name: tuple(end for end in (f"{name}_low", f"{name}_high") if end in logged)
        for name in names
        if name in logged
    }


def main_curves(measurements: Sequence[Measurement], analysis: str) -> list[str]:
    """Return the names of the curves of the main variant.

    It is the one named like the analysis, or without a name, or else that of the first curve.
    """
    rows = [row for row in _off_maps(measurements) if row.layer is not None]
    usual = {"", analysis}
    if rows and not any(row.variant in usual for row in rows):
        usual = {rows[0].variant}
    by_trait = _has_several_traits(measurements)
    named = [_full_name(it, analysis, by_trait=by_trait) for it in rows if it.variant in usual]
    return list(dict.fromkeys(named))


def summary(result: Result, analysis: str) -> dict[str, Any]:
    """Return the headline and the numbers that are not about one layer.

    Those about all layers of a type have the type at the end of their name.
    """
    by_trait = _has_several_traits(result.measurements)
    whole: dict[str, Any] = {
        _full_name(row, analysis, by_trait=by_trait)
        + (f"/{metric_name(row.layer_type)}" if row.layer_type else ""): row.value
        for row in _off_maps(result.measurements)
        if row.layer is None
    }
    for name, value in result.headline.items():
        whole |= _with_ends(metric_name(name), value)
    return whole


def _with_ends(name: str, value: Any) -> dict[str, Any]:  # noqa: ANN401  (of a headline)
    """A number under a name, with its interval's ends where it is a measurement that has one."""
    if not isinstance(value, Measurement):
        return {name: value}
    ends = {f"{name}_low": value.ci_low, f"{name}_high": value.ci_high}
    return {name: value.value} | {end: it for end, it in ends.items() if it is not None}


def _has_several_traits(measurements: Sequence[Measurement]) -> bool:
    return len({row.trait for row in measurements}) > 1


def _off_maps(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The rows of metrics that are not over pairs of layers.

    Those that share a layer would overwrite one another, and those about the same layer on both
    sides alone would pass for the metric's curve.
    """
    maps = {row.metric for row in measurements if row.pairs_layers}
    return [row for row in measurements if row.metric not in maps]


def _full_name(row: Measurement, analysis: str, *, by_trait: bool) -> str:
    variant = "" if row.variant in {"", analysis} else row.variant
    parts = filter(None, [analysis, row.trait if by_trait else "", variant, row.metric])
    return "/".join(metric_name(part) for part in parts)


def metric_name(text: str) -> str:
    """Return a metric name that W&B can filter and sort by."""
    return re.sub(r"\W+", "_", text.replace("->", "_to_")).strip("_")
