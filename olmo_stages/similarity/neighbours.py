"""Mutual nearest neighbours."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.errors import ConfigError, DataError
from olmo_stages.similarity.centring import same_unit
from olmo_stages.similarity.distances import squared_distances
from olmo_stages.similarity.linear import EUCLIDEAN
from olmo_stages.similarity.measure import Declared


@dataclass(frozen=True)
class MutualKNN:
    """Share of each row's k nearest neighbours that both sides agree on; k/(n-1) by chance.

    Args:
        neighbours: k.
    """

    neighbours: int
    order: Literal[1, 2] = 1
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ConfigError(f"analysis.neighbours={self.neighbours}: give at least 1")

    @property
    def declared(self) -> Declared:
        """What a reader may rely on."""
        return Declared(
            "mutual_knn",
            "mutual nearest neighbours",
            0.0,
            1.0,
            "similarity",
            EUCLIDEAN,
            "Huh et al. 2024, 2405.07987, appendix A, with Euclidean distances of the features "
            "instead of inner products of normalised ones",
        )

    def table(
        self, gram: Float[np.ndarray, "row row"], units: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row row"]:
        """1 where the column is among the row's nearest neighbours of other units, else 0.

        Raises:
            DataError: fewer than k + 1 rows of other units.
        """
        inside = same_unit(units)
        others = int((~inside).sum(axis=1).min())
        if others <= self.neighbours:
            raise DataError(
                f"{self.neighbours} nearest neighbours among {others} rows: every row would be "
                "one; lower analysis.neighbours or give more examples"
            )
        distances = squared_distances(gram)
        distances[inside] = np.inf
        nearest = np.argpartition(distances, self.neighbours - 1, axis=1)[:, : self.neighbours]
        table = np.zeros_like(gram)
        np.put_along_axis(table, nearest, 1, axis=1)
        return table
