"""Orthogonal Procrustes: how well one layer is a rotation of another, on examples not fitted to."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from olmo_stages.errors import ConfigError, DataError
from olmo_stages.similarity.components import centred, principal_components
from olmo_stages.similarity.linear import EUCLIDEAN
from olmo_stages.similarity.measure import Declared

UNSEEN = 1e-12
"""Variance, relative to the largest, below which the training rows do not vary in a direction."""


@dataclass(frozen=True)
class Procrustes:
    """Cosine between one layer and the other after the rotation that fits best on other examples.

    Each side is reduced to its leading principal components without looking at the other. For each
    fold of whole groups, means and rotation are fitted on the remaining groups; the score is
    sum <x R, y> / sqrt(sum |x|^2 sum |y|^2) over all held-out rows together. It is 1 if the kept
    components are equal up to rotation, translation and scale, and about 0 for unrelated layers
    however many dimensions they have; fitted and scored on the same rows, unrelated layers come
    near 1 as soon as dimensions are as many as rows.

    At most half as many components as there are training rows are rotated: with as many as rows the
    rotation fits noise (layers whose true cosine is 0.89 scored 0.62 with 48 training rows and 50
    components of equal variance, 0.73 with 20). A direction in which the training rows of a side do
    not vary cannot be learned, and the held-out rows are compared without it.

    Args:
        n_components: principal components kept of each side, at most.
        n_folds: number of folds. A group's fold is its index modulo `n_folds`, so that leaving a
            group out moves no other one.
    """

    n_components: int
    n_folds: int

    def __post_init__(self) -> None:
        if self.n_components < 1:
            raise ConfigError(f"n_components={self.n_components}: keep at least 1")
        if self.n_folds < 2:
            raise ConfigError(f"n_folds={self.n_folds} leaves nothing to test on; give at least 2")

    @property
    def declared(self) -> Declared:
        """What a reader may rely on."""
        return Declared(
            "procrustes",
            "Procrustes similarity (held-out)",
            -1.0,
            1.0,
            "similarity",
            EUCLIDEAN,
            "Williams et al. 2021, 2110.14739, eq. 4 with alpha = 1: the cosine whose arccos is "
            "their angular distance; here of leading principal components, and held out, with "
            "means and rotation from other groups",
        )

    def prepare(
        self, values: Float[np.ndarray, "row d_model"]
    ) -> Float[np.ndarray, "row component"]:
        """Scores on the leading principal components.

        Raises:
            DataError: fewer than 4 rows, or no dimension varies.
            NonFiniteError: a value is not finite.
        """
        return principal_components(values, most=self.n_components)

    def score(
        self,
        x: Float[np.ndarray, "row component"],
        y: Float[np.ndarray, "row other_component"],
        groups: Int[np.ndarray, " row"],
    ) -> float:
        """Held-out cosine, in [-1, 1].

        Args:
            x: prepared layer, or some of its rows.
            y: the other one, same rows.
            groups: index of each row's group.

        Raises:
            DataError: all groups fall into one fold, or what is held out does not vary where
                the training rows do.
        """
        folds = groups % self.n_folds
        present = np.unique(folds)
        if len(present) < 2:
            raise DataError(
                f"{len(np.unique(groups))} groups all fall into one of {self.n_folds} folds, which "
                "leaves nothing to fit a rotation on; give more groups"
            )
        n_train = len(folds) - np.bincount(folds).max()
        leading = slice(max(1, n_train // 2))
        inner, x_square, y_square = np.sum(
            [_held_out(x[:, leading], y[:, leading], folds == fold) for fold in present], axis=0
        )
        if min(x_square, y_square) <= 0:
            raise DataError(
                f"no held-out row varies where the training rows do ({len(x)} rows in "
                f"{len(present)} folds); give more groups"
            )
        return float(np.clip(inner / np.sqrt(x_square * y_square), -1, 1))


def angular_distance(
    x: Float[np.ndarray, "row d_model"], y: Float[np.ndarray, "row other_d_model"]
) -> float:
    """Angle in radians between two representations after the best rotation, in sample.

    A metric: zero for representations equal up to rotation, translation and scale, symmetric, with
    the triangle inequality. Fitted and scored on the same rows, it falls with the number of
    dimensions; `Procrustes` does not.

    Returns:
        arccos of |x'y|_* / (|x| |y|), between 0 and pi/2.

    Raises:
        DataError: fewer than 4 rows, or no dimension varies.
        NonFiniteError: a value is not finite.

    Source:
        Williams et al. 2021, 2110.14739, eq. 4 with alpha = 1 (the package netrep).
    """
    first, second = (side / np.linalg.norm(side) for side in (_narrow(x), _narrow(y)))
    width = max(first.shape[1], second.shape[1])
    first, second = (np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in (first, second))
    u, _, vt = np.linalg.svd(first.T @ second)
    # Twice the arcsine of half the chord is the same angle, and keeps its digits near zero.
    return float(2 * np.arcsin(np.linalg.norm(first @ u - second @ vt.T) / 2))


def _narrow(values: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "row narrow"]:
    """Centred values, rotated into at most as many dimensions as there are rows."""
    wide = centred(values)
    if wide.shape[1] <= len(wide):
        return wide
    return np.asarray(np.linalg.qr(wide.T, mode="r")).T


def _held_out(
    x: Float[np.ndarray, "row component"],
    y: Float[np.ndarray, "row other_component"],
    held: Bool[np.ndarray, " row"],
) -> tuple[float, float, float]:
    """<x R, y>, |x|^2 and |y|^2 of the held-out rows, with means and rotation R from the others."""
    (x_train, x_test), (y_train, y_test) = (_split(side, held) for side in (x, y))
    if not x_train.shape[1] or not y_train.shape[1]:
        return 0.0, float(np.square(x_test).sum()), float(np.square(y_test).sum())
    u, singular, vt = np.linalg.svd(x_train.T @ y_train, full_matrices=False)
    # A direction without counterpart is predicted as the mean: any rotation of it fits as well.
    common = singular > np.finfo(np.float64).eps * len(singular) * singular[0]
    rotated = (x_test @ u[:, common]) * (y_test @ vt[common].T)
    return float(rotated.sum()), float(np.square(x_test).sum()), float(np.square(y_test).sum())


def _split(
    side: Float[np.ndarray, "row component"], held: Bool[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, "train seen"], Float[np.ndarray, "test seen"]]:
    """Training and held-out rows less the training mean, in directions that training rows show."""
    train = side[~held]
    mean = train.mean(axis=0)
    train = train - mean
    variance, directions = np.linalg.eigh(train.T @ train)
    seen = directions[:, variance > max(UNSEEN * variance[-1], 0.0)]
    return train @ seen, (side[held] - mean) @ seen
