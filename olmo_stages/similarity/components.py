"""Principal components of one layer, the coordinates in which fitted measures work."""

import numpy as np
from jaxtyping import Float

from olmo_stages.errors import DataError, NonFiniteError

MIN_ROWS = 4
"""Fewer rows hold nothing that could be compared after centring."""


def centred(values: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "row d_model"]:
    """Values less the mean of each dimension, float64; exactly 0 where a dimension is constant.

    Raises:
        DataError: fewer than 4 rows, or no dimension varies.
        NonFiniteError: a value is not finite.
    """
    n_rows, d_model = values.shape
    if n_rows < MIN_ROWS:
        raise DataError(f"{n_rows} rows: a comparison needs at least {MIN_ROWS}")
    finite = np.isfinite(values)
    if not finite.all():
        raise NonFiniteError(
            f"{np.sum(~finite)} of {values.size} activations are not finite, the first in row "
            f"{int(np.argmin(finite.all(axis=1)))}; use compute.dtype=float32 or leave it out"
        )
    wide = values.astype(np.float64)
    mean = wide.mean(axis=0)
    wide -= mean
    rounding = n_rows * np.finfo(np.float64).eps * np.abs(mean)
    wide[:, np.abs(wide).max(axis=0) <= rounding] = 0
    if not wide.any():
        raise DataError(
            f"constant features: none of {d_model} dimensions varies over {n_rows} rows; read "
            "another position, or leave the layer out with analysis.layers"
        )
    return wide


def principal_components(
    values: Float[np.ndarray, "row d_model"], *, most: int | None = None, variance: float = 1.0
) -> Float[np.ndarray, "row component"]:
    """Scores of the rows on the leading principal components, largest variance first, float64.

    From the singular values themselves and not from the inner products of rows, which would square
    the ratio between a massive dimension and the others and lose half of their digits.

    Args:
        values: activations of one layer, in any precision.
        most: number of components at most; None = no limit.
        variance: keep the fewest components that hold this share of the variance. Components below
            the precision of `values` are rounding and are never kept.

    Returns:
        Centred, uncorrelated columns. Rotations of the features change no more than their signs.

    Raises:
        DataError: fewer than 4 rows, or no dimension varies.
        NonFiniteError: a value is not finite.
    """
    wide = centred(values)
    if wide.shape[1] > wide.shape[0]:
        # The triangle has the same rows up to a rotation, and is smaller.
        wide = np.asarray(np.linalg.qr(wide.T, mode="r")).T
    left, singular, _ = np.linalg.svd(wide, full_matrices=False)
    precision = np.finfo(values.dtype).eps * max(values.shape)
    kept = int(np.sum(singular > precision * singular[0]))
    if variance < 1:
        share = np.cumsum(singular**2) / np.sum(singular**2)
        kept = min(kept, int(np.searchsorted(share, variance)) + 1)
    kept = kept if most is None else min(kept, most)
    return left[:, :kept] * singular[:kept]
