"""The lineage as a tree with a row a stage: where everything is drawn, in pixels.

A row is the edge from the parent above to the stage. Beside it stands each number of the edge, as
text and as a point with its interval on a scale that all edges share, so that they can be compared
at a glance and chains of many checkpoints stay as readable as a bush of stages.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from olmo_stages.document import Edge, Node, Shift, Study
from olmo_stages.figures.wording import written
from olmo_stages.report.page.cells import details, letter, with_interval

_ROW = 56.0
_TOP = 62.0
_LEFT = 16.0
_STEP = 44.0
_DEEPEST = 300  # all steps to the right together
_COLUMN = 214.0
_SCALE = 174  # length of the scale in a column
_CHARACTER = 7.6
_LONGEST_LABEL = 30
_LONGEST_REASON = 28
_STRAND = 6.0  # between the lines of an edge, a line a number


@dataclass(frozen=True)
class Mark:
    """A number of an edge.

    Args:
        column: index of its column; also its colour.
        x: left end of its place.
        state: `differs`, `holds` (the interval holds the unchanged value), `open` (no interval) or
            `unknown`.
        text: the number, or why there is none.
        interval: shown behind it.
        at: where the point is; None where there is none.
        low: where the interval begins.
        high: where it ends.
        note: letter of the note.
        said: all about it, for the label of the mark; its lines are shown on hover and focus.
        strand: thickness of the edge's line for this number, 1 to 5.
    """

    column: int
    x: float
    state: str
    text: str
    interval: str
    at: float | None
    low: float | None
    high: float | None
    note: str
    said: tuple[str, ...]
    strand: float


@dataclass(frozen=True)
class Row:
    """A stage and the edge from its parent.

    Args:
        x: of its dot.
        y: of its dot.
        stem: x of the parent's dot; None for a root.
        label: of the stage, cut where it is long.
        whole: the label as it is.
        below: what stands below the label.
        state: `measured`, `failed` or `plain`.
        reach: y of its last child's dot; its own where it has none.
        marks: the numbers of the edge.
    """

    x: float
    y: float
    stem: float | None
    label: str
    whole: str
    below: str
    state: str
    reach: float
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Column:
    """One number that edges carry.

    Args:
        x: left end.
        name: short name.
        about: data or title that tells it from one with the same name.
        says: what it is, and what was resampled.
        section: key of its section.
        unchanged: the value for two equal models, as text.
        zero: where that is on the scale.
        low: the scale's left end, as text.
        high: its right end.
    """

    x: float
    name: str
    about: str
    says: str
    section: str
    unchanged: str
    zero: float
    low: str
    high: str


@dataclass(frozen=True)
class Lineage:
    """The whole drawing, with the letters of its notes."""

    width: float
    height: float
    start: float
    scale: int
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    notes: tuple[tuple[str, str], ...]
    strands: tuple[float, ...]


@dataclass(frozen=True)
class _Scale:
    """A column's shifts by stage, and the range that they and their intervals cover."""

    shifts: Mapping[str, Shift]
    low: float
    high: float

    @property
    def one(self) -> Shift:
        return next(iter(self.shifts.values()))

    @property
    def farthest(self) -> float:
        found = [it.row.value for it in self.shifts.values() if it.row is not None]
        unchanged = self.one.change.unchanged
        return max((abs(it - unchanged) for it in found if math.isfinite(it)), default=0.0)

    def place(self, value: float | None) -> float | None:
        if value is None or not math.isfinite(value):
            return None
        return round(_SCALE * (value - self.low) / (self.high - self.low), 1)


def lineage(study: Study) -> Lineage:
    """Lay the lineage of a study out.

    Returns:
        Rows in the order of the tree, each parent above its children; a stage whose parent is not
        among the nodes is a root.
    """
    placed = _in_order(study.nodes)
    deepest = max((depth for _, depth in placed), default=0)
    step = min(_STEP, _DEEPEST / max(deepest, 1))
    longest = max((_width(_cut(node.label, _LONGEST_LABEL)) for node, _ in placed), default=0)
    start = _LEFT + deepest * step + 18 + max(longest * _CHARACTER, 110.0) + 20
    sizes = len({node.size for node in study.nodes}) > 1
    scales = _scales(study.edges)
    noted = _noted(scales)
    ys = {node.label: _TOP + _ROW * (index + 0.5) for index, (node, _) in enumerate(placed)}
    xs = {node.label: _LEFT + depth * step for node, depth in placed}
    rows = [
        Row(
            x=xs[node.label],
            y=ys[node.label],
            stem=xs.get(node.parent) if depth else None,
            label=_cut(node.label, _LONGEST_LABEL),
            whole=node.label,
            below=_below(node, with_size=sizes),
            state="failed" if node.failed else "measured" if node.measured else "plain",
            reach=max(
                (ys[it.label] for it, deep in placed if deep and it.parent == node.label),
                default=ys[node.label],
            ),
            marks=tuple(
                _mark(index, start + index * _COLUMN, scale, scale.shifts[node.label], noted)
                for index, scale in enumerate(scales)
                if node.label in scale.shifts
            ),
        )
        for node, depth in placed
    ]
    return Lineage(
        width=start + len(scales) * _COLUMN,
        height=_TOP + _ROW * len(rows) + (26 if scales else 0),
        start=start,
        scale=_SCALE,
        rows=tuple(rows),
        columns=_columns(scales, study, start),
        notes=tuple((mark, note) for note, mark in noted.items()),
        strands=_strands(len(scales)),
    )


