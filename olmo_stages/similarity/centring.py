"""Centring of pair tables: the step that makes inner products of tables estimates of HSIC."""

import numpy as np
from jaxtyping import Bool, Float, Int

from olmo_stages.errors import DataError


def same_unit(units: Int[np.ndarray, " row"]) -> Bool[np.ndarray, "row row"]:
    """Which pairs of rows are of one unit, the diagonal included."""
    return units[:, None] == units[None, :]


def doubly_centred(table: Float[np.ndarray, "row row"]) -> Float[np.ndarray, "row row"]:
    """Subtract row and column means: H K H, the biased (V-statistic) centring."""
    rows = table.mean(axis=1, dtype=np.float64)
    return table - (rows[:, None] + (rows[None, :] - rows.mean())).astype(table.dtype)


def unit_centred(
    table: Float[np.ndarray, "row row"], units: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "row row"]:
    """Project a symmetric table on tables that are zero within units and have zero row sums.

    With one row a unit this is the U-centring of Székely & Rizzo, after which the mean product of
    two tables is the unbiased estimator of HSIC. With several (the tokens of a document) pairs
    within a unit are left out as well, so that it is the units which count as independent: copies
    of a unit's rows change nothing.

    Args:
        table: symmetric, e.g. inner products.
        units: unit of each row.

    Returns:
        K_ab - u_a - u_b between units, zero within; u makes every row sum zero.

    Raises:
        DataError: fewer than 4 units, one that holds half of the rows, or nothing but rounding
            is left, as of rows that are all equally far from one another.

    Source:
        Székely & Rizzo 2014, 1310.2926, eq. 2.3; Song et al. 2012 (unbiased HSIC). The case of
        several rows a unit solves the same linear equations and is ours.
    """
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    n = len(units)
    if len(sizes) < 4:
        raise DataError(
            f"{len(sizes)} independent groups ({n} rows): the debiased estimator needs at least 4; "
            "give more groups, see data.columns.group"
        )
    if 2 * sizes.max() >= n:
        raise DataError(
            f"one group holds {sizes.max()} of {n} rows; debiasing needs less than half of them, "
            "so cut the groups finer or take fewer tokens of each example"
        )
    kept = table.copy()
    _clear(kept, units, sizes)
    sums = kept.sum(axis=1, dtype=np.float64)
    by_unit = np.bincount(unit, weights=sums)
    free = n - 2 * sizes
    total = (by_unit / free).sum() / (1 + (sizes / free).sum())
    shares = (by_unit - sizes * total) / free
    offset = ((sums - total + shares[unit]) / (n - sizes[unit])).astype(table.dtype)
    kept -= offset[:, None]
    kept -= offset[None, :]
    _clear(kept, units, sizes)
    # An inner product is known to rounding of the norms of both rows.
    if np.linalg.norm(kept) <= np.finfo(table.dtype).eps * np.trace(table, dtype=np.float64):
        raise DataError(
            f"{n} rows are equally far from one another up to rounding, or all but one are equal: "
            "debiasing leaves nothing to compare; read another position, or leave the layer out "
            "with analysis.layers"
        )
    return kept


def _clear(
    table: Float[np.ndarray, "row row"],
    units: Int[np.ndarray, " row"],
    sizes: Int[np.ndarray, " unit"],
) -> None:
    if sizes.max() == 1:
        np.fill_diagonal(table, 0)
    else:
        table[same_unit(units)] = 0
