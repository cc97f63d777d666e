"""Scores with their intervals, their nulls, and what is left of them above the null."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from olmo_stages.estimates import LEVEL, interval
from olmo_stages.similarity.measure import Declared
from olmo_stages.similarity.tables import Comparison, fisher_interval

ROUNDING = 1e-5
"""Scores of a permutation and of the data that are closer than this count as tied."""


FEWEST = 5
"""Independent groups below which no interval is given."""


@dataclass(frozen=True, eq=False)
class Scores:
    """One score a cell (a layer, or a pair of layers), with its inference.

    Args:
        value: the scores.
        low: lower ends of their intervals.
        high: upper ends.
        null: median of each cell's null; None = no permutation was run.
        p: one-sided p of each cell.
        p_max: p against the null of the largest score of all cells.
        calibrated: what is left above the 95 % quantile of the null, 1 at the top of the range.
        calibrated_low: the same for the lower end of the interval.
        calibrated_high: the same for the upper end.
    """

    value: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]
    null: Float[np.ndarray, "..."] | None = None
    p: Float[np.ndarray, "..."] | None = None
    p_max: Float[np.ndarray, "..."] | None = None
    calibrated: Float[np.ndarray, "..."] | None = None
    calibrated_low: Float[np.ndarray, "..."] | None = None
    calibrated_high: Float[np.ndarray, "..."] | None = None

    def against(self, null: Float[np.ndarray, "permutation ..."], top: float) -> "Scores":
        """The same scores beside their null.

        Args:
            null: scores under permutations of the rows, the same one for all cells of a row.
            top: largest possible score.

        Source:
            Phipson & Smyth 2010 (p); Westfall & Young 1993 (max statistic); Gröger et al. 2026,
            2602.14486, algorithm 1 (calibrated score: (s - tau)/(top - tau), not below 0, with tau
            the 95 % quantile of the null and the observed score together).
        """
        if not len(null):
            return self
        n = len(null) + 1
        cells = tuple(range(1, null.ndim))
        observed = self.value - ROUNDING
        maxima = np.sort(null.max(axis=cells))
        together = np.sort(np.concatenate([null, self.value[None]]), axis=0)
        tau = together[int(np.ceil(LEVEL * n)) - 1]

        def calibrated(score: np.ndarray) -> np.ndarray:
            return np.clip((score - tau) / np.maximum(top - tau, 1e-12), 0.0, 1.0)

        return replace(
            self,
            null=np.median(null, axis=0),
            p=(1 + (null >= observed).sum(axis=0)) / n,
            p_max=(1 + len(maxima) - np.searchsorted(maxima, observed)) / n,
            calibrated=calibrated(self.value),
            calibrated_low=calibrated(self.low),
            calibrated_high=calibrated(self.high),
        )


def from_error(
    value: Float[np.ndarray, "..."],
    error: Float[np.ndarray, "..."],
    n: int,
    declared: Declared,
) -> Scores:
    """Scores with intervals from standard errors.

    Args:
        value: the scores.
        error: their standard errors.
        n: independent parts behind the errors.
        declared: of the measure; intervals end at its range.
    """
    if n < FEWEST:
        error = np.where(error == 0, 0.0, np.nan)
    ends = [
        fisher_interval(float(v), float(e), n) for v, e in zip(value.flat, error.flat, strict=True)
    ]
    return _bounded(value, np.array(ends).T.reshape(2, *value.shape), declared)


def from_samples(
    value: Float[np.ndarray, " layer"],
    samples: Float[np.ndarray, "resample layer"],
    n_groups: int,
    declared: Declared,
) -> Scores:
    """Scores with bootstrap intervals, which end at the range of the measure."""
    ends = [ends_of(samples[:, layer], n_groups) for layer in range(len(value))]
    return _bounded(value, np.array(ends).T, declared)


def ends_of(samples: Float[np.ndarray, " resample"], n_groups: int) -> tuple[float, float]:
    """Ends of a bootstrap interval; NaN where so few groups vary that they would be made up."""
    if n_groups < FEWEST and np.ptp(samples) > 0:
        return float("nan"), float("nan")
    return interval(samples, n_groups)


def _bounded(
    value: Float[np.ndarray, "..."], ends: Float[np.ndarray, "2 ..."], declared: Declared
) -> Scores:
    """Ends within the range of the measure; NaN, unknown, stays."""
    low, high = np.clip(ends, declared.low, declared.high)
    # Quantiles of few resamples, or rounding near 1, can leave the score itself outside.
    return Scores(value, np.minimum(low, value), np.maximum(high, value))


def diagonal(comparison: Comparison) -> Float[np.ndarray, " layer"]:
    """Scores of each layer with the same layer of the other side."""
    return np.diagonal(comparison.value).copy()
