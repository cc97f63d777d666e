"""Parts of sentences about numbers: lists, counts, and what a count or an order is worth."""

import re
from collections.abc import Iterable, Sequence

from olmo_stages.figures.wording import written
from olmo_stages.types import Measurement

NAMED = 4
"""How many edges or stages a sentence names one by one."""

_LAYERS = re.compile(r"\bover (\d+) of (\d+) layers\b")


def layers_differ(rows: Sequence[Measurement]) -> str:
    """Why the order of numbers is rough, as far as their notes say over which layers they are.

    Two means over as many layers may be over others, too; a number that has no such note is over
    all layers.

    Returns:
        Words for a bracket; empty where all are over all layers, and where there is one only.
    """
    told = [_LAYERS.search(row.note) for row in rows]
    counts = [None if it is None else (int(it[1]), int(it[2])) for it in told]
    totals = {it[1] for it in counts if it is not None}
    if len(rows) < 2 or not totals:
        return ""
    if len(totals) > 1:
        return "means over different layers, so the order is rough"
    (total,) = totals
    n = [total if it is None else it[0] for it in counts]
    if min(n) == max(n):
        return (
            f"means over {n[0]} of {total} layers, maybe not the same ones, so the order is rough"
        )
    return (
        f"means over {min(n)} to {max(n)} of {total} layers, not the same ones, so the order is "
        "rough"
    )


def by_chance(level: float, n: int, would: str = "would") -> str:
    """How many of `n` numbers, at most, each tested at a level, chance alone would make so."""
    return f"up to about {level * n:.1f} of {n} {would} by chance if nothing had changed"


def all_of(n: int, what: str = "") -> str:
    """`both jobs`, or e.g. `all 3 jobs`.

    Args:
        n: how many, more than one.
        what: in the plural; may be empty.
    """
    return f"{'both' if n == 2 else f'all {n}'} {what}".strip()


def who_do(n: int, total: int, names: Sequence[str], does: str) -> str:
    """Which intervals do something: the only one, all, or those of these names."""
    if n < total:
        return f"{'The interval' if n == 1 else 'The intervals'} of {listed(names)} {verb(does, n)}"
    whole = "the interval" if n == 1 else all_of(n, "intervals")
    return f"{whole[:1].upper()}{whole[1:]} {verb(does, n)}"


def verb(plural: str, n: int) -> str:
    """A verb as its number of subjects has it."""
    return f"{plural}s" if n == 1 else plural


def number(cell: float | Measurement) -> str:
    """A number with its interval, where it has one."""
    if isinstance(cell, Measurement):
        return written(cell.value, cell.ci_low, cell.ci_high)
    return written(float(cell)) if isinstance(cell, float) else str(cell)


def grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Names by what is said of them, in the order in which it is first said."""
    found: dict[str, list[str]] = {}
    for name, said in pairs:
        found.setdefault(said, []).append(name)
    return list(found.items())


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has room for."""
    if len(names) <= NAMED:
        return joined(names)
    return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} more"


def joined(names: Sequence[str]) -> str:
    """All names."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
