"""All stages of a study by layer in one figure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from olmo_stages.errors import ConfigError
from olmo_stages.figures.depth import axis, ends, stripes, types_of
from olmo_stages.figures.frame import AXIS, frame, legend, menu
from olmo_stages.figures.hover import columns, fields, of_nulls
from olmo_stages.figures.palette import GREY, Style, styles, transparent
from olmo_stages.figures.wording import escape, layer_name, or_gap
from olmo_stages.types import Measurement

_FEW = 3  # lines whose intervals can be told apart
_NEAR = 0.9  # values above it look alike on an axis that reaches down to the null
_ALIKE = 0.99  # values above it look alike on any axis of values
_SEEN = 0.6  # of whiskers


@dataclass(frozen=True)
class _Line:
    """One stage, layers ascending."""

    name: str
    rows: tuple[Measurement, ...]
    style: Style
    open: bool


def stage_curves(  # noqa: PLR0913  (keywords of one figure)
    measurements: Sequence[Measurement],
    metric: str,
    *,
    title: str,
    y_label: str,
    caption: str = "",
    variant: str | None = None,
    trait: str | None = None,
    of_reference: str | None = None,
    chance: float | None = None,
    labels: Sequence[str] = (),
) -> str:
    """Draw a metric of several stages over layers, a line a stage.

    Stages look as `olmo_stages.figures.palette` says, the legend puts those of one path together.
    Layers of full attention have bold labels and a shaded stripe. Intervals are whiskers, shown or
    hidden with a menu, as 12 bands would cover one another. Where all values lie between 0 and 1,
    some of them above 0.99, another menu shows their distance from 1 on a logarithmic axis; of
    values without a chance level, most of them above 0.9, it is shown at first.

    Args:
        measurements: rows; those of other metrics, and those that are not about one layer, are
            left out.
        metric: the metric to draw.
        title: title of the figure.
        y_label: label of the vertical axis, with its unit.
        caption: what is drawn, what was resampled for the intervals, and which null the dotted
            lines are; what the symbols mean is added to it.
        variant: the variant to draw; None = all, of which a stage may have one.
        trait: the trait to draw; None = all, of which a stage may have one.
        of_reference: variant whose rows are about the reference itself; each reference that is no
            stage of its own then has a line with open symbols.
        chance: value that means nothing was found, drawn as a thin line.
        labels: all stages of the report, so that each looks the same in every figure.

    Raises:
        ConfigError: if there is nothing to draw, or two rows are about the same point.

    Returns:
        A plotly figure as JSON text. Undefined values are gaps.
    """
    import plotly.graph_objects as go

    about = [
        row
        for row in measurements
        if row.metric == metric
        and row.layer is not None
        and not row.pairs_layers
        and trait in {None, row.trait}
    ]
    wanted = [
        row for row in about if variant in {None, row.variant} and row.variant != of_reference
    ]
    of_it = [row for row in about if row.variant == of_reference]
    lines = _lines(wanted, of_it, labels)
    rows = [row for line in lines for row in line.rows]
    if not any(or_gap(row.value) is not None for row in rows):
        raise ConfigError(f"no measurement of {metric!r} to draw in figure {title!r}")
    types = types_of(rows)
    traces = list(_traces(lines, types, chance))
    far = _far(rows, chance)
    known = any(_reach(row) != (0.0, 0.0) for row in rows)
    figure = go.Figure(
        layout={
            **frame(title, _read_as(caption, rows, far=far), rows, menu=known or far is not None),
            "xaxis": axis(types),
            "yaxis": {**AXIS, "automargin": True},
            "shapes": stripes(types),
            "legend": {**legend(), "groupclick": "toggleitem"},
            "updatemenus": [
                *([] if far is None else [_scales(traces, lines, y_label, far=far)]),
                *([_intervals(len(lines), right=far is not None)] if known else []),
            ],
        }
    )
    figure.update_yaxes(_axis_of(y_label, distance=bool(far)))
    for trace, drawn in zip(traces, _scaled(traces, lines, distance=bool(far)), strict=True):
        figure.add_trace(go.Scatter(**_filled(trace, drawn, shown=known and len(lines) <= _FEW)))
    return str(figure.to_json(engine="json"))


def _lines(
    rows: Sequence[Measurement], of_reference: Sequence[Measurement], labels: Sequence[str]
) -> list[_Line]:
    """A line for each stage and reference; references of the same stage have open symbols."""
    by_pair: dict[tuple[str, str], list[Measurement]] = {}
    for row in rows:
        by_pair.setdefault((row.stage, row.reference), []).append(row)
    itself: dict[str, dict[int | None, Measurement]] = {}
    for row in of_reference:
        if row.reference not in {stage for stage, _ in by_pair}:
            # Every job says the same of its reference.
            itself.setdefault(row.reference, {}).setdefault(row.layer, row)
    known = styles([*labels, *(stage for stage, _ in by_pair), *itself])
    order = list(known)
    several = len({reference for _, reference in by_pair}) > 1
    seen: set[str] = set()
    lines: list[_Line] = []
    for stage, reference in sorted(by_pair, key=lambda pair: order.index(pair[0])):
        name = f"{stage} vs {reference}" if several and reference else stage
        own = _ordered(by_pair[stage, reference])
        lines.append(_Line(name, own, known[stage], open=stage in seen))
        seen.add(stage)
    for label, by_layer in itself.items():
        own = _ordered([*by_layer.values()])
        lines.append(_Line(f"{label} (reference)", own, known[label], open=True))
    paths = list(dict.fromkeys(it.path for it in known.values()))
    return sorted(lines, key=lambda line: paths.index(line.style.path))


def _ordered(rows: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Rows in the order of the layers.

    Returns:
        The same rows.

    Raises:
        ConfigError: if two rows share a layer.
    """
    by_layer = {row.layer: row for row in rows}
    if len(by_layer) < len(rows):
        row = rows[0]
        raise ConfigError(
            f"several measurements of {row.metric!r} of {row.stage} at one layer; choose one "
            f"variant and one trait (variants: "
            f"{', '.join(repr(it) for it in dict.fromkeys(row.variant for row in rows))})"
        )
    return tuple(sorted(rows, key=lambda row: row.layer or 0))


