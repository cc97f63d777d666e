"""One layer's features centred and checked, and the few dimensions that would drown the others."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.errors import DataError, NonFiniteError

OUTLYING = 10.0
"""A dimension dominates if its variance is this many times the median variance."""

NEGLIGIBLE = 1e-9
"""A dimension counts as dead below this share of the 90 % quantile of the variances."""

COLUMNS = 512
"""Columns that are centred at a time, so that they stay in the cache."""

Variant = Literal["raw", "standardised"]
VARIANTS: tuple[Variant, ...] = ("raw", "standardised")
"""With dominant dimensions as they are, and scaled down."""

SAID: Mapping[str, str] = {
    "raw": "Raw: activations as they are.",
    "standardised": "Standardised: dominant dimensions are scaled down.",
}
"""What captions say of a variant."""


def centre(
    values: Float[np.ndarray, "row d_model"], resolution: float, where: str
) -> tuple[Float[np.ndarray, " d_model"], Float[np.ndarray, " d_model"]]:
    """Take the mean out of every dimension, in place.

    Args:
        values: float32 activations of one layer; centred afterwards, but for what is left of a mean
            taken to 7 digits.
        resolution: relative spread below which a dimension is rounding.
        where: names stage and layer in errors.

    Returns:
        Mean and variance of every dimension.

    Raises:
        NonFiniteError: a value is not finite, or its square is not.
        DataError: no dimension varies by more than rounding.
    """
    n, d_model = values.shape
    mean, variance = np.empty(d_model), np.empty(d_model)
    weights = np.full(n, 1 / n, dtype=np.float32)
    for start in range(0, d_model, COLUMNS):
        columns = slice(start, start + COLUMNS)
        part = values[:, columns]
        mean[columns] = weights @ part
        if not np.isfinite(mean[columns]).all():
            raise NonFiniteError(f"{where}: {_not_finite(part)}")
        part -= mean[columns].astype(np.float32)
        variance[columns] = np.einsum("rd,rd->d", part, part) / n
    if not n * variance.sum() < np.finfo(np.float32).max:
        raise NonFiniteError(
            f"{where}: the squares of {n} rows sum to more than float32 can hold; activations "
            "this large are a fault of the forward pass, try compute.dtype=float32"
        )
    if not (np.sqrt(variance) > resolution * np.abs(mean)).any() or not variance.any():
        raise DataError(
            f"{where}: constant features: none of {d_model} dimensions varies over {n} rows "
            "by more than rounding; read another position, or leave the layer out with "
            "analysis.layers"
        )
    return mean, variance


def usual_variance(variance: Float[np.ndarray, " d_model"]) -> float:
    """Median variance of the dimensions that vary by more than rounding.

    Dimensions that vary by rounding only would drag the median down. The largest variance is no
    measure of that: beside a massive dimension every other one would count as dead.
    """
    usual = np.quantile(variance, 0.9, method="lower")
    return float(np.median(variance[variance > NEGLIGIBLE * usual]))


def dominating(
    variance: Float[np.ndarray, " d_model"],
) -> tuple[Int[np.ndarray, " dominant"], Float[np.ndarray, " dominant"]]:
    """The dimensions whose variance is far above the median, and how far they are scaled down.

    Args:
        variance: of every dimension, at least one above 0.

    Returns:
        Their indices, and the factor that shrinks each of them, the more the farther it dominates:
        to the median variance from `OUTLYING` times the limit on. One just above the limit is
        treated like one just below it, so that the two sides of a comparison do not part there.
    """
    median = usual_variance(variance)
    limit = OUTLYING * median
    dominant = np.flatnonzero(variance > limit)
    target = np.maximum(median, limit**2 / variance[dominant])
    return dominant, np.sqrt(target / variance[dominant])


def _not_finite(values: Float[np.ndarray, "row column"]) -> str:
    finite = np.isfinite(values).all(axis=1)
    return (
        f"{np.sum(~finite)} of {len(values)} rows are not finite, the first is row "
        f"{int(np.argmin(finite))}; use compute.dtype=float32 or leave the example out"
    )
