"""How a vector is made from activations and labels: the difference of means, and others."""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int8
from scipy import linalg

from olmo_stages.errors import ConfigError
from olmo_stages.types import check_choice
from olmo_stages.vectors.contrast import Targets
from olmo_stages.vectors.refits import PCA, Logistic

Kind = Literal["mean_difference", "pca", "lda", "logistic"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Ways to make a vector."""

COLUMNS = 512
"""Columns of float64 copies that are alive at a time."""

FEW = 8
"""Up to so many vectors are summed in float64."""


@runtime_checkable
class Extractor(Protocol):
    """Makes vectors. It knows no stage and keeps nothing, so that it serves any layer and fold."""

    @property
    def kind(self) -> Kind:
        """Its name in configs."""
        ...

    @property
    def needs_pairs(self) -> bool:
        """Whether targets must have pairs."""
        ...

    def __call__(
        self, x: Float32[np.ndarray, "row d_model"], targets: Targets
    ) -> Float32[np.ndarray, "target d_model"]:
        """One vector a target, from the side of label 0 to the side of label 1.

        Args:
            x: activations of one layer, the rows of a contrast; they need not be centred.
            targets: which rows are told apart; one without both classes gives a vector of zeros.
        """
        ...


def extractor(kind: str, *, shrinkage: float = 0.1, strength: float = 0.01) -> Extractor:
    """The extractor of a kind.

    Args:
        kind: one of `KINDS`.
        shrinkage: for `lda`, the weight in (0, 1) of the identity in the covariance.
        strength: for `logistic`, the L2 penalty relative to the mean loss, with features scaled so
            that an example has mean squared norm one.

    Raises:
        ConfigError: the kind does not exist, or an option is out of its range.
    """
    check_choice("analysis.kind", kind, KINDS)
    if not 0 < shrinkage < 1:
        raise ConfigError(
            f"analysis.shrinkage={shrinkage} must be above 0 and below 1, where lda would be "
            "analysis.kind=mean_difference"
        )
    if not strength > 0:
        raise ConfigError(f"analysis.strength={strength} must be above 0")
    if kind == "pca":
        return PCA()
    if kind == "logistic":
        return Logistic(strength)
    return LDA(shrinkage) if kind == "lda" else MeanDifference()


@dataclass(frozen=True)
class MeanDifference:
    """Mean of the positive minus mean of the negative examples."""

    @property
    def kind(self) -> Kind:
        """Its name in configs."""
        return "mean_difference"

    @property
    def needs_pairs(self) -> bool:
        """Pairs make no difference to the means."""
        return False

    def features(self, x: Float32[np.ndarray, "row d_model"]) -> Float32[np.ndarray, "row d_model"]:
        """The activations themselves."""
        return x

    def __call__(
        self, x: Float32[np.ndarray, "row d_model"], targets: Targets
    ) -> Float32[np.ndarray, "target d_model"]:
        """One mean difference a target."""
        return mean_differences(x, targets)


@dataclass(frozen=True)
class LDA:
    """Mean difference in the metric of the covariance: what separates the classes best.

    The covariance is that of all examples, whatever their labels, which gives the same direction as
    the one within classes and keeps the vector linear in the labels.

    Args:
        shrinkage: weight of the identity, scaled to the same trace; a fixed one, since an estimate
            of it would take the paraphrases of a group for examples of their own.

    Source:
        Friedman 1989, Regularized Discriminant Analysis, eq. 18; Fukunaga 1990, section 10.2 (total
        and within-class scatter give one direction).
    """

    shrinkage: float

    @property
    def kind(self) -> Kind:
        """Its name in configs."""
        return "lda"

    @property
    def needs_pairs(self) -> bool:
        """Pairs make no difference to means and covariance."""
        return False

    def ridge(self, x: Float[np.ndarray, "row d_model"]) -> float:
        """What is added to the sums of squares of centred activations, in their units."""
        return self._ridge(float(np.einsum("rd,rd->", x, x, dtype=np.float64)), x.shape[1])

    def _ridge(self, trace: float, d_model: int) -> float:
        return self.shrinkage / (1 - self.shrinkage) * trace / d_model

    def features(self, x: Float32[np.ndarray, "row d_model"]) -> Float32[np.ndarray, "row d_model"]:
        """Centred activations times the inverse of the shrunk covariance.

        Computed in float64: beside a massive dimension float32 has no digits for the others.
        """
        scale = len(x) / (1 - self.shrinkage)
        return (scale * whitened(x.astype(np.float64), self.ridge(x))).astype(np.float32)

    def __call__(
        self, x: Float32[np.ndarray, "row d_model"], targets: Targets
    ) -> Float32[np.ndarray, "target d_model"]:
        """One discriminant a target; the covariance is that of the rows that take part."""
        own = x.astype(np.float64)
        own -= own.mean(axis=0)
        gram = own @ own.T if len(own) <= own.shape[1] else None
        weights = coefficients(targets.labels)
        masks, which = np.unique(targets.labels >= 0, axis=0, return_inverse=True)
        found = np.zeros((len(targets), x.shape[1]), dtype=np.float32)
        for index, mask in enumerate(masks):
            its, rows = np.flatnonzero(which.ravel() == index), np.flatnonzero(mask)
            if len(rows):
                chosen = weights[np.ix_(its, rows)]
                scale = len(rows) / (1 - self.shrinkage)
                found[its] = scale * self._fit(own[rows], gram, rows, chosen)
        return found

    def _fit(
        self,
        x: Float64[np.ndarray, "member d_model"],
        gram: Float64[np.ndarray, "row row"] | None,
        rows: Int[np.ndarray, " member"],
        weights: Float64[np.ndarray, "target member"],
    ) -> Float64[np.ndarray, "target d_model"]:
        """Discriminants of some rows, from the inner products of all where those are the fewer."""
        if gram is None:
            x = x - x.mean(axis=0)
            return weights @ whitened(x, self.ridge(x))
        own = gram[np.ix_(rows, rows)]
        own -= own.mean(axis=0)
        own -= own.mean(axis=1, keepdims=True)
        own[np.diag_indices(len(own))] += self._ridge(float(np.trace(own)), x.shape[1])
        # The solution sums to 0 as the weights do, so that it needs no centred rows.
        return linalg.solve(own, weights.T, assume_a="pos", check_finite=False).T @ x


def whitened(
    x: Float64[np.ndarray, "row d_model"], ridge: float
) -> Float64[np.ndarray, "row d_model"]:
    """X (X'X + ridge I)^-1, by way of the smaller of the two Gram matrices."""
    n, d_model = x.shape
    gram = x @ x.T if n <= d_model else x.T @ x
    gram[np.diag_indices(len(gram))] += ridge
    factor = linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    if n <= d_model:
        return linalg.cho_solve(factor, x, check_finite=False)
    return linalg.cho_solve(factor, x.T, check_finite=False).T


def centred(x: Float32[np.ndarray, "row d_model"]) -> Float32[np.ndarray, "row d_model"]:
    """Activations less their mean, exact to the last digit of float32."""
    return x - x.mean(axis=0, dtype=np.float64).astype(np.float32)


def coefficients(labels: Int8[np.ndarray, "target row"]) -> Float64[np.ndarray, "target row"]:
    """Weights of the rows in a mean difference; zeros where a class is missing."""
    n_positive = (labels == 1).sum(1, keepdims=True)
    n_negative = (labels == 0).sum(1, keepdims=True)
    weights = (labels == 1) / np.maximum(n_positive, 1) - (labels == 0) / np.maximum(n_negative, 1)
    return np.where((n_positive > 0) & (n_negative > 0), weights, 0.0)


def mean_differences(
    x: Float32[np.ndarray, "row d_model"], targets: Targets
) -> Float32[np.ndarray, "target d_model"]:
    """One mean difference a target."""
    weights = coefficients(targets.labels)
    if len(weights) > FEW:
        return weights.astype(np.float32) @ centred(x)
    found = np.empty((len(weights), x.shape[1]), dtype=np.float32)
    for start in range(0, x.shape[1], COLUMNS):
        columns = slice(start, start + COLUMNS)
        found[:, columns] = weights @ x[:, columns].astype(np.float64)
    return found
