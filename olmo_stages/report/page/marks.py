"""The numbers that edges of the lineage carry, each on a scale that all edges share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from olmo_stages.document import Node, Shift, Study
from olmo_stages.report.columns import Digits, digits_of
from olmo_stages.report.layout import NOTHING
from olmo_stages.report.page.cells import details, letter, said_of
from olmo_stages.report.page.shortened import cut, cut_apart, width
from olmo_stages.types import Measurement

LENGTH = 174
"""Of a scale, in pixels."""

_LONGEST_REASON = 25
_LONGEST_NAME = 22
_LONGEST_ABOUT = 30
_BOLD, _USUAL, _LETTER = 8.8, 6.8, 8.0  # pixels a character
_HUGE = 5.0  # times all intervals before: one so much longer would leave them no room


@dataclass(frozen=True)
class Mark:
    """A number of an edge.

    Args:
        column: index of its column; also its colour.
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
        leaves: whether something of it is beyond the scale, to the left and to the right.
    """

    column: int
    state: str
    text: str
    interval: str
    at: float | None
    low: float | None
    high: float | None
    note: str
    said: tuple[str, ...]
    strand: float
    leaves: tuple[bool, bool] = (False, False)

    @property
    def width(self) -> float:
        """About how many pixels its text needs."""
        bold, usual = (0, width(self.text)) if self.state == "unknown" else (width(self.text), 0)
        usual += width(self.interval) + bool(self.interval)
        return bold * _BOLD + usual * _USUAL + len(self.note) * _LETTER


@dataclass(frozen=True)
class Column:
    """One number that edges carry.

    Args:
        index: among all numbers that edges carry; also its colour.
        name: short name.
        about: data or title that tells it from one with the same name.
        says: what it is, and what was resampled.
        section: key of its section.
        unchanged: the value for two equal models, as text.
        zero: where that is on the scale.
        low: the scale's left end, as text.
        high: its right end.
    """

    index: int
    name: str
    about: str
    says: str
    section: str
    unchanged: str
    zero: float
    low: str
    high: str


@dataclass(frozen=True, eq=False)
class Scale:
    """A column's shifts by stage, the range that is drawn of them, and how they are written."""

    column: Column
    shifts: Mapping[str, Shift]
    ends: tuple[float, float]
    farthest: float
    digits: Digits

    def mark(self, node: Node, notes: Mapping[str, str]) -> Mark:
        """Return the number of the edge above a stage; `notes` are letters by text."""
        shift = self.shifts[node.label]
        change, row = shift.change, shift.row
        if row is None:
            return self._unknown(shift, notes)
        value, interval = self.digits.with_interval(row)
        state = _state(shift) if math.isfinite(row.value) else "unknown"
        share = abs(row.value - change.unchanged) / self.farthest if self.farthest else 0.0
        head = f"{node.label} from {node.parent}: {change.name} {value} {interval}".strip()
        meaning = said_of(shift) if state != "unknown" else "it has no value"
        more = [change.says, change.resampled if interval else "", shift.why]
        letters = (notes[it] for it in dict.fromkeys([shift.why, row.note]) if it)
        reach = [row.value, row.ci_low, row.ci_high] if interval else [row.value]
        known = [it for it in reach if it is not None and math.isfinite(it)]
        low, high = self.ends
        return Mark(
            column=self.column.index,
            state=state,
            text=value,
            interval=interval,
            at=_place(row.value, self.ends) if low <= row.value <= high else None,
            low=_place(row.ci_low, self.ends) if interval else None,
            high=_place(row.ci_high, self.ends) if interval else None,
            note=" ".join(letters),
            said=(head, meaning, *details(row, more)),
            strand=round(1 + 4 * share, 1) if math.isfinite(share) else 1.0,
            leaves=(any(it < low for it in known), any(it > high for it in known)),
        )

    def _unknown(self, shift: Shift, notes: Mapping[str, str]) -> Mark:
        why = shift.why or "not known"
        return Mark(
            column=self.column.index,
            state="unknown",
            text=f"{NOTHING} {cut(why, _LONGEST_REASON)}",
            interval="",
            at=None,
            low=None,
            high=None,
            note=notes.get(shift.why, ""),
            said=(f"{shift.change.name}: {why}",),
            strand=1.0,
        )


