"""Cosines of all stages of a sweep by layer, each with its own reference."""

import math
from collections.abc import Sequence

from olmo_stages.figures import of_jobs, stage_curves
from olmo_stages.lineage import lineage_order
from olmo_stages.types import Finished, Measurement
from olmo_stages.vectors import captions

_METRIC, _VARIANT = "cosine", "raw"


def by_layer(jobs: Sequence[Finished]) -> dict[str, str]:
    """Draw the cosines of all jobs over layers, a line a stage, whatever their references.

    Args:
        jobs: finished jobs of analysis=cosine, of one data set and one set of options.

    Returns:
        A figure for each trait, as plotly JSON by name; empty for fewer than two jobs that compare.
    """
    rows = [
        row
        for job in jobs
        for row in job.result.measurements
        if (row.metric, row.variant) == (_METRIC, _VARIANT)
    ]
    if len({(row.stage, row.reference) for row in rows}) < 2:
        return {}
    traits = dict.fromkeys(row.trait for row in rows)
    drawn: dict[str, str] = {}
    for trait in traits:
        own = [row for row in rows if row.trait == trait]
        if any(math.isfinite(row.value) for row in own):
            drawn["by_layer" + f"_{trait}" * (len(traits) > 1)] = of_jobs(_curves(own, trait))
    return drawn


def _curves(rows: Sequence[Measurement], trait: str) -> str:
    stages = {label for row in rows for label in (row.stage, row.reference)}
    return stage_curves(
        rows,
        _METRIC,
        title=f"Cosine of the vectors of {trait} by layer, {_VARIANT}",
        y_label="cosine",
        caption=captions.of_stages(null=any(row.null is not None for row in rows)),
        variant=_VARIANT,
        labels=sorted(stages, key=lineage_order()),
    )
