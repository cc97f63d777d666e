"""Errors and nulls of measures that are fitted anew to every pair of layers."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.parallel import in_threads
from olmo_stages.similarity.measure import Fitted

JACKKNIFE = 20
"""Parts of the groups that the jackknife leaves out in turn."""

Reduced = Sequence[np.ndarray]
"""One reduced layer after another, [row, component]."""


def scores(
    measure: Fitted, x: Reduced, y: Reduced, groups: Int[np.ndarray, " row"]
) -> Float[np.ndarray, " layer"]:
    """Score of each layer with the same layer of the other side."""

    def one(pair: tuple[np.ndarray, np.ndarray]) -> float:
        # The same numbers on both sides are 1 without the rounding of a fit.
        return measure.declared.high if np.array_equal(*pair) else measure.score(*pair, groups)

    return np.array(list(in_threads(one, zip(x, y, strict=True))))


def jackknife_errors(
    measure: Fitted, x: Reduced, y: Reduced, groups: Int[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, " layer"], int]:
    """Standard error of each layer's score from leaving out parts of the groups.

    Args:
        measure: is refitted to what is left.
        x: reduced layers.
        y: those of the other side.
        groups: what is independent.

    Returns:
        The errors, and how many parts they come from.

    Source:
        Efron & Tibshirani 1993, section 11.5 (grouped jackknife).
    """
    n_parts = min(JACKKNIFE, int(groups.max()) + 1)
    # Groups are numbered by name; neighbours may be alike, so that parts take every n-th.
    part = groups % n_parts

    def left_out(index: int) -> np.ndarray:
        kept = np.flatnonzero(part != index)
        pairs = zip(x, y, strict=True)
        return np.array([measure.score(a[kept], b[kept], groups[kept]) for a, b in pairs])

    found = np.stack(list(in_threads(left_out, range(n_parts))))
    return np.sqrt((n_parts - 1) * found.var(axis=0)), n_parts


def null(
    measure: Fitted,
    x: Reduced,
    y: Reduced,
    groups: Int[np.ndarray, " row"],
    permutations: Int[np.ndarray, "permutation row"],
) -> Float[np.ndarray, "permutation layer"]:
    """Scores with the rows of the second side permuted, the same way in every layer."""

    def permuted(rows: np.ndarray) -> np.ndarray:
        return np.array([measure.score(a, b[rows], groups) for a, b in zip(x, y, strict=True)])

    if not len(permutations):
        return np.empty((0, len(x)))
    return np.stack(list(in_threads(permuted, permutations)))