def scales_of(study: Study) -> list[Scale]:
    """Return a scale for each number that edges carry, in their order."""
    columns: dict[int, dict[str, Shift]] = {}
    for edge in study.edges:
        for index, shift in enumerate(edge.shifts):
            columns.setdefault(index, {})[edge.stage] = shift
    firsts = [next(iter(shifts.values())) for _, shifts in sorted(columns.items())]
    names = [it.change.name for it in firsts]
    titles = {section.key: section.title for section in study.sections}
    apart = [titles.get(it.section, "") for it in firsts if names.count(it.change.name) > 1]
    abouts = cut_apart(filter(None, apart), _LONGEST_ABOUT)
    short = cut_apart(names, _LONGEST_NAME)
    return [
        _scale(
            index,
            columns[index],
            short[name],
            abouts.get(titles.get(first.section, ""), "") if names.count(name) > 1 else "",
            first.section if first.section in titles else "",
        )
        for index, (first, name) in enumerate(zip(firsts, names, strict=True))
    ]


def notes_of(scales: Sequence[Scale]) -> dict[str, str]:
    """Letters by caveat: what is said of a number, or why there is none where that is long."""
    found: list[str] = []
    for shift in (shift for scale in scales for shift in scale.shifts.values()):
        if shift.row is not None:
            found += [it for it in (shift.why, shift.row.note) if it]
        elif width(shift.why) > _LONGEST_REASON:
            found.append(shift.why)
    return {text: letter(index) for index, text in enumerate(dict.fromkeys(found))}


def width_of(scale: Scale, nodes: Iterable[Node], notes: Mapping[str, str]) -> float:
    """How wide a column must be so that its texts do not reach the next one."""
    marks = (scale.mark(it, notes) for it in nodes if it.label in scale.shifts)
    return max(float(LENGTH), max((it.width for it in marks), default=0.0))


def _scale(index: int, shifts: Mapping[str, Shift], name: str, about: str, section: str) -> Scale:
    change = next(iter(shifts.values())).change
    unchanged = float(change.unchanged)
    rows = [shift.row for shift in shifts.values() if shift.row is not None]
    ends = _ends(rows, unchanged)
    digits = digits_of(rows, [unchanged])
    column = Column(
        index=index,
        name=name,
        about=about,
        says=". ".join(filter(None, [change.says, change.intervals])),
        section=section,
        unchanged=f"{unchanged:g}",
        zero=_place(unchanged, ends) or 0.0,
        low=digits.number(ends[0]),
        high=digits.number(ends[1]),
    )
    distances = [abs(row.value - unchanged) for row in rows if math.isfinite(row.value)]
    return Scale(column, shifts, ends, max(distances, default=0.0), digits)


def _ends(rows: Sequence[Measurement], unchanged: float) -> tuple[float, float]:
    """The range that a scale shows: the unchanged value, and numbers with their intervals.

    Numbers without an interval are drawn where they are within it, and define it only where none
    has one. Intervals that are far longer than the others leave it, unless most are as long.
    """
    known = [row for row in rows if math.isfinite(row.value)]
    spans = [(row.value, *_interval(row)) for row in known if _interval(row)]
    spans.sort(key=lambda it: it[2] - it[1])
    shown: list[float] = [unchanged]
    for index, span in enumerate(spans):
        reach = max(shown) - min(shown)
        if index * 2 >= len(spans) and reach and span[2] - span[1] > _HUGE * reach:
            break
        shown += span
    if not spans:
        shown += [row.value for row in known]
    room = (max(shown) - min(shown)) * 0.04 or 0.5
    return min(shown) - room, max(shown) + room


def _interval(row: Measurement) -> tuple[float, ...]:
    ends = tuple(it for it in (row.ci_low, row.ci_high) if it is not None and math.isfinite(it))
    return ends if len(ends) == 2 else ()


def _state(shift: Shift) -> str:
    return {True: "holds", False: "differs", None: "open"}[shift.holds_unchanged]


def _place(value: float | None, ends: tuple[float, float]) -> float | None:
    """Where a number is on a scale, at most at its ends."""
    if value is None or not math.isfinite(value):
        return None
    share = (value - ends[0]) / (ends[1] - ends[0])
    return round(LENGTH * min(max(share, 0.0), 1.0), 1)
