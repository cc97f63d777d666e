"""Every stage against every other, as a heat map for each layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from olmo_stages.errors import ConfigError
from olmo_stages.figures.frame import colours, frame, menu
from olmo_stages.figures.hover import columns, fields
from olmo_stages.figures.palette import DIVERGING, GREY
from olmo_stages.figures.wording import (
    TYPE_NAMES,
    as_in,
    escape,
    layer_name,
    or_gap,
    shared,
    written,
)
from olmo_stages.types import EMBEDDING_LAYER, Measurement

_MOST_NUMBERS = 15
_ROOMY = 12  # stages whose names have room at any size
_SLANTED = 8  # more slanted names would lie on one another on a narrow page
_PALE = 0.001  # values that differ by less have nearly the same colour
_DECIMALS = 5
_Pair = tuple[str, str]
_KINDS = ("", *TYPE_NAMES)


@dataclass(frozen=True)
class _View:
    """What one entry of the menu shows.

    Args:
        name: the entry, escaped.
        values: value by stage and reference, None if undefined; absent = not measured.
        rows: the measurements; of a mean that was computed here there is none.
        n_layers: what such a mean is over.
    """

    name: str
    values: dict[_Pair, float | None] = field(default_factory=dict)
    rows: dict[_Pair, Measurement] = field(default_factory=dict)
    n_layers: int = 0


def stage_matrix(  # noqa: PLR0913  (keywords of one figure)
    measurements: Sequence[Measurement],
    metric: str,
    *,
    order: Sequence[str],
    title: str,
    caption: str = "",
    limits: tuple[float | int, float | int] | None = None,
    symmetric: bool = True,
    axes: tuple[str, str] = ("stage", "reference"),
    behind: Sequence[Measurement] | None = None,
    signed: bool = False,
    whole: str = "all layers",
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
        caption: what is drawn, and what was resampled for the intervals.
        limits: values of the darkest and the brightest colour, in every view; None = the lowest
            and the highest of all views, of signed numbers the largest on either side of 0.
        symmetric: whether the value of two stages is the same in both directions; a direction that
            was not measured then shows the other one's. False for e.g. a best-matching layer.
        axes: what rows and columns are.
        behind: the measurements behind the figure, where those drawn are made from them.
        signed: whether 0 is in the middle, as of the stage less the reference: colours then part at
            the middle of the limits, and numbers have their sign.
        whole: what a row without a layer and a layer type is about.

    Raises:
        ConfigError: if there is nothing to draw, the limits are not ascending, a stage is not in
            the order, two rows are about the same cell, or a symmetric metric's rows are about
            two different layers.

    Returns:
        A plotly figure as JSON text. Pairs that were not measured are gaps, undefined ones a cross.
        The numbers in the cells of a view have the same number of decimals.
    """
    import plotly.graph_objects as go

    rows = [row for row in measurements if row.metric == metric]
    _check(rows, metric, order, title, symmetric=symmetric)
    views = _views(rows, whole)
    if symmetric:
        views = [_mirrored(view) for view in views]
    limits = _limits(views, signed=signed) if limits is None else limits
    if not limits[0] < limits[1]:
        raise ConfigError(f"figure {title!r}: limits {limits} of the colours do not ascend")
    drawn = [
        (index, trace)
        for index, view in enumerate(views)
        for trace in _traces(view, order, metric, limits, signed=signed)
    ]
    layout = frame(title, caption, rows if behind is None else behind, menu=True)
    buttons = _buttons(views, [index for index, _ in drawn])
    figure = go.Figure(layout={**layout, **_layout(order, axes), "updatemenus": [menu(buttons)]})
    for index, trace in drawn:
        figure.add_trace({"visible": index == 0, **trace})
    return str(figure.to_json(engine="json"))


def _check(
    rows: Sequence[Measurement],
    metric: str,
    order: Sequence[str],
    title: str,
    *,
    symmetric: bool,
) -> None:
    if not rows:
        raise ConfigError(f"no measurement of {metric!r} to draw in figure {title!r}")
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


def _views(rows: Sequence[Measurement], of_all: str) -> list[_View]:
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
    views = [_view(_whole_name(kind) or of_all, by_view[None, kind]) for _, kind in whole]
    layers = [_view(layer_name(layer, types[layer]), by_view[layer, ""]) for layer in sorted(types)]
    if not views and len([layer for layer in types if layer != EMBEDDING_LAYER]) > 1:
        views = [_mean([row for row in rows if row.layer != EMBEDDING_LAYER])]
    return [*views, *layers]


def _whole_name(kind: str) -> str:
    return f"all layers, {TYPE_NAMES.get(kind, kind)}" if kind else ""


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
        view.rows[pair] = row
    return view


def _mean(rows: Sequence[Measurement]) -> _View:
    """The mean over the layers; it has no interval, because the layers' are not independent."""
    n_layers = len({row.layer for row in rows})
    view = _View("mean over layers", n_layers=n_layers)
    values: dict[_Pair, list[float]] = {}
    for row in rows:
        values.setdefault((row.stage, row.reference), []).append(row.value)
    for pair, found in values.items():
        # A mean of some layers would be set beside means of all.
        whole = len(found) == n_layers and all(map(math.isfinite, found))
        mean = sum(found) / n_layers
        view.values[pair] = mean if whole else None
    return view


