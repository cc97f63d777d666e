"""The lead table of a report for the terminal: a stage a row, and what it changed of its parent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.table import Table
from rich.text import Text

from olmo_stages.document import Cell, Grid, Shift, Study
from olmo_stages.figures.wording import or_gap
from olmo_stages.report.columns import Digits, columns_of, digits_of
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
    beside = {id(it.row): it for it in study.beside}
    found = {}
    for index, row in enumerate(study.lead.rows):
        shifts = edges.get(row[:NAMING], ())
        for column, cell in enumerate(row[NAMING:], NAMING):
            shift = _of_cell(cell, column - NAMING, shifts)
            if shift is None and isinstance(cell, Measurement):
                kind = kinds.get((cell.metric, cell.variant))
                shift = None if kind is None else replace(kind, row=cell, why=cell.note)
                shift = beside.get(id(cell), shift)
            if shift is not None:
                found[index, column] = shift
    return found


def lead_digits(study: Study) -> list[Digits]:
    """Return how the numbers of each column of the lead table are written."""
    found = placed(study)
    return columns_of(study.lead, ((at, it.change.unchanged) for (_, at), it in found.items()))


def lead_tables(study: Study, width: int = 100) -> list[Table]:
    """One row a stage, one column a number that tells how far it is from its parent.

    Args:
        study: what is shown.
        width: how many columns the terminal has.

    Returns:
        As many tables as it takes to show every number whole, with its interval, beside its stage.
        What `lead_notes` explains is marked.
    """
    cells = _shown(study)
    tables = [_table(study.lead, cells, chosen) for chosen in _fitting(study.lead, cells, width)]
    return [unclipped(table, width) for table in tables]


def lead_notes(study: Study) -> list[str]:
    """What the columns and the marks of the lead table mean, one line each."""
    found = placed(study)
    notes = [f"{printable(head)}: {printable(it)}" for head, it in _told_once(study.lead.notes)]
    about = {
        f"{printable(study.lead.columns[column])} {shift.change.unchanged:g}": None
        for (_, column), shift in found.items()
        if shift.holds_unchanged
    }
    if about:
        lies = any(shift.lies_above for shift in found.values())
        above = ", or lies above it, which a correction for noise can do" if lies else ""
        notes.append(
            f"{UNCHANGED} the interval holds what no change would give ({', '.join(about)}){above}"
        )
    return notes + [f"{letter(index)}: {why}" for index, why in enumerate(_whys(found))]


def lead_marks(study: Study) -> list[list[str]]:
    """The marks of each cell of the lead table that `lead_notes` explains."""
    return [[cell.marks for cell in row] for row in _shown(study)]


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
    digits = columns_of(grid)
    for row in grid.rows:
        table.add_row(*(Text(words(*it)) for it in zip(row, digits, strict=True)))
    return unclipped(whole(table), width)


def words(cell: Cell, digits: Digits | None = None) -> str:
    """A cell as text, a number with its interval where it has one.

    Args:
        cell: of a table.
        digits: how the numbers of its column are written; None = as if it stood alone.
    """
    digits = digits or digits_of([cell])
    if isinstance(cell, Measurement):
        known = or_gap(cell.value) is not None
        return " ".join(filter(None, digits.with_interval(cell))) if known else NOTHING
    if isinstance(cell, float):
        return digits.number(cell) if or_gap(cell) is not None else NOTHING
    return NOTHING if cell is None else printable(str(cell))


@dataclass(frozen=True)
class _Shown:
    """A cell, with its marks."""

    text: str
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
    digits = lead_digits(study)
    return [
        [
            _cell(words(cell, digits[column]), found.get((index, column)), whys)
            for column, cell in enumerate(row)
        ]
        for index, row in enumerate(study.lead.rows)
    ]


def _cell(text: str, shift: Shift | None, whys: Sequence[str]) -> _Shown:
    if shift is None:
        return _Shown(text)
    marks = UNCHANGED if shift.holds_unchanged else ""
    marks += letter(whys.index(printable(shift.why))) if shift.why else ""
    return _Shown(text, marks, quiet=shift.holds_unchanged is True)


def _whys(found: Placed) -> list[str]:
    return list(dict.fromkeys(printable(shift.why) for shift in found.values() if shift.why))


def _told_once(notes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What heads mean, in terms of an earlier one where they go on from it."""
    for index, (head, said) in enumerate(notes.items()):
        earlier = [it for it in list(notes.items())[:index] if it[1] and said.startswith(it[1])]
        yield head, f"as {earlier[0][0]}{said[len(earlier[0][1]) :]}" if earlier else said


def _fitting(grid: Grid, rows: Sequence[Sequence[_Shown]], width: int) -> list[list[int]]:
    """Which columns go into each table: the stage into every one, the parent into the first."""
    groups = [list(range(min(NAMING, len(grid.columns))))]
    for column in range(NAMING, len(grid.columns)):
        longer = [*groups[-1], column]
        alone = len(groups[-1]) == (NAMING if len(groups) == 1 else 1)
        if alone or needed_width(_table(grid, rows, longer)) <= width:
            groups[-1] = longer
        else:
            groups.append([0, column])
    return groups


def _table(grid: Grid, rows: Sequence[Sequence[_Shown]], chosen: Sequence[int]) -> Table:
    table = new_table("", "")
    for column in chosen:
        head = Text(printable(grid.columns[column]))
        if column < NAMING or any(isinstance(row[column], str) for row in grid.rows):
            table.add_column(head, overflow="fold", max_width=_LONGEST_NAME)
        else:
            table.add_column(head, justify="right", no_wrap=True)
    # Marks have a place of their own behind the numbers, which so stand below each other.
    places = {column: max((len(row[column].marks) for row in rows), default=0) for column in chosen}
    for row in rows:
        table.add_row(*(_text(row[column], place) for column, place in places.items()))
    return whole(table)


def _text(cell: _Shown, place: int) -> Text:
    marks = f" {cell.marks:<{place}}" if place else ""
    return Text(cell.text + marks, style="dim" if cell.quiet else "")
