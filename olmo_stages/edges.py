"""Which number of an analysis stands on the edge from a parent to a stage."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

from olmo_stages.errors import ConfigError, PairingError
from olmo_stages.types import Change, Measurement


def changes(module: ModuleType, rows: Sequence[Measurement]) -> tuple[Change, ...]:
    """What an analysis puts on an edge, as its module says with `CHANGE` or `change`.

    Args:
        module: of the analysis.
        rows: of all its jobs on one data set with one set of options, and of their `across`.

    Returns:
        One for each trait that the rows are about, named after it where there are several, since
        none of them speaks for the others; empty where the analysis says nothing.

    Raises:
        ConfigError: the module says something else.
    """
    made = getattr(module, "change", None)
    given = getattr(module, "CHANGE", None) if made is None else made(rows)
    if given is None:
        return ()
    if not isinstance(given, Change):
        raise ConfigError(
            f"{module.__name__} says {type(given).__name__} of its change; give a Change or None"
        )
    named = ((given.metric, given.variant), (given.metric_across, given.variant_across))
    traits = dict.fromkeys(row.trait for row in rows if (row.metric, row.variant) in named)
    if given.trait is not None or len(traits) < 2:
        return (given,)
    return tuple(replace(given, name=f"{given.name} · {it}", trait=it) for it in traits)


def find(
    change: Change, rows: Sequence[Measurement], stage: str, parent: str
) -> Measurement | None:
    """The one number that tells how far a stage is from its parent.

    Args:
        change: which number.
        rows: as for `changes`.
        stage: label of the stage.
        parent: label of its parent.

    Returns:
        A row from the stage's point of view: where only the other direction was measured, that one
        turned round, if the change allows it; without null and p unless these are about a change.
        An undefined number has a note that says why, as far as the analysis does. None where the
        two were not compared.

    Raises:
        PairingError: several rows answer.
    """
    if stage == parent:
        return None
    for metric, variant in (
        (change.metric, change.variant),
        (change.metric_across, change.variant_across),
    ):
        whole = [
            row
            for row in rows
            if metric
            and (row.metric, row.variant) == (metric, variant)
            and (row.layer, row.layer_type) == (None, "")
            and (change.trait is None or row.trait == change.trait)
        ]
        found = _only(whole, stage, parent)
        if found is None and change.reverse:
            found = _only(whole, parent, stage)
            found = None if found is None else turned(found, change.reverse)
        if found is not None:
            found = found if change.null else replace(found, null=None, p=None, p_max=None, q=None)
            known = math.isfinite(found.value) or found.note
            return found if known else replace(found, note="undefined")
    return None


def turned(row: Measurement, reverse: str) -> Measurement:
    """The same number with its two stages exchanged.

    Args:
        row: about a stage and a reference.
        reverse: `same` or `negated`, as in `Change`.

    Returns:
        With `negated` the ends of the interval change places, and there is no p: which side it
        tests is not known.
    """
    row = replace(row, stage=row.reference, reference=row.stage)
    if row.reference_layer is not None:
        row = replace(
            row,
            layer=row.reference_layer,
            layer_type=row.reference_layer_type,
            reference_layer=row.layer,
            reference_layer_type=row.layer_type,
        )
    if reverse == "same":
        return row
    said = f"{row.reference} less {row.stage}, turned round"
    return replace(
        row,
        value=_negated(row.value),
        ci_low=None if row.ci_high is None else _negated(row.ci_high),
        ci_high=None if row.ci_low is None else _negated(row.ci_low),
        null=None if row.null is None else _negated(row.null),
        p=None,
        p_max=None,
        q=None,
        note="; ".join(filter(None, [row.note, said])),
    )


def _negated(value: float) -> float:
    return 0.0 - value  # -0.0 would be shown as a fall


def _only(rows: Sequence[Measurement], stage: str, reference: str) -> Measurement | None:
    """The row about a pair, which several results may hold alike; by text, since NaN is not NaN.

    Raises:
        PairingError: they do not agree.
    """
    found = {repr(row): row for row in rows if (row.stage, row.reference) == (stage, reference)}
    if len(found) > 1:
        values = ", ".join(f"{row.value:.6g}" for row in found.values())
        metric = next(iter(found.values())).metric
        raise PairingError(
            f"{len(found)} numbers {metric!r} are about {stage} and {reference} ({values}); report "
            "their sweeps apart"
        )
    return next(iter(found.values()), None)
