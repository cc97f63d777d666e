"""From which revision on a vector points where it will end, as far as the intervals tell."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from olmo_stages.figures.wording import or_gap
from olmo_stages.revisions.names import in_order
from olmo_stages.types import Measurement

_SIGNIFICANT = 0.05

_Rows = Mapping[str, Measurement]


def formation(cosine: _Rows, corrected: _Rows, reference: str) -> Measurement | None:
    """The first revision whose cosine with the reference has cleared half of its final value.

    Of the stage with most revisions; the reference itself, which is 1 by definition, has no part.
    The half is that of the last revision's value, as it was measured.

    Args:
        cosine: rows `cosine` of one trait and layer by label.
        corrected: rows `corrected_cosine` of the same; undefined where a revision has no reliable
            vector yet.
        reference: label of the reference.

    Returns:
        A row whose value is the step within the phase, its interval from the last revision that is
        not above the half to this one; null and p are those of this revision's cosine, since where
        any contrast of the same texts is as like the reference's, it is not this vector that formed
        but the whole space. None where the data do not show it: the last value may be 0, the first
        revision is above the half already, a later one is below it again, the two revisions are of
        different phases, or there are runs side by side.
    """
    revisions = _run(corrected, reference)
    if len(revisions) < 3:
        return None
    labels = [label for label, _, _ in revisions]
    last = corrected[labels[-1]]
    if _known(last.ci_low, 0.0) <= 0:
        return None
    half = last.value / 2
    above = [_known(corrected[label].ci_low, -math.inf) > half for label in labels]
    below = [_known(corrected[label].ci_high, math.inf) < half for label in labels]
    first = above.index(True) if True in above else 0
    if first == 0 or any(below[first:]):
        return None
    (_, phase, start), (label, own, step) = revisions[first - 1], revisions[first]
    if phase != own:
        return None
    raw = cosine.get(label, corrected[label])
    return replace(
        raw,
        metric="formed_trajectory",
        value=float(step),
        ci_low=float(start),
        ci_high=float(step),
        q=None,
        note=f"step by which the corrected cosine is above {half:.2f}, half of that of "
        f"{labels[-1]}; at the one before, step {start}, its interval is not{_of_all(raw)}",
    )


def _of_all(raw: Measurement) -> str:
    p = raw.p if raw.p_max is None else raw.p_max
    return "; relabelled contrasts are as like there" if p is not None and p > _SIGNIFICANT else ""


def _known(value: float | None, otherwise: float) -> float:
    return otherwise if (known := or_gap(value)) is None else known


def _run(rows: _Rows, reference: str) -> Sequence[tuple[str, int, int]]:
    """Label, phase and step of the revisions of the stage with most of them, in order."""
    by_stage: dict[str, dict[str, str]] = {}
    for label in rows:
        name, _, revision = label.partition("@")
        if revision and label != reference:
            by_stage.setdefault(name, {})[revision] = label
    most = max(by_stage.values(), key=len, default={})
    known = [it for it in in_order(most)[0] if it.step is not None]
    if len({it.line for it in known}) > 1:
        return []
    return [(most[it.name], it.phase or 1, it.step or 0) for it in known]
