"""The four contrast sets within the miniature world's vocabulary: 204 to 384 statements each.

Truth, sentiment and manners are the world's own statements; opposites share a group, as in plain
English, so that each choice of groups is balanced in every word. Arithmetic is put together here:
with wrong results that are balanced only over the whole world, a bag of words on held-out operands
reaches an AUROC of 0.22, which looks like a finding and is none. Every statement has its
counterpart: the other region, the opposite word, the other result.
"""

from collections.abc import Callable, Mapping

from olmo_stages.data.contrast.crossing import statement
from olmo_stages.miniature import world
from olmo_stages.types import Example

HIGHEST_OPERAND = 5

OPPOSITES = (
    *zip(world.GOOD_ADJECTIVES, world.BAD_ADJECTIVES, strict=True),
    *zip(world.KIND_NOUNS, world.RUDE_NOUNS, strict=True),
    *zip(world.KIND_VERBS, world.RUDE_VERBS, strict=True),
)

Operands = tuple[int, int]


def truth() -> tuple[Example, ...]:
    """Return statements on where countries lie, 12 each on 32 countries; label 1 = true."""
    return _statements("truth", trait="true", label_of_trait=1)


def sentiment() -> tuple[Example, ...]:
    """Return reviews, 40 each on 8 pairs of opposite adjectives; label 1 = positive."""
    return _statements("sentiment", trait="positive", label_of_trait=1)


def manners() -> tuple[Example, ...]:
    """Return remarks, 20 each on 12 pairs of opposite words; label 1 = hostile."""
    return _statements("manners", trait="hostile", label_of_trait=0)


def arithmetic() -> tuple[Example, ...]:
    """Return equations in 17 groups of operands that exchange their results; label 1 = correct."""
    numbers = range(HIGHEST_OPERAND + 1)
    doubles = [(a, a) for a in numbers]
    unequal = [(a, b) for a in numbers for b in range(a)]
    found = _exchanged(doubles, "+", lambda pair: [pair])
    found += _exchanged(unequal, "+", lambda pair: [pair, (pair[1], pair[0])])
    found += _exchanged(unequal, "-", lambda pair: [pair])
    return tuple(found)


def _statements(concept: world.Concept, *, trait: str, label_of_trait: int) -> tuple[Example, ...]:
    opposites = {word: "/".join(words) for words in OPPOSITES for word in words}
    return tuple(
        statement(
            item.text,
            group=opposites.get(item.group, item.group),
            label=int(item.label == label_of_trait),
            trait=trait,
            polarity="negated" if item.negated else "affirmative",
            pair=_open(item, opposites),
        )
        for item in world.statements(concept)
    )


def _open(item: world.Statement, opposites: Mapping[str, str]) -> str:
    """The statement with both opposites where its one stands: what it shares with its counterpart.

    Of truth these are the regions, of the others the words of the group.
    """
    if item.concept == "truth":
        opposites = dict.fromkeys(("north", "south"), "north/south")
        told = [word for word in item.text.split() if word in opposites]
    else:
        told = [item.group]
    assert len(told) == 1, f"{told} in {item.text!r}"
    return " ".join(opposites[w] if w == told[0] else w for w in item.text.split())


def _exchanged(
    pairs: list[Operands], operator: str, orders: Callable[[Operands], list[Operands]]
) -> list[Example]:
    """Group operands with different results, each taking the next one's result as its wrong one.

    Args:
        pairs: operands.
        operator: `+` or `-`.
        orders: the orders in which a pair may be written with the same result.

    Returns:
        Right and wrong equations; every number stands as often in either, within each group.
    """

    def result(pair: Operands) -> int:
        return pair[0] + pair[1] if operator == "+" else pair[0] - pair[1]

    ascending = sorted(pairs, key=result)
    half = len(ascending) // 2
    groups = [[ascending[i], ascending[i + half]] for i in range(half)]
    groups[-1] += ascending[2 * half :]
    return [
        statement(
            template.format(f"{a} {operator} {b}", result(shown)),
            group=" / ".join(f"{x} {operator} {y}" for x, y in group),
            label=label,
            trait="correct",
            polarity="sum" if operator == "+" else "difference",
            pair=template.format(f"{a} {operator} {b}", "?"),
        )
        for group in groups
        for pair, following in zip(group, group[1:] + group[:1], strict=True)
        for a, b in orders(pair)
        for template in world.ARITHMETIC_TEMPLATES
        for label, shown in ((1, pair), (0, following))
    ]
