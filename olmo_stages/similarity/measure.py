"""What a similarity measure declares, and the two kinds there are.

A pair table says how every row relates to every other one; the score of two tables is their cosine,
so that all pairs of layers come from one table a layer. A fitted measure is computed for each pair
of layers anew.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

Invariance = Literal[
    "orthogonal", "isotropic_scale", "translation", "permutation", "invertible_linear"
]
"""Transformations of the features of either side; `permutation` is one of the dimensions."""


@dataclass(frozen=True)
class Declared:
    """What a reader may rely on.

    Args:
        name: how it is chosen and what its rows are called.
        title: for axes.
        low: smallest value.
        high: largest value, reached by identical inputs.
        orientation: `similarity` if larger means more alike.
        invariances: transformations that leave the score alone, up to rounding.
        source: paper, and any difference from it.
    """

    name: str
    title: str
    low: float
    high: float
    orientation: Literal["similarity", "distance"]
    invariances: frozenset[Invariance]
    source: str


@runtime_checkable
class PairTable(Protocol):
    """A measure whose score is the cosine of two tables."""

    @property
    def declared(self) -> Declared:
        """What a reader may rely on."""
        ...

    @property
    def order(self) -> Literal[1, 2]:
        """2 if the table is symmetric, so that half of it holds everything; 1 if not."""
        ...

    @property
    def batch(self) -> int | None:
        """Rows that are compared with one another; None = all."""
        ...

    def table(
        self, gram: Float[np.ndarray, "row row"], units: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row row"]:
        """Turn inner products of centred features into the table; `gram` is left as it is.

        Rows of one unit are not independent of one another; unless the measure says otherwise,
        the table is zero there.
        """
        ...


@runtime_checkable
class Fitted(Protocol):
    """A measure that is fitted to a pair of layers."""

    @property
    def declared(self) -> Declared:
        """What a reader may rely on."""
        ...

    def prepare(
        self, values: Float[np.ndarray, "row d_model"]
    ) -> Float[np.ndarray, "row component"]:
        """Reduce the features of one layer, once."""
        ...

    def score(
        self,
        x: Float[np.ndarray, "row component"],
        y: Float[np.ndarray, "row other_component"],
        groups: Int[np.ndarray, " row"],
    ) -> float:
        """Compare two reduced layers; `groups` are what is independent."""
        ...
