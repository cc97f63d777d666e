"""Markdown for W&B: lists, links and tables in which text stays text."""

import math
import string
from collections.abc import Collection, Sequence

from olmo_stages.document import Cell, Grid
from olmo_stages.figures.wording import written
from olmo_stages.markdown import escaped
from olmo_stages.types import Measurement

_NOTHING = "-"
UNCHANGED = "≈"
"""Marks a number whose interval holds the value of two equal models."""


def bullets(texts: Sequence[str]) -> str:
    """Return a list, one item a text."""
    return "\n".join(f"- {escaped(text)}" for text in texts)


def link(text: str, url: str) -> str:
    """Return a link; `url` is one of ours, made of quoted parts."""
    return f"[{escaped(text)}]({url})"


def table(grid: Grid, unchanged: Collection[Measurement] = ()) -> str:
    """Return a grid as a table, with what its heads and letters mean below it.

    Args:
        grid: numbers are shown with their intervals, notes of numbers as letters.
        unchanged: numbers whose interval holds the value of two equal models; they are marked.
    """
    cells = [cell for row in grid.rows for cell in row]
    notes = list(dict.fromkeys(it.note for it in cells if isinstance(it, Measurement) and it.note))
    rows = [[_cell(cell, notes, unchanged) for cell in row] for row in grid.rows]
    below = [f"{escaped(head)}: {escaped(it)}" for head, it in grid.notes.items() if it]
    below += [f"{_letter(index)}: {escaped(note)}" for index, note in enumerate(notes)]
    if any(isinstance(it, Measurement) and it in unchanged for it in cells):
        below.append(
            f"{UNCHANGED}: the interval holds the value of two equal models (or lies above it, of "
            "a similarity); not distinguishable from no change"
        )
    return raw_table(grid.columns, rows, _numeric(grid)) + _list(below)


def raw_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], numeric: Collection[int] = ()
) -> str:
    """Return a table whose cells are Markdown already; its heads are text."""
    rule = ["--:" if index in numeric else "---" for index in range(len(heads))]
    lines = [[escaped(head) for head in heads], rule, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _list(items: Sequence[str]) -> str:
    return "\n" + "".join(f"- {item}\n" for item in items) if items else ""


def _cell(cell: Cell, notes: Sequence[str], unchanged: Collection[Measurement]) -> str:
    if cell is None:
        return _NOTHING
    if isinstance(cell, Measurement):
        marks = [UNCHANGED] if cell in unchanged else []
        marks += [_letter(notes.index(cell.note))] if cell.note else []
        return " ".join([_number(cell.value, cell.ci_low, cell.ci_high), *marks])
    return _number(cell) if isinstance(cell, float) else escaped(str(cell))


def _number(value: float, low: float | None = None, high: float | None = None) -> str:
    if not math.isfinite(value):
        return "undefined"
    ends = [it for it in (low, high) if it is not None and math.isfinite(it)]
    return escaped(written(value, *ends) if len(ends) == len((low, high)) else written(value))


def _numeric(grid: Grid) -> set[int]:
    """The columns with a number in them."""
    return {
        index
        for index in range(len(grid.columns))
        if any(isinstance(row[index], int | float | Measurement) for row in grid.rows)
    }


def _letter(index: int) -> str:
    letters = string.ascii_lowercase
    return f"({letters[index] if index < len(letters) else index + 1})"
