"""The axis of layers that curves are drawn along, layers of full attention set off."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from olmo_stages.figures.frame import AXIS, SHADED
from olmo_stages.types import EMBEDDING_LAYER, Measurement

FULL = "full_attention"

MOST_LABELS = 24
"""Labels of layers; more run into one another on 400 pixels."""


def types_of(rows: Iterable[Measurement]) -> dict[int, str]:
    """Layer types by layer, ascending."""
    found = {row.layer: row.layer_type for row in rows if row.layer is not None}
    return dict(sorted(found.items()))


def ends(types: Mapping[int, str]) -> tuple[float, float]:
    """Return where the axis begins and ends."""
    return (min(types) - 0.5, max(types) + 0.5) if types else (-0.5, 0.5)


def axis(types: Mapping[int, str]) -> dict[str, Any]:
    """Return plotly's axis of these layers; of a deep model only some are labelled."""
    labels = {
        layer: _label(layer, kind) for layer, kind in types.items() if _labelled(layer, types)
    }
    said = "layer (bold, shaded: full attention)" if FULL in types.values() else "layer"
    return {
        **AXIS,
        "title": {"text": said if types else "", "standoff": 4},
        "tickvals": list(labels),
        "ticktext": list(labels.values()),
        "range": list(ends(types)),
        "automargin": True,
    }


def stripes(types: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return a shaded stripe for each layer of full attention."""
    return [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": layer - 0.5,
            "x1": layer + 0.5,
            "y0": 0,
            "y1": 1,
            "fillcolor": SHADED,
            "line": {"width": 0},
            "layer": "below",
        }
        for layer, kind in types.items()
        if kind == FULL
    ]


def _labelled(layer: int, types: Mapping[int, str]) -> bool:
    if len(types) <= MOST_LABELS or layer == EMBEDDING_LAYER:
        return True
    if 0 < sum(kind == FULL for kind in types.values()) <= MOST_LABELS:
        return types[layer] == FULL
    return layer % math.ceil(len(types) / MOST_LABELS) == 0


def _label(layer: int, kind: str) -> str:
    if layer == EMBEDDING_LAYER:
        return "emb"
    return f"<b>{layer}</b>" if kind == FULL else str(layer)
