"""Kinds of vectors that are fitted anew to every relabelling."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int
from scipy import linalg

from olmo_stages.errors import DataError
from olmo_stages.vectors.contrast import Targets


@dataclass(frozen=True)
class PCA:
    """Main axis of the differences within pairs, taken as they are: their mean is not subtracted.

    The mean difference is the strongest thing that the differences share; centring them would
    remove it and leave the axis of what varies besides. An axis has no sign: the vector points to
    where the positive ends are on average, and is as long as the mean difference along it, so that
    swapping all ends negates it exactly.

    Source:
        Zou et al. 2023, 2310.01405 (representation engineering); repeng `pca_center` and
        steering-vectors PR 9 (what centring does).
    """

    @property
    def kind(self) -> Literal["pca"]:
        """Its name in configs."""
        return "pca"

    @property
    def needs_pairs(self) -> bool:
        """It is made of differences within pairs."""
        return True

    def __call__(
        self, x: Float32[np.ndarray, "row d_model"], targets: Targets
    ) -> Float32[np.ndarray, "target d_model"]:
        """One axis a target.

        Raises:
            DataError: the targets have no pairs.
        """
        if targets.pairs is None:
            raise DataError("pca needs pairs: examples whose `pair` names their counterpart")
        # A common offset cancels in differences, but would cost digits in the inner products.
        own = x.astype(np.float64)
        own -= own.mean(axis=0)
        by_rows = len(own) <= own.shape[1]
        gram = own @ own.T if by_rows else None
        found = np.zeros((len(targets), own.shape[1]), dtype=np.float32)
        for vector, pairs in zip(found, targets.pairs, strict=True):
            kept = pairs[(pairs >= 0).all(axis=1)]
            if not len(kept):
                continue
            vector[:] = _axis(own, kept) if gram is None else _axis_of_gram(own, gram, kept)
        return found


def _axis(
    x: Float64[np.ndarray, "row d_model"], pairs: Int[np.ndarray, "pair 2"]
) -> Float64[np.ndarray, " d_model"]:
    differences = x[pairs[:, 0]] - x[pairs[:, 1]]
    axis = _first(differences.T @ differences)
    return axis * (differences @ axis).mean()


def _axis_of_gram(
    x: Float64[np.ndarray, "row d_model"],
    gram: Float64[np.ndarray, "row row"],
    pairs: Int[np.ndarray, "pair 2"],
) -> Float64[np.ndarray, " d_model"]:
    """The same from inner products of the rows: D'w mean(w), where w is the main axis of DD'."""
    ends = gram[pairs[:, 0]] - gram[pairs[:, 1]]
    weights = _first(ends[:, pairs[:, 0]] - ends[:, pairs[:, 1]])
    rows = np.zeros(len(x))
    np.add.at(rows, pairs[:, 0], weights * weights.mean())
    np.add.at(rows, pairs[:, 1], -weights * weights.mean())
    return rows @ x


def _first(gram: Float64[np.ndarray, "side side"]) -> Float64[np.ndarray, " side"]:
    last = len(gram) - 1
    return linalg.eigh(gram, subset_by_index=[last, last], check_finite=False)[1][:, 0]


@dataclass(frozen=True)
class Logistic:
    """Weights of a logistic probe fitted to convergence, classes balanced.

    Args:
        strength: L2 penalty relative to the mean loss; features are scaled by one number so that an
            example has mean squared norm one.
    """

    strength: float

    @property
    def kind(self) -> Literal["logistic"]:
        """Its name in configs."""
        return "logistic"

    @property
    def needs_pairs(self) -> bool:
        """Pairs make no difference to the fit."""
        return False

    def __call__(
        self, x: Float32[np.ndarray, "row d_model"], targets: Targets
    ) -> Float32[np.ndarray, "target d_model"]:
        """One probe a target, in units of the scaled features."""
        from olmo_stages.vectors.probes import fitted  # late: a table of cosines needs no torch

        return fitted(x, targets.labels, self.strength)
