"""One layer of two stages made comparable: the rows of a contrast, centred, and scaled alike."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int

from olmo_stages.dominant import Variant, centre, dominating, usual_variance
from olmo_stages.errors import PairingError

ROUNDING = 0.5
"""Root mean square of rounding, as a share of the resolution, which is a few units in the last
place; one rounding to the nearest has a tenth."""


@dataclass(frozen=True, eq=False)
class Centred:
    """One stage's rows.

    Args:
        x: centred activations.
        mean: what was subtracted.
        variance: of every dimension.
        norms: length of each row before centring.
    """

    x: Float32[np.ndarray, "row d_model"]
    mean: Float64[np.ndarray, " d_model"]
    variance: Float64[np.ndarray, " d_model"]
    norms: Float64[np.ndarray, " row"]

    @classmethod
    def of(
        cls,
        values: Float32[np.ndarray, "example d_model"],
        rows: Int[np.ndarray, " row"],
        resolution: float,
        where: str,
    ) -> "Centred":
        """Take the rows out and centre them.

        Raises:
            NonFiniteError: a value is not finite.
            DataError: no dimension varies by more than rounding.
        """
        x = values[rows]
        squares = np.einsum("rd,rd->r", x, x)
        mean, _ = centre(x, resolution, where)
        # Once more: the digits that float32 lost beside a large mean.
        rest, variance = centre(x, 0.0, where)
        return cls(x, mean + rest, variance, np.sqrt(squares.astype(np.float64)))

    def scaled(self, factor: Float32[np.ndarray, " d_model"]) -> "Centred":
        """The same with every dimension multiplied."""
        exact = factor.astype(np.float64)
        return Centred(self.x * factor, self.mean * exact, self.variance * exact**2, self.norms)

    def of_rows(self, rows: Int[np.ndarray, " chosen"]) -> "Centred":
        """Some of the rows, around the mean of all."""
        return Centred(self.x[rows], self.mean, self.variance, self.norms[rows])

    def mean_square(self) -> float:
        """Mean squared length of a row before centring."""
        return float((np.square(self.mean) + self.variance).sum())


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a stage and, where there is one, of its reference.

    Args:
        stage: rows of the stage.
        reference: the same rows of the reference; the same object if it is the same stage.
        dominant: dimensions that dominate in both together.
        shrink: the factor that scales each of them down, the same for both.
        resolution: relative spread below which a dimension is rounding.
    """

    stage: Centred
    reference: Centred | None
    dominant: Int[np.ndarray, " dominant"]
    shrink: Float64[np.ndarray, " dominant"]
    resolution: float

    @classmethod
    def of(
        cls,
        stage: Float32[np.ndarray, "example d_model"],
        reference: Float32[np.ndarray, "example_too d_model_too"] | None,
        rows: Int[np.ndarray, " row"],
        resolution: float,
        where: tuple[str, str],
    ) -> "Layer":
        """Check, centre, and find the dimensions that dominate.

        Dominance is a matter of both stages: their variances are added, each in units of its own
        median, so that neither the order nor the scale of the stages counts.

        Args:
            stage: activations of all examples.
            reference: of the same examples; None = the stage alone.
            rows: the examples of the contrast.
            resolution: relative spread below which a dimension is rounding.
            where: names of stage and reference in errors.

        Raises:
            PairingError: the stages have other examples or another d_model.
        """
        if reference is not None and reference.shape != stage.shape:
            (n, d), (n_too, d_too) = stage.shape, reference.shape
            raise PairingError(
                f"{where[0]} has d_model {d} and {n} examples, {where[1]} has d_model {d_too} and "
                f"{n_too}: vectors can be compared only between stages of one width, on the same "
                "examples; choose a reference of the same family and size"
            )
        x = Centred.of(stage, rows, resolution, where[0])
        pooled = x.variance / usual_variance(x.variance)
        y = None
        if reference is not None:
            y = x if reference is stage else Centred.of(reference, rows, resolution, where[1])
            pooled = pooled + y.variance / usual_variance(y.variance)
        dominant, shrink = dominating(pooled)
        return cls(x, y, dominant, shrink, resolution)

    def factor(self, variant: Variant) -> Float32[np.ndarray, " d_model"]:
        """By what each dimension is multiplied."""
        factor = np.ones(self.stage.x.shape[1], dtype=np.float32)
        if variant == "standardised":
            factor[self.dominant] = self.shrink
        return factor

    def sides(self, variant: Variant) -> tuple[Centred, Centred | None]:
        """Both stages with the weight that a variant gives to dominant dimensions."""
        if variant == "raw" or not len(self.dominant):
            return self.stage, self.reference
        factor = self.factor(variant)
        x = self.stage.scaled(factor)
        if self.reference is None:
            return x, None
        return x, x if self.reference is self.stage else self.reference.scaled(factor)
