"""What a probe must beat: labels that carry no concept, features that hold no representation."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

MIN_TYPES = 4
"""Fewest repeated types that make a control task."""


def control_types(
    groups: Sequence[str], token_ids: Sequence[Sequence[int]]
) -> tuple[str, list[str]] | None:
    """What a control task can be about: a property that half of the examples share with another.

    A label drawn by type can be learned only by remembering the type, so types must be met again.
    The groups come first; where they hardly repeat, the first token, then the last ones, as
    Hewitt & Liang use the identity of the word.

    Args:
        groups: group of each example.
        token_ids: prompt of each example.

    Returns:
        Name of the property and its value for each example; None where nothing repeats enough.
    """
    candidates = [("group", list(groups)), ("first token", [str(ids[0]) for ids in token_ids])]
    for back in (1, 2, 3):
        values = [str(ids[-back]) if len(ids) >= back else "" for ids in token_ids]
        candidates.append(("last token" if back == 1 else f"token {back} from the end", values))
    for name, types in candidates:
        repeated = {kind: count for kind, count in Counter(types).items() if count > 1}
        if len(repeated) >= MIN_TYPES and sum(repeated.values()) >= len(types) / 2:
            return name, types
    return None


def control_labels(types: Sequence[str], salt: str) -> Int[np.ndarray, " example"]:
    """Labels of a control task: half of the types, chosen by hash, are 1.

    Args:
        types: type of each example.
        salt: another one draws another task.

    Returns:
        0 or 1; -1 where the type occurs once and could not be remembered.

    Source:
        Hewitt & Liang 2019, 1909.03368.
    """
    counts = Counter(types)
    repeated = (kind for kind, count in counts.items() if count > 1)
    order = sorted(repeated, key=lambda t: hashlib.sha256(f"{salt}:{t}".encode()).hexdigest())
    label = {kind: int(rank < len(order) // 2) for rank, kind in enumerate(order)}
    return np.array([label.get(kind, -1) for kind in types], dtype=np.int64)


def bag_of_tokens(token_ids: Sequence[Sequence[int]]) -> Float[np.ndarray, "1 example token"]:
    """Counts of each token id in each prompt."""
    column = {token: i for i, token in enumerate(sorted({t for ids in token_ids for t in ids}))}
    counts = np.zeros((1, len(token_ids), len(column)), dtype=np.float32)
    for row, ids in enumerate(token_ids):
        for token, count in Counter(ids).items():
            counts[0, row, column[token]] = count
    return counts
