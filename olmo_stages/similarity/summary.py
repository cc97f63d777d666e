"""What a comparison comes to for people: caveats, figures and headline."""

from collections.abc import Sequence

from olmo_stages.dominant import VARIANTS
from olmo_stages.figures import heat_map, layer_curves, logarithmic
from olmo_stages.similarity import captions
from olmo_stages.similarity.findings import Findings
from olmo_stages.similarity.sides import Side
from olmo_stages.similarity.tidy import colour_limits, distances
from olmo_stages.types import Activations, Headline

MAJORITY = 0.5
"""Share of the variance above which one dimension or row is warned about."""

CURVES = {
    "raw": "raw",
    "standardised": "dominant dimensions scaled down",
    "floor:raw": "floor: random initialisation",
    "ceiling:raw": "ceiling: two halves of the stage (no upper bound)",
}
"""Curves of the diagonal's figure."""


def caveats(found: Findings, acts: Activations, n_permutations: int) -> list[str]:
    """What a reader must know, one sentence each.

    Args:
        found: the comparison.
        acts: one layer of the stage.
        n_permutations: of the main measure.
    """
    said: list[str] = []
    if found.y is found.x:
        said.append(f"{found.x.label} has no reference: its layers are compared with one another")
    elif found.x.model_digest == found.y.model_digest:
        said.append(
            f"{found.x.label} and {found.y.label} have the same weights: every layer is exactly 1 "
            "with itself"
        )
    if not found.aligned:
        said.append(
            f"{found.x.label} has layers {_span(found.x.indices)}, {found.y.label} "
            f"{_span(found.y.indices)}: there is a map but no diagonal"
        )
    for side in (found.x,) if found.y is found.x else (found.x, found.y):
        said += _dominance(side)
    said += _left_out(acts)
    if found.floor is None:
        said.append("the floor, a random initialisation, was left out on request")
    if not n_permutations:
        said.append("no permutation null was run: analysis.n_permutations=0")
    return said


def _dominance(side: Side) -> list[str]:
    said: list[str] = []
    top = [layer for layer in side.layers if layer.top_share > MAJORITY]
    if top:
        most = max(top, key=lambda layer: layer.top_share)
        said.append(
            f"{side.label}: one dimension holds over half of the variance in {len(top)} of "
            f"{len(side.layers)} layers, most in layer {most.index} (dimension {most.top}, "
            f"{most.top_share:.0%}); read variant `standardised`"
        )
    top = [layer for layer in side.layers if layer.row_share > MAJORITY]
    if top:
        most = max(top, key=lambda layer: layer.row_share)
        said.append(
            f"{side.label}: one example or token holds over half of the squared norm in {len(top)} "
            f"of {len(side.layers)} layers, most in layer {most.index} ({most.row_share:.0%}); the "
            "scores say little about the others"
        )
    return said


def _left_out(acts: Activations) -> list[str]:
    n = len(acts.ids)
    said: list[str] = []
    counts = [f"{count} {reason}" for reason, count in acts.left_out.items() if count]
    if counts:
        said.append(f"tokens left out of {n} texts: {', '.join(counts)}")
    if acts.n_at_sink:
        said.append(
            f"{acts.n_at_sink} of {n} texts are read at the attention sink, sequence position 0"
        )
    if acts.n_truncated:
        said.append(
            f"{acts.n_truncated} of {n} texts were longer than the context and lost their beginning"
        )
    if acts.n_joined:
        said.append(
            f"in {acts.n_joined} of {n} texts prompt and response were tokenised apart and joined"
        )
    return said


def figures(found: Findings) -> dict[str, str]:
    """Maps, diagonal, and its distance from 1, as plotly JSON by name."""
    declared = found.main.declared
    pair = f"{found.x.label} against {found.y.label}"
    metric = f"{declared.name}_map"
    n_groups, n_permutations = found.labels.n_groups, found.n_permutations
    cells = [row for row in found.rows if row.metric == metric]
    drawn = {
        f"map_{variant}": heat_map(
            cells,
            metric,
            variant=variant,
            title=f"{declared.title}, {variant}: {pair}",
            caption=captions.of_map(
                declared.title, variant, found.labels.n, n_groups, n_permutations
            ),
            value_label=declared.title,
            limits=colour_limits(cells),
        )
        for variant in VARIANTS
    }
    if not found.aligned:
        return drawn
    own = [row for row in found.rows if row.metric == declared.name]
    present = {row.variant for row in own}
    drawn["diagonal"] = layer_curves(
        own,
        declared.name,
        title=f"{declared.title} by layer, {pair}",
        caption=captions.of_diagonal(
            declared.title,
            n_groups,
            len(found.weights),
            0 if found.x is found.y else n_permutations,
            found.plan.n_halves * ("ceiling:raw" in present),
        ),
        y_label=declared.title,
        variants={name: it for name, it in CURVES.items() if name in present},
    )
    far = distances([row for row in own if row.variant in VARIANTS], declared.high)
    if far:
        curves = layer_curves(
            far,
            declared.name,
            title=f"Distance by layer: 1 - {declared.title}, {pair}",
            y_label=f"1 - {declared.title}",
            caption=captions.of_distance(declared.title, n_groups),
            variants={name: it for name, it in CURVES.items() if name in VARIANTS},
        )
        drawn["distance"] = logarithmic(curves)
    return drawn


def headline(found: Findings) -> Headline:
    """The few numbers of the sweep's table."""
    lead = found.lead
    if lead is None or found.x is found.y:
        return _extreme_pair(found)
    lowest = min(lead.rows, key=lambda row: row.value)
    fall = {}
    if lead.drop is not None:
        fall = {"largest drop": lead.drop, "drop at layer": lead.drop.layer}
    return {
        "lowest at layer": lowest.layer,
        found.main.declared.name.replace("_", " "): lowest,
        "p (max)": lowest.p_max,
        "mean": lead.mean,
        **fall,
        "note": lowest.note,
    }


def _extreme_pair(found: Findings) -> Headline:
    """Without a diagonal the most similar layers, without another stage the least similar ones."""
    metric = f"{found.main.declared.name}_map"
    cells = [row for row in found.rows if (row.metric, row.variant) == (metric, "raw")]
    own = found.x is found.y
    row = (min if own else max)(cells, key=lambda row: row.value)
    name = "least alike" if own else "most alike"
    return {name: f"layers {row.layer} and {row.reference_layer}", "there": row}


def _span(layers: Sequence[int]) -> str:
    return f"{layers[0]}-{layers[-1]} ({len(layers)})"
