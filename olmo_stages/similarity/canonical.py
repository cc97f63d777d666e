"""Canonical correlations between two layers: their mean (SVCCA), or weighted (PWCCA).

Canonical correlations are the cosines of the principal angles between the spaces that the columns
span. They are fitted and scored on the same rows and biased upwards: with k components a side and
n rows, unrelated layers average 0.85 sqrt(k / n) while that is small, 0.27 at ten rows a component
(Wachter 1980), and 1 where the components together are as many as rows. `few_rows` warns; the
permutation null shows how much of a score it is.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg

from olmo_stages.errors import ConfigError, DataError
from olmo_stages.similarity.components import centred, principal_components
from olmo_stages.similarity.linear import EUCLIDEAN
from olmo_stages.similarity.measure import Declared, Invariance

ROWS_PER_COMPONENT = 10
"""With fewer rows a component a reader is warned."""

EXPLAINED = 1e-6
"""A column with less of itself left after the others, relative to its length, adds no direction."""


@dataclass(frozen=True)
class SVCCA:
    """Mean canonical correlation of the principal components that hold a share of the variance.

    Every kept component counts alike, so that the score hangs on which components the cut lets
    through: a jackknife of rows with the components held fixed saw a quarter of the standard
    deviation over samples (0.003 of 0.013; 200 rows, 13 components of 32 dimensions), and one that
    chooses them anew three times as much. With `variance=1` it is right; `PWCCA` suffers less.

    Args:
        variance: share of the variance kept, in (0, 1]. 1 keeps every component above rounding,
            and is then the mean canonical correlation of the layers themselves.
    """

    variance: float

    def __post_init__(self) -> None:
        _check_share(self.variance)

    @property
    def declared(self) -> Declared:
        """What a reader may rely on; cutting off directions of little variance is not affine."""
        affine: frozenset[Invariance] = frozenset(("invertible_linear",))
        return Declared(
            "svcca",
            f"SVCCA, {self.variance:.4g} of the variance",
            0.0,
            1.0,
            "similarity",
            EUCLIDEAN | affine if self.variance == 1 else EUCLIDEAN,
            "Raghu et al. 2017, 1706.05806, section 2.1; the share is one of variance (squared "
            "singular values), where the authors' notebook sums the singular values",
        )

    def prepare(
        self, values: Float[np.ndarray, "row d_model"]
    ) -> Float[np.ndarray, "row component"]:
        """Scores on the components kept; the number of columns is the number kept.

        Raises:
            DataError: fewer than 4 rows, or no dimension varies.
            NonFiniteError: a value is not finite.
        """
        return principal_components(values, variance=self.variance)

    def score(
        self,
        x: Float[np.ndarray, "row component"],
        y: Float[np.ndarray, "row other_component"],
        groups: Int[np.ndarray, " row"],  # noqa: ARG002
    ) -> float:
        """Mean canonical correlation, over as many as the smaller side has directions.

        Args:
            x: prepared layer, or some of its rows.
            y: the other one, same rows.
            groups: not used: nothing is held out.

        Raises:
            DataError: so few rows that correlations of 1 are forced, or a side that is constant.
        """
        return float(canonical_correlations(x, y).mean())


@dataclass(frozen=True)
class PWCCA:
    """Canonical correlations weighted by how much of the neurons each variate accounts for.

    The weights come from one side; the score is the mean of both choices of that side.

    Args:
        variance: share of the variance kept first, in (0, 1], the principal components then taking
            the place of the neurons; None = the neurons themselves, as in the paper, which needs
            more rows than both sides have neurons.
    """

    variance: float | None

    def __post_init__(self) -> None:
        if self.variance is not None:
            _check_share(self.variance)

    @property
    def declared(self) -> Declared:
        """What a reader may rely on.

        Sums of absolute values over neurons change with a rotation of the neurons; principal
        components turn with them.
        """
        neurons: frozenset[Invariance] = frozenset((
            "isotropic_scale",
            "translation",
            "permutation",
        ))
        kept = "" if self.variance is None else f", {self.variance:.4g} of the variance"
        return Declared(
            "pwcca",
            "PWCCA" + kept,
            0.0,
            1.0,
            "similarity",
            neurons if self.variance is None else EUCLIDEAN,
            "Morcos et al. 2018, 1806.05759, section 2.2; mean of the two choices of the side that "
            "gives the weights, where the paper takes the first side and the authors' code the one "
            "with fewer neurons; variates are centred"
            + (kept and "; principal components instead of neurons"),
        )

    def prepare(
        self, values: Float[np.ndarray, "row d_model"]
    ) -> Float[np.ndarray, "row component"]:
        """Centred neurons, or scores on the components kept.

        Raises:
            DataError: fewer than 4 rows, or no dimension varies.
            NonFiniteError: a value is not finite.
        """
        if self.variance is None:
            return centred(values)
        return principal_components(values, variance=self.variance)

    def score(
        self,
        x: Float[np.ndarray, "row component"],
        y: Float[np.ndarray, "row other_component"],
        groups: Int[np.ndarray, " row"],  # noqa: ARG002
    ) -> float:
        """Projection-weighted mean canonical correlation, the mean of both sides' weights.

        Args:
            x: prepared layer, or some of its rows.
            y: the other one, same rows.
            groups: not used: nothing is held out.

        Raises:
            DataError: so few rows that correlations of 1 are forced, or a side that is constant.
        """
        return float(np.mean(projection_weighted(x, y)))


def canonical_correlations(
    x: Float[np.ndarray, "row component"], y: Float[np.ndarray, "row other_component"]
) -> Float[np.ndarray, " direction"]:
    """Canonical correlations, largest first, as many as the smaller side has directions.

    Raises:
        DataError: so few rows that correlations of 1 are forced, or a side that is constant.
    """
    first, second = _bases(x, y)
    return np.clip(np.linalg.svd(first.T @ second, compute_uv=False), 0, 1)


def projection_weighted(
    x: Float[np.ndarray, "row component"], y: Float[np.ndarray, "row other_component"]
) -> tuple[float, float]:
    """Projection-weighted canonical correlation, with the weights of `x` and with those of `y`.

    The weight of a canonical variate h of a side is the sum of |<h, neuron>| over its neurons, the
    columns; it does not matter whether they are centred, since h is.

    Raises:
        DataError: so few rows that correlations of 1 are forced, or a side that is constant.
    """
    first, second = _bases(x, y)
    u, correlations, vt = np.linalg.svd(first.T @ second, full_matrices=False)
    correlations = np.clip(correlations, 0, 1)
    x_weights = np.abs((first @ u).T @ x).sum(axis=1)
    y_weights = np.abs((second @ vt.T).T @ y).sum(axis=1)
    return (
        float(np.average(correlations, weights=x_weights)),
        float(np.average(correlations, weights=y_weights)),
    )


def few_rows(n_rows: int, n_components: int) -> str:
    """What a reader must know if there are fewer than ten rows a component, else an empty string.

    Args:
        n_rows: number of rows.
        n_components: columns of the larger prepared side.
    """
    if n_rows >= ROWS_PER_COMPONENT * n_components:
        return ""
    return (
        f"{n_rows} rows for {n_components} components, fewer than {ROWS_PER_COMPONENT} a "
        "component: canonical correlations of unrelated layers are high too; compare with the null"
    )


def _check_share(variance: float) -> None:
    if not 0 < variance <= 1:
        raise ConfigError(f"variance={variance}: give a share above 0 and at most 1, such as 0.99")


def _bases(
    x: Float[np.ndarray, "row component"], y: Float[np.ndarray, "row other_component"]
) -> tuple[Float[np.ndarray, "row direction"], Float[np.ndarray, "row other_direction"]]:
    """Orthonormal bases of the spaces that the centred columns of two sides span.

    Raises:
        DataError: so few rows that correlations of 1 are forced, or a side that is constant.
    """
    first, second = _basis(x), _basis(y)
    n_rows, both = len(x), first.shape[1] + second.shape[1]
    if both >= n_rows:
        raise DataError(
            f"{first.shape[1]} and {second.shape[1]} components of {n_rows} rows: "
            f"{min(both - n_rows + 1, first.shape[1], second.shape[1])} canonical correlations "
            "would be 1 whatever the data; give more rows than both sides have components, or "
            "keep less of the variance"
        )
    return first, second


def _basis(side: Float[np.ndarray, "row component"]) -> Float[np.ndarray, "row direction"]:
    """Orthonormal basis of the centred columns; one that the others explain adds no direction.

    Raises:
        DataError: every column is constant.
    """
    columns = side - side.mean(axis=0)
    lengths = np.linalg.norm(columns, axis=0)
    # A component may live in rows that were left out of this subset.
    varying = lengths > len(side) * np.finfo(np.float64).eps * np.linalg.norm(side, axis=0)
    if not varying.any():
        raise DataError(
            f"constant features: none of {side.shape[1]} components varies over {len(side)} rows; "
            "read another position, or leave the layer out with analysis.layers"
        )
    factors = linalg.qr(columns[:, varying] / lengths[varying], mode="economic", pivoting=True)
    basis, triangle, _ = cast(tuple[np.ndarray, np.ndarray, np.ndarray], factors)
    return basis[:, : int(np.sum(np.abs(np.diag(triangle)) > EXPLAINED))]
