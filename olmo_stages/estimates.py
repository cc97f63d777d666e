"""Intervals, permutation nulls and multiple comparisons.

The unit of resampling is the group (the entity, template or document), never the token and never
the example: examples of one group are not independent, and duplicating them must not make an
interval narrower. Weights carry resamples: `weights[b, i]` is how often example i's group was drawn
in resample b, so that any weighted statistic can be bootstrapped by matrix products.
"""

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

LEVEL = 0.95
"""Coverage of every interval this package reports."""

RESOLUTION = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1e-2}
"""Relative spread of a feature below which it is rounding of the forward pass, by its dtype.

A few units in the last place. A feature that is constant but for rounding, as the last token of a
fixed suffix is in layer 0, would otherwise be standardised into one of unit variance, and its
rounding depends on prompt length and batch.
"""


def group_weights(
    groups: Sequence[str], n_resamples: int, seed: int
) -> Float[np.ndarray, "resample example"]:
    """How often each example's group is drawn when the groups are resampled with replacement.

    Args:
        groups: group of each example.
        n_resamples: number of bootstrap resamples.
        seed: the same seed and groups give the same resamples, which pairs two stages.

    Returns:
        Multiplicities, one row a resample; all examples of a group share theirs.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=n_resamples
    )
    return draws[:, member].astype(np.float64)


def interval(
    samples: Float[np.ndarray, " resample"], n_groups: int, level: float = LEVEL
) -> tuple[float, float]:
    """Expanded percentile bootstrap interval.

    The plain percentile interval is too short by sqrt((G-1)/G) and uses normal quantiles; both
    matter for tens of groups.

    Args:
        samples: the statistic on each resample; resamples in which it is undefined are NaN.
        n_groups: number of groups that were resampled, G.
        level: coverage.

    Returns:
        Lower and upper end, NaN if fewer than two groups or no defined resample.

    Source:
        Hesterberg 2015, What Teachers Should Know About the Bootstrap, section 5.3 ("expanded
        percentile interval").
    """
    defined = samples[np.isfinite(samples)]
    if n_groups < 2 or not len(defined):
        return float("nan"), float("nan")
    tail = _tail(n_groups, level)
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


@cache
def _tail(n_groups: int, level: float) -> float:
    """Share of the resamples that the expanded percentile interval leaves out on each side."""
    quantile = t_quantile((1 + level) / 2, n_groups - 1) * math.sqrt(n_groups / (n_groups - 1))
    return math.erfc(quantile / math.sqrt(2)) / 2


def t_quantile(share: float, freedom: int) -> float:
    """Quantile of Student's t, by bisection of its distribution for whole degrees of freedom.

    Written out, because scipy takes as long to import as all probes of a small model to fit.

    Args:
        share: above one half.
        freedom: degrees of freedom, 1 or more.

    Source:
        Abramowitz & Stegun 1964, 26.7.3 and 26.7.4; the angle's tangent is t / sqrt(freedom).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, freedom) < 2 * share - 1 else (low, angle)
    return math.tan(low) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """Probability of less than t, up to its sign."""
    odd = freedom % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, freedom, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    if not odd:
        return total * math.sin(angle)
    return (angle + (total * math.sin(angle) if freedom > 1 else 0.0)) * 2 / math.pi


def bounded_interval(
    value: float,
    samples: Float[np.ndarray, " resample"],
    n_groups: int,
    n_trials: int,
    level: float = LEVEL,
) -> tuple[float, float]:
    """`interval` for a statistic in [0, 1] that may sit at its bound.

    At the bound every resample has the same value and the bootstrap returns a point. There the
    Wilson score interval is used instead, with as many trials as the rarer class has groups: that
    many independent examples could have been ranked wrong.

    Args:
        value: the statistic on the data.
        samples: the statistic on each resample.
        n_groups: number of groups.
        n_trials: number of groups that hold the rarer class.
        level: coverage.

    Returns:
        Lower and upper end, both in [0, 1].
    """
    if value in {0.0, 1.0} and n_trials > 0:
        return wilson(round(value * n_trials), n_trials, level)
    low, high = interval(samples, n_groups, level)
    return max(low, 0.0), min(high, 1.0)


def wilson(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson score interval of a proportion."""
    share, z = successes / trials, NormalDist().inv_cdf((1 + level) / 2)
    centre, size = 2 * successes + z**2, 2 * (trials + z**2)
    reach = z * math.sqrt(z**2 + 4 * successes * (1 - share))
    low = 0.0 if successes == 0 else (centre - reach) / size
    high = 1.0 if successes == trials else (centre + reach) / size
    return low, high


def tied(scores: Float[np.ndarray, "row example"]) -> Float[np.ndarray, "row example"]:
    """Scores in units of the row's largest, rounded so that rounding errors cannot rank examples.

    Two examples with equal features get scores that differ in the last digits when a matrix product
    is cut into blocks differently; without rounding such a pair would count as a win or a loss.
    """
    scale = np.abs(scores).max(axis=1, keepdims=True, initial=0.0)
    return np.round(scores / np.where(scale > 0, scale, 1.0), 10)


def auroc(
    scores: Float[np.ndarray, "head example"],
    labels: Int[np.ndarray, " example"],
    folds: Int[np.ndarray, " example"],
    weights: Float[np.ndarray, "resample example"],
) -> Float[np.ndarray, "resample head"]:
    """Area under the ROC curve within folds, for every resample.

    Scores of different folds come from different fits and share no scale, so only pairs of one
    fold are compared: the concordant share of all (positive, negative) pairs of the same fold,
    ties counting one half. Constant scores give exactly 0.5.

    Args:
        scores: out-of-fold scores, higher = more positive.
        labels: 0 or 1.
        folds: fold in which each example was held out; a negative fold leaves the example out.
        weights: multiplicity of each example; ones give the plain statistic.

    Returns:
        Values in [0, 1]; NaN where a resample has no pair.
    """
    scores = tied(scores)
    concordant = np.zeros((len(weights), len(scores)))
    pairs = np.zeros((len(weights), 1))
    unit = _drawn_together(weights)
    for fold in np.unique(folds[folds >= 0]):
        positive = _Units.of((folds == fold) & (labels == 1), unit)
        negative = _Units.of((folds == fold) & (labels == 0), unit)
        if not len(positive.order) or not len(negative.order):
            continue
        drawn = weights[:, positive.order[positive.starts]]
        against = weights[:, negative.order[negative.starts]]
        sizes = np.outer(positive.sizes, negative.sizes)
        pairs[:, 0] += np.einsum("bj,bj->b", drawn @ sizes, against)
        for head, row in enumerate(scores):
            wins = np.sign(row[positive.order][:, None] - row[negative.order])
            wins = np.add.reduceat(wins, positive.starts, axis=0)
            wins = (np.add.reduceat(wins, negative.starts, axis=1) + sizes) / 2
            concordant[:, head] += np.einsum("bj,bj->b", drawn @ wins, against)
    with np.errstate(invalid="ignore"):
        return concordant / pairs


def _drawn_together(
    weights: Float[np.ndarray, "resample example"],
) -> Int[np.ndarray, " example"]:
    """Number of the unit of each example: those of one unit have the same weight in every resample.

    Equal columns have equal keys; that others do is as likely as a collision of 60-bit digests.
    """
    keys = np.random.default_rng(0).integers(2**30, size=(2, len(weights))) @ weights
    return np.unique(keys, axis=1, return_inverse=True)[1].ravel()


class _Units(NamedTuple):
    """Some examples in the order of their units.

    Args:
        order: their indices.
        starts: place in it at which each unit starts.
        sizes: how many of them are of each unit.
    """

    order: Int[np.ndarray, " chosen"]
    starts: Int[np.ndarray, " unit"]
    sizes: Int[np.ndarray, " unit"]

    @classmethod
    def of(
        cls, chosen: Bool[np.ndarray, " example"], unit: Int[np.ndarray, " example"]
    ) -> "_Units":
        indices = np.flatnonzero(chosen)
        order = indices[np.argsort(unit[indices], kind="stable")]
        _, starts, sizes = np.unique(unit[order], return_index=True, return_counts=True)
        return cls(order, starts, sizes)


def balanced_accuracy(
    correct: Bool[np.ndarray, "head example"],
    labels: Int[np.ndarray, " example"],
    weights: Float[np.ndarray, "resample example"],
) -> Float[np.ndarray, "resample head"]:
    """Mean of the recalls of both classes, for every resample.

    Args:
        correct: whether each example was classified right.
        labels: 0 or 1.
        weights: multiplicity of each example.

    Returns:
        Values in [0, 1], 0.5 = chance; NaN where a resample lacks a class.
    """
    return _mean_of_classes(correct, labels, weights)


def log_loss(
    logits: Float[np.ndarray, "head example"],
    labels: Int[np.ndarray, " example"],
    weights: Float[np.ndarray, "resample example"],
) -> Float[np.ndarray, "resample head"]:
    """Class-balanced logistic loss in nats per example, for every resample; ln 2 = no knowledge."""
    loss = np.logaddexp(0.0, np.where(labels == 1, -logits, logits))
    return _mean_of_classes(loss, labels, weights)


def _mean_of_classes(
    values: Bool[np.ndarray, "head example"] | Float[np.ndarray, "head example"],
    labels: Int[np.ndarray, " example"],
    weights: Float[np.ndarray, "resample example"],
) -> Float[np.ndarray, "resample head"]:
    """Mean of the weighted means of both classes."""
    classes = (labels == np.array([[0], [1]])).astype(np.float64)
    columns = np.concatenate([classes, values * classes[0], values * classes[1]])
    sums = weights @ columns.T
    n = len(values)
    with np.errstate(invalid="ignore"):
        return (sums[:, 2 : n + 2] / sums[:, :1] + sums[:, n + 2 :] / sums[:, 1:2]) / 2


def permuted_labels(
    labels: Int[np.ndarray, " example"], groups: Sequence[str], n_permutations: int, seed: int
) -> Int[np.ndarray, "permutation example"]:
    """Relabellings under which 'the label says nothing beyond the group' is exchangeable.

    The group is the unit, as in the intervals: examples of one group may be paraphrases of one
    another, and permuting them one by one would count each paraphrase as evidence of its own. So a
    group that holds both labels equally often keeps its labels or swaps all of them; groups of one
    label exchange it among those of the same size, which keeps the number of positive examples.
    A group that holds both labels unequally often is permuted within itself, which is exact only
    where its examples are independent (`unequal_groups` counts them).

    Args:
        labels: 0 or 1.
        groups: group of each example.
        n_permutations: number of relabellings.
        seed: of the permutations.

    Returns:
        One relabelling a row; all equal to `labels` where nothing can be exchanged.

    Source:
        Winkler et al. 2015, Multi-level block permutation (whole-block exchange needs blocks of
        equal size).
    """
    rng = np.random.default_rng(seed)
    relabelled = np.tile(labels, (n_permutations, 1))
    pure: dict[int, list[np.ndarray]] = {}
    for members in _members(groups):
        positive = int(labels[members].sum())
        if positive in {0, len(members)}:
            pure.setdefault(len(members), []).append(members)
        elif 2 * positive == len(members):
            swap = rng.integers(0, 2, (n_permutations, 1))
            relabelled[:, members] = np.abs(labels[members] - swap)
        else:
            relabelled[:, members] = rng.permuted(relabelled[:, members], axis=1)
    for blocks in pure.values():
        own = np.array([labels[members[0]] for members in blocks])
        shuffled = rng.permuted(np.tile(own, (n_permutations, 1)), axis=1)
        for column, members in enumerate(blocks):
            relabelled[:, members] = shuffled[:, [column]]
    return relabelled


def unequal_groups(labels: Int[np.ndarray, " example"], groups: Sequence[str]) -> int:
    """How many groups hold both labels, but not equally often."""
    shares = [labels[members].mean() for members in _members(groups)]
    return sum(share not in {0.0, 0.5, 1.0} for share in shares)


def _members(groups: Sequence[str]) -> list[Int[np.ndarray, " member"]]:
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    return [np.flatnonzero(member == group) for group in range(len(names))]


def permutation_auroc(
    scores: Float[np.ndarray, "permutation example"],
    labels: Int[np.ndarray, "permutation example"],
    folds: Int[np.ndarray, " example"],
) -> Float[np.ndarray, " permutation"]:
    """`auroc` where scores and labels both change from row to row (one refit a relabelling).

    Args:
        scores: out-of-fold scores of the probe refitted to each relabelling.
        labels: the relabellings.
        folds: fold in which each example was held out; negative folds are left out.

    Returns:
        Values in [0, 1]; 0.5 where a relabelling leaves no pair in any fold.
    """
    scores = tied(scores)
    concordant = np.zeros(len(scores))
    pairs = np.zeros(len(scores))
    for fold in np.unique(folds[folds >= 0]):
        held_out = folds == fold
        part = scores[:, held_out]
        order = part.argsort(axis=1)
        y = np.take_along_axis(labels[:, held_out], order, axis=1)
        ranks = _ranks(np.take_along_axis(part, order, axis=1))
        n_positive = y.sum(1)
        concordant += (ranks * y).sum(1) - n_positive * (n_positive + 1) / 2
        pairs += n_positive * (y.shape[1] - n_positive)
    return np.where(pairs > 0, concordant / np.maximum(pairs, 1), 0.5)


def _ranks(ordered: Float[np.ndarray, "row place"]) -> Float[np.ndarray, "row place"]:
    """Rank of each of a row's ordered values, from 1; equal ones share the mean of theirs."""
    places = np.arange(ordered.shape[1])
    same = ordered[:, 1:] == ordered[:, :-1]
    if not same.any():
        return np.broadcast_to(places + 1.0, ordered.shape)
    first, last = (np.tile(places, (len(ordered), 1)) for _ in range(2))
    first[:, 1:][same] = 0
    last[:, :-1][same] = len(places)
    first = np.maximum.accumulate(first, axis=1)
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    return (first + last) / 2 + 1


def permutation_p(observed: float, null: Float[np.ndarray, " permutation"]) -> float:
    """One-sided p of an observed value: (1 + count of null values at least as large) / (1 + N).

    Source:
        Phipson & Smyth 2010, Permutation P-values Should Never Be Zero.
    """
    # Values equal up to rounding are ties: otherwise p depends on the order of summation.
    return float((1 + np.sum(null >= observed - 1e-12)) / (1 + len(null)))


def max_statistic_p(
    observed: Float[np.ndarray, " layer"], null: Float[np.ndarray, "permutation layer"]
) -> Float[np.ndarray, " layer"]:
    """Family-wise p of each layer against the null of the maximum over layers.

    Source:
        Westfall & Young 1993, single-step maxT.
    """
    maxima = null.max(axis=1)
    return np.array([permutation_p(float(value), maxima) for value in observed])


def false_discovery_rate(p: Float[np.ndarray, " layer"]) -> Float[np.ndarray, " layer"]:
    """Benjamini-Hochberg adjusted p values."""
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum.accumulate(np.minimum(p[order] * len(p) / ranks, 1.0))
    return adjusted
