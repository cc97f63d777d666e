"""Every layer of a stage against every layer of its reference, as a heat map."""

from collections.abc import Sequence
from typing import Any

from olmo_stages.errors import ConfigError
from olmo_stages.figures.wording import escape, layer_name, numbers, or_gap
from olmo_stages.types import EMBEDDING_LAYER, Measurement

_SHORT_TYPES = {"full_attention": "F", "sliding_attention": "S"}
_MOST_LABELS = 24  # more run into one another on a panel of 400 pixels
_MARGIN = 0.5  # half a cell: where the axes lie


def heat_map(
    measurements: Sequence[Measurement],
    metric: str,
    *,
    variant: str,
    title: str,
    value_label: str,
    limits: tuple[float | int, float | int],
) -> str:
    """Draw a metric of pairs of layers: the stage's layers upwards, the reference's to the right.

    Layers of full attention have bold labels and a diamond on both axes. Pairs of the same layer,
    the diagonal, are outlined. The colours are cividis, whose brightness grows with the value for
    any colour vision.

    Args:
        measurements: rows; those of other metrics and variants are left out.
        metric: the metric to draw; its rows name `layer` and `reference_layer`.
        variant: the variant to draw.
        title: title of the figure.
        value_label: what the colours mean, with its unit.
        limits: values of the darkest and the brightest colour; values beyond them have the colour
            of the limit and their number in the hover text.

    Raises:
        ConfigError: if there is nothing to draw, the limits are not ascending, a row is not about
            a pair of layers, or two rows are about the same pair.

    Returns:
        A plotly figure as JSON text. Undefined and unmeasured pairs are gaps.
    """
    import plotly.graph_objects as go

    rows = [row for row in measurements if (row.metric, row.variant) == (metric, variant)]
    if not rows:
        raise ConfigError(
            f"no measurement of {metric!r}, variant {variant!r}, to draw in figure {title!r}"
        )
    if not limits[0] < limits[1]:
        raise ConfigError(f"figure {title!r}: limits {limits} of the colours do not ascend")
    cells = _cells(rows)
    down = _axis({row.layer: row.layer_type for row in rows if row.layer is not None})
    right = _axis({
        row.reference_layer: row.reference_layer_type
        for row in rows
        if row.reference_layer is not None
    })
    shown = {"zmin": limits[0], "zmax": limits[1], "colorbar": _colour_bar(value_label)}
    figure = go.Figure(layout=_layout(title, rows[0], down, right))
    figure.add_trace(go.Heatmap(**shown, **_heat(cells, down, right)))
    for trace in [*_diagonal(down, right), *_full_attention(down, right)]:
        figure.add_trace(go.Scatter(**trace))
    return str(figure.to_json(engine="json"))


def _cells(rows: Sequence[Measurement]) -> dict[tuple[int, int], Measurement]:
    """Rows by pair of layers.

    Raises:
        ConfigError: a row without a pair, two rows of one pair, or rows of several comparisons.
    """
    cells: dict[tuple[int, int], Measurement] = {}
    for row in rows:
        if row.layer is None or row.reference_layer is None:
            raise ConfigError(
                f"a measurement of {row.metric!r} ({row.stage}) is not about a pair of layers; "
                "give layer and reference_layer"
            )
        pair = (row.layer, row.reference_layer)
        if pair in cells:
            raise ConfigError(
                f"two measurements of {row.metric!r} ({row.stage}, {row.variant!r}) at layers "
                f"{pair[0]} and {pair[1]}; give them different variants"
            )
        cells[pair] = row
    compared = sorted({f"{row.stage} vs {row.reference}" for row in rows})
    if len(compared) > 1:
        raise ConfigError(
            f"a map of {rows[0].metric!r} is about one stage and its reference, not about "
            f"{', '.join(compared)}; draw one map each"
        )
    return cells


def _axis(types: dict[int, str]) -> list[tuple[int, str]]:
    return sorted(types.items())


def _heat(
    cells: dict[tuple[int, int], Measurement],
    down: Sequence[tuple[int, str]],
    right: Sequence[tuple[int, str]],
) -> dict[str, Any]:
    found = [[cells.get((layer, other)) for other, _ in right] for layer, _ in down]
    return {
        "z": [[None if it is None else or_gap(it.value) for it in row] for row in found],
        "hovertext": [["" if it is None else _hover(it) for it in row] for row in found],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "colorscale": "Cividis",
        "xgap": 0.5,
        "ygap": 0.5,
    }


