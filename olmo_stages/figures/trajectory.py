"""A number along training: revisions by their step, stages in the order of the lineage.

The horizontal axis is laid out by the caller (`Axis`): on one logarithmic axis of all steps the
later phases of a long training would be a hair's breadth, so each has a stretch of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from olmo_stages.errors import ConfigError
from olmo_stages.figures.wording import escape, numbers, or_gap
from olmo_stages.types import Measurement

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito 2008, told apart with any colour vision."""

_GREY = "#999999"
_DEEP, _SHALLOW = (0, 34, 78), (230, 200, 40)
_HIGH = "rgba(0,0,0,0.04)"


@dataclass(frozen=True)
class Axis:
    """Where stages and revisions are on the horizontal axis.

    Args:
        at: position by label, in the order of training.
        ticks: text below each label.
        titles: name of a stretch with its left and right end, e.g. `base stage1`.
        joins: pairs of labels of which the second was trained from the first, with no other label
            between them; lines follow them, so that a branch of the lineage is a branch.
        told: what the hover text says of each label.
    """

    at: Mapping[str, float]
    ticks: Mapping[str, str]
    titles: Sequence[tuple[str, float, float]]
    joins: Sequence[tuple[str, str]]
    told: Mapping[str, str]


@dataclass(frozen=True)
class Line:
    """One number along the axis.

    Args:
        name: in the legend.
        rows: by label.
        colour: of line and markers.
        dash: of the line, as plotly calls it.
        band: whether intervals are drawn.
    """

    name: str
    rows: Mapping[str, Measurement]
    colour: str
    dash: str = "solid"
    band: bool = True


@dataclass(frozen=True)
class View:
    """What one entry of the menu shows.

    Args:
        name: the entry.
        lines: what is drawn.
        nulls: the ranges that chance takes; only the intervals of their rows are drawn.
        fixed: label and value of the reference where its value is 1 or 0 by definition.
    """

    name: str
    lines: Sequence[Line]
    nulls: Sequence[Line] = ()
    fixed: Mapping[str, float] = field(default_factory=dict)


