"""One value a layer, with interval and null, as lines over the layers."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from olmo_stages.errors import ConfigError
from olmo_stages.figures.depth import axis, ends, stripes, types_of
from olmo_stages.figures.frame import AXIS, frame, legend
from olmo_stages.figures.hover import columns, fields, of_nulls
from olmo_stages.figures.palette import COLOURS, DASHES, GREY, Style, styles, transparent
from olmo_stages.figures.wording import TYPE_NAMES, escape, layer_name, or_gap
from olmo_stages.types import Measurement

_SYMBOLS = {
    "embedding": "square-open",
    "sliding_attention": "circle-open",
    "full_attention": "diamond",
    "": "circle",
}
_SIGNS = {
    "embedding": "squares: embeddings",
    "sliding_attention": "open circles: sliding attention",
    "full_attention": "diamonds: full attention",
}
_TRIED = "all that was tried"
_ALONE = 0.1  # half the width of the band of a single layer, which would have none


@dataclass(frozen=True)
class _Line:
    """The rows of one line, layers ascending, and how it is drawn."""

    name: str
    rows: tuple[Measurement, ...]
    colour: str
    dash: str


def layer_curves(  # noqa: PLR0913  (keywords of one figure)
    measurements: Sequence[Measurement],
    metric: str,
    *,
    title: str,
    y_label: str,
    caption: str = "",
    variants: Mapping[str, str] | None = None,
    nulls: Sequence[str] = (),
    stages: Mapping[str, str] | None = None,
    chance: float | None = None,
    rows: Sequence[Measurement] | None = None,
) -> str:
    """Draw a metric over layers: one line per stage and variant, its interval as a band.

    Layers of full attention, of sliding attention and the embeddings have their own symbols, and
    layers of full attention a shaded stripe. A measurement that is not about one layer is a level
    line. Undefined values are gaps. A stage that is compared with several references has a line
    for each.

    Args:
        measurements: rows; those of other metrics are left out.
        metric: the metric to draw.
        title: title of the figure.
        y_label: label of the vertical axis, with its unit.
        caption: what is drawn, what was resampled for the band, and which null the dotted lines
            are; what the symbols mean is added to it.
        variants: variants to draw and the name of each, in this order; None = all as they are.
        nulls: variants that are nulls, drawn dotted.
        stages: variants that stand for a stage, with its label; they have its colour and dash.
        chance: value that means nothing was found, drawn as a thin line.
        rows: the measurements behind the figure, where those drawn are made from them.

    Raises:
        ConfigError: if there is nothing to draw, or two rows are about the same point.

    Returns:
        A plotly figure as JSON text.
    """
    import plotly.graph_objects as go

    shown = [
        row
        for row in measurements
        if row.metric == metric and (variants is None or row.variant in variants)
    ]
    lines = _lines(shown, variants, _looks(shown, stages or {}, nulls))
    if not lines:
        raise ConfigError(f"no measurement of {metric!r} to draw in figure {title!r}")
    types = types_of(shown)
    behind = shown if rows is None else rows
    layout = _layout(title, y_label, _with_symbols(caption, shown), behind, types)
    figure = go.Figure(layout=layout)
    if chance is not None:
        figure.add_hline(y=chance, line={"color": GREY, "width": 1, "dash": "dot"})
    for line in lines:
        for trace in _traces(line, types):
            figure.add_trace(go.Scatter(**trace))
    for trace in _legend_of_symbols(lines):
        figure.add_trace(go.Scatter(**trace))
    return str(figure.to_json(engine="json"))


def logarithmic(figure: str) -> str:
    """Return a figure with a logarithmic vertical axis; values that are not above 0 are gaps."""
    drawn = json.loads(figure)
    drawn["layout"].setdefault("yaxis", {}).update(type="log", exponentformat="power")
    return json.dumps(drawn)


@dataclass(frozen=True)
class _Looks:
    """What decides on a line's colour and dash: its stage where it stands for one."""

    stages: Mapping[str, str]
    nulls: frozenset[str]
    whole: bool
    known: Mapping[str, Style]

    def of(self, row: Measurement, index: int) -> tuple[str, str]:
        """Colour and dash of the line of a row, the index-th in the figure."""
        label = row.stage if self.whole else self.stages.get(row.variant)
        if label is not None:
            return self.known[label].colour, self.known[label].dash
        colour = COLOURS[index % len(COLOURS)]
        if row.variant in self.nulls:
            return colour, "dot"
        return colour, DASHES[index // len(COLOURS) % len(DASHES)]


def _looks(rows: Sequence[Measurement], stages: Mapping[str, str], nulls: Sequence[str]) -> _Looks:
    labels = {row.stage for row in rows}
    others = {(row.variant, row.trait) for row in rows}
    references = {(row.stage, row.reference) for row in rows}
    whole = len(labels) > 1 and len(others) == 1 and len(references) == len(labels)
    known = styles(labels if whole else stages.values()) if whole or stages else {}
    return _Looks(stages, frozenset(nulls), whole, known)


def _lines(
    wanted: Sequence[Measurement], variants: Mapping[str, str] | None, looks: _Looks
) -> list[_Line]:
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
                name = _name(
                    stage + reference,
                    [trait if several else "", shown],
                    whole=whole or reference != "",
                )
                lines.append(_Line(name, _ordered(own), *looks.of(own[0], len(lines))))
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


def _traces(line: _Line, types: Mapping[int, str]) -> list[dict[str, Any]]:
    curve = [row for row in line.rows if row.layer is not None]
    level = [row for row in line.rows if row.layer is None]
    traces: list[dict[str, Any]] = []
    if curve:
        traces += [*_band(line, curve), _curve(line, curve), *_null(line, curve)]
    traces += [_level(line, row, types, named=not curve) for row in level]
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
        **_hover(line.name, rows),
        "connectgaps": False,
    }