def _traces(
    lines: Sequence[_Line], types: Mapping[int, str], chance: float | None
) -> Iterator[dict[str, Any]]:
    for line in lines:
        yield _curve(line)
    if null := _nulls(lines):
        yield null
    if chance is not None:
        left, right = ends(types)
        yield {
            "x": [left, right],
            "y": [chance, chance],
            "name": "chance",
            "legendgroup": "reading",
            "mode": "lines",
            "line": {"color": GREY, "dash": "dash", "width": 1},
            "hovertemplate": f"chance: {chance:g}<extra></extra>",
        }


def _curve(line: _Line) -> dict[str, Any]:
    symbol = line.style.symbol + "-open" * line.open
    return {
        "x": [row.layer for row in line.rows],
        "y": [or_gap(row.value) for row in line.rows],
        "name": escape(line.name),
        "legendgroup": line.style.path,
        "legendgrouptitle": {"text": line.style.path},
        "mode": "lines+markers",
        "line": {"color": line.style.colour, "dash": line.style.dash, "width": 2},
        "marker": {"symbol": symbol, "size": 8, "color": line.style.colour},
        **_hover(line.name, line.rows),
        "connectgaps": False,
    }


def _nulls(lines: Sequence[_Line]) -> dict[str, Any] | None:
    """The nulls of all stages, which often coincide, as one trace that breaks between stages.

    One entry of the legend then shows or hides them all; dots have the colours of the stages.
    """
    x: list[int | None] = []
    y: list[float | None] = []
    rows: list[Measurement] = []
    names: list[str] = []
    colours: list[str] = []
    for line in lines:
        own = [row for row in line.rows if or_gap(row.null) is not None]
        for row in own + own[-1:]:
            rows.append(row)
            names.append(escape(line.name))
            colours.append(line.style.colour)
            x.append(row.layer)
            y.append(row.null)
        if own:
            x[-1] = y[-1] = None
    if not rows:
        return None
    return {
        "x": x,
        "y": y,
        "name": "null (median)",
        "legendgroup": "reading",
        "legendgrouptitle": {"text": "To compare with"},
        "mode": "lines+markers",
        "line": {"color": GREY, "dash": "dot", "width": 1},
        "marker": {"symbol": "circle", "size": 4, "color": colours},
        **fields("<b>null</b>", [("of ", names), ("", _layers(rows)), *of_nulls(rows, "layers")]),
        "connectgaps": False,
    }


