"""Inner products of mean differences, with and without what a group shares with itself.

A mean difference is a sum over groups, v = sum_g (a_g - b_g), where a_g and b_g are the sums of the
group's positive and negative examples over the number of all positive and negative examples. The
inner product of the vectors of two stages is a sum over pairs of groups. A group with itself shares
its sampling noise, within a stage and, since both read the same examples, between stages; pairs of
different groups share the signal only. Their mean estimates the inner product of the true vectors
without bias, class by class, so that groups of one class and groups of both are served alike:

    signal = <a, a'> - <a, b'> - <b, a'> + <b, b'>,  each over pairs of different groups, divided by
    the share of weight that such pairs have.

All of it is a few numbers a group, from which the values without any one group follow exactly.

Source:
    Hoeffding 1948 (U-statistics); the same idea as cross-validated distances, Walther et al. 2016.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from olmo_stages.vectors.contrast import Contrast

COLUMNS = 512
"""Columns of float64 copies that are alive at a time."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The examples of one group and one label, cell by cell.

    Args:
        order: rows sorted by cell.
        starts: first place of each cell in that order.
        label: of each cell.
        group: of each cell.
        size: rows of each cell.
        both: for every group with both labels, its cells of label 0 and of label 1.
        share: of the examples of label 0 and 1, the share that each group holds.
    """

    order: Int[np.ndarray, " row"]
    starts: Int[np.ndarray, " cell"]
    label: Int[np.ndarray, " cell"]
    group: Int[np.ndarray, " cell"]
    size: Int[np.ndarray, " cell"]
    both: Int[np.ndarray, "mixed 2"]
    share: Float64[np.ndarray, "group 2"]

    @classmethod
    def of(cls, contrast: Contrast) -> "Cells":
        """Cells of a contrast."""
        key = 2 * contrast.groups + contrast.labels
        order = np.argsort(key, kind="stable")
        names, starts, size = np.unique(key[order], return_index=True, return_counts=True)
        label, group = names % 2, names // 2
        first = np.flatnonzero(group[1:] == group[:-1])
        share = np.zeros((contrast.n_groups, 2))
        share[group, label] = size / np.bincount(contrast.labels, minlength=2)[label]
        return cls(order, starts, label, group, size, np.stack([first, first + 1], axis=1), share)

    def sums(self, x: Float32[np.ndarray, "row d_model"]) -> Float32[np.ndarray, "cell d_model"]:
        """Sum of each cell over the number of examples of its label."""
        sums = x[self.order]
        if len(self.starts) < len(self.order):
            sums = np.add.reduceat(sums, self.starts, axis=0)
        sums *= (self.share[self.group, self.label] / self.size).astype(np.float32)[:, None]
        return sums


@dataclass(frozen=True, eq=False)
class Products:
    """Inner products of the class means of two stages, all groups first, then without each one.

    They add over columns.

    Args:
        sums: between the means of label l of the one and of label m of the other, over the number
            of all examples.
        selves: the part of it that groups have with themselves.
    """

    sums: Float64[np.ndarray, "left_out 2 2"]
    selves: Float64[np.ndarray, "left_out 2 2"]

    def __add__(self, other: "Products") -> "Products":
        return Products(self.sums + other.sums, self.selves + other.selves)

    @classmethod
    def of(
        cls,
        x: Float[np.ndarray, "cell column"],
        y: Float[np.ndarray, "cell column"],
        cells: Cells,
    ) -> "Products":
        """From the cells' sums of two stages, or twice of one."""
        own = np.zeros((len(cells.share), 2, 2))
        left, right, total = np.zeros_like(own), np.zeros_like(own), np.zeros((2, 2))
        label = cells.label
        indicator = (label == np.array([[0], [1]])).astype(np.float64)
        zero, one = cells.both.T
        mixed = cells.group[zero]
        for start in range(0, x.shape[1], COLUMNS):
            columns = slice(start, start + COLUMNS)
            a = x[:, columns].astype(np.float64)
            b = a if y is x else y[:, columns].astype(np.float64)
            mean_a, mean_b = indicator @ a, indicator @ b
            total += mean_a @ mean_b.T
            left[cells.group, label] += a @ mean_b.T
            right[cells.group, :, label] += b @ mean_a.T
            own[cells.group, label, label] += np.einsum("cd,cd->c", a, b)
            own[mixed, 0, 1] += np.einsum("cd,cd->c", a[zero], b[one])
            own[mixed, 1, 0] += np.einsum("cd,cd->c", a[one], b[zero])
        sums = np.concatenate([total[None], total - left - right + own])
        whole = own.sum(axis=0)
        return cls(sums, np.concatenate([whole[None], whole - own]))


@dataclass(frozen=True, eq=False)
class Moments:
    """What the products say about two vectors: all groups first, then without each one.

    Args:
        inner: inner product of the two vectors.
        signal: its unbiased estimate without shared noise.
        means: inner products of the class means, [label of the one, label of the other].
    """

    inner: Float64[np.ndarray, " left_out"]
    signal: Float64[np.ndarray, " left_out"]
    means: Float64[np.ndarray, "left_out 2 2"]

    @classmethod
    def of(cls, products: Products, cells: Cells) -> "Moments":
        """Scale for the examples that are left, and take self-pairs out."""
        scale = remaining(cells.share)
        squares = cells.share[:, :, None] * cells.share[:, None, :]
        own = squares.sum(axis=0)
        weight = scale[:, :, None] * scale[:, None, :]
        selves = weight * np.concatenate([own[None], own - squares])
        means = weight * products.sums
        sign = np.array([[1.0, -1.0], [-1.0, 1.0]])
        crossed = weight * (products.sums - products.selves) / (1 - selves)
        return cls((sign * means).sum((1, 2)), (sign * crossed).sum((1, 2)), means)


def remaining(share: Float[np.ndarray, "group 2"]) -> Float64[np.ndarray, "left_out 2"]:
    """By what sums over all examples are multiplied to be means over those that are left."""
    return np.concatenate([np.ones((1, 2)), 1 / (1 - share)])
