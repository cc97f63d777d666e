"""Figures and headline of scores along a vector."""

from collections.abc import Sequence

import numpy as np

from olmo_stages.figures import layer_curves
from olmo_stages.figures.token_map import token_map
from olmo_stages.types import Example, Measurement
from olmo_stages.vectors.projected import Projected
from olmo_stages.vectors.readout import ANSWER, THINK, Readout

UNITS = "score (0 and 1: classes of the vector's data)"
RAW = "score (in the scale of the activations)"

Headline = dict[str, str | float | int | None]


def figures(
    found: Projected, rows: Sequence[Measurement], examples: Sequence[Example], n_shown: int
) -> dict[str, str]:
    """Curves over layers of classes and parts, and maps of some examples' tokens.

    Args:
        found: what was scored.
        rows: its rows.
        examples: the data's.
        n_shown: how many examples are drawn token by token.
    """
    stage, score = found.where.stage, UNITS if found.has_units else RAW
    drawn = {
        "projection": layer_curves(
            rows,
            "projection",
            title=f"Mean projection by layer, {stage}",
            y_label=score,
            variants={"positive": "label 1", "negative": "label 0"},
        ),
        "auroc": layer_curves(
            rows,
            "projection_auroc",
            title=f"AUROC of projections by layer, {stage}",
            y_label="AUROC on held-out groups",
            chance=0.5,
        ),
    }
    if found.readout is None:
        return drawn
    parts = [part for part in found.readout.means if (found.readout.counts[part] > 0).any()]
    drawn["parts"] = layer_curves(
        rows,
        "projection_part",
        title=f"Mean projection of the tokens of each part, {stage}",
        y_label=score,
        variants={part: part for part in parts},
    )
    for i in _chosen(found.readout, examples, n_shown):
        drawn[f"tokens {examples[i].id}"] = token_map(
            found.readout.matrix(i),
            found.readout.tokens(i),
            list(zip(found.where.layers, found.where.layer_types, strict=True)),
            title=f"{examples[i].id} (label {examples[i].label}), {stage}",
            value_label=score,
            middle=0.5 if found.has_units else 0.0,
        )
    return drawn


def _chosen(readout: Readout, examples: Sequence[Example], n_shown: int) -> list[int]:
    """The first examples of label 1 and 0 in turn, those with reasoning and answer first."""
    parts = [readout.counts[it] > 0 for it in (THINK, ANSWER) if it in readout.counts]
    whole = np.sum(parts, axis=0) if parts else np.zeros(len(examples))
    order = sorted(range(len(examples)), key=lambda i: (-whole[i], i))
    sides = [[i for i in order if examples[i].label == label] for label in (1, 0)]
    rank = {i: (place, side) for side, it in enumerate(sides) for place, i in enumerate(it)}
    return sorted(order, key=lambda i: rank[i])[:n_shown]


def headline(found: Projected, rows: Sequence[Measurement], vector: str) -> Headline:
    """The few numbers of the first trait, at the layer of its highest AUROC.

    Args:
        found: what was scored.
        rows: its rows.
        vector: which vector, in a few words.
    """
    trait = found.tasks[0].trait
    own = [row for row in rows if row.trait == trait]
    first = [row for row in own if row.metric == "projection_auroc"]
    best = max(first, key=lambda row: row.value)
    at = {(row.metric, row.variant): row for row in own if row.layer == best.layer}
    said: Headline = {"trait": trait} if len(found.tasks) > 1 else {}
    said |= {
        "vector": vector,
        "best layer": best.layer,
        "auroc": best.value,
        "95 % interval": _interval(best, ".3f"),
        "p (max)": best.p_max,
        "positive": at["projection", "positive"].value,
        "negative": at["projection", "negative"].value,
    }
    for name, key in (
        ("positive - reference", ("projection_difference", "positive")),
        ("think - answer", ("projection_part_difference", f"{THINK}-{ANSWER}")),
    ):
        if key in at:
            row = at[key]
            said[name] = f"{row.value:+.2f} [{_interval(row, '+.2f')}]"
    said["note"] = best.note
    return said


def _interval(row: Measurement, form: str) -> str:
    if row.ci_low is None or row.ci_high is None:
        return ""
    between = "-" if "+" not in form else ", "
    return f"{row.ci_low:{form}}{between}{row.ci_high:{form}}"
