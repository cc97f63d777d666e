"""The lead table of a report for the terminal: a stage a row, and what it changed of its parent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.table import Table
from rich.text import Text

from olmo_stages.document import Cell, Grid, Shift, Study
from olmo_stages.figures.wording import or_gap, written
from olmo_stages.report.layout import (
    NOTHING,
    letter,
    needed_width,
    new_table,
    printable,
    unclipped,
    whole,
)
from olmo_stages.types import Change, Measurement

UNCHANGED = "~"
"""Marks a number whose interval holds the value of two equal models."""

NAMING = 2
"""The first columns of the lead table say which edge of the lineage a row is about."""

_LONGEST_NAME = 32

Placed = Mapping[tuple[int, int], Shift]
"""What the numbers of a lead table are, by row and column."""


def placed(study: Study) -> Placed:
    """Return what stands in each cell of the lead table that is about a change.

    Also where the number is not known; its `Shift` says why. A number that is on no edge, because
    it is about another stage than the parent, is what the edges have under its name.
    """
    edges: dict[tuple[Cell, ...], tuple[Shift, ...]]
    edges = {(edge.stage, edge.parent): edge.shifts for edge in study.edges}
    kinds = {name: it for edge in study.edges for it in edge.shifts for name in _names(it.change)}
    found = {}
    for index, row in enumerate(study.lead.rows):
        shifts = edges.get(row[:NAMING], ())
        for column, cell in enumerate(row[NAMING:], NAMING):
            shift = _of_cell(cell, column - NAMING, shifts)
            if shift is None and isinstance(cell, Measurement):
                kind = kinds.get((cell.metric, cell.variant))
                shift = None if kind is None else replace(kind, row=cell, why=cell.note)
            if shift is not None:
                found[index, column] = shift
    return found


def lead_table(study: Study, width: int = 100) -> Table:
    """One row a stage, one column a number that tells how far it is from its parent.

    Args:
        study: what is shown.
        width: how many columns the terminal has.

    Returns:
        A table whose numbers are whole, with their intervals: beside them, or where that is too
        wide, below them. What `lead_notes` explains is marked.
    """
    cells = _shown(study)
    table = _table(study.lead, cells, " ")
    if needed_width(table) > width:
        table = _table(study.lead, cells, "\n")
    return unclipped(table, width)


def lead_notes(study: Study) -> list[str]:
    """What the columns and the marks of the lead table mean, one line each."""
    found = placed(study)
    notes = [f"{printable(head)}: {printable(it)}" for head, it in study.lead.notes.items()]
    about = {
        f"{printable(study.lead.columns[column])} {shift.change.unchanged:g}": None
        for (_, column), shift in found.items()
        if shift.holds_unchanged
    }
    if about:
        notes.append(
            f"{UNCHANGED} the interval holds what no change would give ({', '.join(about)})"
        )
    return notes + [f"{letter(index)}: {why}" for index, why in enumerate(_whys(found))]


def grid_table(grid: Grid, title: str, width: int = 100) -> Table:
    """Any other table of a report: numbers with their intervals, notes of the heads below."""
    table = new_table(printable(title), "")
    for column, head in enumerate(grid.columns):
        of_numbers = any(isinstance(row[column], Measurement | int | float) for row in grid.rows)
        table.add_column(
            Text(printable(head)),
            justify="right" if of_numbers else "left",
            no_wrap=of_numbers,
            overflow="fold",
        )
    for row in grid.rows:
        table.add_row(*(Text(" ".join(_words(cell)).strip()) for cell in row))
    return unclipped(whole(table), width)


@dataclass(frozen=True)
class _Shown:
    """A cell: the number, its interval, and its marks."""

    value: str
    interval: str = ""
    marks: str = ""
    quiet: bool = False


def _names(change: Change) -> set[tuple[str, str]]:
    """Metric and variant of the rows that a change is looked for among."""
    pairs = {(change.metric, change.variant), (change.metric_across, change.variant_across)}
    return {pair for pair in pairs if pair[0]}


def _of_cell(cell: Cell, position: int, shifts: Sequence[Shift]) -> Shift | None:
    same = [shift for shift in shifts if cell is not None and shift.row is cell]
    if same or cell is not None:
        return same[0] if same else None
    shift = shifts[position] if position < len(shifts) else None
    return shift if shift is not None and shift.row is None else None


def _shown(study: Study) -> list[list[_Shown]]:
    found = placed(study)
    whys = _whys(found)
    return [
        [_cell(cell, found.get((index, column)), whys) for column, cell in enumerate(row)]
        for index, row in enumerate(study.lead.rows)
    ]


def _cell(cell: Cell, shift: Shift | None, whys: Sequence[str]) -> _Shown:
    value, interval = _words(cell)
    if shift is None:
        return _Shown(value, interval)
    marks = UNCHANGED if shift.holds_unchanged else ""
    marks += letter(whys.index(printable(shift.why))) if shift.why else ""
    return _Shown(value, interval, marks, quiet=shift.holds_unchanged is True)


def _words(cell: Cell) -> tuple[str, str]:
    """A cell as text, and its interval where it has one."""
    if isinstance(cell, Measurement):
        if or_gap(cell.value) is None:
            return NOTHING, ""
        value, _, interval = written(cell.value, cell.ci_low, cell.ci_high).partition(" ")
        return value, interval
    if isinstance(cell, float):
        return (NOTHING if or_gap(cell) is None else written(cell)), ""
    return NOTHING if cell is None else printable(str(cell)), ""


def _whys(found: Placed) -> list[str]:
    return list(dict.fromkeys(printable(shift.why) for shift in found.values() if shift.why))


def _table(grid: Grid, rows: Sequence[Sequence[_Shown]], between: str) -> Table:
    table = new_table("", "")
    for column, head in enumerate(grid.columns):
        if column < NAMING or any(isinstance(row[column], str) for row in grid.rows):
            table.add_column(Text(printable(head)), overflow="fold", max_width=_LONGEST_NAME)
        else:
            table.add_column(Text(printable(head)), justify="right", no_wrap=True)
    # Marks have a place of their own behind the numbers, which so stand below each other.
    places = [max(len(cell.marks) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        table.add_row(*(_text(it, between, place) for it, place in zip(row, places, strict=True)))
    return whole(table)


def _text(cell: _Shown, between: str, place: int) -> Text:
    parts = [it for it in (cell.value, cell.interval) if it]
    lines = parts if between == "\n" else [" ".join(parts)]
    if place:
        marks = [cell.marks, *[""] * len(lines)]
        lines = [f"{line} {mark:<{place}}" for line, mark in zip(lines, marks, strict=False)]
    return Text("\n".join(lines), style="dim" if cell.quiet else "")
