"""A number along training: revisions by their step, stages in the order of the lineage."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from olmo_stages.errors import ConfigError
from olmo_stages.figures.axis import NAMES, Axis
from olmo_stages.figures.frame import frame, legend, menu
from olmo_stages.figures.hover import columns, fields
from olmo_stages.figures.palette import GREY, transparent
from olmo_stages.figures.wording import escape, or_gap
from olmo_stages.types import Measurement

_LEAST = 1 / 3  # of the height is for what was measured, or the level is left out
_SPACE = 0.05  # of the height
_SEEN = 0.3  # of nulls, on dark pages too
_STEP = 0.1  # between lines at such a label
_HALF = 0.2  # of the width of a range at a label that no other is joined to


@dataclass(frozen=True)
class Line:
    """One number along the axis.

    Args:
        name: in the legend.
        rows: by label.
        colour: of line and markers.
        dash: of the line, as plotly calls it.
        band: whether intervals are drawn.
        defined: values by label that are so by definition, as the cosine of the reference with
            itself; the line goes there dotted.
    """

    name: str
    rows: Mapping[str, Measurement]
    colour: str
    dash: str = "solid"
    band: bool = True
    defined: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """What one entry of the menu shows.

    Args:
        name: the entry.
        lines: what is drawn.
        nulls: the ranges that chance takes; only the intervals of their rows are drawn.
    """

    name: str
    lines: Sequence[Line]
    nulls: Sequence[Line] = ()


@dataclass(frozen=True)
class Height:
    """The vertical axis.

    Args:
        label: its name with its unit.
        level: value that means nothing was found, drawn as a thin line.
        limits: what it shows at most; values may lie outside of it.
    """

    label: str
    level: float | None = None
    limits: tuple[float, float] | None = None


def trajectory(  # noqa: PLR0913  (keywords of one figure)
    views: Sequence[View],
    axis: Axis,
    *,
    title: str,
    height: Height,
    caption: str = "",
    rows: Sequence[Measurement] | None = None,
    first: int = 0,
) -> str:
    """Draw numbers along training, with a menu where there are several views.

    Args:
        views: entries of the menu.
        axis: where the labels of all rows are.
        title: title of the figure.
        height: the vertical axis.
        caption: what is drawn, what was resampled, and what the ranges are that chance takes.
        rows: the measurements behind the figure, where those drawn are made from them.
        first: index of the view that is shown first.

    Returns:
        A plotly figure as JSON text. An undefined value is a gap; a label that no other is joined
        to is a marker with its interval as an error bar. The vertical axis of each view begins and
        ends where its values, intervals and nulls do, with the level where that leaves them room.

    Raises:
        ConfigError: there is nothing to draw, or a row's label is not on the axis.
    """
    import plotly.graph_objects as go

    drawn = [_traces(view, axis) for view in views]
    if not any(drawn):
        raise ConfigError(f"nothing to draw in figure {title!r}")
    behind = _rows(views) if rows is None else rows
    if caption and axis.titles:
        caption += " Within a named stretch the axis is the logarithm of the step."
    around = frame(title, caption, behind, menu=len(views) > 1, above=_above(axis))
    figure = go.Figure(layout={**around, **axis.layout(height.label), "legend": legend(-0.4)})
    if height.level is not None:
        figure.add_hline(y=height.level, line={"color": GREY, "width": 1, "dash": "dot"})
    ranges = [_range(view, height) for view in views]
    figure.update_yaxes(range=ranges[first])
    owners: list[int] = []
    for index, traces in enumerate(drawn):
        for trace in traces:
            figure.add_trace(go.Scatter(visible=index == first, **trace))
            owners.append(index)
    if len(views) > 1:
        its_menu = {**menu(_buttons(views, owners, ranges), first), "pad": {"b": 6 + _above(axis)}}
        figure.update_layout(updatemenus=[its_menu])
    return str(figure.to_json(engine="json"))


def _above(axis: Axis) -> int:
    return NAMES * bool(axis.titles)


def _range(view: View, height: Height) -> list[float]:
    """Where the axis of a view begins and ends."""
    shown = [it for line in view.lines for it in {**line.defined, **_values(line)}.values()]
    banded = [line for line in (*view.lines, *view.nulls) if line.band]
    shown += [it for line in banded for row in line.rows.values() for it in _ends(row) or ()]
    lowest, highest = height.limits or (-math.inf, math.inf)
    shown = [min(max(it, lowest), highest) for it in shown] or [height.level or 0.0]
    low, high = min(shown), max(shown)
    if height.level is not None:
        whole = max(high, height.level) - min(low, height.level)
        if whole * _LEAST <= high - low:
            low, high = min(low, height.level), max(high, height.level)
    space = _SPACE * (high - low) or 0.5 * abs(high) or 0.5
    return [low - space, high + space]


def _rows(views: Sequence[View]) -> list[Measurement]:
    lines = [line for view in views for line in (*view.lines, *view.nulls)]
    return [row for line in lines for row in line.rows.values()]


def _traces(view: View, axis: Axis) -> list[dict[str, Any]]:
    for line in (*view.lines, *view.nulls):
        if unknown := [it for it in (*line.rows, *line.defined) if it not in axis.at]:
            raise ConfigError(f"{unknown[0]!r} has no place on the axis of the figure")
    traces = [_null(line, axis) for line in view.nulls]
    drawn = [line for line in view.lines if _values(line)]
    for index, line in enumerate(drawn):
        places = _beside(line, axis, index, len(drawn))
        traces += [_band(line, places)] if line.band else []
        traces += [_path(line, places), _defined_path(line, places), _markers(line, places)]
    defined = {label: it for line in view.lines for label, it in line.defined.items()}
    traces += [_star(label, value, axis) for label, value in defined.items()]
    return [trace for trace in traces if trace["x"]]


def _beside(line: Line, axis: Axis, index: int, n_lines: int) -> Axis:
    """Places of a line whose labels no other is joined to: lines lie there beside each other."""
    kept = {label for pair in _joined(line, axis) for label in pair} | set(line.defined)
    step = min(_STEP, 2 * _HALF / max(1, n_lines - 1))
    moved = step * (index - (n_lines - 1) / 2)
    return replace(
        axis, at={label: at + moved * (label not in kept) for label, at in axis.at.items()}
    )


def _joined(line: Line, axis: Axis) -> list[tuple[str, str]]:
    known = _values(line)
    return [pair for pair in axis.joins if all(label in known for label in pair)]


def _values(line: Line) -> dict[str, float]:
    values = {label: or_gap(row.value) for label, row in line.rows.items()}
    return {label: value for label, value in values.items() if value is not None}


def _path(line: Line, axis: Axis) -> dict[str, Any]:
    return _along(_joined(line, axis), _values(line), axis) | {
        "legendgroup": line.name,
        "showlegend": False,
        "mode": "lines",
        "line": {"color": line.colour, "dash": line.dash, "width": 2},
        "hoverinfo": "skip",
    }


def _defined_path(line: Line, axis: Axis) -> dict[str, Any]:
    values = dict(line.defined) | _values(line)
    pairs = [
        pair
        for pair in axis.joins
        if all(label in values for label in pair) and any(label in line.defined for label in pair)
    ]
    return _along(pairs, values, axis) | {
        "legendgroup": line.name,
        "showlegend": False,
        "mode": "lines",
        "line": {"color": line.colour, "dash": "dot", "width": 1},
        "hoverinfo": "skip",
    }


def _along(
    pairs: Sequence[tuple[str, str]], values: Mapping[str, float], axis: Axis
) -> dict[str, Any]:
    x: list[float | None] = []
    y: list[float | None] = []
    for chain in _chains(pairs):
        x += [*(axis.at[label] for label in chain), None]
        y += [*(values[label] for label in chain), None]
    return {"x": x, "y": y}


def _chains(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Labels that are joined one after another; where a branch begins, a chain of its own."""
    chains: list[list[str]] = []
    for one, other in pairs:
        last = next((chain for chain in chains if chain[-1] == one), None)
        if last is None:
            chains.append([one, other])
        else:
            last.append(other)
    return chains


