"""Arithmetic: sums and differences of two-digit numbers with a right or a wrong result.

400 equations in 50 groups. A group holds two pairs of operands and exchanges their results, so that
every number stands as often in right as in wrong equations; wrong results are off by 1 to 9. The
counterpart of an equation has the same operands and the other result.
"""

from olmo_stages.data.contrast.crossing import statement
from olmo_stages.types import Example

N_GROUPS = 50
SHIFTS = (
    *((1, 0), (0, 1), (2, 1), (1, -2), (3, 2), (-1, 3)),
    *((4, 1), (2, -5), (5, 0), (0, -4), (6, 3), (-3, -1)),
)
"""How far the second pair of operands lies below the first; never equal in size, because sum and
difference must both change."""


def examples() -> tuple[Example, ...]:
    """Return the equations; label 1 = correct; polarity tells sums from differences."""
    found: list[Example] = []
    for k in range(N_GROUPS):
        # Strides prime to the ranges 53 and 19 give 1007 different pairs before one comes back.
        first = 45 + 37 * k % 53, 12 + 11 * k % 19
        below = SHIFTS[k % len(SHIFTS)]
        second = first[0] - below[0], first[1] - below[1]
        group = f"{first[0]}, {first[1]} / {second[0]}, {second[1]}"
        for operands in (first, second):
            for label in (1, 0):
                a, b = operands if label else (second if operands == first else first)
                found += _equations(operands, a + b, a - b, group=group, label=label)
    return tuple(found)


def _equations(
    operands: tuple[int, int], total: int, rest: int, *, group: str, label: int
) -> list[Example]:
    a, b = operands
    return [
        statement(
            f"{asked} = {result}.",
            group=group,
            label=label,
            trait="correct",
            polarity=polarity,
            pair=asked,
        )
        for asked, result, polarity in (
            (f"{a} + {b}", total, "sum"),
            (f"{a} - {b}", rest, "difference"),
        )
    ]
