"""What came out, in sentences made from numbers alone.

They say what is largest and what cannot be told from no change; never why. Intervals are not
corrected for how many there are, so whoever counts them is told how many would leave out the
unchanged value by chance.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from olmo_stages.document import Shift
from olmo_stages.report.sentences import (
    NAMED,
    all_of,
    by_chance,
    grouped,
    joined,
    layers_differ,
    listed,
    number,
    verb,
    who_do,
)
from olmo_stages.types import Change, Measurement

_LEVEL = re.compile(r"(\d+(?:\.\d+)?) ?%")
_Known = tuple[str, Shift, Measurement]
"""A comparison, what is known of it, and its number."""

SAME = "they have the same weights"
"""What the caveat of a number of two equal models begins with."""


@dataclass(frozen=True, eq=False)
class Compared:
    """One kind of number over several comparisons.

    Args:
        name: of the number.
        change: what it is.
        shifts: what is known, by the name of the comparison.
        what: what the comparisons are: `edge` or `stage`.
    """

    name: str
    change: Change
    shifts: Sequence[tuple[str, Shift]]
    what: str = "edge"

    @cached_property
    def known(self) -> list[_Known]:
        """Those with a number, farthest from no change first; those of equal weights apart."""
        found = [
            (name, shift, shift.row)
            for name, shift in self.shifts
            if shift.row is not None and math.isfinite(shift.row.value) and not _is_same(shift)
        ]
        return sorted(found, key=lambda it: -self._distance(it[2]))

    @property
    def _n_same(self) -> int:
        return sum(_is_same(shift) for _, shift in self.shifts)

    def _distance(self, row: Measurement) -> float:
        # A similarity that was corrected for noise may come out above that of equal models.
        short = self.change.unchanged - row.value
        return max(0.0, short) if self.change.is_similarity else abs(short)

    def of_section(self, key: str) -> "Compared":
        """Those of one section."""
        return replace(self, shifts=[it for it in self.shifts if it[1].section == key])

    def first(self) -> list[str]:
        """What is largest, and how much of it can be told from no change."""
        if not self.known:
            return self._of_none()
        partly = f"Known of {len(self.known)} of {len(self.shifts)} {self.what}s."
        more = [partly] if len(self.known) < len(self.shifts) - self._n_same else []
        return [*self._of_sizes(), *self._of_intervals(), *more]

    def rest(self) -> list[str]:
        """What is not known and why, and what a reader must know of the numbers."""
        if not self.known:
            return []
        return [*self._unknown(), *self._caveats()]

    @property
    def is_rough(self) -> bool:
        """Whether the order is rough, since the numbers are not means over the same layers."""
        return bool(self._differ)

    @property
    def _differ(self) -> str:
        rough = layers_differ([row for _, _, row in self.known])
        return f" ({rough})" if rough else ""

    def farthest(self) -> str:
        """The one comparison that is farthest from no change; empty where there is no such one."""
        if not self.known or self.known[0][1].holds_unchanged is not False:
            return ""
        return "" if len(self._tied()) > 1 else self.known[0][0]

    def _tied(self) -> list[_Known]:
        largest = self._distance(self.known[0][2])
        return [it for it in self.known if self._distance(it[2]) == largest]

    def _of_none(self) -> list[str]:
        whys = grouped((name, _why(shift)) for name, shift in self.shifts)
        return [f"{self.name}, {self._every(names)}: {why}." for why, names in whys[:NAMED]]

    def _every(self, names: Sequence[str]) -> str:
        whole = len(names) == len(self.shifts) and len(names) > NAMED
        return f"all {len(names)} {self.what}s" if whole else listed(names)

    def _of_sizes(self) -> list[str]:
        unchanged, tied = f"{self.change.unchanged:g}", self._tied()
        (first, _, top), all_of_them = tied[0], len(tied) == len(self.known)
        which = "" if len(self.known) == len(self.shifts) else " that are known"
        every = all_of(len(tied), f"{self.what}s{which}") if len(tied) > 1 else first
        above = any(row.value != self.change.unchanged for _, _, row in tied)
        if self._distance(top) == 0 and all_of_them and (len(tied) > 1 or not above):
            short = "not below" if above else "exactly"
            return [f"{self.name}: {short} {unchanged}, unchanged, on {every}."]
        if len(self.known) == 1:
            return [f"{self.name}: {number(top)} on {first} (unchanged: {unchanged})."]
        if all_of_them:
            told = f"{self.name}: equally far from unchanged ({unchanged}) on {every}"
            return [f"{told}, {number(top)} on {first}{self._differ}."]
        told = f"{self.name}: farthest from unchanged ({unchanged}) on"
        if len(tied) > 1:
            return [f"{told} {listed(_names(tied))}, {number(top)} on {first}{self._differ}."]
        second, _, row = self.known[1]
        overlap = " (the two intervals overlap)" if _overlap(top, row) else ""
        then = f"then on {second}, {number(row)}{overlap}"
        return [f"{told} {first}, {number(top)}; {then}{self._differ}."]

    def _of_intervals(self) -> list[str]:
        unchanged = f"{self.change.unchanged:g}"
        above = [it for it in self.known if it[1].lies_above]
        held = [it for it in self.known if it[1].holds_unchanged and not it[1].lies_above]
        n_left = sum(it[1].holds_unchanged is False for it in self.known)
        n = len(above) + len(held) + n_left
        if not n:
            return ["No interval is given, so that none can be told from no change."]
        said = self._without(len(self.known) - n)
        if above:
            lies = f"{who_do(len(above), n, _names(above), 'lie')} above {unchanged}"
            said.append(f"{lies}, which a correction for noise can do: no sign of change.")
        if held and not n_left:
            holds = who_do(len(held), n, _names(held), "hold")
            said.append(f"{holds} {unchanged}: indistinguishable from no change.")
        elif held:
            said.append(f"Indistinguishable from no change: {listed(_names(held))}.")
        if n_left:
            said.append(self._left(n_left, n))
        return [" ".join(said)]

    def _without(self, n: int) -> list[str]:
        if not n:
            return []
        which = "" if len(self.known) == len(self.shifts) else " that are known"
        has = "has" if n == 1 else "have"
        return [f"Of {len(self.known)} {self.what}s{which}, {n} {has} no interval."]

    def _left(self, n_left: int, n: int) -> str:
        """How many intervals leave out the unchanged value, and what that is worth."""
        if not self.change.is_similarity:
            return self._count(n_left, n)
        if n_left < n:
            others = (
                f"The other {'interval' if n_left == 1 else 'intervals'} {verb('leave', n_left)}"
            )
        else:
            others = who_do(n_left, n, (), "leave")
        return (
            f"{others} out {self.change.unchanged:g}, which any two models that are not identical "
            f"tend to: how far {'it is' if n_left == 1 else 'they are'} from it is what counts."
        )

    def _count(self, n_left: int, n: int) -> str:
        unchanged = f"{self.change.unchanged:g}"
        if n == 1:
            return f"The interval leaves out {unchanged}."
        level = _LEVEL.search(self.change.resampled)
        chance = "" if level is None else f"; {by_chance(1 - float(level[1]) / 100, n)}"
        leave = "leaves" if n_left == 1 else "leave"
        return (
            f"{n_left} of {n} intervals {leave} out {unchanged}, uncorrected for there being "
            f"{n}{chance}."
        )

    def _unknown(self) -> list[str]:
        known = {id(shift) for _, shift, _ in self.known}
        others = [(name, shift) for name, shift in self.shifts if id(shift) not in known]
        whys = grouped((name, _why(shift)) for name, shift in others)
        said = [f"{self.name}, {listed(names)}: {why}." for why, names in whys]
        without = [it for it in self.known if it[1].holds_unchanged is None]
        if without and len(without) < len(self.known):
            said.append(f"{self.name} has no interval on {self._every(_names(without))}.")
        return said

    def _caveats(self) -> list[str]:
        told = grouped((name, shift.why) for name, shift, _ in self.known if shift.why)
        return [f"{self.name}, {self._every(names)}: {why}." for why, names in told]


def extremes(head: str, values: Sequence[tuple[str, float | Measurement]]) -> str:
    """What is highest and lowest among jobs, for an analysis that says nothing of edges.

    Args:
        head: name of the number.
        values: by job; a `Measurement` where the number has an interval.

    Returns:
        One sentence; empty where no number is finite.
    """
    found = [(name, it, _value(it)) for name, it in values if math.isfinite(_value(it))]
    undefined = len(values) - len(found)
    if not found:
        return f"{head} is undefined throughout." if values else ""
    found.sort(key=lambda it: it[2])
    (_, low, least), (_, high, most) = found[0], found[-1]
    tail = f"; undefined for {undefined}" if undefined else ""
    if len(found) == 1:
        return f"{head} is {number(high)} for {found[0][0]}{tail}."
    if least == most:
        return f"{head} is {number(high)} for {all_of(len(found))}{tail}."
    highest = [name for name, _, value in found if value == most]
    lowest = [name for name, _, value in found if value == least]
    rough = layers_differ([it for _, it, _ in found if isinstance(it, Measurement)])
    tail = f" ({rough}){tail}" if rough else tail
    return (
        f"{head} is highest for {listed(highest)}: {number(high)}, and lowest for "
        f"{listed(lowest)}: {number(low)}{tail}."
    )


def agreement(compared: Sequence[Compared]) -> str:
    """Say so if several kinds of numbers are farthest from no change in the same place."""
    by_place = grouped(
        (f"{it.name}{' (roughly)' if it.is_rough else ''}", it.farthest())
        for it in compared
        if it.farthest()
    )
    if not by_place or len(by_place) > 1 or len(by_place[0][1]) < 2:
        return ""
    place, names = by_place[0]
    return f"{place} is farthest from no change by {joined(names)} alike."


def unfinished(states: Sequence[str], total: int) -> str:
    """How many jobs have no result; empty where all have.

    Args:
        states: of the jobs without a result.
        total: number of all jobs.
    """
    if not states:
        return ""
    counts = [f"{states.count(it)} {it}" for it in dict.fromkeys(states)]
    jobs = "job has" if total == 1 else "jobs have"
    return f"{len(states)} of {total} {jobs} no result: {', '.join(counts)}."


def _is_same(shift: Shift) -> bool:
    return shift.why.startswith(SAME)


def _why(shift: Shift) -> str:
    if shift.row is None or math.isfinite(shift.row.value):
        return shift.why
    return f"undefined, {shift.why}" if shift.why not in {"", "undefined"} else "undefined"


def _value(cell: float | Measurement) -> float:
    return cell.value if isinstance(cell, Measurement) else float(cell)


def _overlap(one: Measurement, other: Measurement) -> bool:
    ends = (one.ci_low, one.ci_high, other.ci_low, other.ci_high)
    if None in ends:
        return False
    low, high, other_low, other_high = (float(it) for it in ends if it is not None)
    return low <= other_high and other_low <= high


def _names(found: Sequence[_Known]) -> list[str]:
    return [name for name, _, _ in found]
