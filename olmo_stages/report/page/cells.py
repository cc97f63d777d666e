"""What stands in the cells of the page's tables, and what they are sorted by."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from olmo_stages.document import Cell, Grid, Shift
from olmo_stages.figures.wording import written
from olmo_stages.report.columns import UNDEFINED, Digits, columns_of
from olmo_stages.report.layout import NOTHING
from olmo_stages.report.lead import UNCHANGED
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
        marks: that its interval holds the unchanged value, and letters of its notes.
    """

    text: str
    interval: str = ""
    sort: str | None = None
    tip: tuple[str, ...] = ()
    marks: str = ""


@dataclass(frozen=True)
class Table:
    """A table as it is shown.

    Args:
        heads: name of each column and whether it holds numbers.
        rows: cells in the order of the columns.
        notes: of cells, by letter.
        explained: what columns mean, by head.
        holding: what the intervals of marked numbers hold; empty = there are none.
        elsewhere: whether notes or heads are explained outside of the table.
        long: whether it needs a filter.
    """

    heads: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Shown, ...], ...]
    notes: tuple[tuple[str, str], ...]
    explained: tuple[tuple[str, str], ...]
    holding: str
    elsewhere: bool
    long: bool


def table(
    grid: Grid,
    shifts: Mapping[tuple[int, int], Shift] | None = None,
    told: Mapping[str, str] | None = None,
) -> Table:
    """Lay a grid out, its notes collected below it by letter.

    Args:
        grid: the table.
        shifts: what its numbers are, by row and column, where they are changes.
        told: what is explained elsewhere on the page, with its letter where it is a note.
    """
    of_cells, told = shifts or {}, told or {}
    cells = [
        [(cell, of_cells.get((index, column))) for column, cell in enumerate(row)]
        for index, row in enumerate(grid.rows)
    ]
    found = dict.fromkeys(note for row in cells for cell in row for note in _notes(*cell))
    lettered = sum(map(bool, told.values()))
    untold = (it for it in found if it not in told)
    new = {note: letter(index) for index, note in enumerate(untold, lettered)}
    unchanged = ((column, it.change.unchanged) for (_, column), it in of_cells.items())
    columns = columns_of(grid, unchanged)
    said = {head: note for head, note in grid.notes.items() if note}
    return Table(
        heads=tuple((head, _is_numeric(grid, i)) for i, head in enumerate(grid.columns)),
        rows=tuple(
            tuple(_shown(*it, {**told, **new}, columns[index]) for index, it in enumerate(row))
            for row in cells
        ),
        notes=tuple((mark, note) for note, mark in new.items()),
        explained=tuple((head, note) for head, note in said.items() if note not in told),
        holding=_holding(grid, of_cells),
        elsewhere=any(it in told for it in (*found, *said.values())),
        long=len(grid.rows) > _LONG,
    )


def details(row: Measurement, more: Sequence[str] = ()) -> tuple[str, ...]:
    """What is known of a number beside its value, each line once; `more` is before the note."""
    groups = f" in {row.n_groups} groups" if row.n_groups else ""
    lines = [f"n = {row.n}{groups}"] if row.n else []
    null = [] if row.null is None else [f"its median is {number(row.null)}"]
    null += [] if row.p is None else [f"p = {row.p:.3g}"]
    null += [] if row.p_max is None else [f"p = {row.p_max:.3g} over all that was tried"]
    null += [] if row.q is None else [f"false discovery rate {row.q:.3g}"]
    lines += [f"against the null: {', '.join(null)}"] if null else []
    return tuple(filter(None, dict.fromkeys([*lines, *more, row.note])))


def number(value: float) -> str:
    """Return a number with the decimals it needs, or `undefined`."""
    return written(value) if math.isfinite(value) else UNDEFINED


def said_of(shift: Shift) -> str:
    """Whether a number can be told from that of two equal models, in words."""
    unchanged = f"{shift.change.unchanged:g}"
    if shift.holds_unchanged is None:
        return "no interval"
    if shift.lies_above:
        above = f"the interval lies above {unchanged}"
        return f"{above}, which a correction for noise can do: no sign of change"
    if shift.holds_unchanged:
        return f"the interval holds {unchanged}: indistinguishable from unchanged"
    return f"the interval leaves out {unchanged}, the value of two equal models"


def letter(index: int) -> str:
    """Return a, b, ..., z, aa, ab, ..."""
    more, rest = divmod(index, 26)
    return (letter(more - 1) if more else "") + chr(ord("a") + rest)


def _shown(cell: Cell, shift: Shift | None, notes: Mapping[str, str], digits: Digits) -> Shown:
    marks = [notes[it] for it in _notes(cell, shift) if notes.get(it)]
    match cell:
        case None:
            tip = (shift.why,) if shift is not None and shift.why else ()
            return Shown(NOTHING, sort="", tip=tip, marks=" ".join(marks))
        case str():
            return Shown(cell)
        case Measurement():
            value, interval = digits.with_interval(cell)
            holds = shift is not None and shift.holds_unchanged is True
            more = [said_of(shift)] if shift is not None and holds else []
            tip = details(cell, more)
            marked = " ".join([*([UNCHANGED] if holds else []), *marks])
            return Shown(value, interval, _sort(cell.value), tip, marked)
        case bool() | int():
            return Shown(str(cell), sort=str(int(cell)))
        case float():
            return Shown(digits.number(cell), sort=_sort(cell))


def _notes(cell: Cell, shift: Shift | None) -> list[str]:
    """What is noted of a number, and why there is none where the page tells that elsewhere."""
    of_cell = cell.note if isinstance(cell, Measurement) else ""
    return [it for it in dict.fromkeys([shift.why if shift is not None else "", of_cell]) if it]


def _holding(grid: Grid, shifts: Mapping[tuple[int, int], Shift]) -> str:
    found = {
        f"{grid.columns[column]} {shift.change.unchanged:g}": None
        for (_, column), shift in shifts.items()
        if shift.holds_unchanged
    }
    return ", ".join(found)


def _sort(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else ""


def _is_numeric(grid: Grid, column: int) -> bool:
    cells = [row[column] for row in grid.rows if row[column] is not None]
    return bool(cells) and not any(isinstance(cell, str) for cell in cells)
