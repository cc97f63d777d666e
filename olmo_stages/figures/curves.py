"""One value a layer, with interval and null, as lines over the layers."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from olmo_stages.errors import ConfigError
from olmo_stages.figures.wording import TYPE_NAMES, escape, layer_name, numbers, or_gap
from olmo_stages.types import EMBEDDING_LAYER, Measurement

# Okabe & Ito 2008, told apart with any colour vision; yellow is left out, it fades on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = {
    "embedding": "square-open",
    "sliding_attention": "circle-open",
    "full_attention": "diamond",
    "": "circle",
}


@dataclass(frozen=True)
class _Line:
    """The rows of one line, layers ascending, and how it is drawn."""

    name: str
    rows: tuple[Measurement, ...]
    colour: str
    dash: str


def layer_curves(
    measurements: Sequence[Measurement],
    metric: str,
    *,
    title: str,
    y_label: str,
    variants: Mapping[str, str] | None = None,
    chance: float | None = None,
) -> str:
    """Draw a metric over layers: one line per stage and variant, its interval as a band.

    Layers of full attention, of sliding attention and the embeddings have their own symbols. A
    measurement that is not about one layer is a level line. Undefined values are gaps. A stage that
    is compared with several references has a line for each.

    Args:
        measurements: rows; those of other metrics are left out.
        metric: the metric to draw.
        title: title of the figure.
        y_label: label of the vertical axis, with its unit.
        variants: variants to draw and the name of each, in this order; None = all as they are.
        chance: value that means nothing was found, drawn as a thin line.

    Raises:
        ConfigError: if there is nothing to draw, or two rows are about the same point.

    Returns:
        A plotly figure as JSON text.
    """
    import plotly.graph_objects as go

    lines = _lines([row for row in measurements if row.metric == metric], variants)
    if not lines:
        raise ConfigError(f"no measurement of {metric!r} to draw in figure {title!r}")
    layers = sorted({row.layer for it in lines for row in it.rows if row.layer is not None})
    figure = go.Figure(layout=_layout(title, y_label, layers))
    if chance is not None:
        figure.add_hline(y=chance, line={"color": "#999999", "width": 1, "dash": "dot"})
    for line in lines:
        for trace in _traces(line, layers):
            figure.add_trace(go.Scatter(**trace))
    for trace in _legend_of_symbols(lines):
        figure.add_trace(go.Scatter(**trace))
    return str(figure.to_json(engine="json"))


def logarithmic(figure: str) -> str:
    """Return a figure with a logarithmic vertical axis; values that are not above 0 are gaps."""
    drawn = json.loads(figure)
    drawn["layout"].setdefault("yaxis", {}).update(type="log", exponentformat="power")
    return json.dumps(drawn)


def _lines(rows: Sequence[Measurement], variants: Mapping[str, str] | None) -> list[_Line]:
    wanted = [row for row in rows if variants is None or row.variant in variants]
    owners = list(dict.fromkeys((row.stage, row.trait) for row in wanted))
    whole, several = len({it[0] for it in owners}) > 1, len({it[1] for it in owners}) > 1
    order = list(variants) if variants else list(dict.fromkeys(row.variant for row in wanted))
    lines: list[_Line] = []
    for variant in order:
        shown = variant if variants is None else variants[variant]
        for stage, trait in owners:
            key = (stage, trait, variant)
            of_both = [row for row in wanted if (row.stage, row.trait, row.variant) == key]
            for reference, own in _by_reference(of_both).items():
                index = len(lines)
                lines.append(
                    _Line(
                        name=_name(
                            stage + reference,
                            [trait if several else "", shown],
                            whole=whole or reference != "",
                        ),
                        rows=_ordered(own),
                        colour=_COLOURS[index % len(_COLOURS)],
                        dash=_DASHES[index // len(_COLOURS) % len(_DASHES)],
                    )
                )
    return lines


def _by_reference(rows: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Rows by ` vs REFERENCE`; all rows under an empty name where they share a reference."""
    names = dict.fromkeys(row.reference for row in rows)
    if len(names) < 2:
        return {"": list(rows)} if rows else {}
    shown = {name: f" vs {name}" if name else "" for name in names}
    return {shown[name]: [row for row in rows if row.reference == name] for name in names}


def _name(stage: str, more: Sequence[str], *, whole: bool) -> str:
    parts = [part for part in more if part]
    return " · ".join([stage, *parts] if whole or not parts else parts)


