"""What discriminants would be without any one group, the covariance included, in closed form.

Without the rows k the sums of squares T = X'X + ridge I lose X_k' E X_k, where E = I +
11'/(n - n_k) also moves the mean. With W = X T^-1 and P = X T^-1 X' Woodbury's identity gives

    T_k^-1 u = T^-1 u + W_k' F W_k u,    F = (I - 11'/n - P_kk)^-1,

so that every inner product without group k is the one with it plus a few products with the group's
own rows. Fitting the layer anew for every group would cost hundreds of times as much; leaving the
covariance as it is would make the intervals too narrow.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from olmo_stages.vectors.cells import Cells, Products
from olmo_stages.vectors.kinds import whitened


@dataclass(frozen=True, eq=False)
class Whitened:
    """One stage's side, rows sorted by cell.

    Args:
        w: X T^-1.
        gram: X T^-1 X', [row, row].
        cells: the same summed over the rows of each cell, over the number of rows of its label.
    """

    w: Float64[np.ndarray, "row d_model"]
    gram: Float64[np.ndarray, "row row"]
    cells: Float64[np.ndarray, "row cell"]

    @classmethod
    def of(cls, x: Float64[np.ndarray, "row d_model"], ridge: float, cells: Cells) -> "Whitened":
        """From centred activations."""
        ordered = x[cells.order]
        w = whitened(ordered, ridge)
        gram = ordered @ w.T
        return cls(w, gram, _cell_sums(gram, cells))

    def features(self, cells: Cells) -> Float32[np.ndarray, "row d_model"]:
        """Features whose mean difference is the discriminant, rows in their own order."""
        found = np.empty(self.w.shape, dtype=np.float32)
        found[cells.order] = len(self.w) * self.w
        return found

    def pulls(self, rows: slice) -> Float64[np.ndarray, "member cell"]:
        """F P_k: by how much each of the group's rows enters a cell's sum once the group is out."""
        own = self.gram[rows, rows]
        system = np.eye(len(own)) - 1 / len(self.w) - own
        return np.linalg.solve(system, self.cells[rows])


def without_each_group(x: Whitened, y: Whitened, cells: Cells) -> Products:
    """Products of the cells' discriminants of two stages, or twice of one."""
    base = Products.of(_row_sums(x.w, cells), _row_sums(y.w, cells), cells)
    cross = x.w @ y.w.T
    right, left = _cell_sums(cross, cells), _cell_sums(cross.T, cells)
    ends = np.append(cells.starts, len(cells.order))
    member = (cells.label[:, None] == np.array([0, 1])).astype(np.float64)
    sums, selves = base.sums.copy(), base.selves.copy()
    for group in range(len(cells.share)):
        own = np.flatnonzero(cells.group == group)
        rows = slice(ends[own[0]], ends[own[-1] + 1])
        kept = (cells.group != group).astype(np.float64)
        pull_x = x.pulls(rows) * kept
        pull_y = pull_x if y is x else y.pulls(rows) * kept
        half = cross[rows, rows] @ pull_y + right[rows] * kept
        change = _Change(pull_x, pull_y, half, left[rows] * kept)
        sums[group + 1] += change.between(member)
        selves[group + 1] += change.within(cells)
    return Products(sums, selves)


@dataclass(frozen=True, eq=False)
class _Change:
    """By how much inner products of cells change when one group leaves the covariance.

    Args:
        x: pulls of the one stage.
        y: pulls of the other.
        half: products of the group's rows with the other stage's cells, already changed.
        left: products of the group's rows with the one stage's cells.
    """

    x: Float64[np.ndarray, "member cell"]
    y: Float64[np.ndarray, "member cell"]
    half: Float64[np.ndarray, "member cell"]
    left: Float64[np.ndarray, "member cell"]

    def between(self, member: Float64[np.ndarray, "cell 2"]) -> Float64[np.ndarray, "2 2"]:
        """Summed over all pairs of cells, by their labels."""
        turned = (self.x @ member).T @ (self.half @ member)
        return turned + (self.left @ member).T @ (self.y @ member)

    def within(self, cells: Cells) -> Float64[np.ndarray, "2 2"]:
        """Summed over pairs of cells of one group, by their labels."""
        found = np.zeros((2, 2))
        zero, one = cells.both.T
        every = self._pairs(slice(None), slice(None))
        np.add.at(found, (cells.label, cells.label), every)
        found[0, 1] += self._pairs(zero, one).sum()
        found[1, 0] += self._pairs(one, zero).sum()
        return found

    def _pairs(self, a: slice | np.ndarray, b: slice | np.ndarray) -> Float64[np.ndarray, " pair"]:
        return (self.x[:, a] * self.half[:, b] + self.left[:, a] * self.y[:, b]).sum(0)


def _row_sums(
    values: Float64[np.ndarray, "row column"], cells: Cells
) -> Float64[np.ndarray, "cell column"]:
    """Sums over the rows of each cell, over the number of rows of its label."""
    weight = cells.share[cells.group, cells.label] / cells.size
    return np.add.reduceat(values, cells.starts, axis=0) * weight[:, None]


def _cell_sums(
    values: Float64[np.ndarray, "row other"], cells: Cells
) -> Float64[np.ndarray, "row cell"]:
    return np.ascontiguousarray(_row_sums(values.T, cells).T)
