"""Scores along a trait vector: how far along it something lies, in units of the vector's source.

A score is a projection onto the unit vector. In units it is 0 at the mean of class 0 and 1 at the
mean of class 1 of the data that the vector is from, read at the position that it is from; raw it is
in the scale of the activations. One is an affine function of the other, so that they rank alike.

A vector that is fitted to the data it is to score is cross-fitted: every example is scored along
the vector of a fold that holds none of its group, and in units of that fold's data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from olmo_stages import estimates
from olmo_stages.vectors.files import TraitVector

_BLOCK = 4096  # rows that are float64 at a time


@dataclass(frozen=True, eq=False)
class Ruler:
    """Directions of one layer with their units, one a slot: a fold, or the only one.

    Args:
        directions: of length 1; of a slot without a direction all zeros.
        zero: raw score that is 0 in units.
        unit: raw distance from 0 to 1 in units; 0 where there is no direction.
    """

    directions: Float[np.ndarray, "slot d_model"]
    zero: Float[np.ndarray, " slot"]
    unit: Float[np.ndarray, " slot"]

    def __add__(self, other: "Ruler") -> "Ruler":
        return Ruler(
            np.concatenate([self.directions, other.directions]),
            np.concatenate([self.zero, other.zero]),
            np.concatenate([self.unit, other.unit]),
        )

    def raw(
        self, values: Float[np.ndarray, "row d_model"], slots: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, " row"]:
        """Projections onto the unit vectors, float64; 0 where there is no direction.

        Args:
            values: activations of the layer.
            slots: which direction each row is scored along.
        """
        found = np.zeros(len(values))
        for start in range(0, len(values), _BLOCK):
            block = slice(start, start + _BLOCK)
            # Products with every direction, of which one is kept: their number is small.
            products = values[block].astype(np.float64) @ self.directions.T
            found[block] = np.take_along_axis(products, slots[block, None], axis=1)[:, 0]
        return found

    def in_units(
        self, raw: Float[np.ndarray, " row"], slots: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, " row"]:
        """The same scores with the source's classes at 0 and 1; NaN where there is no direction."""
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = (raw - self.zero[slots]) / self.unit[slots]
        return np.where(self.unit[slots] > 0, scaled, np.nan)

    @property
    def midpoint(self) -> Float[np.ndarray, " slot"]:
        """Raw score in the middle of the classes, 0.5 in units."""
        return self.zero + self.unit / 2


def of_vector(vector: TraitVector, layer: int) -> Ruler:
    """The ruler of a given vector at a layer.

    Where the vector tells nothing of its source's classes, units are raw.
    """
    values = vector.vectors[layer].astype(np.float64)
    unit = vector.separation[layer] if has_units(vector) else 1.0
    zero = vector.midpoint[layer] - unit / 2 if has_units(vector) else 0.0
    return Ruler(values[None] / np.linalg.norm(values), np.array([zero]), np.array([unit]))


def has_units(vector: TraitVector) -> bool:
    """Whether a vector tells where its source's classes are, class 1 above class 0."""
    return bool(vector.separation) and bool(vector.midpoint) and min(vector.separation.values()) > 0


