"""What appears where the pointer is: every number with its interval, null, p and n.

A figure of all pairs of layers has a thousand points that say nearly the same. What is common to
them stands once, in the template; only what differs is kept point by point.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

from olmo_stages.figures.wording import escape, or_gap, written
from olmo_stages.types import Measurement

Column = tuple[str, Sequence[str]]
"""What precedes a text, and the text of each point; an empty text takes no line."""

Data = list[str] | list[list[str]]
"""Plotly's `customdata`: a text, or several, for each point."""


def columns(rows: Sequence[Measurement], over: str) -> list[Column]:
    """What is known of numbers: value with interval, null, n, p and note, one line each.

    Args:
        rows: the numbers.
        over: what the family-wise p is over, e.g. `pairs of layers`.

    Returns:
        Columns with a text for each row; text from data is escaped.
    """
    return [
        ("", [_value(row) for row in rows]),
        ("null median ", [_optional(row.null, written) for row in rows]),
        ("n = ", [f"{row.n}, groups = {row.n_groups}" if row.n else "" for row in rows]),
        ("p = ", [_optional(row.p, _p) for row in rows]),
        (f"p over {over} = ", [_optional(row.p_max, _p) for row in rows]),
        ("", [escape(row.note) for row in rows]),
    ]


def of_nulls(rows: Sequence[Measurement], over: str) -> list[Column]:
    """The same where a null is drawn: its median first, then the number that it belongs to."""
    (_, values), null, *rest = columns(rows, over)
    return [null, ("value ", values), *rest]


def hover(head: str, found: Sequence[Column]) -> tuple[str, Data]:
    """Compose a template, with what differs between points left open.

    Args:
        head: what comes first; may hold plotly's own `%{x}`, so text from data must be escaped.
        found: further lines, all for the same points.

    Returns:
        Plotly's `hovertemplate` and `customdata`; the latter is empty where the points are alike.
    """
    pieces: list[tuple[str, Sequence[str] | None]] = []
    for label, texts in found:
        if not any(texts):
            continue
        if len(set(texts)) == 1:
            pieces.append((f"<br>{label}{texts[0]}", None))
        elif all(texts):
            pieces.append((f"<br>{label}", texts))
        else:
            # A line that some points lack brings its own beginning.
            pieces.append(("", [f"<br>{label}{text}" if text else "" for text in texts]))
    varying = [texts for _, texts in pieces if texts is not None]
    several = len(varying) > 1
    place = "%{{customdata[{}]}}" if several else "%{{customdata}}"
    number = count()
    said = (
        piece if texts is None else piece + place.format(next(number)) for piece, texts in pieces
    )
    text = (head + "".join(said)).removeprefix("<br>") + "<extra></extra>"
    if several:
        return text, [list(texts) for texts in zip(*varying, strict=True)]
    return text, list(varying[0]) if varying else []


def fields(head: str, found: Sequence[Column]) -> dict[str, Any]:
    """`hover` as properties of a trace."""
    template, data = hover(head, found)
    return {"hovertemplate": template} | ({"customdata": data} if data else {})


def _value(row: Measurement) -> str:
    value = or_gap(row.value)
    return "undefined" if value is None else written(value, row.ci_low, row.ci_high)


def _optional(value: float | None, say: Any) -> str:  # noqa: ANN401  (a function of a number)
    return "" if value is None or or_gap(value) is None else say(value)


def _p(value: float) -> str:
    return f"{value:.3g}"
