"""Cosines of many relabelled vectors of two stages, as matrix products."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int, Int8

COLUMNS = 1024
"""Columns of the relabelled vectors that are alive at a time, so that they stay in the cache."""


@dataclass(frozen=True, eq=False)
class Units:
    """Rows that all relabellings move together, summed with the sign they have within their unit.

    With centred features the mean difference of a relabelling is proportional to the sum of all
    rows, each with the sign of its label. Rows whose signs always agree, or always disagree, as
    those of a group that swaps its labels, enter it by one sum, which is taken once.

    Args:
        order: rows sorted by unit.
        starts: first place of each unit in that order.
        own: sign of each row, in that order, within its unit.
        signs: sign of each unit in each relabelling.
    """

    order: Int[np.ndarray, " row"]
    starts: Int[np.ndarray, " unit"]
    own: Float32[np.ndarray, " row"]
    signs: Float32[np.ndarray, "permutation unit"]

    @classmethod
    def of(cls, labels: Int8[np.ndarray, "permutation row"]) -> "Units":
        """Units of relabellings."""
        signs = 2 * labels - 1
        first = signs[:1] if len(signs) else np.ones_like(signs, shape=(1, signs.shape[1]))
        patterns = np.packbits((signs * first) > 0, axis=0).T
        unit = np.unique(patterns, axis=0, return_inverse=True)[1].ravel()
        order = np.argsort(unit, kind="stable")
        starts = np.flatnonzero(np.diff(unit[order], prepend=-1))
        rows = order[starts]
        return cls(
            order,
            starts,
            first[0, order].astype(np.float32),
            (signs * first)[:, rows].astype(np.float32),
        )

    def sums(self, x: Float32[np.ndarray, "row column"]) -> Float32[np.ndarray, "unit column"]:
        """Signed sums of the rows of each unit."""
        signed = x[self.order]
        signed *= self.own[:, None]
        if len(self.starts) == len(self.order):
            return signed
        return np.add.reduceat(signed, self.starts, axis=0)


@dataclass(frozen=True, eq=False)
class Dots:
    """Inner products of vectors of a stage and its reference; they add over columns.

    Args:
        stage: squared length of each vector of the stage.
        reference: of each vector of the reference.
        same: inner product of vectors of the same target.
        other: of the stage's with the reference's vector of its partner.
    """

    stage: Float64[np.ndarray, " target"]
    reference: Float64[np.ndarray, " target"]
    same: Float64[np.ndarray, " target"]
    other: Float64[np.ndarray, " target"]

    @classmethod
    def of(
        cls,
        x: Float32[np.ndarray, "target column"],
        y: Float32[np.ndarray, "target column"],
        partner: Int[np.ndarray, " target"],
    ) -> "Dots":
        """From the vectors of both stages."""
        squares = _rowwise(x, x)
        return cls(
            squares,
            squares if y is x else _rowwise(y, y),
            squares if y is x else _rowwise(x, y),
            _rowwise(x, y[partner]),
        )

    @classmethod
    def products(
        cls,
        weights: Float32[np.ndarray, "target row"],
        x: Float32[np.ndarray, "row column"],
        y: Float32[np.ndarray, "row column"],
        partner: Int[np.ndarray, " target"],
    ) -> "Dots":
        """From weights of the rows, a block of columns at a time."""
        zeros = np.zeros(len(weights))
        found = cls(zeros, zeros, zeros, zeros)
        for start in range(0, x.shape[1], COLUMNS):
            columns = slice(start, start + COLUMNS)
            first = weights @ x[:, columns]
            second = first if y is x else weights @ y[:, columns]
            found += cls.of(first, second, partner)
        return found

    def __add__(self, other: "Dots") -> "Dots":
        return Dots(
            self.stage + other.stage,
            self.reference + other.reference,
            self.same + other.same,
            self.other + other.other,
        )

    def cosines(self) -> Float64[np.ndarray, " target"]:
        """Cosine of the two vectors of each target; NaN where one has no length."""
        return _ratio(self.same, self.stage * self.reference)

    def crossed(self, partner: Int[np.ndarray, " target"]) -> Float64[np.ndarray, " target"]:
        """Cosine of each of the stage's vectors with the reference's of its partner."""
        return _ratio(self.other, self.stage * self.reference[partner])


def _ratio(
    product: Float64[np.ndarray, " target"], squares: Float64[np.ndarray, " target"]
) -> Float64[np.ndarray, " target"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return product / np.sqrt(squares)


def _rowwise(
    x: Float32[np.ndarray, "target column"], y: Float32[np.ndarray, "target column"]
) -> Float64[np.ndarray, " target"]:
    return np.einsum("tc,tc->t", x, y).astype(np.float64)
