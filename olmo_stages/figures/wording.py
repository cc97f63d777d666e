"""Words that the figures share: layers and their types, numbers, and text from data made safe."""

import math

from olmo_stages.types import EMBEDDING_LAYER

TYPE_NAMES = {
    "embedding": "embeddings",
    "sliding_attention": "sliding attention",
    "full_attention": "full attention",
}

SHORT_TYPES = {"full_attention": "F", "sliding_attention": "S"}
"""What is behind a layer's index where there is little room."""

MOST = 7
"""Decimals that float32 activations can bear."""

WIDE = 0.1
"""Length of an interval whose upper end, however near 1, needs no more decimals than its lower."""

SMALL = 5e-4
"""Below this three decimals would show 0."""


def escape(text: str) -> str:
    """Return text that plotly shows as it is: it understands a little HTML and `%{}`."""
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("%{", "%&#123;")


def layer_name(layer: int | None, layer_type: str) -> str:
    """Return e.g. `layer 3 full attention`, `embeddings`, or `all layers`."""
    if layer == EMBEDDING_LAYER:
        return TYPE_NAMES["embedding"]
    place = "all layers" if layer is None else f"layer {layer}"
    return f"{place} {TYPE_NAMES.get(layer_type, '')}".strip()


def or_gap(value: float | None) -> float | None:
    """Return the value, or None, which plotly draws as a gap, where there is none."""
    return value if value is not None and math.isfinite(value) else None


def decimals(value: float, least: int = 3, most: int = MOST) -> int:
    """How many decimals a number needs so that what is not quite 1 is not shown as 1.

    Returns:
        `least`, or for 0.9995 and more as many as show the distance from 1.
    """
    if not math.isfinite(value) or abs(value) >= 1 or round(abs(value), least) != 1.0:
        return least
    return min(most, -math.floor(math.log10(1 - abs(value))))


def needed(value: float, low: float | None, high: float | None) -> int:
    """How many decimals a number and its interval, where there is one, need."""
    if low is None or high is None or high - low >= WIDE:
        return decimals(value)
    return max(decimals(value), decimals(high))


def written(value: float, low: float | None = None, high: float | None = None) -> str:
    """Return a number, with its interval where there is one, all with the decimals they need."""
    if 0 < abs(value) < SMALL:
        form = ".1e"
    else:
        digits = needed(value, low, high)
        # An interval whose ends look the same says less than it could.
        while low != high and _same(low, high, digits) and digits < MOST:
            digits += 1
        form = f".{digits}f"
    if low is None or high is None:
        return format(value, form)
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _same(low: float | None, high: float | None, digits: int) -> bool:
    return low is not None and high is not None and round(low, digits) == round(high, digits)