def shade(depth: float) -> str:
    """Return a colour for a depth in the model, 0 = first layer to 1 = last."""
    parts = (round(a + (b - a) * depth) for a, b in zip(_SHALLOW, _DEEP, strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


def trajectory(
    views: Sequence[View],
    axis: Axis,
    *,
    title: str,
    y_label: str,
    first: int = 0,
    level: float | None = None,
) -> str:
    """Draw numbers along training, with a menu where there are several views.

    Args:
        views: entries of the menu.
        axis: where the labels of all rows are.
        title: title of the figure.
        y_label: label of the vertical axis, with its unit.
        first: index of the view that is shown first.
        level: value that means nothing was found, drawn as a thin line.

    Returns:
        A plotly figure as JSON text. An undefined value is a gap; a label that no other is joined
        to is a marker with its interval as an error bar.

    Raises:
        ConfigError: there is nothing to draw, or a row's label is not on the axis.
    """
    import plotly.graph_objects as go

    drawn = [_traces(view, axis) for view in views]
    if not any(drawn):
        raise ConfigError(f"nothing to draw in figure {title!r}")
    figure = go.Figure(layout=_layout(axis, title, y_label))
    if level is not None:
        figure.add_hline(y=level, line={"color": _GREY, "width": 1, "dash": "dot"})
    owners: list[int] = []
    for index, traces in enumerate(drawn):
        for trace in traces:
            figure.add_trace(go.Scatter(visible=index == first, **trace))
            owners.append(index)
    if len(views) > 1:
        figure.update_layout(updatemenus=[_menu(views, owners, first)])
    return str(figure.to_json(engine="json"))


def _traces(view: View, axis: Axis) -> list[dict[str, Any]]:
    for line in (*view.lines, *view.nulls):
        if unknown := [label for label in line.rows if label not in axis.at]:
            raise ConfigError(f"{unknown[0]!r} has no place on the axis of the figure")
    traces = [_null(line, axis) for line in view.nulls]
    for line in view.lines:
        if not any(or_gap(row.value) is not None for row in line.rows.values()):
            continue
        traces += [_band(line, axis)] if line.band else []
        traces += [_path(line, axis), _markers(line, axis)]
    return [trace for trace in [*traces, *_fixed(view, axis)] if trace["x"]]


def _joined(line: Line, axis: Axis) -> list[tuple[str, str]]:
    return [
        (one, other)
        for one, other in axis.joins
        if one in line.rows
        and other in line.rows
        and or_gap(line.rows[one].value) is not None
        and or_gap(line.rows[other].value) is not None
    ]


def _path(line: Line, axis: Axis) -> dict[str, Any]:
    x: list[float | None] = []
    y: list[float | None] = []
    for one, other in _joined(line, axis):
        x += [axis.at[one], axis.at[other], None]
        y += [line.rows[one].value, line.rows[other].value, None]
    return {
        "x": x,
        "y": y,
        "legendgroup": line.name,
        "showlegend": False,
        "mode": "lines",
        "line": {"color": line.colour, "dash": line.dash, "width": 2},
        "hoverinfo": "skip",
    }


def _markers(line: Line, axis: Axis) -> dict[str, Any]:
    labels = [label for label in axis.at if label in line.rows]
    rows = [line.rows[label] for label in labels]
    joined = {label for pair in _joined(line, axis) for label in pair}
    marker: dict[str, Any] = {
        "x": [axis.at[label] for label in labels],
        "y": [or_gap(row.value) for row in rows],
        "name": escape(line.name),
        "legendgroup": line.name,
        "mode": "lines+markers",  # the legend shows the dash; the path itself is drawn by joins
        "line": {"color": line.colour, "dash": line.dash, "width": 0},
        "marker": {"color": line.colour, "size": 7},
        "text": [_hover(label, row, axis) for label, row in zip(labels, rows, strict=True)],
        "hovertemplate": f"<b>{escape(line.name)}</b><br>%{{text}}<extra></extra>",
    }
    alone = [
        line.band and label not in joined and _ends(row) is not None
        for label, row in zip(labels, rows, strict=True)
    ]
    if any(alone):
        marker["error_y"] = {
            "type": "data",
            "symmetric": False,
            "color": line.colour,
            "width": 4,
            "array": [_above(row) if it else 0 for row, it in zip(rows, alone, strict=True)],
            "arrayminus": [_below(row) if it else 0 for row, it in zip(rows, alone, strict=True)],
        }
    return marker


def _band(line: Line, axis: Axis) -> dict[str, Any]:
    return _ranges(line, axis, _transparent(line.colour)) | {"showlegend": False}


def _null(line: Line, axis: Axis) -> dict[str, Any]:
    return _ranges(line, axis, _transparent(line.colour)) | {"name": escape(line.name)}


def _ranges(line: Line, axis: Axis, fill: str) -> dict[str, Any]:
    """A closed shape for every joined pair: a fill across a gap would invent an interval there."""
    x: list[float | None] = []
    y: list[float | None] = []
    for pair in _joined(line, axis):
        ends = [_ends(line.rows[label]) for label in pair]
        if ends[0] is None or ends[1] is None:
            continue
        (low, high), (next_low, next_high) = ends[0], ends[1]
        left, right = (axis.at[label] for label in pair)
        x += [left, right, right, left, left, None]
        y += [low, next_low, next_high, high, low, None]
    return {
        "x": x,
        "y": y,
        "legendgroup": line.name,
        "mode": "lines",
        "line": {"width": 0, "color": line.colour},
        "fill": "toself",
        "fillcolor": fill,
        "hoverinfo": "skip",
    }


def _fixed(view: View, axis: Axis) -> list[dict[str, Any]]:
    return [
        {
            "x": [axis.at[label]],
            "y": [value],
            "name": f"{escape(label)} (the reference)",
            "mode": "markers",
            "marker": {"symbol": "star", "color": "#000000", "size": 11},
            "hovertemplate": f"{escape(label)}, the reference: {value:g} by definition"
            "<extra></extra>",
        }
        for label, value in view.fixed.items()
    ]


def _ends(row: Measurement) -> tuple[float, float] | None:
    low, high = or_gap(row.ci_low), or_gap(row.ci_high)
    return None if low is None or high is None else (low, high)


def _above(row: Measurement) -> float:
    return max(0.0, (row.ci_high or 0.0) - row.value)


def _below(row: Measurement) -> float:
    return max(0.0, row.value - (row.ci_low or 0.0))


def _hover(label: str, row: Measurement, axis: Axis) -> str:
    null = [] if or_gap(row.null) is None else [f"null median {row.null:.3f}"]
    return "<br>".join([escape(axis.told[label]), *numbers(row, "layers"), *null])


def _menu(views: Sequence[View], owners: Sequence[int], first: int) -> dict[str, Any]:
    buttons = [
        {
            "label": escape(view.name),
            "method": "restyle",
            "args": [{"visible": [owner == index for owner in owners]}],
        }
        for index, view in enumerate(views)
    ]
    place = {"x": 1, "xanchor": "right", "y": 1.08, "yanchor": "bottom"}
    return {"buttons": buttons, "active": first, **place}


def _layout(axis: Axis, title: str, y_label: str) -> dict[str, Any]:
    lines = {"gridcolor": "#eeeeee", "zeroline": False, "linecolor": "#444444"}
    ends = [min(axis.at.values()) - 0.5, max(axis.at.values()) + 0.5]
    shapes = [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": left - 0.25,
            "x1": right + 0.25,
            "y0": 0,
            "y1": 1,
            "fillcolor": _HIGH,
            "line": {"width": 0},
            "layer": "below",
        }
        for _, left, right in axis.titles
    ]
    names = [
        {
            "text": escape(name),
            "x": (left + right) / 2,
            "y": 1.0,
            "yref": "paper",
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"size": 11},
        }
        for name, left, right in axis.titles
    ]
    shown = {label: text for label, text in axis.ticks.items() if text}
    return {
        "template": "none",
        "title": {"text": escape(title), "x": 0.02, "xanchor": "left"},
        "xaxis": {
            **lines,
            "showgrid": True,
            "tickvals": [axis.at[label] for label in shown],
            "ticktext": [escape(text) for text in shown.values()],
            "range": ends,
            "automargin": True,
            "title": {"text": "stage; where a stretch is named, step within it (log)"},
        },
        "yaxis": {**lines, "title": {"text": escape(y_label)}},
        "shapes": shapes,
        "annotations": names,
        "legend": {"orientation": "v"},
        "margin": {"t": 110},
        "hovermode": "closest",
    }


def _transparent(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
