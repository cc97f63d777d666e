"""Plain loops that say what the closed forms mean, and examples to try them on."""

import numpy as np

from olmo_stages.types import Example
from olmo_stages.vectors.contrast import contrasts
from olmo_stages.vectors.kinds import extractor
from olmo_stages.vectors.nulls import draw
from olmo_stages.vectors.turns import Plan


def examples(labels, groups, pairs=None, trait=""):
    return tuple(
        Example(
            id=f"{trait}{i}",
            group=str(group),
            label=int(label),
            text=f"text {i}",
            trait=trait,
            pair="" if pairs is None else str(pairs[i]),
        )
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    )


def paired(n_groups, per_group=4):
    """Both labels equally often in every group, neighbours being counterparts."""
    rows = np.arange(n_groups * per_group)
    return examples(rows % 2, rows // per_group, rows // 2)


def pure(n_groups, per_group=2):
    """One label a group."""
    rows = np.arange(n_groups * per_group)
    return examples(rows // per_group % 2, rows // per_group)


def uneven(n_groups, seed=0):
    """Groups of one label and of both, of different sizes; the first six hold each label once."""
    rng = np.random.default_rng(seed)
    labels, groups = [], []
    for group in range(n_groups):
        own = [0, 1] if group < 6 else rng.integers(0, 2, rng.integers(1, 5)).tolist()
        labels += own
        groups += [group] * len(own)
    return examples(labels, groups)


def plan(data, kind="mean_difference", n_permutations=99, n_unrelated=0, seed=0, **options):
    extract = extractor(kind, **options)
    (contrast,) = contrasts(data, paired=extract.needs_pairs)
    nulls = draw(contrast, n_permutations, n_unrelated, seed, pairs=extract.needs_pairs)
    return Plan(contrast, extract, nulls)


def labels_of(data):
    return np.array([e.label for e in data])


def groups_of(data):
    return np.array([e.group for e in data])


def cosine(v, w):
    return v @ w / np.sqrt((v @ v) * (w @ w))


def mean_difference(x, labels):
    return x[labels == 1].mean(axis=0) - x[labels == 0].mean(axis=0)


def signal(x, y, labels, groups):
    """Mean inner product of differences that share no group, over all quadruples of examples."""
    x, y = x.astype(float), y.astype(float)
    i, j = (it.ravel() for it in np.meshgrid(*(np.flatnonzero(labels == c) for c in (1, 0))))
    apart = np.ones((len(i), len(i)), dtype=bool)
    for one in (i, j):
        for other in (i, j):
            apart &= groups[one][:, None] != groups[other]
    return ((x[i] - x[j]) @ (y[i] - y[j]).T)[apart].mean()


def numbers(x, y, labels, groups):
    """Cosine, corrected cosine, reliability of x."""
    v, w = mean_difference(x, labels), mean_difference(y, labels)
    xx, yy, xy = (signal(a, b, labels, groups) for a, b in ((x, x), (y, y), (x, y)))
    corrected = xy / np.sqrt(xx * yy) if min(xx, yy) > 0 else np.nan
    return np.array([cosine(v, w), corrected, xx / (v @ v)])


def discriminant(x, labels, shrinkage):
    x = x.astype(np.float64)
    covariance = np.cov(x.T, bias=True)
    size = np.trace(covariance) / len(covariance)
    shrunk = (1 - shrinkage) * covariance + shrinkage * size * np.eye(len(covariance))
    return np.linalg.solve(shrunk, mean_difference(x, labels))
