"""The order in which stages are shown: path by path down the lineage, checkpoints by step."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from olmo_stages.stages import catalogue

LineageKey = tuple[int, str, bool, bool, list[str | int]]
"""What labels are sorted by."""

_RANDOM = " (random)"


def lineage_order() -> Callable[[str], LineageKey]:
    """The order of the lineage, as a sort key of stage labels.

    Returns:
        A key that goes down the lineage path by path (base, think_sft, think_dpo, think_rlvr,
        instruct_sft, ...), puts a stage's revisions by their step with the released one, which the
        steps lead to, last, and its random initialisation after all of them. Stages that are not in
        the catalogue come last, by name.
    """
    order = {name: i for i, name in enumerate(_paths(catalogue()))}

    def key(label: str) -> LineageKey:
        name, _, revision = label.removesuffix(_RANDOM).partition("@")
        steps: list[str | int] = [
            int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", revision)
        ]
        is_last = revision in {"", "main"}
        return order.get(name, len(order)), name, label.endswith(_RANDOM), is_last, steps

    return key


def _paths(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Stages depth first: of siblings the one with more descendants, then the parent's namesake."""
    children: dict[str | None, list[str]] = {}
    for name, spec in stages.items():
        given = spec.get("parent")
        # Where sizes have different parents, the one of the last size is the one farther down.
        last = [*given.values()][-1] if isinstance(given, Mapping) else given
        parent = (last or "").partition("@")[0]
        children.setdefault(parent if parent in stages else None, []).append(name)

    def below(name: str) -> Iterator[str]:
        yield name
        siblings, path = children.get(name, []), name.partition("_")[0]
        for child in sorted(
            siblings,
            key=lambda it: (-len(list(below(it))), it.partition("_")[0] != path, it),
        ):
            yield from below(child)

    return [name for root in children.get(None, []) for name in below(root)]