def _ordered(rows: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Rows in the order of the axis, those that are not about one layer last.

    Returns:
        The same rows.

    Raises:
        ConfigError: if two rows share a layer; the line would jump between them unseen.
    """
    ordered = sorted(rows, key=lambda row: math.inf if row.layer is None else row.layer)
    for one, other in pairwise(ordered):
        if one.layer == other.layer:
            raise ConfigError(
                f"two measurements of {one.metric!r} ({one.stage}, {one.variant!r}) at layer "
                f"{one.layer}; give them different variants"
            )
    return tuple(ordered)


def _traces(line: _Line, layers: Sequence[int]) -> list[dict[str, Any]]:
    curve = [row for row in line.rows if row.layer is not None]
    level = [row for row in line.rows if row.layer is None]
    traces: list[dict[str, Any]] = []
    if curve:
        traces += [*_band(line, curve), _curve(line, curve), *_null(line, curve)]
    traces += [_level(line, row, layers, named=not curve) for row in level]
    return traces


def _curve(line: _Line, rows: Sequence[Measurement]) -> dict[str, Any]:
    return {
        "x": [row.layer for row in rows],
        "y": [or_gap(row.value) for row in rows],
        "name": escape(line.name),
        "legendgroup": line.name,
        "mode": "lines+markers",
        "line": {"color": line.colour, "dash": line.dash, "width": 2},
        "marker": {"symbol": [_SYMBOLS.get(row.layer_type, "circle") for row in rows], "size": 8},
        "text": [_hover(row) for row in rows],
        "hovertemplate": f"<b>{escape(line.name)}</b><br>%{{text}}<extra></extra>",
        "connectgaps": False,
    }


def _band(line: _Line, rows: Sequence[Measurement]) -> list[dict[str, Any]]:
    # A closed shape per unbroken stretch: a fill across a gap would invent an interval there.
    shapes: list[dict[str, Any]] = []
    for stretch in _stretches(rows):
        x = [row.layer for row in stretch]
        shapes.append({
            "x": x + x[::-1],
            "y": [row.ci_high for row in stretch] + [row.ci_low for row in stretch[::-1]],
            "legendgroup": line.name,
            "showlegend": False,
            "mode": "lines",
            "line": {"width": 0, "color": line.colour},
            "fill": "toself",
            "fillcolor": _transparent(line.colour),
            "hoverinfo": "skip",
        })
    return shapes


def _stretches(rows: Sequence[Measurement]) -> list[list[Measurement]]:
    stretches: list[list[Measurement]] = [[]]
    for row in rows:
        if or_gap(row.ci_low) is None or or_gap(row.ci_high) is None:
            stretches.append([])
        else:
            stretches[-1].append(row)
    return [stretch for stretch in stretches if stretch]


def _null(line: _Line, rows: Sequence[Measurement]) -> list[dict[str, Any]]:
    null = [or_gap(row.null) for row in rows]
    if not any(value is not None for value in null):
        return []
    return [
        {
            "x": [row.layer for row in rows],
            "y": null,
            "name": f"{escape(line.name)} · null",
            "legendgroup": line.name,
            "mode": "lines",
            "line": {"color": line.colour, "dash": "dot", "width": 1},
            "hovertemplate": "null median %{y:.3f}<extra></extra>",
        }
    ]


def _level(line: _Line, row: Measurement, layers: Sequence[int], *, named: bool) -> dict[str, Any]:
    ends = [layers[0], layers[-1]] if layers else [0, 1]
    return {
        "x": ends,
        "y": [or_gap(row.value)] * 2,
        "name": escape(line.name),
        "legendgroup": line.name,
        "showlegend": named,
        "mode": "lines",
        "line": {"color": line.colour, "dash": "longdash", "width": 1.5},
        "text": [_hover(row)] * 2,
        "hovertemplate": f"<b>{escape(line.name)}</b><br>%{{text}}<extra></extra>",
    }


def _legend_of_symbols(lines: Sequence[_Line]) -> list[dict[str, Any]]:
    present = {row.layer_type for line in lines for row in line.rows}
    return [
        {
            "x": [None],
            "y": [None],
            "name": name,
            "mode": "markers",
            "marker": {"symbol": _SYMBOLS[kind], "color": "#555555", "size": 8},
            "hoverinfo": "skip",
        }
        for kind, name in TYPE_NAMES.items()
        if kind in present
    ]


def _hover(row: Measurement) -> str:
    return "<br>".join([layer_name(row.layer, row.layer_type), *numbers(row, "all that was tried")])


def _layout(title: str, y_label: str, layers: Sequence[int]) -> dict[str, Any]:
    axis = {"showgrid": True, "gridcolor": "#eeeeee", "zeroline": False, "linecolor": "#444444"}
    step = max(1, math.ceil(len(layers) / 24))
    ticks = [layer for layer in layers if layer == EMBEDDING_LAYER or layer % step == 0]
    names = ["emb" if layer == EMBEDDING_LAYER else str(layer) for layer in ticks]
    return {
        "template": "none",
        "title": {"text": escape(title)},
        "xaxis": {**axis, "title": {"text": "layer"}, "tickvals": ticks, "ticktext": names},
        "yaxis": {**axis, "title": {"text": escape(y_label)}},
        "legend": {"orientation": "v"},
        "hovermode": "closest",
    }


def _transparent(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
