"""Inner products of mean differences, with and without what a group shares with itself.

A mean difference is a sum over groups, v = sum_g (a_g - b_g), where a_g and b_g are the sums of the
group's positive and negative examples over the number of all positive and negative examples. The
inner product of the vectors of two stages is a sum over pairs of groups. A group with itself shares
its sampling noise, within a stage and, since both read the same examples, between stages;
differences of examples of different groups share the signal only. The mean over all of those,

    signal = mean of <x_i - x_j, y_k - y_l>, i and k positive, j and l negative, where neither the
    group of i nor that of j is the group of k or of l,

estimates the inner product of the true vectors without bias, and takes no note of where the origin
is: a mean of all examples that is subtracted holds a share of every group's noise, a large one of a
large group's.

The share of the quadruples that a pair of examples is in is a polynomial in what their two groups
hold of the examples of both labels. So all of it is a few numbers a group (`FEATURES`), from which
the values without any one group follow exactly.

Source:
    Hoeffding 1948 (U-statistics); the same idea as cross-validated distances, Walther et al. 2016.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from olmo_stages.vectors.contrast import Contrast

COLUMNS = 512
"""Columns of float64 copies that are alive at a time."""

POWERS = ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1))
"""Powers of the share that a group holds of the other label, and of its own, by which its sums are
multiplied to give the features of a label."""

FEATURES = tuple((label, power) for label in (0, 1) for power in POWERS)
"""Label, and powers of the shares of the other label and of its own."""


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

    def features(self) -> Float64[np.ndarray, "cell feature"]:
        """By what the sum of a cell is multiplied in each feature."""
        mine = self.share[self.group, self.label]
        its = self.share[self.group, 1 - self.label]
        return np.stack(
            [(self.label == label) * its**other * mine**own for label, (other, own) in FEATURES],
            axis=1,
        )

    def basis(self) -> tuple[Float64[np.ndarray, "cell part"], Float64[np.ndarray, "feature part"]]:
        """Factors of as few sums as tell the features, and how these are made of them.

        Where all groups of a label hold the same shares, its features are multiples of one sum.
        """
        every = self.features()
        constant = every.max(axis=0)
        plain = np.stack([self.label == label for label in (0, 1)], axis=1).astype(np.float64)
        mixture = constant[:, None] * [[label == 0, label == 1] for label, _ in FEATURES]
        if np.allclose(plain @ mixture.T, every, rtol=1e-9, atol=0):
            return plain, mixture
        return every, np.eye(len(FEATURES))

    def sums(self, x: Float32[np.ndarray, "row d_model"]) -> Float32[np.ndarray, "cell d_model"]:
        """Sum of each cell over the number of examples of its label."""
        sums = x[self.order]
        if len(self.starts) < len(self.order):
            sums = np.add.reduceat(sums, self.starts, axis=0)
        sums *= (self.share[self.group, self.label] / self.size).astype(np.float32)[:, None]
        return sums


@dataclass(frozen=True, eq=False)
class Products:
    """Inner products of the features of two stages, all groups first, then without each one.

    They add over columns.

    Args:
        sums: between a feature of the one and a feature of the other, summed over groups, shares
            being those of all examples.
        selves: the part of it that groups have with themselves.
    """

    sums: Float64[np.ndarray, "left_out feature feature"]
    selves: Float64[np.ndarray, "left_out feature feature"]

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
        factors, mixture = cells.basis()
        n = factors.shape[1]
        own = np.zeros((len(cells.share), n, n))
        left, right, total = np.zeros_like(own), np.zeros_like(own), np.zeros((n, n))
        diagonal = np.zeros(len(factors))
        zero, one = cells.both.T
        mixed = np.zeros((2, len(zero)))
        for start in range(0, x.shape[1], COLUMNS):
            columns = slice(start, start + COLUMNS)
            a = x[:, columns].astype(np.float64)
            b = a if y is x else y[:, columns].astype(np.float64)
            sum_a, sum_b = factors.T @ a, factors.T @ b
            total += sum_a @ sum_b.T
            np.add.at(left, cells.group, factors[:, :, None] * (a @ sum_b.T)[:, None])
            np.add.at(right, cells.group, (b @ sum_a.T)[:, :, None] * factors[:, None])
            diagonal += np.einsum("cd,cd->c", a, b)
            mixed[0] += np.einsum("cd,cd->c", a[zero], b[one])
            mixed[1] += np.einsum("cd,cd->c", a[one], b[zero])
        for of_a, of_b, its in (
            (slice(None), slice(None), diagonal),
            (zero, one, mixed[0]),
            (one, zero, mixed[1]),
        ):
            products = factors[of_a][:, :, None] * factors[of_b][:, None]
            np.add.at(own, cells.group[of_a], its[:, None, None] * products)
        whole = own.sum(axis=0)
        sums = np.concatenate([total[None], total - left - right + own])
        selves = np.concatenate([whole[None], whole - own])
        return cls(*(mixture @ its @ mixture.T for its in (sums, selves)))


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
        """Scale for the examples that are left, and weigh pairs of different groups."""
        scale = remaining(cells.share)
        # A share is one of the examples that are left, so each power of it is scaled too.
        scales = np.stack(
            [
                scale[:, label] * scale[:, 1 - label] ** other * scale[:, label] ** own
                for label, (other, own) in FEATURES
            ],
            axis=1,
        )
        weight = scales[:, :, None] * scales[:, None, :]
        sums, apart = weight * products.sums, weight * (products.sums - products.selves)
        firsts = [FEATURES.index((label, (0, 0))) for label in (0, 1)]
        means = sums[:, firsts][:, :, firsts]
        sign = np.array([[1.0, -1.0], [-1.0, 1.0]])
        signal, quadruples = np.zeros(len(sums)), np.zeros(len(sums))
        shares = _shares(cells, scales)
        for weights, term in _terms(cells, scale):
            signal += weights * apart[:, *term]
            if FEATURES[term[0]][0] == FEATURES[term[1]][0] == 1:
                quadruples += weights * shares[:, *term]
        return cls((sign * means).sum((1, 2)), signal / quadruples, means)


def _shares(
    cells: Cells, scales: Float64[np.ndarray, "left_out feature"]
) -> Float64[np.ndarray, "left_out feature feature"]:
    """What inner products of different groups would be if every example were the number one."""
    factors = np.zeros((len(cells.share), len(FEATURES)))
    own = cells.share[cells.group, cells.label][:, None]
    np.add.at(factors, cells.group, cells.features() * own)
    whole = factors.sum(axis=0)
    total = np.concatenate([whole[None], whole - factors])
    squares = factors[:, :, None] * factors[:, None]
    selves = squares.sum(axis=0)
    apart = total[:, :, None] * total[:, None] - np.concatenate([selves[None], selves - squares])
    return apart * scales[:, :, None] * scales[:, None]


def _terms(
    cells: Cells, scale: Float64[np.ndarray, "left_out 2"]
) -> list[tuple[Float64[np.ndarray, " left_out"], tuple[int, int]]]:
    """Weights of products of features in the sum over quadruples.

    With p and q the shares of label 1 and 0: a positive example of group g and another one of
    group h are in (1 - q_g)(1 - q_h) - (Q - q_g^2 - q_h^2) quadruples, Q being the sum of q^2; a
    positive one of g and a negative one of h in (1 - p_g)(1 - q_h) - (R - p_g q_g - p_h q_h), R
    being the sum of p q. The first factor is about the partners' groups, the second about partners
    of one and the same group.
    """
    squares = cells.share[:, :, None] * cells.share[:, None, :]
    whole = squares.sum(axis=0)
    selves = np.concatenate([whole[None], whole - squares]) * scale[:, :, None] * scale[:, None]
    ones = np.ones(len(scale))
    terms: list[tuple[Float64[np.ndarray, " left_out"], tuple[int, int]]] = []
    for label in (0, 1):
        other = 1 - label
        plain, share, square, own, product = (FEATURES.index((label, it)) for it in POWERS)
        terms += [
            (1 - selves[:, other, other], (plain, plain)),
            (-ones, (share, plain)),
            (-ones, (plain, share)),
            (ones, (share, share)),
            (ones, (square, plain)),
            (ones, (plain, square)),
        ]
        plain_too, _, _, own_too, product_too = (FEATURES.index((other, it)) for it in POWERS)
        terms += [
            (selves[:, 0, 1] - 1, (plain, plain_too)),
            (ones, (own, plain_too)),
            (ones, (plain, own_too)),
            (-ones, (own, own_too)),
            (-ones, (product, plain_too)),
            (-ones, (plain, product_too)),
        ]
    return terms


def remaining(share: Float[np.ndarray, "group 2"]) -> Float64[np.ndarray, "left_out 2"]:
    """By what sums over all examples are multiplied to be means over those that are left."""
    return np.concatenate([np.ones((1, 2)), 1 / (1 - share)])
