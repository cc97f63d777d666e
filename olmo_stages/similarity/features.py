"""One layer's features made comparable: centred, checked, and their inner products."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.dominant import Variant, centre, dominating


@dataclass(frozen=True, eq=False)
class Features:
    """Centred features of one layer.

    Args:
        others: float32, zero mean in every dimension, and zero in the dominant ones.
        few: the dominant dimensions, centred.
        dominant: their indices: dimensions whose variance is far above the median.
        shrink: factor that scales each of them down, see `olmo_stages.dominant.dominating`.
        top: dimension with the largest variance.
        top_share: its share of the variance.
        norms: mean squared norm of a row, by variant.
    """

    others: Float[np.ndarray, "row d_model"]
    few: Float[np.ndarray, "row dominant"]
    dominant: Int[np.ndarray, " dominant"]
    shrink: Float[np.ndarray, " dominant"]
    top: int
    top_share: float
    norms: dict[Variant, float]

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, "row d_model"],
        resolution: float,
        where: str,
        *,
        overwrite: bool = False,
    ) -> "Features":
        """Centre, and find the dominant dimensions.

        Args:
            values: float32 activations of one layer.
            resolution: relative spread below which a dimension is rounding.
            where: names stage and layer in errors.
            overwrite: centre `values` themselves, which saves a copy.

        Raises:
            NonFiniteError: a value is not finite, or its square is not.
            DataError: no dimension varies by more than rounding.
        """
        centred = values if overwrite and values.flags.writeable else values.copy()
        _, variance = centre(centred, resolution, where)
        dominant, shrink = dominating(variance)
        few = centred[:, dominant]
        centred[:, dominant] = 0
        top = int(variance.argmax())
        total = float(variance.sum())
        surplus = float((variance[dominant] * (1 - shrink**2)).sum())
        return cls(
            others=centred,
            few=few,
            dominant=dominant,
            shrink=shrink,
            top=top,
            top_share=float(variance[top] / total),
            norms={"raw": total, "standardised": total - surplus},
        )

    def values(self, variant: Variant) -> Float[np.ndarray, "row d_model"]:
        """Centred features, with or without the weight of the dominant dimensions."""
        values = self.others.copy()
        values[:, self.dominant] = self._few(variant)
        return values

    def gram(
        self, variant: Variant, rows: Int[np.ndarray, " member"] | None = None
    ) -> Float[np.ndarray, "member member"]:
        """Inner products of rows, in units of the mean squared norm of all rows.

        The same unit for any choice of rows lets batches keep their weights. The dominant
        dimensions are added last, so that they do not drown the others' digits.

        Args:
            variant: see `VARIANTS`.
            rows: which; None = all.
        """
        return self.grams((variant,), rows)[variant]

    def grams(
        self, variants: tuple[Variant, ...], rows: Int[np.ndarray, " member"] | None = None
    ) -> dict[Variant, Float[np.ndarray, "member member"]]:
        """`gram` for several variants, the costly part once; the same array if they are equal."""
        values = self.others if rows is None else self.others[rows]
        base = values @ values.T
        if not len(self.dominant):
            base *= np.float32(1 / self.norms["raw"])
            return dict.fromkeys(variants, base)
        found: dict[Variant, np.ndarray] = {}
        for variant in variants:
            few = self._few(variant) if rows is None else self._few(variant)[rows]
            gram = few @ few.T
            gram += base
            gram *= np.float32(1 / self.norms[variant])
            found[variant] = gram
        return found

    def _few(self, variant: Variant) -> Float[np.ndarray, "row dominant"]:
        return self.few if variant == "raw" else self.few * self.shrink.astype(np.float32)
