"""All stages of a sweep against one another, from the held-out scores that its jobs kept.

The stages were scored on the same examples in the same folds, so that every difference is paired,
whichever reference the jobs had.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from olmo_stages.edges import turned
from olmo_stages.estimates import LEVEL
from olmo_stages.figures import of_jobs, stage_curves, stage_matrix
from olmo_stages.heldout import Where
from olmo_stages.lineage import lineage_order
from olmo_stages.probing import captions
from olmo_stages.probing.comparison import differences
from olmo_stages.probing.kept import Kept, read
from olmo_stages.probing.names import DIFFERENCE_STAGES, PROBE, REFERENCE
from olmo_stages.types import Finished, Measurement, Result

_LEAST_COLOUR = 0.05  # differences below are pale, not blown up to strong colours


@dataclass(eq=False)
class _Sweep:
    """What the jobs kept.

    Args:
        stages: every model once, by label.
        together: both sides of each pair that a job compared.
    """

    stages: dict[str, Kept] = field(default_factory=dict)
    together: dict[frozenset[str], dict[str, Kept]] = field(default_factory=dict)

    @classmethod
    def of(cls, jobs: Sequence[Finished]) -> "_Sweep":
        """Read the jobs; a model has the scores of its own job, if there is one."""
        sweep = cls()
        for job in jobs:
            found = read(job)
            if not found:
                continue
            own = found[job.stage]
            others = {label: it for label, it in found.items() if label != job.stage}
            sweep.together[frozenset(found)] = found
            sweep.stages = others | sweep.stages | {job.stage: own}
        return sweep

    def pair(self, one: str, other: str) -> tuple[Kept, Kept]:
        """Two models, as the job that compared them saw them, if there is one."""
        seen = self.together.get(frozenset({one, other}), {})
        first, second = (self._same(seen.get(it), self.stages[it]) for it in (one, other))
        return first, second

    @staticmethod
    def _same(seen: Kept | None, known: Kept) -> Kept:
        """The known one wherever it says the same: its estimates are made once."""
        return known if seen is None or seen.equals(known) else seen


def stage_differences(jobs: Sequence[Finished]) -> Result | None:
    """Compare all stages of a sweep, references included.

    Args:
        jobs: finished jobs of analysis=probe, of one data set and one set of options.

    Returns:
        For every pair of stages the paired difference in AUROC, the later one in the lineage less
        the earlier one: of the layers that the training sets chose (`best_layer`), and of each
        layer where both have the same. None if fewer than two stages kept their scores.
    """
    sweep = _Sweep.of(jobs)
    order = sorted(sweep.stages, key=lineage_order())
    if len(order) < 2:
        return None
    rows: list[Measurement] = []
    said: dict[str, list[str]] = {}
    for earlier, later in combinations(order, 2):
        theirs, ours = sweep.pair(earlier, later)
        names = f"{later} and {earlier}"
        if reason := _refusal(ours, theirs):
            said.setdefault(f"not compared: {reason}", []).append(names)
            continue
        for caveat in _caveats(ours, theirs):
            said.setdefault(caveat, []).append(names)
        rows += _difference(ours, theirs)
    whole = [row for row in rows if row.layer is None]
    apart = [row for row in whole if _leaves_out_zero(row)]
    return Result(
        measurements=tuple(rows),
        figures=_figures(rows, order, jobs),
        headline={"stages": len(order), "pairs": len(whole), "intervals without 0": len(apart)},
        warnings=(*_multiple(whole, len(apart)), *map(": ".join, _listed(said))),
    )


def _refusal(ours: Kept, theirs: Kept) -> str:
    """Why two models cannot be paired; empty where they can."""
    one, two = ours.held_out, theirs.held_out
    if ours.examples != theirs.examples:
        return "other examples, or in another order"
    if not np.array_equal(one.labels, two.labels):
        return "other labels of the same examples"
    if one.groups != two.groups or not np.array_equal(one.folds, two.folds):
        return "other groups or folds"
    if not np.array_equal(one.weights, two.weights):
        return "other resamples"
    return ""


def _caveats(ours: Kept, theirs: Kept) -> Iterator[str]:
    if ours.prompts != theirs.prompts:
        yield "other token ids, so that what differs is partly the prompt, not the stage"
    if ours.layers != theirs.layers:
        yield "other layers, so that only their best layers are compared"


def _difference(ours: Kept, theirs: Kept) -> list[Measurement]:
    where = Where(ours.label, theirs.label, ours.layers, ours.kinds, ours.seed)
    by_layer = None if ours.layers != theirs.layers else ours.auroc - theirs.auroc
    return differences(where, ours.best - theirs.best, by_layer, DIFFERENCE_STAGES)


def _leaves_out_zero(row: Measurement) -> bool:
    """Whether its interval does."""
    if row.ci_low is None or row.ci_high is None:
        return False
    return row.ci_low > 0 or row.ci_high < 0


def _multiple(whole: Sequence[Measurement], n_apart: int) -> list[str]:
    n_intervals = sum(row.ci_low is not None for row in whole)
    if n_intervals < 2:
        return []
    by_chance = (1 - LEVEL) * n_intervals
    of = "" if n_intervals == len(whole) else f" of {len(whole)}"
    return [
        f"{n_intervals}{of} pairs of stages have an interval, each its own and not corrected for "
        f"their number: up to {by_chance:.1f} would leave out 0 if no stage differed, {n_apart} do"
    ]


def _listed(said: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    for what, pairs in said.items():
        yield what, "; ".join(pairs)


def _figures(
    rows: Sequence[Measurement], order: Sequence[str], jobs: Sequence[Finished]
) -> dict[str, str]:
    figures = {"stages": _matrix(rows, order)} if rows else {}
    # Of several jobs about one model, e.g. against two references, one tells of it.
    curves = list(
        {
            (row.variant, row.reference or row.stage, row.layer): row
            for job in reversed(jobs)
            for row in job.result.measurements
            if row.metric == "auroc" and row.variant in {PROBE, REFERENCE}
        }.values()
    )
    if curves:
        null = any(row.null is not None for row in curves)
        drawn = stage_curves(
            curves,
            "auroc",
            title="Probe AUROC by layer",
            y_label="AUROC on held-out groups",
            caption=captions.of_all_stages(curves[0].n_groups, null=null),
            variant=PROBE,
            of_reference=REFERENCE,
            chance=0.5,
            labels=order,
        )
        figures["auroc"] = of_jobs(drawn)
    return figures


def _matrix(rows: Sequence[Measurement], order: Sequence[str]) -> str:
    reach = max((abs(row.value) for row in rows if math.isfinite(row.value)), default=0.0)
    reach = max(math.ceil(reach * 20) / 20, _LEAST_COLOUR)
    n_pairs = sum(row.layer is None for row in rows)
    # Each cell of the figure is read by itself, so that both directions are drawn.
    back = [replace(turned(row, "negated"), note=row.note) for row in rows]
    return stage_matrix(
        [*rows, *back],
        DIFFERENCE_STAGES,
        order=order,
        title="Difference in probe AUROC, stage less reference",
        caption=captions.of_differences(rows[0].n_groups, n_pairs),
        limits=(-reach, reach),
        symmetric=False,
        behind=rows,
        signed=True,
        whole="best layer",
    )
