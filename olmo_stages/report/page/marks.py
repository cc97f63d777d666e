"""The numbers that edges of the lineage carry, each on a scale that all edges share."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from olmo_stages.document import Node, Section, Shift, Study
from olmo_stages.figures.wording import written
from olmo_stages.report.layout import NOTHING
from olmo_stages.report.page.cells import details, letter, with_interval

LENGTH = 174
"""Of a scale, in pixels."""

_LONGEST_REASON = 28
_MEANINGS = {
    "holds": "the interval holds {}: indistinguishable from unchanged",
    "above": "the interval lies above {}, which a correction for noise can do: no sign of change",
    "differs": "the interval leaves out {}, the value of two equal models",
    "open": "no interval",
    "unknown": "it has no value",
}


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


@dataclass(frozen=True)
class Column:
    """One number that edges carry.

    Args:
        name: short name.
        about: data or title that tells it from one with the same name.
        says: what it is, and what was resampled.
        section: key of its section.
        unchanged: the value for two equal models, as text.
        zero: where that is on the scale.
        low: the scale's left end, as text.
        high: its right end.
    """

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
    """A column's shifts by stage, and the range that they and their intervals cover."""

    index: int
    column: Column
    shifts: Mapping[str, Shift]
    ends: tuple[float, float]
    farthest: float

    def mark(self, node: Node, notes: Mapping[str, str]) -> Mark:
        """Return the number of the edge above a stage; `notes` are letters by text."""
        shift = self.shifts[node.label]
        change, row = shift.change, shift.row
        if row is None:
            return self._unknown(shift, notes)
        value, interval = with_interval(row)
        known = {True: "holds", False: "differs", None: "open"}[shift.holds_unchanged]
        state = known if math.isfinite(row.value) else "unknown"
        share = abs(row.value - change.unchanged) / self.farthest if self.farthest else 0.0
        head = f"{node.label} from {node.parent}: {change.name} {value} {interval}".strip()
        more = [change.says, change.resampled if interval else "", shift.why]
        letters = (notes[it] for it in dict.fromkeys([shift.why, row.note]) if it)
        return Mark(
            column=self.index,
            state=state,
            text=value,
            interval=interval,
            at=_place(row.value, self.ends),
            low=_place(row.ci_low, self.ends) if interval else None,
            high=_place(row.ci_high, self.ends) if interval else None,
            note=" ".join(letters),
            said=(
                head,
                _MEANINGS["above" if shift.lies_above else state].format(f"{change.unchanged:g}"),
                *details(row, more),
            ),
            strand=round(1 + 4 * share, 1) if math.isfinite(share) else 1.0,
        )

    def _unknown(self, shift: Shift, notes: Mapping[str, str]) -> Mark:
        why = shift.why or "not known"
        return Mark(
            column=self.index,
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
    columns: dict[tuple[str, str], dict[str, Shift]] = {}
    for edge in study.edges:
        for shift in edge.shifts:
            columns.setdefault((shift.section, shift.change.name), {})[edge.stage] = shift
    names = [name for _, name in columns]
    sections = {section.key: section for section in study.sections}
    return [
        _scale(index, shifts, sections.get(key), several=names.count(name) > 1)
        for index, ((key, name), shifts) in enumerate(columns.items())
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


def _scale(
    index: int, shifts: Mapping[str, Shift], section: Section | None, *, several: bool
) -> Scale:
    change = next(iter(shifts.values())).change
    unchanged = float(change.unchanged)
    rows = [shift.row for shift in shifts.values() if shift.row is not None]
    places = (it for row in rows for it in (row.value, row.ci_low, row.ci_high))
    known = [it for it in (unchanged, *places) if it is not None and math.isfinite(it)]
    said = dict.fromkeys(it.change.resampled for it in shifts.values() if it.row is not None)
    resampled = "; ".join(filter(None, said or [change.intervals]))
    room = (max(known) - min(known)) * 0.04 or 0.5
    ends = (min(known) - room, max(known) + room)
    column = Column(
        name=cut(change.name, 22),
        about=cut(section.title, 30) if several and section is not None else "",
        says=". ".join(filter(None, [change.says, resampled])),
        section=section.key if section is not None else "",
        unchanged=f"{unchanged:g}",
        zero=_place(unchanged, ends) or 0.0,
        low=written(ends[0]),
        high=written(ends[1]),
    )
    distances = [abs(row.value - unchanged) for row in rows if math.isfinite(row.value)]
    return Scale(index, column, shifts, ends, max(distances, default=0.0))


def _place(value: float | None, ends: tuple[float, float]) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return round(LENGTH * (value - ends[0]) / (ends[1] - ends[0]), 1)


def cut(text: str, longest: int) -> str:
    """Cut text to a width in characters, of which wide ones count twice."""
    if width(text) <= longest:
        return text
    kept = ""
    for character in text:
        if width(kept + character) >= longest:
            break
        kept += character
    return f"{kept}…"


def width(text: str) -> int:
    """Return how many characters of usual width a text is as wide as."""
    return sum(1 + (unicodedata.east_asian_width(it) in {"W", "F"}) for it in text)
