"""Every stage against every other, as a heat map for each layer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from olmo_stages.errors import ConfigError
from olmo_stages.figures.wording import (
    TYPE_NAMES,
    decimals,
    escape,
    layer_name,
    numbers,
    or_gap,
    written,
)
from olmo_stages.types import EMBEDDING_LAYER, Measurement

_MOST_NUMBERS = 15
_FEW = 8
_Pair = tuple[str, str]
_KINDS = ("", *TYPE_NAMES)


@dataclass(frozen=True)
class _View:
    """What one entry of the menu shows.

    Args:
        name: the entry.
        values: value by stage and reference, None if undefined; absent = not measured.
        hover: hover text by stage and reference.
    """

    name: str
    values: dict[_Pair, float | None] = field(default_factory=dict)
    hover: dict[_Pair, str] = field(default_factory=dict)


def stage_matrix(
    measurements: Sequence[Measurement],
    metric: str,
    *,
    order: Sequence[str],
    title: str,
    limits: tuple[float | int, float | int] = (0.0, 1.0),
    symmetric: bool = True,
) -> str:
    """Draw a metric between stages: a row a stage, a column a reference, a menu for the layer.

    The menu begins with the numbers about all layers: those of the rows without a layer, first of
    all layers, then of each layer type; where there are none, the mean over the blocks (not the
    embeddings) as computed here, undefined where one of them is.

    Args:
        measurements: rows of one variant; those of other metrics are left out.
        metric: the metric to draw.
        order: labels of the stages, first row and first column first.
        title: title of the figure.
        limits: values of the darkest and the brightest colour.
        symmetric: whether the value of two stages is the same in both directions; a direction that
            was not measured then shows the other one's. False for e.g. a best-matching layer.

    Raises:
        ConfigError: if there is nothing to draw, the limits are not ascending, a stage is not in
            the order, two rows are about the same cell, or a symmetric metric's rows are about
            two different layers.

    Returns:
        A plotly figure as JSON text. Pairs that are undefined or were not measured are gaps.
    """
    import plotly.graph_objects as go

    rows = [row for row in measurements if row.metric == metric]
    _check(rows, metric, order, title, limits, symmetric=symmetric)
    views = _views(rows)
    if symmetric:
        views = [_mirrored(view) for view in views]
    figure = go.Figure(layout=_layout(title, order, views))
    for index, view in enumerate(views):
        colours = {
            "zmin": limits[0],
            "zmax": limits[1],
            "colorscale": "Cividis",
            "colorbar": {
                "title": {
                    "text": escape(metric.removesuffix("_stages").replace("_", " ")),
                    "side": "right",
                },
                "thickness": 14,
            },
        }
        figure.add_trace(go.Heatmap(visible=index == 0, **colours, **_heat(view, order)))
    return str(figure.to_json(engine="json"))


def _check(
    rows: Sequence[Measurement],
    metric: str,
    order: Sequence[str],
    title: str,
    limits: tuple[float | int, float | int],
    *,
    symmetric: bool,
) -> None:
    if not rows:
        raise ConfigError(f"no measurement of {metric!r} to draw in figure {title!r}")
    if not limits[0] < limits[1]:
        raise ConfigError(f"figure {title!r}: limits {limits} of the colours do not ascend")
    unknown = [it for row in rows for it in (row.stage, row.reference) if it not in order]
    if unknown or len(set(order)) < len(order):
        what = f"{unknown[0]!r} is not" if unknown else "a stage is twice"
        raise ConfigError(f"figure {title!r}: {what} in the order {', '.join(order)}")
    directed = [row for row in rows if row.reference_layer not in {None, row.layer}]
    if symmetric and directed:
        row = directed[0]
        raise ConfigError(
            f"{metric!r} sets layer {row.layer} of {row.stage} beside layer "
            f"{row.reference_layer} of {row.reference}, so its two directions differ; give "
            "symmetric=False"
        )


def _views(rows: Sequence[Measurement]) -> list[_View]:
    """One view a layer, those about all layers first."""
    by_view: dict[tuple[int | None, str], list[Measurement]] = {}
    types: dict[int, str] = {}
    for row in rows:
        if row.layer is not None:
            types.setdefault(row.layer, row.layer_type)
        by_view.setdefault((row.layer, "" if row.layer is not None else row.layer_type), []).append(
            row
        )
    whole = [key for key in by_view if key[0] is None]
    whole.sort(key=lambda key: _KINDS.index(key[1]) if key[1] in _KINDS else len(_KINDS))
    views = [_view(_whole_name(kind), by_view[None, kind]) for _, kind in whole]
    layers = [_view(layer_name(layer, types[layer]), by_view[layer, ""]) for layer in sorted(types)]
    if not views and len([layer for layer in types if layer != EMBEDDING_LAYER]) > 1:
        views = [_mean([row for row in rows if row.layer != EMBEDDING_LAYER])]
    return [*views, *layers]


def _whole_name(kind: str) -> str:
    return f"all layers, {TYPE_NAMES.get(kind, kind)}" if kind else "all layers"


def _view(name: str, rows: Sequence[Measurement]) -> _View:
    view = _View(escape(name))
    for row in rows:
        pair = (row.stage, row.reference)
        if pair in view.values:
            raise ConfigError(
                f"two measurements of {row.metric!r} between {row.stage} and {row.reference} "
                f"({name}); draw one variant at a time"
            )
        view.values[pair] = or_gap(row.value)
        view.hover[pair] = _hover(row, name)
    return view


def _hover(row: Measurement, name: str) -> str:
    value, *rest = numbers(row, "layers")
    matched = []
    if row.reference_layer is not None:
        there = layer_name(row.reference_layer, row.reference_layer_type)
        matched = [f"matched by {there} of {escape(row.reference)}"]
    null = [] if or_gap(row.null) is None else [f"null median {row.null:.3f}"]
    head = f"{escape(row.stage)} and {escape(row.reference)}"
    return "<br>".join([head, escape(name), *matched, f"<b>{value}</b>", *null, *rest])


def _mean(rows: Sequence[Measurement]) -> _View:
    """The mean over the layers; it has no interval, because the layers' are not independent."""
    view = _View("mean over layers")
    values: dict[_Pair, list[float]] = {}
    for row in rows:
        values.setdefault((row.stage, row.reference), []).append(row.value)
    n_layers = len({row.layer for row in rows})
    for pair, found in values.items():
        # A mean of some layers would be set beside means of all.
        whole = len(found) == n_layers and all(map(math.isfinite, found))
        mean = sum(found) / n_layers
        view.values[pair] = mean if whole else None
        shown = written(mean) if whole else "undefined at a layer"
        head = f"{escape(pair[0])} and {escape(pair[1])}"
        view.hover[pair] = f"{head}<br>mean over {n_layers} layers<br><b>{shown}</b>"
    return view


