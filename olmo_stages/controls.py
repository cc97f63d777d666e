"""What a probe must beat: labels that carry no concept, features that hold no representation."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def control_labels(types: Sequence[str], salt: str) -> Int[np.ndarray, " example"]:
    """Labels of a control task: half of the types, chosen by hash, are 1 (Hewitt & Liang 2019)."""
    order = sorted(set(types), key=lambda t: hashlib.sha256(f"{salt}:{t}".encode()).hexdigest())
    positive = set(order[: len(order) // 2])
    return np.array([t in positive for t in types], dtype=np.int64)


def bag_of_tokens(token_ids: Sequence[Sequence[int]]) -> Float[np.ndarray, "1 example token"]:
    """Counts of each token id in each prompt."""
    column = {token: i for i, token in enumerate(sorted({t for ids in token_ids for t in ids}))}
    counts = np.zeros((1, len(token_ids), len(column)), dtype=np.float32)
    for row, ids in enumerate(token_ids):
        for token, count in Counter(ids).items():
            counts[0, row, column[token]] = count
    return counts
