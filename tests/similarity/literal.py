"""Every measure again as its paper writes it, in float64, and what the tests make tables with."""

import numpy as np
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import spearmanr

from olmo_stages.similarity.design import Design
from olmo_stages.similarity.features import Features
from olmo_stages.similarity.linear import BiasedCKA, DebiasedCKA
from olmo_stages.similarity.minibatch import MinibatchCKA
from olmo_stages.similarity.neighbours import MutualKNN
from olmo_stages.similarity.rbf import RBFCKA
from olmo_stages.similarity.rsa import RSA
from olmo_stages.similarity.tables import Comparison, Tables

K = 5
WHOLE = (DebiasedCKA(), BiasedCKA(), RBFCKA(), RSA(), MutualKNN(K))
ALL = (*WHOLE, MinibatchCKA(20))
RESOLUTION = 1e-5


def name(measure):
    return measure.declared.name


def design_of(n, *, groups=None, owners=None, batch=None, seed=0):
    owners = np.arange(n) if owners is None else np.asarray(owners)
    groups = np.arange(owners.max() + 1) if groups is None else groups
    return Design.of(owners, [f"g{group:04}" for group in groups], batch, seed)


def designed(measure, n, **structure):
    return design_of(n, batch=measure.batch, **structure)


def tables(measure, layers, design, variant="raw"):
    """Pair tables in the precision of the layers, by the way that the analysis goes."""
    features = [Features.of(layer, RESOLUTION, "layer") for layer in layers]
    blocks = tuple(
        np.stack([measure.table(f.gram(variant, rows), design.groups[rows]) for f in features])
        for rows in design.blocks
    )
    return Tables(blocks, measure.order)


def compare(measure, x, y, design=None, variant="raw"):
    """Comparison of two lists of layers."""
    design = designed(measure, len(x[0])) if design is None else design
    return Comparison(
        tables(measure, x, design, variant), tables(measure, y, design, variant), design
    )


def score(measure, x, y, design=None, variant="raw"):
    return compare(measure, [x], [y], design, variant).value[0, 0]


def related(n, d=48, other=40, strength=1.0, seed=0, dtype=np.float64, layers=1):
    """Layers of two sides that share four directions; none is centred."""
    rng = np.random.default_rng(seed)
    sides = [[], []]
    for _ in range(layers):
        shared = strength * rng.normal(size=(n, 4))
        for side, width in zip(sides, (d, other), strict=True):
            mixed = shared @ rng.normal(size=(4, width)) + rng.normal(size=(n, width))
            side.append((mixed + rng.normal(size=width)).astype(dtype))
    return sides


def hsic(k, L):
    """Song et al. 2012, eq. 5."""
    n = len(k)
    k, L = k - np.diag(np.diag(k)), L - np.diag(np.diag(L))
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ L) + middle - 2 / (n - 2) * one @ k @ L @ one) / (n * (n - 3))


def cka(k, L):
    return hsic(k, L) / np.sqrt(hsic(k, k) * hsic(L, L))


def debiased_cka(x, y):
    return cka(x @ x.T, y @ y.T)


def debiased_cka_of_groups(x, y, groups):
    """Cosine of what is left of the inner products between groups without row and column effects.

    The effects solve the equations that every row sums to zero, written out in full.
    """
    groups = np.asarray(groups)
    between = (groups[:, None] != groups).astype(float)
    left = []
    for side in (x, y):
        table = between * (side @ side.T)
        effect = np.linalg.solve(np.diag(between.sum(axis=1)) + between, table.sum(axis=1))
        left.append(table - between * (effect[:, None] + effect))
    k, L = left
    return (k * L).sum() / np.sqrt((k * k).sum() * (L * L).sum())


def biased_cka(x, y):
    n = len(x)
    h = np.eye(n) - 1 / n
    k, L = h @ x @ x.T @ h, h @ y @ y.T @ h
    return np.trace(k @ L) / np.sqrt(np.trace(k @ k) * np.trace(L @ L))


def rbf_cka(x, y):
    """Width from the median of squared distances, as the code that goes with Kornblith et al."""

    def kernel(side):
        squares = pdist(side, "sqeuclidean")
        return np.exp(-squareform(squares) / (2 * np.median(squares)))

    return cka(kernel(x), kernel(y))


def rsa(x, y):
    return spearmanr(pdist(x), pdist(y)).statistic


def mutual_knn(x, y, k=K):
    shared = 0
    for i in range(len(x)):
        near_x, near_y = (_nearest(side, i, k) for side in (x, y))
        shared += len(near_x & near_y)
    return shared / (k * len(x))


def _nearest(side, i, k):
    order = np.argsort(cdist(side[i : i + 1], side)[0])
    return set(order[order != i][:k].tolist())


def minibatch_cka(x, y, blocks):
    """Nguyen et al. 2021, eq. 2-3."""
    sums = np.zeros(3)
    for rows in blocks:
        k, L = x[rows] @ x[rows].T, y[rows] @ y[rows].T
        sums += hsic(k, L), hsic(k, k), hsic(L, L)
    return sums[0] / np.sqrt(sums[1] * sums[2])


LITERAL = {
    "debiased_cka": debiased_cka,
    "biased_cka": biased_cka,
    "rbf_cka": rbf_cka,
    "rsa": rsa,
    "mutual_knn": mutual_knn,
}


def structured(measure, n_groups=30):
    """Two examples a group, of one to three rows each, not side by side."""
    rng = np.random.default_rng(8)
    owners = rng.permutation(np.repeat(np.arange(2 * n_groups), rng.integers(1, 4, 2 * n_groups)))
    groups = np.repeat(np.arange(n_groups), 2)
    batch = None if measure.batch is None else 40
    return design_of(0, owners=owners, groups=groups, batch=batch)