def _markers(line: Line, axis: Axis) -> dict[str, Any]:
    labels = [label for label in axis.at if label in line.rows]
    rows = [line.rows[label] for label in labels]
    joined = {label for pair in _joined(line, axis) for label in pair}
    marker: dict[str, Any] = {
        "x": [axis.at[label] for label in labels],
        "y": [or_gap(row.value) for row in rows],
        "name": escape(line.name),
        "legendgroup": line.name,
        "mode": "markers",
        "marker": {"color": line.colour, "size": 7},
        **_hover(line.name, labels, rows, axis),
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
            "array": [_over(row) if it else 0 for row, it in zip(rows, alone, strict=True)],
            "arrayminus": [_under(row) if it else 0 for row, it in zip(rows, alone, strict=True)],
        }
    return marker


def _band(line: Line, axis: Axis) -> dict[str, Any]:
    return _ranges(line, axis, transparent(line.colour)) | {"showlegend": False}


def _null(line: Line, axis: Axis) -> dict[str, Any]:
    ranges: dict[str, Any] = _ranges(line, axis, transparent(line.colour, _SEEN))
    ranges["name"] = escape(line.name)
    joined = {label for pair in _joined(line, axis) for label in pair}
    for label, row in line.rows.items():
        if label not in joined and (ends := _ends(row)) is not None:
            left, right = axis.at[label] - _HALF, axis.at[label] + _HALF
            ranges["x"] += [left, right, right, left, left, None]
            ranges["y"] += [ends[0], ends[0], ends[1], ends[1], ends[0], None]
    return ranges


