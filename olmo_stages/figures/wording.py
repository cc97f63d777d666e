"""Words that the figures share: layers and their types, numbers, and text from data made safe."""

import math

from olmo_stages.types import EMBEDDING_LAYER, Measurement

TYPE_NAMES = {
    "embedding": "embeddings",
    "sliding_attention": "sliding attention",
    "full_attention": "full attention",
}


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


def numbers(row: Measurement, over: str) -> list[str]:
    """What is known of a number: value with interval, n, p, note, one line each.

    Args:
        row: the number.
        over: what the family-wise p is over, e.g. `layers`.

    Returns:
        Lines of a hover text, the first of them the value; text from data is escaped.
    """
    value = or_gap(row.value)
    parts = ["undefined" if value is None else written(value)]
    if row.ci_low is not None and row.ci_high is not None:
        parts[0] += f" [{row.ci_low:.3f}, {row.ci_high:.3f}]"
    parts += [f"n = {row.n}, groups = {row.n_groups}"] if row.n else []
    parts += [f"p = {row.p:.3g}"] if row.p is not None else []
    parts += [f"p over {over} = {row.p_max:.3g}"] if row.p_max is not None else []
    parts += [escape(row.note)] if row.note else []
    return parts


def written(value: float, least: int = 3, most: int = 6) -> str:
    """Return a number with as few digits as do not make 1 of what is not quite 1."""
    for digits in range(least, most):
        text = f"{value:.{digits}f}"
        if float(text) != 1.0 or value == 1.0:
            return text
    return f"{value:.{most}f}"
