"""What the edges of the lineage carry: for each analysis how far a stage is from its parent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from olmo_stages.document import Cell, Edge, Grid, Shift
from olmo_stages.edges import find
from olmo_stages.errors import PairingError
from olmo_stages.report.findings import SAME
from olmo_stages.report.parts import Part
from olmo_stages.report.pool import analysis_of
from olmo_stages.report.tree import CUSTOM, Place, Tree
from olmo_stages.types import Change, Measurement

_UNDONE = {
    "failed": "its job failed",
    "killed": "its job was killed",
    "missing": "its job never ran",
    "queued": "its job waits in Slurm's queue",
    "running": "its job is still running",
    "stopped": "its job was stopped and goes on when started again",
}


@dataclass(frozen=True, eq=False)
class Column:
    """A number that the edges carry.

    Args:
        name: unique among the columns.
        given: the parts that have it, one for each size, with what it is there.
    """

    name: str
    given: tuple[tuple[Part, Change], ...]

    def at(self, size: str) -> tuple[Part, Change] | None:
        """The part of a size, and what the number is there."""
        return next((it for it in self.given if size in it[0].sizes), None)


@dataclass(frozen=True, eq=False)
class Carried:
    """What the stages of a study are said to have changed.

    Args:
        tree: the stages.
        columns: the numbers, in the order of the parts.
        same: pairs of names, `LABEL (SIZE)`, that have the same weights.
    """

    tree: Tree
    columns: tuple[Column, ...]
    same: frozenset[frozenset[str]]

    @cached_property
    def shifts(self) -> Mapping[Place, tuple[Shift, ...]]:
        """For each stage below another what is known of the edge, one for each column."""
        return {
            place: tuple(self._shift(column, parent, place) for column in self.columns)
            for parent, place in self.tree.joined()
        }

    @cached_property
    def far(self) -> Mapping[Column, tuple[str, Mapping[Place, Shift]]]:
        """For each column how far stages are from the one they were compared with."""
        return {column: self._of_references(column) for column in self.columns}

    @cached_property
    def on_edges(self) -> tuple[int, ...]:
        """Places of the columns that edges have a number in, or could have had.

        Not those whose only numbers are against another stage than the parent, and not those
        that no job was asked for.
        """
        return tuple(i for i, column in enumerate(self.columns) if self._is_on_edges(i, column))

    def _is_on_edges(self, index: int, column: Column) -> bool:
        if any(shifts[index].row is not None for shifts in self.shifts.values()):
            return True
        asked = self.tree.measured | self.tree.undone.keys()
        is_known = any(it.row is not None for it in self.far[column][1].values())
        return not is_known and any(place in asked for place in self.shifts)

    def shown(self, place: Place) -> tuple[Shift, ...]:
        """What an edge carries of the columns that are `on_edges`."""
        return tuple(self.shifts[place][index] for index in self.on_edges)

    def beside(self) -> tuple[Shift, ...]:
        """The numbers against another stage than the parent."""
        found = (it for _, numbers in self.far.values() for it in numbers.values())
        return tuple(it for it in found if it.row is not None)

    def edges(self) -> tuple[Edge, ...]:
        """Return the edges as a report shows them."""
        names = self.tree.names
        return tuple(
            Edge(names[parent], names[place], self.shown(place))
            for parent, place in self.tree.joined()
        )

    def _of_references(self, column: Column) -> tuple[str, Mapping[Place, Shift]]:
        """How far stages are from the one stage, not their parent, that they were compared with.

        Returns:
            Label of that stage and the numbers; an empty label where stages were compared with
            their parents only, or with several others.
        """
        pairs = {
            (Place(size, job.stage), job.reference)
            for part, _ in column.given
            for size in part.sizes
            for job in part.jobs
            if job.reference and Place(size, job.stage) in self.tree.measured
        }
        others = {
            reference
            for place, reference in pairs
            if self.tree.parents[place] != Place(place.size, reference)
        }
        if len(others) != 1:
            return "", {}
        (reference,) = others
        return reference, {
            place: self._shift(column, Place(place.size, reference), place)
            for place in self.tree.parents
            if (place, reference) in pairs
        }

    def _shift(self, column: Column, parent: Place, place: Place) -> Shift:
        given = column.at(place.size)
        if given is None:
            part, change = column.given[0]
            return Shift(change, part.key, None, f"not measured at size {place.size}")
        part, change = given
        try:
            row = find(change, part.rows_about[change], place.label, parent.label)
        except PairingError as error:
            return Shift(change, part.key, None, str(error))
        if row is None:
            return Shift(change, part.key, None, self._why(part, parent, place))
        same = SAME if self.are_same(parent, place) else ""
        return Shift(change.of(row), part.key, row, "; ".join(filter(None, [same, row.note])))

    def _why(self, part: Part, parent: Place, place: Place) -> str:
        """Why a number is not known."""
        references = [job.reference for job in part.jobs if job.stage == place.label]
        if not references:
            return next(self._undone(part, place), "not measured")
        if parent.label in references:
            return "its job has no such number"
        compared = " and ".join(sorted({it for it in references if it}))
        if _name(parent.label) == _name(place.label):
            return f"compared with {compared or 'none'}, not with the revision before it"
        said = (
            f"compared with {compared}, not with its parent" if compared else "compared with none"
        )
        return f"{said}; run it with reference=parent"

    def _undone(self, part: Part, place: Place) -> Iterator[str]:
        for it in self.tree.undone.get(place, ()):
            if analysis_of(it) in {"", part.analysis}:
                damaged = "its result is damaged"
                yield damaged if it.damaged else _UNDONE.get(it.status.state, it.status.state)

    def are_same(self, one: Place, other: Place) -> bool:
        """Whether two stages are known to have the same weights."""
        return any(
            frozenset({f"{one.label} ({a})", f"{other.label} ({b})"}) in self.same
            for a in (one.size, CUSTOM)
            for b in (other.size, CUSTOM)
        )


def columns(parts: Sequence[Part]) -> tuple[Column, ...]:
    """The numbers that the edges carry, in the order of the parts.

    Parts that differ in nothing but the size of their stages share a column.
    """
    pairs = [(part, change) for part in parts for change in part.changes]
    found: dict[str, list[tuple[Part, Change]]] = {}
    for part, change in pairs:
        namesakes = [other for other, it in pairs if it.name == change.name]
        told_apart = [
            *([part.analysis] if len({it.analysis for it in namesakes}) > 1 else []),
            *([part.data] if len({it.data for it in namesakes}) > 1 else []),
            *(f"{key}={it}" for key, it in part.tells.items() if key != "size"),
        ]
        name = " · ".join([change.name, *told_apart])
        if any(part.sizes & other.sizes for other, _ in found.get(name, [])):
            name = f"{name} · {part.key}"
        found.setdefault(name, []).append((part, change))
    return tuple(Column(name, tuple(given)) for name, given in found.items())


def lead(carried: Carried) -> Grid:
    """One row a stage: its parent, what the edge between them carries, and what is not done.

    Where stages were compared with one other stage, a further column says how far they are from it.
    """
    tree = carried.tree
    far = {column.name: it for column, it in carried.far.items()}
    extra = {
        f"{name} against {reference}": (name, numbers)
        for name, (reference, numbers) in far.items()
        if numbers
    }
    on_edges = [carried.columns[index] for index in carried.on_edges]
    has_number = (it for it in carried.shifts if any(s.row for s in carried.shown(it)))
    asked = tree.asked.union(has_number)
    rows: dict[Place, tuple[Cell, ...]] = {}
    for place, parent in tree.parents.items():
        if place in asked and (parent is not None or place in tree.measured | tree.undone.keys()):
            shifts = (None,) * len(on_edges) if parent is None else carried.shown(place)
            beside = (numbers.get(place) for _, numbers in extra.values())
            above = "" if parent is None else tree.names[parent]
            rows[place] = (tree.names[place], above, *map(_row, (*shifts, *beside)))
    notes = {it.name: _says(it) for it in on_edges}
    says = {it.name: _says(it) for it in carried.columns}
    notes |= {
        head: f"as {name}, but against {far[name][0]}, not the parent"
        if name in notes
        else f"{says[name]}. Against {far[name][0]}, not the parent"
        for head, (name, _) in extra.items()
    }
    heads = ("stage", "parent", *(it.name for it in on_edges), *extra)
    return with_states(tree, heads, rows, notes)


def with_states(
    tree: Tree,
    heads: Sequence[str],
    rows: Mapping[Place, tuple[Cell, ...]],
    notes: Mapping[str, str],
) -> Grid:
    """A table of stages, with a last column that says what is not done, if anything is not."""
    if all(place in tree.measured and place not in tree.undone for place in rows):
        return Grid(tuple(heads), tuple(rows.values()), notes)
    told = tuple((*cells, state(tree, place)) for place, cells in rows.items())
    return Grid((*heads, "state"), told, notes)


def state(tree: Tree, place: Place) -> str:
    """How the jobs about a stage are getting on, in a few words."""
    if undone := tree.states.get(place):
        return ", ".join(undone)
    return "done" if place in tree.measured else "not run"


def _row(shift: Shift | None) -> Measurement | None:
    return None if shift is None else shift.row


def _says(column: Column) -> str:
    change = column.given[0][1]
    return ". ".join(filter(None, [change.says, change.intervals]))


def _name(label: str) -> str:
    return label.partition("@")[0]
