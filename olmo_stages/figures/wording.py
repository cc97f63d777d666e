"""Words that the figures share: layers and their types, numbers, and text from data made safe."""

import math
from collections.abc import Collection, Iterable

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

Bounded = tuple[float, float | None, float | None]
"""A number and the ends of its interval."""


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
        `least`, or of what would then be rounded to 1 as many as show that it is less.
    """
    size = abs(value)
    if not math.isfinite(value) or size >= 1:
        return least
    return next((digits for digits in range(least, most) if round(size, digits) < 1), most)


def needed(value: float, low: float | None, high: float | None) -> int:
    """How many decimals a number and its interval, where there is one, need."""
    if low is None or high is None or high - low >= WIDE:
        return decimals(value)
    return max(decimals(value), decimals(high))


def written(
    value: float, low: float | None = None, high: float | None = None, *, sign: str = ""
) -> str:
    """Return a number, with its interval where there is one, all with the decimals they need.

    Args:
        value: the number.
        low: lower end of its interval.
        high: upper end.
        sign: `+` where positive numbers have one.
    """
    if 0 < abs(value) < SMALL:
        form = f"{sign}.1e"
    else:
        digits = needed(value, low, high)
        # An interval whose ends look the same says less than it could.
        while low != high and _same(low, high, digits) and digits < MOST:
            digits += 1
        form = f"{sign}.{digits}f"
    if low is None or high is None:
        return as_in(value, form)
    return f"{as_in(value, form)} [{as_in(low, form)}, {as_in(high, form)}]"


def as_in(value: float, form: str) -> str:
    """Return a number in a format, but 0 only where it is 0.

    What rounds to 0 has one significant digit: the end of an interval is read for the side of 0
    that it is on.
    """
    if value == 0:
        return "0" if form.endswith("e") else format(0.0, form.lstrip("+"))
    text = format(value, form)
    return text if float(text) else format(value, f"{'+' * form.startswith('+')}.1g")


def shared(values: Iterable[float], same: float, most: int = 5) -> int:
    """How many decimals numbers that stand beside one another need, all the same number.

    Args:
        values: the numbers.
        same: the number that two equal models have; no other is to look like it.
        most: more are not given.
    """
    others = [value for value in values if math.isfinite(value) and value != same]
    alike = (any(round(it, digits) == same for it in others) for digits in range(3, most))
    return 3 + sum(alike)


def common_digits(numbers: Iterable[Bounded], same: Collection[float] = (1.0,)) -> int:
    """How many decimals numbers that stand below one another need, all as many as the closest.

    Args:
        numbers: each with the ends of its interval, None where there is none.
        same: what no other number or end is to look like, e.g. the value of two equal models.
    """
    known = [tuple(it for it in number if it is not None) for number in numbers]
    known = [number for number in known if all(map(math.isfinite, number))]

    def are_told_apart(digits: int) -> bool:
        form = f".{digits}f"
        return not any(
            any(_looks_like(it, same, digits) for it in number)
            # An interval whose ends look the same says less than it could.
            or (len(number) == 3 and number[1] != number[2] and _alike(number[1], number[2], form))
            for number in known
        )

    return next(filter(are_told_apart, range(3, MOST)), MOST)


def with_digits(
    value: float,
    low: float | None = None,
    high: float | None = None,
    *,
    digits: int,
    same: Collection[float] = (1.0,),
) -> str:
    """Return a number as `written` does, with the decimals that it shares with others.

    Args:
        value: the number.
        low: lower end of its interval.
        high: upper end.
        digits: decimals, of `common_digits`.
        same: what no other number is to look like, however near it is.
    """
    ends = [] if low is None or high is None else [low, high]
    if 0 < max(abs(it) for it in (value, *ends)) < 10**-digits:
        return written(value, low, high)
    shown, *interval = (_aside(it, digits, same) for it in (value, *ends))
    return f"{shown} [{', '.join(interval)}]" if interval else shown


def _looks_like(value: float, same: Collection[float], digits: int) -> bool:
    # What is as near 0 as that has one digit, of `as_in`, and asks no other number for more.
    near = round(value, digits)
    return near in same and value not in same and (near != 0 or round(value, 5) != 0)


def _aside(value: float, digits: int, same: Collection[float]) -> str:
    """A number with so many decimals, on the side of `same` that it is on."""
    near = round(value, digits)
    if near in same and value not in same:
        value = near + math.copysign(10**-digits, value - near)
    return as_in(value, f".{digits}f")


def _alike(low: float, high: float, form: str) -> bool:
    return as_in(low, form) == as_in(high, form)


def _same(low: float | None, high: float | None, digits: int) -> bool:
    return low is not None and high is not None and round(low, digits) == round(high, digits)
