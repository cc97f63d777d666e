"""Linear centred kernel alignment, debiased and biased."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.similarity.centring import doubly_centred, unit_centred
from olmo_stages.similarity.measure import Declared, Invariance

EUCLIDEAN: frozenset[Invariance] = frozenset((
    "orthogonal",
    "isotropic_scale",
    "translation",
    "permutation",
))
"""What measures of inner products or distances do not see."""


@dataclass(frozen=True)
class DebiasedCKA:
    """Linear CKA from unbiased estimates of HSIC; about 0, and possibly below, if unrelated."""

    order: Literal[1, 2] = 2
    batch: int | None = None

    @property
    def declared(self) -> Declared:
        """What a reader may rely on."""
        return Declared(
            "debiased_cka",
            "debiased linear CKA",
            -1.0,
            1.0,
            "similarity",
            EUCLIDEAN,
            "Kornblith et al. 2019, 1905.00414; Murphy et al. 2024, 2405.01012, with the unbiased "
            "HSIC in numerator and denominator",
        )

    def table(
        self, gram: Float[np.ndarray, "row row"], units: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row row"]:
        """U-centred inner products."""
        return unit_centred(gram, units)


@dataclass(frozen=True)
class BiasedCKA:
    """Linear CKA as first published; near 1 for anything once rows are fewer than dimensions."""

    order: Literal[1, 2] = 2
    batch: int | None = None

    @property
    def declared(self) -> Declared:
        """What a reader may rely on."""
        return Declared(
            "biased_cka",
            "biased linear CKA",
            0.0,
            1.0,
            "similarity",
            EUCLIDEAN,
            "Kornblith et al. 2019, 1905.00414, eq. 4; biased by about d/(n+d), Murphy et al. 2024",
        )

    def table(
        self, gram: Float[np.ndarray, "row row"], units: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row row"]:
        """Doubly centred inner products, pairs within a unit and the diagonal included."""
        del units
        return doubly_centred(gram)