def _hover(row: Measurement) -> str:
    sides = [
        f"{escape(row.stage)}: {layer_name(row.layer, row.layer_type)}",
        f"{escape(row.reference) or 'reference'}: "
        f"{layer_name(row.reference_layer, row.reference_layer_type)}",
    ]
    null = [] if or_gap(row.null) is None else [f"null median {row.null:.3f}"]
    value, *rest = numbers(row, "the map")
    return "<br>".join([*sides, f"<b>{value}</b>", *null, *rest])


def _diagonal(
    down: Sequence[tuple[int, str]], right: Sequence[tuple[int, str]]
) -> list[dict[str, Any]]:
    """Outlines of the cells of the same layer; white below black is seen on every colour."""
    places = {layer: x for x, (layer, _) in enumerate(right)}
    xs: list[float | None] = []
    ys: list[float | None] = []
    for y, (layer, _) in enumerate(down):
        if (x := places.get(layer)) is not None:
            xs += [x - 0.5, x + 0.5, x + 0.5, x - 0.5, x - 0.5, None]
            ys += [y - 0.5, y - 0.5, y + 0.5, y + 0.5, y - 0.5, None]
    return [
        {
            "x": xs,
            "y": ys,
            "mode": "lines",
            "line": {"color": colour, "width": width},
            "name": "same layer",
            "showlegend": False,
            "hoverinfo": "skip",
        }
        for colour, width in (("#ffffff", 3), ("#000000", 1))
    ]


def _full_attention(
    down: Sequence[tuple[int, str]], right: Sequence[tuple[int, str]]
) -> list[dict[str, Any]]:
    marks = [(x, -_MARGIN) for x, (_, kind) in enumerate(right) if kind == "full_attention"]
    marks += [(-_MARGIN, y) for y, (_, kind) in enumerate(down) if kind == "full_attention"]
    if not marks:
        return []
    return [
        {
            "x": [x for x, _ in marks],
            "y": [y for _, y in marks],
            "mode": "markers",
            "marker": {"symbol": "diamond", "color": "#D55E00", "size": 6},
            "name": "full attention",
            "cliponaxis": False,
            "showlegend": False,
            "hoverinfo": "skip",
        }
    ]


def _ticks(axis: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """A tick a layer; of a deep model only the embeddings and full attention are labelled."""
    step = -(-len(axis) // _MOST_LABELS)
    typed = any(kind == "full_attention" for _, kind in axis)
    labels = [
        _tick(layer, kind)
        if step == 1
        or layer == EMBEDDING_LAYER
        or (kind == "full_attention" if typed else layer % step == 0)
        else ""
        for layer, kind in axis
    ]
    ends = [-_MARGIN, len(axis) - _MARGIN]
    return {"tickvals": list(range(len(axis))), "ticktext": labels, "range": ends}


def _tick(layer: int, kind: str) -> str:
    if layer == EMBEDDING_LAYER:
        return "emb"
    name = f"{layer} {_SHORT_TYPES.get(kind, '')}".strip()
    return f"<b>{name}</b>" if kind == "full_attention" else name


def _layout(
    title: str,
    row: Measurement,
    down: Sequence[tuple[int, str]],
    right: Sequence[tuple[int, str]],
) -> dict[str, Any]:
    kinds = {kind for _, kind in (*down, *right)}
    short = dict(_SHORT_TYPES)
    if max(len(down), len(right)) > _MOST_LABELS and "full_attention" in kinds:
        short["sliding_attention"] = "others"
    legend = ", ".join(
        f"{letter} {kind.replace('_', ' ')}" for kind, letter in short.items() if kind in kinds
    )
    axis = {"tickfont": {"size": 9}, "showgrid": False, "zeroline": False, "ticklen": 6}
    across = f"layer of {escape(row.reference) or 'the reference'}"
    return {
        "template": "none",
        "title": {"text": escape(title), "x": 0.02, "xanchor": "left"},
        "xaxis": {
            **axis,
            **_ticks(right),
            "title": {"text": f"{across} ({legend})" if legend else across, "standoff": 8},
            "tickangle": -90,
            "constrain": "domain",
        },
        "yaxis": {
            **axis,
            **_ticks(down),
            "title": {"text": f"layer of {escape(row.stage)}", "standoff": 8},
            "scaleanchor": "x",
            "constrain": "domain",
        },
        "margin": {"l": 60, "r": 20, "t": 50, "b": 70},
        "hovermode": "closest",
    }


def _colour_bar(label: str) -> dict[str, Any]:
    return {"title": {"text": escape(label), "side": "right"}, "thickness": 14}
