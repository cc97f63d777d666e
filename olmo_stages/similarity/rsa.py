"""Representational similarity analysis."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from olmo_stages.errors import DataError
from olmo_stages.similarity.centring import same_unit
from olmo_stages.similarity.distances import squared_distances
from olmo_stages.similarity.linear import EUCLIDEAN
from olmo_stages.similarity.measure import Declared


@dataclass(frozen=True)
class RSA:
    """Spearman correlation of squared Euclidean distances between rows."""

    order: Literal[1, 2] = 2
    batch: int | None = None

    @property
    def declared(self) -> Declared:
        """What a reader may rely on."""
        return Declared(
            "rsa",
            "RSA (Spearman of distances)",
            -1.0,
            1.0,
            "similarity",
            EUCLIDEAN,
            "Kriegeskorte et al. 2008; ranks as recommended there, Euclidean instead of "
            "correlation distance",
        )

    def table(
        self, gram: Float[np.ndarray, "row row"], units: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row row"]:
        """Centred ranks of the distances between units.

        Raises:
            DataError: all distances are equal.
        """
        upper = np.triu(~same_unit(units), 1)
        ranks = rankdata(squared_distances(gram)[upper])
        if np.ptp(ranks) == 0:
            raise DataError(
                f"all {len(ranks)} distances between rows are equal: no rank to compare"
            )
        table = np.zeros_like(gram)
        table[upper] = (ranks - ranks.mean()) / ranks.std()
        return table + table.T
