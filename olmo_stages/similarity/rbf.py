"""CKA with a Gaussian kernel."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.errors import DataError
from olmo_stages.similarity.centring import same_unit, unit_centred
from olmo_stages.similarity.distances import squared_distances
from olmo_stages.similarity.linear import EUCLIDEAN
from olmo_stages.similarity.measure import Declared


@dataclass(frozen=True)
class RBFCKA:
    """Debiased CKA with a Gaussian kernel, its width a fraction of the median distance.

    Args:
        fraction: bandwidth in units of the median distance between rows of different units.
    """

    fraction: float = 1.0
    order: Literal[1, 2] = 2
    batch: int | None = None

    @property
    def declared(self) -> Declared:
        """What a reader may rely on."""
        return Declared(
            "rbf_cka",
            "debiased RBF CKA",
            -1.0,
            1.0,
            "similarity",
            EUCLIDEAN,
            "Kornblith et al. 2019, 1905.00414, section 3 (median heuristic), with unbiased HSIC",
        )

    def table(
        self, gram: Float[np.ndarray, "row row"], units: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row row"]:
        """U-centred kernel values.

        Raises:
            DataError: more than half of the rows are equal, so that the median distance is 0.
        """
        distances = squared_distances(gram)
        median = np.median(distances[~same_unit(units)])
        if not median > 0:
            raise DataError(
                f"{len(units)} rows with a median distance of 0: the RBF kernel has no width; "
                "remove repeated examples or choose another measure"
            )
        width = self.fraction**2 * median
        return unit_centred(np.exp(distances * (-0.5 / width)).astype(gram.dtype), units)
