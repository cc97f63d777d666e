"""Figures and headline of scores along a vector."""

from collections.abc import Sequence

import numpy as np

from olmo_stages.figures import layer_curves
from olmo_stages.figures.frame import of_table
from olmo_stages.figures.token_map import MOST_TOKENS, token_map
from olmo_stages.types import Example, Headline, Measurement
from olmo_stages.vectors import captions
from olmo_stages.vectors.projected import ALL, Projected
from olmo_stages.vectors.readout import ANSWER, THINK, Readout

UNITS = "score (0 and 1: classes of the vector's data)"
RAW = "score (in the scale of the activations)"


def figures(
    found: Projected, rows: Sequence[Measurement], examples: Sequence[Example], n_shown: int
) -> dict[str, str]:
    """Curves over layers of classes and parts, and maps of some examples' tokens.

    Without labels there is one curve of all texts.

    Args:
        found: what was scored.
        rows: its rows.
        examples: the data's.
        n_shown: how many examples are drawn token by token.
    """
    stage, score = found.where.stage, UNITS if found.has_units else RAW
    task = found.tasks[0]
    labelled, fitted, n_resamples = task.labelled, task.fitted, len(task.sample.weights)
    drawn = {
        "projection": layer_curves(
            rows,
            "projection",
            title=f"Mean projection by layer, {stage}",
            y_label=score,
            caption=captions.of_projection(n_resamples, fitted=fitted, labelled=labelled),
            variants={"positive": "label 1", "negative": "label 0"}
            if labelled
            else {ALL: "all texts"},
        )
    }
    if labelled:
        drawn["auroc"] = layer_curves(
            rows,
            "projection_auroc",
            title=f"AUROC of projections by layer, {stage}",
            y_label="AUROC on held-out groups",
            caption=captions.of_auroc(n_resamples, _n_relabelled(found), fitted=fitted),
            chance=0.5,
        )
    if found.readout is None:
        return drawn
    parts = [part for part in found.readout.means if (found.readout.counts[part] > 0).any()]
    drawn["parts"] = layer_curves(
        rows,
        "projection_part",
        title=f"Mean projection of the tokens of each part, {stage}",
        y_label=score,
        caption=captions.of_parts(n_resamples, fitted=fitted),
        variants={part: part for part in parts},
    )
    for i in _chosen(found.readout, examples, n_shown):
        tokens = token_map(
            found.readout.matrix(i),
            found.readout.tokens(i),
            list(zip(found.where.layers, found.where.layer_types, strict=True)),
            title=f"{_named(examples[i])}, {stage}",
            value_label=score,
            caption=captions.of_tokens(fitted=fitted),
            middle=0.5 if found.has_units else 0.0,
        )
        name = examples[i].id
        drawn[f"tokens {name}"] = of_table(tokens, "tokens", MOST_TOKENS, example=name)
    return drawn


def _n_relabelled(found: Projected) -> int:
    """How many relabellings the null has; 0 where there is none."""
    relabelled = found.tasks[0].relabelled
    return 0 if relabelled is None else len(relabelled) - 1


def _chosen(readout: Readout, examples: Sequence[Example], n_shown: int) -> list[int]:
    """The first examples of label 1 and 0 in turn, those with reasoning and answer first.

    Without labels, the first examples.
    """
    parts = [readout.counts[it] > 0 for it in (THINK, ANSWER) if it in readout.counts]
    whole = np.sum(parts, axis=0) if parts else np.zeros(len(examples))
    order = sorted(range(len(examples)), key=lambda i: (-whole[i], i))
    sides = [[i for i in order if examples[i].label == label] for label in (1, 0, None)]
    rank = {i: (place, side) for side, it in enumerate(sides) for place, i in enumerate(it)}
    return sorted(order, key=lambda i: rank[i])[:n_shown]


def _named(example: Example) -> str:
    return example.id if example.label is None else f"{example.id} (label {example.label})"


def headline(found: Projected, rows: Sequence[Measurement], vector: str) -> Headline:
    """The few numbers of the first trait, at the layer of its highest AUROC.

    Without labels, at the middle one of the layers: no score tells which is best.

    Args:
        found: what was scored.
        rows: its rows.
        vector: which vector, in a few words.
    """
    trait = found.tasks[0].trait
    own = [row for row in rows if row.trait == trait]
    main = [row for row in own if row.metric == own[0].metric and row.variant == own[0].variant]
    labelled = found.tasks[0].labelled
    best = max(main, key=lambda row: row.value) if labelled else main[len(main) // 2]
    at = {(row.metric, row.variant): row for row in own if row.layer == best.layer}
    said: dict[str, str | float | int | Measurement | None] = {}
    said |= {"trait": trait} if len(found.tasks) > 1 else {}
    said["vector"] = vector
    if labelled:
        said |= {
            "best layer": best.layer,
            "auroc": best,
            "p (max)": best.p_max,
            "positive": at["projection", "positive"],
            "negative": at["projection", "negative"],
        }
    else:
        said |= {
            "middle layer": best.layer,
            "mean": best,
        }
    for name, key in (
        ("positive - reference", ("projection_difference", "positive")),
        ("mean - reference", ("projection_difference", ALL)),
        ("think - answer", ("projection_part_difference", f"{THINK}-{ANSWER}")),
    ):
        if key in at:
            said[name] = at[key]
    said["note"] = best.note
    return said
