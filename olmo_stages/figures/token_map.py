"""One example token by token: a score of each token at each layer, as a heat map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from olmo_stages.errors import ConfigError
from olmo_stages.figures.frame import colours, frame
from olmo_stages.figures.palette import GREY
from olmo_stages.figures.wording import SHORT_TYPES, escape, or_gap
from olmo_stages.types import EMBEDDING_LAYER, Measurement

MOST_TOKENS = 200
"""More are not drawn: their texts would run into one another."""

_LONGEST = 14
_MOST_LABELS = 70  # more are written over one another
_PARTS = 14  # pixels above the axes for the names of the parts
_VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def token_map(  # noqa: PLR0913  (keywords of one figure)
    scores: Float[np.ndarray, "layer token"],
    tokens: Sequence[tuple[int, str, str]],
    layers: Sequence[tuple[int | None, str]],
    *,
    title: str,
    value_label: str,
    middle: float,
    caption: str = "",
    rows: Sequence[Measurement] = (),
) -> str:
    """Draw scores of an example's tokens: tokens to the right, layers upwards.

    The colours are purple and orange, which any colour vision tells apart, on either side of
    `middle`; extreme tokens, and those of layers with far larger scores than others, share the
    colours of the limits, so that the others can be seen.
    Where one part of the prompt (reasoning, answer, a turn) ends and the next begins is a line, and
    the parts are named above.

    Args:
        scores: one a layer and token; undefined ones are gaps.
        tokens: index in the prompt, text, and part of the prompt of each token; texts are shown as
            they are, with spaces and line ends made visible.
        layers: block index and layer type of each row of `scores`, ascending.
        title: title of the figure.
        value_label: what the colours mean, with its unit.
        middle: the value without a colour.
        caption: what the scores are.
        rows: measurements made of such scores; those of single tokens are in a table.

    Returns:
        A plotly figure as JSON text, of at most `MOST_TOKENS` tokens, the first ones.

    Raises:
        ConfigError: there is no token or no layer.
    """
    import plotly.graph_objects as go

    if not tokens or not layers:
        raise ConfigError(f"figure {title!r}: no token or no layer to draw")
    shown = list(tokens[:MOST_TOKENS])
    drawn = scores[:, : len(shown)]
    if len(shown) < len(tokens):
        title += f" (the first {len(shown)} of {len(tokens)} tokens)"
    reach = _reach(drawn, middle)
    names = [_layer(layer, kind) for layer, kind in layers]
    figure = go.Figure(
        go.Heatmap(
            z=[[or_gap(float(value)) for value in row] for row in drawn],
            x=list(range(len(shown))),
            y=names,
            customdata=[_said(shown)] * len(names),
            hovertemplate="token %{customdata}<br>layer %{y}<br>"
            f"{escape(value_label)} = %{{z:.3f}}<extra></extra>",
            hoverongaps=False,
            colorscale="PuOr_r",
            **colours(value_label, (middle - reach, middle + reach)),
        ),
        layout={**frame(title, caption, rows, above=_PARTS), **_layout(shown, layers)},
    )
    if not np.isfinite(drawn).all():
        figure.add_trace(go.Scatter(**_crosses(drawn, shown, names)))
    for start, part in _parts(shown):
        # White below black is seen on every colour.
        for colour, width in (("#ffffff", 3), ("#000000", 1)) if start else ():
            figure.add_vline(x=start - 0.5, line={"color": colour, "width": width})
        figure.add_annotation(
            x=start - 0.5,
            y=1,
            yref="paper",
            text=escape(part),
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": 11},
        )
    return str(figure.to_json(engine="json"))


def _reach(scores: Float[np.ndarray, "layer token"], middle: float) -> float:
    """How far the colours reach in a middling layer.

    Scores are in units of the classes' distance, and far out where the classes hardly differ: one
    such layer would leave all others without a colour.
    """
    known = [row[np.isfinite(row)] for row in scores]
    reaches = [float(np.quantile(np.abs(row - middle), 0.98)) for row in known if len(row)]
    reach = float(np.median(reaches)) if reaches else 0.0
    return reach if reach > 0 else 1.0


def _said(tokens: Sequence[tuple[int, str, str]]) -> list[str]:
    return [f"{index}: {_visible(text)} · {escape(part)}" for index, text, part in tokens]


def _crosses(
    scores: Float[np.ndarray, "layer token"],
    tokens: Sequence[tuple[int, str, str]],
    names: Sequence[str],
) -> dict[str, Any]:
    """Tokens without a score."""
    rows, columns = (it.tolist() for it in np.nonzero(~np.isfinite(scores)))
    said = _said(tokens)
    return {
        "x": columns,
        "y": [names[row] for row in rows],
        "mode": "markers",
        "marker": {"symbol": "x-thin", "size": 5, "line": {"width": 1, "color": GREY}},
        "name": "undefined",
        "showlegend": False,
        "customdata": [said[column] for column in columns],
        "hovertemplate": "token %{customdata}<br>layer %{y}<br>undefined<extra></extra>",
    }


def _layer(layer: int | None, kind: str) -> str:
    if layer == EMBEDDING_LAYER:
        return "emb"
    return f"{'all' if layer is None else layer} {SHORT_TYPES.get(kind, '')}".strip()


def _visible(text: str) -> str:
    """Text of a token with its white space visible; one that continues a character is dots."""
    shown = "".join(_VISIBLE.get(it, it) for it in text) or "…"
    return escape(shown)


def _short(text: str) -> str:
    return _visible(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def _parts(tokens: Sequence[tuple[int, str, str]]) -> list[tuple[int, str]]:
    """Where each run of tokens of one part begins, and the part."""
    return [
        (i, part) for i, (_, _, part) in enumerate(tokens) if i == 0 or part != tokens[i - 1][2]
    ]


def _layout(
    tokens: Sequence[tuple[int, str, str]], layers: Sequence[tuple[int | None, str]]
) -> dict[str, Any]:
    axis = {"showgrid": False, "zeroline": False, "automargin": True}
    labelled = range(0, len(tokens), -(-len(tokens) // _MOST_LABELS))
    kinds = {kind for _, kind in layers}
    signs = [f"{short} {kind.replace('_', ' ')}" for kind, short in SHORT_TYPES.items()]
    signs = [sign for sign, kind in zip(signs, SHORT_TYPES, strict=True) if kind in kinds]
    return {
        "xaxis": {
            **axis,
            "tickvals": list(labelled),
            "ticktext": [_short(tokens[i][1]) for i in labelled],
            "tickangle": -90,
            "tickfont": {"size": 10},
            "range": [-0.5, len(tokens) - 0.5],
        },
        "yaxis": {
            **axis,
            "title": {"text": f"layer ({', '.join(signs)})" if signs else "layer"},
            "type": "category",
        },
    }