def cross_fitted(
    values: Float[np.ndarray, "example d_model"],
    labels: Int[np.ndarray, " example"],
    folds: Int[np.ndarray, " example"],
    resolution: float,
) -> Ruler:
    """Differences of the class means, for each fold from the examples of the others.

    Args:
        values: activations of the source at one layer.
        labels: 0 or 1.
        folds: 0, 1, ...; both classes are in the rest of each.
        resolution: relative spread below which a feature is rounding, see
            `olmo_stages.estimates.RESOLUTION`; such features are left out of the vector.

    Returns:
        One slot a fold.
    """
    by_fold = [values[folds == fold].astype(np.float64) for fold in range(int(folds.max()) + 1)]
    # Sums of the other folds are added up, not taken off the total, which holds the fold's own.
    sums = np.array([
        [x[labels[folds == fold] == label].sum(axis=0) for label in (0, 1)]
        for fold, x in enumerate(by_fold)
    ])
    counts = np.array([
        [np.sum((folds == fold) & (labels == label)) for label in (0, 1)]
        for fold in range(len(by_fold))
    ])
    varies = _varying(by_fold, resolution)
    directions = np.zeros((len(by_fold), values.shape[1]))
    zero, unit = np.zeros(len(by_fold)), np.zeros(len(by_fold))
    for fold in range(len(by_fold)):
        others = np.arange(len(by_fold)) != fold
        negative, positive = sums[others].sum(axis=0) / counts[others].sum(axis=0)[:, None]
        difference = (positive - negative) * varies[fold]
        unit[fold] = np.linalg.norm(difference)
        if unit[fold] > 0:
            directions[fold] = difference / unit[fold]
            zero[fold] = negative @ directions[fold]
    return Ruler(directions, zero, unit)


def relabelled_auroc(
    source: Float[np.ndarray, "example d_model"],
    target: Float[np.ndarray, "example d_model"],
    relabelled: Int[np.ndarray, "permutation example"],
    folds: Int[np.ndarray, " example"],
    resolution: float,
) -> Float[np.ndarray, " permutation"]:
    """AUROC within folds of cross-fitted vectors, refitted to each relabelling.

    The vector is linear in the labels, so that all relabellings of a fold are one matrix product
    with the inner products of its training and its held-out examples.

    Args:
        source: activations that the vectors are fitted to.
        target: activations of the same examples that are scored.
        relabelled: the same for both, one a row.
        folds: as for `cross_fitted`.
        resolution: as for `cross_fitted`.
    """
    scores = np.zeros(relabelled.shape)
    x, y = (_centred(it) for it in (source, target))
    varies = _varying([source[folds == it] for it in range(int(folds.max()) + 1)], resolution)
    for fold in range(len(varies)):
        train, held_out = folds != fold, folds == fold
        positive = relabelled[:, train]
        n_positive = positive.sum(axis=1, keepdims=True)
        n_negative = positive.shape[1] - n_positive
        weights = positive / np.maximum(n_positive, 1) - (1 - positive) / np.maximum(n_negative, 1)
        # A relabelling without one of the classes has no vector and ranks nothing.
        weights = np.where((n_positive > 0) & (n_negative > 0), weights, 0.0)
        kept = slice(None) if varies[fold].all() else varies[fold]
        scores[:, held_out] = weights @ (x[train][:, kept] @ y[held_out][:, kept].T)
    return estimates.permutation_auroc(scores, relabelled, folds)


def _centred(
    values: Float[np.ndarray, "example d_model"],
) -> Float[np.ndarray, "example d_model"]:
    """In float64 around the mean, which moves all scores of a relabelling alike.

    Large means would cancel only after they had taken the digits.
    """
    x = values.astype(np.float64)
    return x - x.mean(axis=0)


def _varying(
    by_fold: Sequence[Float[np.ndarray, "_ d_model"]], resolution: float
) -> Bool[np.ndarray, "fold d_model"]:
    """For each fold, which features vary by more than rounding in the other folds."""
    n = np.array([len(x) for x in by_fold], dtype=np.float64)[:, None]
    means = np.stack([x.mean(axis=0, dtype=np.float64) for x in by_fold])
    squares = np.stack([
        np.square(x - mean).sum(axis=0) for x, mean in zip(by_fold, means, strict=True)
    ])
    largest = np.stack([np.abs(x).max(axis=0) for x in by_fold])
    found = np.zeros(means.shape, dtype=bool)
    for fold in range(len(by_fold)):
        others = np.arange(len(by_fold)) != fold
        total = n[others].sum()
        mean = (n[others] * means[others]).sum(axis=0) / total
        between = n[others] * np.square(means[others] - mean)
        spread = np.sqrt((squares[others] + between).sum(axis=0) / total)
        found[fold] = spread > resolution * largest[others].max(axis=0)
    return found