def _ranges(line: Line, axis: Axis, fill: str) -> dict[str, Any]:
    """A closed shape for every chain: a fill across a gap would invent an interval there."""
    ends = {label: it for label, row in line.rows.items() if (it := _ends(row)) is not None}
    x: list[float | None] = []
    y: list[float | None] = []
    for chain in _chains([pair for pair in _joined(line, axis) if set(pair) <= set(ends)]):
        places = [axis.at[label] for label in chain]
        low, high = zip(*(ends[label] for label in chain), strict=True)
        x += [*places, *places[::-1], places[0], None]
        y += [*low, *high[::-1], low[0], None]
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


def _star(label: str, value: float, axis: Axis) -> dict[str, Any]:
    return {
        "x": [axis.at[label]],
        "y": [value],
        "name": f"{escape(label)} (the reference)",
        "mode": "markers",
        "marker": {"symbol": "star", "color": GREY, "size": 12},
        "hovertemplate": f"{escape(label)}, the reference: {value:g} by definition<extra></extra>",
    }


def _ends(row: Measurement) -> tuple[float, float] | None:
    low, high = or_gap(row.ci_low), or_gap(row.ci_high)
    return None if low is None or high is None else (low, high)


def _over(row: Measurement) -> float:
    return max(0.0, (row.ci_high or 0.0) - row.value)


def _under(row: Measurement) -> float:
    return max(0.0, row.value - (row.ci_low or 0.0))


def _hover(
    name: str, labels: Sequence[str], rows: Sequence[Measurement], axis: Axis
) -> dict[str, Any]:
    places = [escape(axis.told[label]) for label in labels]
    return fields(f"<b>{escape(name)}</b>", [("", places), *columns(rows, "layers")])


def _buttons(
    views: Sequence[View], owners: Sequence[int], ranges: Sequence[list[float]]
) -> list[dict[str, Any]]:
    return [
        {
            "label": escape(view.name),
            "method": "update",
            "args": [
                {"visible": [owner == index for owner in owners]},
                {"yaxis.range": ranges[index], "yaxis.autorange": False},
            ],
        }
        for index, view in enumerate(views)
    ]