def _mirrored(view: _View) -> _View:
    missing = [(one, other) for one, other in view.values if (other, one) not in view.values]
    turned = {(other, one): view.rows[one, other] for one, other in missing if view.rows}
    return _View(
        view.name,
        view.values | {(other, one): view.values[one, other] for one, other in missing},
        view.rows | turned,
        view.n_layers,
    )


def _limits(views: Sequence[_View], *, signed: bool) -> tuple[float, float]:
    values = [it for view in views for it in view.values.values() if it is not None] or [0.0]
    low, high = min(values), max(values)
    if signed:
        reach = max(-low, high, _PALE / 2)
        return -reach, reach
    lacking = max(0.0, _PALE - (high - low)) / 2
    return low - lacking, high + lacking


def _traces(
    view: _View,
    order: Sequence[str],
    metric: str,
    limits: tuple[float | int, float | int],
    *,
    signed: bool,
) -> list[dict[str, Any]]:
    undefined = [pair for pair, value in view.values.items() if value is None]
    heat = _heat(view, order, signed=signed) | {
        "type": "heatmap",
        "colorscale": DIVERGING if signed else "Cividis",
        **colours(metric.removesuffix("_stages").replace("_", " "), limits),
    }
    return [heat, _crosses(view, order, undefined)] if undefined else [heat]


def _heat(view: _View, order: Sequence[str], *, signed: bool) -> dict[str, Any]:
    grid = [[(stage, reference) for reference in order] for stage in order]
    known = [pair for line in grid for pair in line if view.values.get(pair) is not None]
    said = _hover(view, known)
    heat: dict[str, Any] = {
        "z": [[view.values.get(pair) for pair in row] for row in grid],
        "hovertemplate": said["hovertemplate"],
        "hoverongaps": False,
        "name": view.name,
        "xgap": 1,
        "ygap": 1,
    }
    if "customdata" in said:
        data = dict(zip(known, said["customdata"], strict=True))
        heat["customdata"] = [[data.get(pair) for pair in row] for row in grid]
    if len(order) <= _MOST_NUMBERS:
        values = [view.values[pair] for pair in known]
        equal = (0.0, 1.0, -1.0) if signed else (1.0,)
        digits = max(shared(filter(None, values), it, _DECIMALS) for it in equal)
        form = f"{'+' * signed}.{digits}f"
        heat["text"] = [[_in_cell(view.values.get(pair), form) for pair in row] for row in grid]
        heat["texttemplate"] = "%{text}"
    return heat


def _crosses(view: _View, order: Sequence[str], pairs: Sequence[_Pair]) -> dict[str, Any]:
    """What was measured and is undefined; a gap alone would look like what was not measured."""
    return {
        "type": "scatter",
        "x": [order.index(reference) for _, reference in pairs],
        "y": [order.index(stage) for stage, _ in pairs],
        "mode": "markers",
        "marker": {
            "symbol": "x-thin",
            "size": 7,
            "color": GREY,
            "line": {"width": 1, "color": GREY},
        },
        "name": f"{view.name}, undefined",
        "showlegend": False,
        **_hover(view, pairs),
    }


def _hover(view: _View, pairs: Sequence[_Pair]) -> dict[str, Any]:
    """Text of cells; the axes' labels name the stages."""
    head = "%{y} and %{x}<br>"
    if not view.rows:
        values = [view.values[pair] for pair in pairs]
        said = ["undefined at a layer" if it is None else f"<b>{written(it)}</b>" for it in values]
        return fields(f"{head}mean over {view.n_layers} layers", [("", said)])
    rows = [view.rows[pair] for pair in pairs]
    directed = any(row.reference_layer not in {None, row.layer} for row in view.rows.values())
    matched = [
        "" if row.reference_layer is None else layer_name(row.reference_layer, "") for row in rows
    ]
    found = [("matched by ", matched)] if directed else []
    return fields(head + view.name, [*found, *columns(rows, "layers")])


def _in_cell(value: float | None, form: str) -> str:
    if value is None:
        return ""
    if value < 1 and float(format(value, form)) == 1:
        return f">{1 - 10**-_DECIMALS:{form.lstrip('+')}}"
    return as_in(value, form)


def _buttons(views: Sequence[_View], owners: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "label": view.name,
            "method": "restyle",
            "args": [{"visible": [owner == index for owner in owners]}],
        }
        for index, view in enumerate(views)
    ]


def _layout(order: Sequence[str], axes: tuple[str, str]) -> dict[str, Any]:
    axis = {
        "tickvals": list(range(len(order))),
        "ticktext": [escape(label) for label in order],
        **({} if len(order) <= _ROOMY else {"tickfont": {"size": 10}}),
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
    }
    ends = [-0.5, len(order) - 0.5]
    angle = -45 if len(order) <= _SLANTED else -90
    return {
        "xaxis": {**axis, "range": ends, "title": _title(axes[1]), "tickangle": angle},
        "yaxis": {
            **axis,
            "range": ends[::-1],  # the first stage on top, as in a table
            "title": _title(axes[0]),
        },
    }


def _title(text: str) -> dict[str, Any]:
    # With a distance of its own it is put beside the labels, not on them.
    return {"text": escape(text), "standoff": 8}
