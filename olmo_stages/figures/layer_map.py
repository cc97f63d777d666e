"""Every layer of a stage against every layer of its reference, as a heat map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmo_stages.errors import ConfigError
from olmo_stages.figures.depth import FULL, MOST_LABELS
from olmo_stages.figures.frame import colours, frame
from olmo_stages.figures.hover import columns, fields
from olmo_stages.figures.palette import COLOURS, GREY
from olmo_stages.figures.wording import SHORT_TYPES, escape, or_gap
from olmo_stages.types import EMBEDDING_LAYER, Measurement

_MARGIN = 0.5  # half a cell: where the axes lie
_ROOMY = 14  # labels that have room at any size
_Pair = tuple[int, int]


def heat_map(  # noqa: PLR0913  (keywords of one figure)
    measurements: Sequence[Measurement],
    metric: str,
    *,
    variant: str,
    title: str,
    caption: str = "",
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
        caption: what is drawn, and which null p is of; what the marks mean is added to it.
        value_label: what the colours mean, with its unit.
        limits: values of the darkest and the brightest colour; values beyond them have the colour
            of the limit and their number in the hover text.

    Raises:
        ConfigError: if there is nothing to draw, the limits are not ascending, a row is not about
            a pair of layers, or two rows are about the same pair.

    Returns:
        A plotly figure as JSON text. Unmeasured pairs are gaps, undefined ones a cross.
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
    down = _Axis.of({pair[0]: row.layer_type for pair, row in cells.items()})
    right = _Axis.of({pair[1]: row.reference_layer_type for pair, row in cells.items()})
    drawn = {
        **frame(title, _with_marks(caption, down, right), rows),
        **_layout(rows[0], down, right),
    }
    figure = go.Figure(layout=drawn)
    figure.add_trace(go.Heatmap(**colours(value_label, limits), **_heat(cells, down, right)))
    for trace in [
        *_diagonal(down, right),
        *_full_attention(down, right),
        *_crosses(cells, down, right),
    ]:
        figure.add_trace(go.Scatter(**trace))
    return str(figure.to_json(engine="json"))


@dataclass(frozen=True)
class _Axis:
    """Layers along an axis, ascending.

    Args:
        types: layer types by layer.
        places: where each layer is: at its own index, so that the axis can name what it does not
            label, or one after another where indices are left out.
    """

    types: Mapping[int, str]
    places: Mapping[int, int]

    @classmethod
    def of(cls, types: Mapping[int, str]) -> "_Axis":
        """Lay layers out."""
        layers = sorted(types)
        whole = layers == list(range(layers[0], layers[-1] + 1))
        places = {layer: layer if whole else index for index, layer in enumerate(layers)}
        return cls({layer: types[layer] for layer in layers}, places)

    @property
    def start(self) -> float:
        """Where the axis begins."""
        return min(self.places.values()) - _MARGIN

    @property
    def full(self) -> list[int]:
        """Places of full attention."""
        return [self.places[layer] for layer, kind in self.types.items() if kind == FULL]

    @property
    def thinned(self) -> bool:
        """Whether only the embeddings and some layers are labelled."""
        return len(self.types) > MOST_LABELS and all(a == b for a, b in self.places.items())

    def labels(self) -> dict[int, str]:
        """Labels by place."""
        step = -(-len(self.types) // MOST_LABELS) if self.thinned else 1
        return {
            self.places[layer]: _tick(layer, kind)
            for layer, kind in self.types.items()
            if step == 1
            or layer == EMBEDDING_LAYER
            or (kind == FULL if self.full else layer % step == 0)
        }

    def layout(self) -> dict[str, Any]:
        """Plotly's ticks; of a layer that is not labelled the pointer tells index and type."""
        labels = self.labels()
        others = {kind for layer, kind in self.types.items() if self.places[layer] not in labels}
        short = SHORT_TYPES.get(others.pop(), "") if len(others) == 1 else ""
        return {
            "tickvals": list(labels),
            "ticktext": list(labels.values()),
            "range": [self.start, self.start + len(self.types)],
            "ticksuffix": f" {short}" if short else "",
            **({} if len(labels) <= _ROOMY else {"tickfont": {"size": 10}}),
        }


def _cells(rows: Sequence[Measurement]) -> dict[_Pair, Measurement]:
    """Rows by pair of layers.

    Raises:
        ConfigError: a row without a pair, two rows of one pair, or rows of several comparisons.
    """
    cells: dict[_Pair, Measurement] = {}
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