def _band(line: _Line, rows: Sequence[Measurement]) -> list[dict[str, Any]]:
    # A closed shape per unbroken stretch: a fill across a gap would invent an interval there.
    shapes: list[dict[str, Any]] = []
    for stretch in _stretches(rows):
        x: list[float | int] = [row.layer for row in stretch if row.layer is not None]
        high, low = [row.ci_high for row in stretch], [row.ci_low for row in stretch]
        if len(x) == 1:
            x, high, low = [x[0] - _ALONE, x[0] + _ALONE], high * 2, low * 2
        shapes.append({
            "x": x + x[::-1],
            "y": high + low[::-1],
            "legendgroup": line.name,
            "showlegend": False,
            "mode": "lines",
            "line": {"width": 0, "color": line.colour},
            "fill": "toself",
            "fillcolor": transparent(line.colour),
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
    name = f"{line.name} · null"
    return [
        {
            "x": [row.layer for row in rows],
            "y": null,
            "name": escape(name),
            "legendgroup": line.name,
            "showlegend": False,
            "mode": "lines",
            "line": {"color": line.colour, "dash": "dot", "width": 1.5},
            **fields(f"<b>{escape(name)}</b>", [("", _layers(rows)), *of_nulls(rows, _TRIED)]),
        }
    ]


def _level(
    line: _Line, row: Measurement, types: Mapping[int, str], *, named: bool
) -> dict[str, Any]:
    left, right = ends(types)
    x = [left, *types, right]  # the pointer finds a line at its points only
    return {
        "x": x,
        "y": [or_gap(row.value)] * len(x),
        "name": escape(line.name),
        "legendgroup": line.name,
        "showlegend": named,
        "mode": "lines",
        "line": {"color": line.colour, "dash": "longdash", "width": 1.5},
        **_hover(line.name, [row]),
    }


def _legend_of_symbols(lines: Sequence[_Line]) -> list[dict[str, Any]]:
    rows = [row for line in lines for row in line.rows if row.layer is not None]
    present = {row.layer_type for row in rows}
    looks = [
        (name, "markers", {"marker": {"symbol": _SYMBOLS[kind], "color": GREY, "size": 8}})
        for kind, name in TYPE_NAMES.items()
        if kind in present
    ]
    if any(or_gap(row.null) is not None for row in rows):
        looks.append(("null (median)", "lines", {"line": {"color": GREY, "dash": "dot"}}))
    return [
        {"x": [None], "y": [None], "name": name, "mode": mode, "hoverinfo": "skip", **look}
        for name, mode, look in looks
    ]


def _hover(name: str, rows: Sequence[Measurement]) -> dict[str, Any]:
    return fields(f"<b>{escape(name)}</b>", [("", _layers(rows)), *columns(rows, _TRIED)])


def _layers(rows: Sequence[Measurement]) -> list[str]:
    return [layer_name(row.layer, row.layer_type) for row in rows]


def _with_symbols(caption: str, rows: Iterable[Measurement]) -> str:
    present = {row.layer_type for row in rows if row.layer is not None}
    signs = [said for kind, said in _SIGNS.items() if kind in present]
    if not caption or not signs:
        return caption
    said = ", ".join(signs)
    return f"{caption} {said[0].upper()}{said[1:]}."


def _layout(
    title: str,
    y_label: str,
    caption: str,
    rows: Sequence[Measurement],
    types: Mapping[int, str],
) -> dict[str, Any]:
    return {
        **frame(title, caption, rows),
        "xaxis": axis(types),
        "yaxis": {**AXIS, "title": {"text": escape(y_label)}, "automargin": True},
        "shapes": stripes(types),
        "legend": legend(),
    }
