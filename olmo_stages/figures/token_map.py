"""One example token by token: a score of each token at each layer, as a heat map."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from olmo_stages.errors import ConfigError
from olmo_stages.figures.wording import escape, layer_name, or_gap
from olmo_stages.types import EMBEDDING_LAYER

MOST_TOKENS = 200
"""More are not drawn: their texts would run into one another."""

_LONGEST = 14
_VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def token_map(
    scores: Float[np.ndarray, "layer token"],
    tokens: Sequence[tuple[int, str, str]],
    layers: Sequence[tuple[int | None, str]],
    *,
    title: str,
    value_label: str,
    middle: float,
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
    names = ["emb" if layer == EMBEDDING_LAYER else str(layer) for layer, _ in layers]
    figure = go.Figure(
        go.Heatmap(
            z=[[or_gap(float(value)) for value in row] for row in drawn],
            x=list(range(len(shown))),
            y=names,
            hovertext=_hover(drawn, shown, layers, value_label),
            hovertemplate="%{hovertext}<extra></extra>",
            colorscale="PuOr_r",
            zmin=middle - reach,
            zmax=middle + reach,
            colorbar={"title": {"text": escape(value_label), "side": "right"}, "thickness": 14},
        ),
        layout=_layout(title, shown),
    )
    for start, part in _parts(shown):
        if start:
            figure.add_vline(x=start - 0.5, line={"color": "#000000", "width": 1})
        figure.add_annotation(
            x=start - 0.5,
            y=1,
            yref="paper",
            text=escape(part),
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": 10},
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


def _hover(
    scores: Float[np.ndarray, "layer token"],
    tokens: Sequence[tuple[int, str, str]],
    layers: Sequence[tuple[int | None, str]],
    label: str,
) -> list[list[str]]:
    said = [
        f"token {index}: <b>{_visible(text)}</b><br>{escape(part)}<br>"
        for index, text, part in tokens
    ]
    return [
        [
            f"{word}{layer_name(layer, kind)}<br>{escape(label)} = "
            + (f"{value:.3f}" if np.isfinite(value) else "undefined")
            for word, value in zip(said, row, strict=True)
        ]
        for (layer, kind), row in zip(layers, scores, strict=True)
    ]


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


def _layout(title: str, tokens: Sequence[tuple[int, str, str]]) -> dict[str, object]:
    axis = {"showgrid": False, "zeroline": False}
    return {
        "template": "none",
        "title": {"text": escape(title), "x": 0.02, "xanchor": "left"},
        "xaxis": {
            **axis,
            "tickvals": list(range(len(tokens))),
            "ticktext": [_short(text) for _, text, _ in tokens],
            "tickangle": -90,
            "tickfont": {"size": 9},
        },
        "yaxis": {**axis, "title": {"text": "layer"}, "type": "category"},
        "margin": {"l": 60, "r": 20, "t": 70, "b": 90},
        "hovermode": "closest",
    }
