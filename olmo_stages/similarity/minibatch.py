"""CKA from minibatches: for more rows than one table can hold."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.errors import ConfigError
from olmo_stages.similarity.centring import unit_centred
from olmo_stages.similarity.linear import EUCLIDEAN
from olmo_stages.similarity.measure import Declared


@dataclass(frozen=True)
class MinibatchCKA:
    """Debiased linear CKA as a ratio of sums of unbiased HSIC over minibatches.

    Never a mean of the batches' CKA, which is biased at any number of batches.

    Args:
        batch: rows of a minibatch.
    """

    batch: int | None
    order: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        if self.batch is None or self.batch < 4:
            raise ConfigError(f"analysis.batch={self.batch}: a minibatch has at least 4 rows")

    @property
    def declared(self) -> Declared:
        """What a reader may rely on."""
        return Declared(
            "minibatch_cka",
            "minibatch debiased linear CKA",
            -1.0,
            1.0,
            "similarity",
            EUCLIDEAN,
            "Nguyen et al. 2021, 2010.15327, eq. 2-3",
        )

    def table(
        self, gram: Float[np.ndarray, "row row"], units: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row row"]:
        """U-centred inner products of one minibatch, so scaled that products sum to its HSIC.

        With one row a unit that is a division by n (n - 3); copies of all rows change nothing.
        """
        n_units = len(np.unique(units))
        table = unit_centred(gram, units)
        table *= 1 / (len(units) * np.sqrt(1 - 3 / n_units))
        return table