def _mirrored(view: _View) -> _View:
    missing = [(one, other) for one, other in view.values if (other, one) not in view.values]
    return _View(
        view.name,
        view.values | {(other, one): view.values[one, other] for one, other in missing},
        view.hover | {(other, one): view.hover[one, other] for one, other in missing},
    )


def _heat(view: _View, order: Sequence[str]) -> dict[str, Any]:
    # Few stages leave room for three digits, which tell 0.998 from 1.
    digits = 3 if len(order) <= _FEW else 2
    grid = [[(stage, reference) for reference in order] for stage in order]
    heat: dict[str, Any] = {
        "z": [[view.values.get(pair) for pair in row] for row in grid],
        "hovertext": [[view.hover.get(pair, "") for pair in row] for row in grid],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "name": view.name,
        "xgap": 1,
        "ygap": 1,
    }
    if len(order) <= _MOST_NUMBERS:
        heat["text"] = [[_in_cell(view.values, pair, digits) for pair in row] for row in grid]
        heat["texttemplate"] = "%{text}"
    return heat


def _in_cell(values: Mapping[_Pair, float | None], pair: _Pair, digits: int) -> str:
    value = values.get(pair)
    return "" if value is None else f"{value:.{decimals(value, digits, 4)}f}"


def _layout(title: str, order: Sequence[str], views: Sequence[_View]) -> dict[str, Any]:
    places = list(range(len(order)))
    axis = {
        "tickvals": places,
        "ticktext": [escape(label) for label in order],
        "tickfont": {"size": 12 if len(order) <= _FEW else 8},
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
        "constrain": "domain",
    }
    ends = [-0.5, len(order) - 0.5]
    buttons = [
        {
            "label": view.name,
            "method": "restyle",
            "args": [{"visible": [index == it for it in range(len(views))]}],
        }
        for index, view in enumerate(views)
    ]
    menu = {"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
    return {
        "template": "none",
        "title": {"text": escape(title), "x": 0.02, "xanchor": "left"},
        "xaxis": {**axis, "range": ends, "title": {"text": "reference"}, "tickangle": -45},
        "yaxis": {
            **axis,
            "range": ends[::-1],  # the first stage on top, as in a table
            "title": {"text": "stage"},
            "scaleanchor": "x",
        },
        "updatemenus": [menu],
        "margin": {"l": 60, "r": 20, "t": 80, "b": 60},
        "hovermode": "closest",
    }