def _in_order(nodes: Sequence[Node]) -> list[tuple[Node, int]]:
    """Nodes with their depth, each followed by all that is below it, each once."""
    labels = {node.label for node in nodes}
    placed: dict[str, tuple[Node, int]] = {}

    def place(node: Node, depth: int) -> None:
        if node.label in placed:
            return
        placed[node.label] = (node, depth)
        for child in nodes:
            if child.parent == node.label:
                place(child, depth + 1)

    for node in nodes:
        if node.parent not in labels:
            place(node, 0)
    for node in nodes:  # what is its own ancestor has no root above it
        place(node, 0)
    return list(placed.values())


def _scales(edges: Sequence[Edge]) -> list[_Scale]:
    columns: dict[tuple[str, str], dict[str, Shift]] = {}
    for edge in edges:
        for shift in edge.shifts:
            columns.setdefault((shift.section, shift.change.name), {})[edge.stage] = shift
    return [_scale(shifts) for shifts in columns.values()]


def _scale(shifts: Mapping[str, Shift]) -> _Scale:
    values = [float(it.change.unchanged) for it in shifts.values()]
    for shift in shifts.values():
        if (row := shift.row) is not None:
            values += [it for it in (row.value, row.ci_low, row.ci_high) if it is not None]
    known = [value for value in values if math.isfinite(value)]
    room = (max(known) - min(known)) * 0.04 or 0.5
    return _Scale(shifts, min(known) - room, max(known) + room)


def _columns(scales: Sequence[_Scale], study: Study, start: float) -> tuple[Column, ...]:
    sections = {section.key: section for section in study.sections}
    names = [scale.one.change.name for scale in scales]
    columns: list[Column] = []
    for index, scale in enumerate(scales):
        change, key = scale.one.change, scale.one.section
        section = sections.get(key)
        several = names.count(change.name) > 1
        columns.append(
            Column(
                x=start + index * _COLUMN,
                name=_cut(change.name, 22),
                about=_cut(section.title, 30) if several and section is not None else "",
                says=". ".join(filter(None, [change.says, change.resampled])),
                section=key if section is not None else "",
                unchanged=f"{change.unchanged:g}",
                zero=scale.place(change.unchanged) or 0.0,
                low=written(scale.low),
                high=written(scale.high),
            )
        )
    return tuple(columns)


def _noted(scales: Sequence[_Scale]) -> dict[str, str]:
    """Letters by caveat: what is said of a number, or why there is none where that is long."""
    found: list[str] = []
    for scale in scales:
        for shift in scale.shifts.values():
            if shift.row is None:
                found += [shift.why] if _width(shift.why) > _LONGEST_REASON else []
            else:
                found += [it for it in (shift.why, shift.row.note) if it]
    return {text: letter(index) for index, text in enumerate(dict.fromkeys(found))}


def _mark(index: int, x: float, scale: _Scale, shift: Shift, noted: Mapping[str, str]) -> Mark:
    change, row = shift.change, shift.row
    if row is None:
        why = shift.why or "not known"
        return Mark(
            index, x, "unknown", f"– {_cut(why, _LONGEST_REASON)}", "", None, None, None,
            noted.get(shift.why, ""), (f"{change.name}: {why}",), 1.0,
        )  # fmt: skip
    value, interval = with_interval(row)
    state = {True: "holds", False: "differs", None: "open"}[shift.holds_unchanged]
    meaning = {
        "holds": f"the interval holds {change.unchanged:g}: indistinguishable from unchanged",
        "differs": f"the interval leaves out {change.unchanged:g}, the value of equal models",
        "open": "no interval",
    }[state]
    head = f"{change.name} {value} {interval}".strip()
    noise = [change.says, change.resampled] if interval else [change.says]
    marks = (noted[it] for it in dict.fromkeys([shift.why, row.note]) if it)
    share = abs(row.value - change.unchanged) / scale.farthest if scale.farthest else 0.0
    return Mark(
        column=index,
        x=x,
        state=state,
        text=value,
        interval=interval,
        at=scale.place(row.value),
        low=scale.place(row.ci_low) if interval else None,
        high=scale.place(row.ci_high) if interval else None,
        note=" ".join(marks),
        said=(f"{row.stage}: {head}", meaning, *details(row, [*noise, shift.why])),
        strand=round(1 + 4 * share, 1) if math.isfinite(share) else 1.0,
    )


def _strands(count: int) -> tuple[float, ...]:
    """Heights of an edge's lines above and below its middle."""
    gap = min(_STRAND, 30 / max(count, 1))
    return tuple(round((index - (count - 1) / 2) * gap, 1) for index in range(count))


def _below(node: Node, *, with_size: bool) -> str:
    state = "no result" if node.failed else "" if node.measured else "not measured itself"
    return " · ".join(filter(None, [_cut(node.size, 16) if with_size else "", state]))


def _cut(text: str, longest: int) -> str:
    """Cut text to a width in characters, wide ones counting twice."""
    if _width(text) <= longest:
        return text
    kept = ""
    for character in text:
        if _width(kept + character) >= longest:
            break
        kept += character
    return f"{kept}…"


def _width(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(it) in {"W", "F"}) for it in text)