def _hover(name: str, rows: Sequence[Measurement]) -> dict[str, Any]:
    against = [f"against {escape(row.reference)}" if row.reference else "" for row in rows]
    found = [("", _layers(rows)), ("", against), *columns(rows, "layers")]
    return fields(f"<b>{escape(name)}</b>", found)


def _layers(rows: Sequence[Measurement]) -> list[str]:
    return [layer_name(row.layer, row.layer_type) for row in rows]


_Drawn = tuple[list[float | None], list[float] | None, list[float] | None]
"""Heights of a trace, and how far its whiskers reach above and below; None = it has none."""


def _scaled(
    traces: Sequence[dict[str, Any]], lines: Sequence[_Line], *, distance: bool
) -> list[_Drawn]:
    """What is drawn of every trace: values, or their distances from 1."""
    found: list[_Drawn] = []
    for index, trace in enumerate(traces):
        y = [None if it is None else 1 - it for it in trace["y"]] if distance else trace["y"]
        if index >= len(lines):
            found.append((y, None, None))
            continue
        reaches = [_reach(row) for row in lines[index].rows]
        above, below = ([float(f"{reach[side]:.4g}") for reach in reaches] for side in (1, 0))
        found.append((y, below, above) if distance else (y, above, below))
    return found


def _reach(row: Measurement) -> tuple[float, float]:
    """How far the interval reaches below and above the value; 0 where there is none."""
    low, high = or_gap(row.ci_low), or_gap(row.ci_high)
    if low is None or high is None or or_gap(row.value) is None:
        return 0.0, 0.0
    return max(0.0, row.value - low), max(0.0, high - row.value)


def _filled(trace: dict[str, Any], drawn: _Drawn, *, shown: bool) -> dict[str, Any]:
    y, above, below = drawn
    if above is None:
        return {**trace, "y": y}
    whiskers = {
        "type": "data",
        "symmetric": False,
        "array": above,
        "arrayminus": below,
        "visible": shown,
        "color": transparent(trace["line"]["color"], _SEEN),
        "thickness": 2,
        "width": 0,
    }
    return {**trace, "y": y, "error_y": whiskers}


def _axis_of(y_label: str, *, distance: bool) -> dict[str, Any]:
    said = f"1 - {y_label}" if distance else y_label
    scale = {"type": "log", "exponentformat": "power"} if distance else {"type": "linear"}
    return {"title": {"text": escape(said)}, **scale}


def _scales(
    traces: Sequence[dict[str, Any]], lines: Sequence[_Line], y_label: str, *, far: bool
) -> dict[str, Any]:
    buttons = []
    for name, distance in (("values", False), ("1 - value, log", True)):
        y, above, below = zip(*_scaled(traces, lines, distance=distance), strict=True)
        changed = {"y": y, "error_y.array": above, "error_y.arrayminus": below}
        its = _axis_of(y_label, distance=distance)
        around = {
            "yaxis.title.text": its["title"]["text"],
            "yaxis.type": its["type"],
            "yaxis.autorange": True,
        }
        buttons.append({"label": name, "method": "update", "args": [changed, around]})
    return menu(buttons, int(far))


def _intervals(n_lines: int, *, right: bool) -> dict[str, Any]:
    indices = list(range(n_lines))
    buttons = [
        {
            "label": f"intervals: {name}",
            "method": "restyle",
            "args": [{"error_y.visible": shown}, indices],
        }
        for name, shown in (("none", False), ("all", True))
    ]
    return menu(buttons, int(n_lines <= _FEW), right=right)


def _read_as(caption: str, rows: Sequence[Measurement], *, far: bool | None) -> str:
    if not caption:
        return caption
    nulls = any(or_gap(row.null) is not None for row in rows)
    said = [
        caption,
        "Colour: path of the lineage; shade, dash and symbol: stage; "
        + ("dots of nulls: the stage's colour; " if nulls else "")
        + "bold, shaded layers: full attention; whiskers, from the menu: intervals.",
    ]
    if far:
        said.append(
            "At first the distance from 1 is drawn on a logarithmic axis, lower = nearer to 1; the "
            "menu has the values."
        )
    return " ".join(said)


def _far(rows: Sequence[Measurement], chance: float | None) -> bool | None:
    """Whether distances from 1 are shown at first; None where there is no use for them."""
    values = [row.value for row in rows if or_gap(row.value) is not None]
    if not all(0 < value < 1 for value in values) or max(values) < _ALIKE:
        return None
    # What is to be seen of scores with a chance level is how far they are above it.
    return chance is None and median(values) > _NEAR
