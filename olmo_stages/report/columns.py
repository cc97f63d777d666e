"""How numbers are written that stand below one another: all with as many decimals."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from olmo_stages.document import Cell, Grid
from olmo_stages.figures.wording import Bounded, common_digits, or_gap, with_digits
from olmo_stages.types import Measurement

UNDEFINED = "undefined"


@dataclass(frozen=True)
class Digits:
    """How the numbers of one column are written.

    Args:
        decimals: of all of them.
        same: what none of them is to look like unless it is that.
    """

    decimals: int
    same: tuple[float, ...]

    def with_interval(self, row: Measurement) -> tuple[str, str]:
        """Return a number and its interval, the latter empty where there is none."""
        if not math.isfinite(row.value):
            return UNDEFINED, ""
        shown = with_digits(*_bounded(row), digits=self.decimals, same=self.same)
        value, _, interval = shown.partition(" ")
        return value, interval

    def number(self, value: float) -> str:
        """Return a number that has no interval."""
        if not math.isfinite(value):
            return UNDEFINED
        return with_digits(value, digits=self.decimals, same=self.same)


def digits_of(cells: Sequence[Cell], unchanged: Iterable[float] = ()) -> Digits:
    """Return how to write numbers that stand below one another: all with as many decimals.

    Args:
        cells: of one column.
        unchanged: values of two equal models.
    """
    same = tuple(dict.fromkeys((1.0, *map(float, unchanged))))
    numbers = [_bounded(it) for it in cells if isinstance(it, Measurement)]
    plain: list[Bounded] = [(it, None, None) for it in cells if isinstance(it, float)]
    return Digits(common_digits([*numbers, *plain], same), same)


def columns_of(grid: Grid, unchanged: Iterable[tuple[int, float]] = ()) -> list[Digits]:
    """Return how to write the numbers of each column; those of the same metric are alike.

    Args:
        grid: the table.
        unchanged: columns with a value of two equal models.
    """
    columns = [[row[index] for row in grid.rows] for index in range(len(grid.columns))]
    kinds = [_kinds(cells) or index for index, cells in enumerate(columns)]
    given = list(unchanged)

    def digits(kind: object) -> Digits:
        members = [index for index, it in enumerate(kinds) if it == kind]
        cells = [cell for index in members for cell in columns[index]]
        return digits_of(cells, [value for index, value in given if index in members])

    return [digits(kind) for kind in kinds]


def _kinds(cells: Iterable[Cell]) -> frozenset[tuple[str, str]]:
    return frozenset((it.metric, it.variant) for it in cells if isinstance(it, Measurement))


def _bounded(row: Measurement) -> Bounded:
    low, high = or_gap(row.ci_low), or_gap(row.ci_high)
    return (
        (row.value, low, high) if low is not None and high is not None else (row.value, None, None)
    )
