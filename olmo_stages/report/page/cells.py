"""What stands in the cells of the page's tables, and what they are sorted by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from olmo_stages.document import Cell, Grid
from olmo_stages.figures.wording import or_gap, written
from olmo_stages.report.layout import NOTHING
from olmo_stages.types import Measurement

_LONG = 15
"""Tables of more rows than this have a box to filter them."""


@dataclass(frozen=True)
class Shown:
    """A cell as it is shown.

    Args:
        text: of the cell.
        interval: shown behind it.
        sort: number that it is sorted by; empty = undefined, stays last; None = by its text.
        tip: lines shown on hover and focus.
        mark: letter of its note.
    """

    text: str
    interval: str = ""
    sort: str | None = None
    tip: tuple[str, ...] = ()
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table as it is shown.

    Args:
        heads: name of each column and whether it holds numbers.
        rows: cells in the order of the columns.
        notes: of cells, by letter.
        explained: what columns mean, by head.
        long: whether it needs a filter.
    """

    heads: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Shown, ...], ...]
    notes: tuple[tuple[str, str], ...]
    explained: tuple[tuple[str, str], ...]
    long: bool


def table(grid: Grid) -> Table:
    """Lay a grid out, its notes collected below it by letter."""
    found = (it.note for row in grid.rows for it in row if isinstance(it, Measurement) and it.note)
    notes = {note: letter(index) for index, note in enumerate(dict.fromkeys(found))}
    return Table(
        heads=tuple((head, _is_numeric(grid, i)) for i, head in enumerate(grid.columns)),
        rows=tuple(tuple(_shown(cell, notes) for cell in row) for row in grid.rows),
        notes=tuple((mark, note) for note, mark in notes.items()),
        explained=tuple((head, note) for head, note in grid.notes.items() if note),
        long=len(grid.rows) > _LONG,
    )


def details(row: Measurement, more: Sequence[str] = ()) -> tuple[str, ...]:
    """What is known of a number beside its value, one line each; `more` goes before the note."""
    groups = f" in {row.n_groups} groups" if row.n_groups else ""
    lines = [f"n = {row.n}{groups}"] if row.n else []
    null = [] if row.null is None else [f"its median is {number(row.null)}"]
    null += [] if row.p is None else [f"p = {row.p:.3g}"]
    null += [] if row.p_max is None else [f"p = {row.p_max:.3g} over all that was tried"]
    null += [] if row.q is None else [f"false discovery rate {row.q:.3g}"]
    lines += [f"against the null: {', '.join(null)}"] if null else []
    return tuple(filter(None, [*lines, *more, row.note]))


def number(value: float) -> str:
    """Return a number with the decimals it needs, or `undefined`."""
    return written(value) if math.isfinite(value) else "undefined"


def with_interval(row: Measurement) -> tuple[str, str]:
    """Return a number and its interval, the latter empty where there is none."""
    low, high = or_gap(row.ci_low), or_gap(row.ci_high)
    if low is None or high is None or not math.isfinite(row.value):
        return number(row.value), ""
    value, _, interval = written(row.value, low, high).partition(" ")
    return value, interval


def letter(index: int) -> str:
    """Return a, b, ..., z, aa, ab, ..."""
    more, rest = divmod(index, 26)
    return (letter(more - 1) if more else "") + chr(ord("a") + rest)


def _shown(cell: Cell, notes: dict[str, str]) -> Shown:
    match cell:
        case None:
            return Shown(NOTHING, sort="")
        case str():
            return Shown(cell)
        case Measurement():
            value, interval = with_interval(cell)
            mark = notes.get(cell.note, "")
            return Shown(value, interval, _sort(cell.value), details(cell), mark)
        case bool() | int():
            return Shown(str(cell), sort=str(int(cell)))
        case float():
            return Shown(number(cell), sort=_sort(cell))


def _sort(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else ""


def _is_numeric(grid: Grid, column: int) -> bool:
    cells = [row[column] for row in grid.rows if row[column] is not None]
    return bool(cells) and not any(isinstance(cell, str) for cell in cells)