def _heat(cells: Mapping[_Pair, Measurement], down: _Axis, right: _Axis) -> dict[str, Any]:
    pairs = [[(layer, other) for other in right.types] for layer in down.types]
    known = [pair for pair, row in cells.items() if or_gap(row.value) is not None]
    said = _hover([cells[pair] for pair in known])
    values = {pair: cells[pair].value for pair in known}
    heat = {
        "x": list(right.places.values()),
        "y": list(down.places.values()),
        "z": [[values.get(pair) for pair in row] for row in pairs],
        "hovertemplate": said["hovertemplate"],
        "hoverongaps": False,
        "colorscale": "Cividis",
        "xgap": 0.5,
        "ygap": 0.5,
    }
    if "customdata" in said:
        data = dict(zip(known, said["customdata"], strict=True))
        heat["customdata"] = [[data.get(pair) for pair in row] for row in pairs]
    return heat


def _hover(rows: Sequence[Measurement]) -> dict[str, Any]:
    """Text of cells; the axes' labels name the layers."""
    if not rows:
        return {"hovertemplate": ""}
    sides = (
        f"{escape(rows[0].stage)}: layer %{{y}}<br>"
        f"{escape(rows[0].reference) or 'reference'}: layer %{{x}}"
    )
    return fields(sides, columns(rows, "the map"))


def _crosses(cells: Mapping[_Pair, Measurement], down: _Axis, right: _Axis) -> list[dict[str, Any]]:
    """What was measured and is undefined; a gap alone would look like what was not measured."""
    undefined = [pair for pair, row in cells.items() if or_gap(row.value) is None]
    if not undefined:
        return []
    return [
        {
            "x": [right.places[other] for _, other in undefined],
            "y": [down.places[layer] for layer, _ in undefined],
            "mode": "markers",
            "marker": {"symbol": "x-thin", "size": 7, "line": {"width": 1, "color": GREY}},
            "name": "undefined",
            "showlegend": False,
            **_hover([cells[pair] for pair in undefined]),
        }
    ]


def _diagonal(down: _Axis, right: _Axis) -> list[dict[str, Any]]:
    """Outlines of the cells of the same layer; white below black is seen on every colour."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for layer, y in down.places.items():
        if (x := right.places.get(layer)) is not None:
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
        if xs
    ]


def _full_attention(down: _Axis, right: _Axis) -> list[dict[str, Any]]:
    marks = [(x, down.start) for x in right.full] + [(right.start, y) for y in down.full]
    if not marks:
        return []
    return [
        {
            "x": [x for x, _ in marks],
            "y": [y for _, y in marks],
            "mode": "markers",
            "marker": {"symbol": "diamond", "color": COLOURS[1], "size": 6},
            "name": "full attention",
            "cliponaxis": False,
            "showlegend": False,
            "hoverinfo": "skip",
        }
    ]


def _tick(layer: int, kind: str) -> str:
    if layer == EMBEDDING_LAYER:
        return "emb"
    name = f"{layer} {SHORT_TYPES.get(kind, '')}".strip()
    return f"<b>{name}</b>" if kind == "full_attention" else name


def _with_marks(caption: str, down: _Axis, right: _Axis) -> str:
    if not caption:
        return caption
    marks = ["outlined: the same layer"] if set(down.types) & set(right.types) else []
    marks += ["diamonds at the axes: full attention"] if down.full or right.full else []
    said = ", ".join(marks)
    return f"{caption} {said[0].upper()}{said[1:]}." if said else caption


def _layout(row: Measurement, down: _Axis, right: _Axis) -> dict[str, Any]:
    kinds = {kind for side in (down, right) for kind in side.types.values()}
    short = dict(SHORT_TYPES)
    if FULL in kinds and any(side.thinned and side.full for side in (down, right)):
        short["sliding_attention"] = "others"
    legend = ", ".join(
        f"{letter} {kind.replace('_', ' ')}" for kind, letter in short.items() if kind in kinds
    )
    axis = {"showgrid": False, "zeroline": False, "automargin": True}
    across = f"layer of {escape(row.reference) or 'the reference'}"
    return {
        "xaxis": {
            **axis,
            **right.layout(),
            "title": {"text": f"{across}<br>({legend})" if legend else across, "standoff": 8},
            "tickangle": -90,
            "constrain": "domain",
        },
        "yaxis": {
            **axis,
            **down.layout(),
            "title": {"text": f"layer of {escape(row.stage)}", "standoff": 8},
            "scaleanchor": "x",
            "constrain": "domain",
        },
    }
