"""The order in which stages are shown: parents before children, checkpoints by step."""

import re
from collections.abc import Callable

from olmo_stages.stages import catalogue

LineageKey = tuple[int, str, bool, bool, list[str | int]]
"""What labels are sorted by."""

_RANDOM = " (random)"


def lineage_order() -> Callable[[str], LineageKey]:
    """The order of the lineage, as a sort key of stage labels.

    Returns:
        A key that puts parents before children, a stage's revisions by their step with the released
        one, which the steps lead to, last, and its random initialisation after all of them. Stages
        that are not in the catalogue come last, by name.
    """
    order = {name: i for i, name in enumerate(catalogue())}

    def key(label: str) -> LineageKey:
        name, _, revision = label.removesuffix(_RANDOM).partition("@")
        steps: list[str | int] = [
            int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", revision)
        ]
        is_last = revision in {"", "main"}
        return order.get(name, len(order)), name, label.endswith(_RANDOM), is_last, steps

    return key
