"""The probe of one layer: units, penalty, and the fit, of the true labels or of relabellings.

Not checked array by array while a job runs, see olmo_stages/__init__.py: `olmo_stages.nested`,
whose callers give the arrays, is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from olmo_stages.logistic import Axes, Classes, accelerated, classes, polish, principal_axes
from olmo_stages.types import ProbeKind

Layer = Float[np.ndarray, "example feature"]
"""Activations of one layer."""

NEGLIGIBLE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-6}
"""Distance of the class means, in units of the examples' spread, below which it is rounding."""

SplitInner = Callable[[Int[np.ndarray, " chosen"]], Int[np.ndarray, " chosen"]]
"""Folds of a subset of the examples, given by their indices."""


@dataclass(frozen=True)
class Recipe:
    """How a probe is fitted.

    Args:
        kind: `logistic`, `lda` (regularised discriminant) or `mean_difference` (mass mean).
        strengths: grid of L2 penalties relative to the mean loss; unused by mean_difference.
        split_inner: inner folds of a training set.
        resolution: relative spread below which a feature counts as constant, see
            `olmo_stages.estimates.RESOLUTION`.
    """

    kind: ProbeKind
    strengths: tuple[float, ...]
    split_inner: SplitInner
    resolution: float = 1e-9

    @property
    def grid(self) -> tuple[float, ...]:
        """Penalties to choose from."""
        return (1.0,) if self.kind == "mean_difference" else tuple(sorted(self.strengths))


class Standardised(NamedTuple):
    """Features of one layer in double precision, and the units in which they are."""

    x: Float[np.ndarray, "example feature"]
    unit: Float[np.ndarray, " feature"]


def standardised(
    layer: Layer,
    train: Bool[np.ndarray, " example"],
    kind: ProbeKind,
    resolution: float,
) -> Standardised:
    """Features in units of their training standard deviation, over sqrt(d_model), and those units.

    The mean difference is taken in raw units, as it is defined. A feature that is constant on the
    training set, up to the resolution, is replaced by zero.
    """
    x = layer.astype(np.float64)
    chosen = x[train]
    size = np.maximum(chosen.max(0), -chosen.min(0))
    chosen -= chosen.mean(0)
    spread = np.sqrt(np.einsum("nd,nd->d", chosen, chosen) / len(chosen))
    varies = spread > resolution * size
    if kind == "mean_difference":
        x *= varies
        return Standardised(x, np.ones_like(spread))
    unit = np.where(varies, spread, 1.0) * x.shape[1] ** 0.5
    x *= varies / unit
    return Standardised(x, unit)


def solve(
    kind: ProbeKind,
    axes: Axes,
    found: Classes,
    strength: Float[np.ndarray, " target"],
) -> tuple[Float[np.ndarray, "axis target"], Float[np.ndarray, " target"]]:
    """Weights and biases of every target in the axes' coordinates.

    LDA is (S + strength I)^-1 (mean_1 - mean_0) with the total covariance S. Without penalty that
    is the direction which the within-class covariance gives (Sherman-Morrison), and unlike it S
    does not depend on the labels, so one factorisation serves every relabelling. The threshold,
    like the mean difference's, is the midpoint of the class means.

    Args:
        kind: of the probes.
        axes: the training examples.
        found: the targets' classes; LDA cannot leave examples out.
        strength: penalty of each target.

    Source:
        Friedman 1989 (regularised discriminant analysis); Marks & Tegmark 2023 (mass mean).
    """
    difference = found.means[1] - found.means[0]
    # Classes with equal means up to rounding have no direction, and must not get a random one.
    spread = NEGLIGIBLE[axes.z.dtype] * np.sqrt(axes.spectrum.sum())
    apart = np.sqrt(np.vecdot(difference, difference)) > spread
    if kind == "logistic":
        w, b = accelerated(axes, found, strength)
        return w * apart, b * apart
    w = difference * apart[:, None]
    if kind == "lda":
        w /= axes.spectrum + strength[:, None].astype(w.dtype)
    return w.T, -np.vecdot(w, found.means[0] + found.means[1]) / 2


class Tried(NamedTuple):
    """Every penalty of the grid, for one layer.

    Args:
        loss: inner cross-validated one.
        w: weights in the axes' coordinates, fitted to the whole training set.
        b: biases of those.
    """

    loss: Float[np.ndarray, " strength"]
    w: Float[np.ndarray, "axis strength"]
    b: Float[np.ndarray, " strength"]


def try_strengths(
    recipe: Recipe,
    axes: Axes,
    y: Float[np.ndarray, " example"],
    inner: Int[np.ndarray, " example"],
) -> Tried:
    """Fit every penalty to the training set, and to it without each inner fold."""
    grid, z = np.array(recipe.grid), axes.z
    numbers = np.unique(inner)
    if recipe.kind == "lda":
        return _each_in_its_own_axes(recipe, axes, y, inner)
    # In single precision, which is a thousand times finer than the fits' tolerance.
    fitted = axes.single() if recipe.kind == "logistic" else axes
    without = np.where(inner[:, None] == numbers, -1.0, y[:, None])
    found = classes(fitted, np.concatenate([without, y[:, None]], axis=1)).repeated(len(grid))
    w, b = solve(recipe.kind, fitted, found, np.tile(grid, len(numbers) + 1))
    columns = np.split(np.arange(len(b)), len(numbers) + 1)
    loss = np.zeros(len(grid))
    for fold, its in zip(numbers, columns[:-1], strict=True):
        out = inner == fold
        loss += validation_loss(recipe.kind, z[out] @ w[:, its] + b[its], y[out]) * out.mean()
    return Tried(loss, w[:, columns[-1]], b[columns[-1]])


def _each_in_its_own_axes(
    recipe: Recipe,
    axes: Axes,
    y: Float[np.ndarray, " example"],
    inner: Int[np.ndarray, " example"],
) -> Tried:
    grid = np.array(recipe.grid)
    loss = np.zeros(len(grid))
    for fold in np.unique(inner):
        out = inner == fold
        part = principal_axes(axes.z[~out])
        w, b = solve(recipe.kind, part, classes(part, y[~out, None]).repeated(len(grid)), grid)
        scores = part.project(axes.z[out]) @ w + b
        loss += validation_loss(recipe.kind, scores, y[out]) * out.mean()
    return Tried(
        loss, *solve(recipe.kind, axes, classes(axes, y[:, None]).repeated(len(grid)), grid)
    )


def validation_loss(
    kind: ProbeKind, scores: Float[np.ndarray, "example target"], y: Float[np.ndarray, " example"]
) -> Float[np.ndarray, " target"]:
    """Balanced log loss; for kinds whose scores are not log odds, 1 - AUROC."""
    positive, negative = scores[y > 0], scores[y == 0]
    if not len(positive) or not len(negative):
        # A fold of a control task may lack a class; it then has no say in the choice.
        return np.zeros(scores.shape[1])
    if kind == "logistic":
        losses = np.logaddexp(0, -positive).mean(0), np.logaddexp(0, negative).mean(0)
        return (losses[0] + losses[1]) / 2
    wins = np.sign(positive[:, None] - negative)
    return 1 - (wins.mean((0, 1)) + 1) / 2


class Probe(NamedTuple):
    """What `Fit` says of one layer."""

    direction: np.ndarray
    bias: float
    centre: np.ndarray
    strength: float
    validation: float


def fit_layer(
    layer: Layer,
    y: Float[np.ndarray, " example"],
    inner: Int[np.ndarray, " example"],
    recipe: Recipe,
) -> Probe:
    """The probe of one layer, given its training examples."""
    x, unit = standardised(layer, np.ones(len(y), dtype=bool), recipe.kind, recipe.resolution)
    axes = principal_axes(x)
    tried = try_strengths(recipe, axes, y, inner)
    # Ties take the stronger.
    best = len(tried.loss) - 1 - int(tried.loss[::-1].argmin())
    strength = recipe.grid[best]
    w, b = tried.w[:, best].astype(np.float64), float(tried.b[best])
    if recipe.kind == "logistic" and w.any():  # no weights: classes that are alike
        w, b = polish(axes, y, strength, (w, b))
    direction = axes.features(w[:, None])[:, 0]
    bias = b - float(axes.mean @ direction)
    return Probe(direction / unit, bias, axes.mean * unit, strength, float(tried.loss[best]))


def relabelled_scores(
    layer: Layer,
    y: Float[np.ndarray, "example permutation"],
    folds: Int[np.ndarray, " example"],
    strengths: Float[np.ndarray, " fold"],
    recipe: Recipe,
) -> Float[np.ndarray, "permutation example"]:
    """Out-of-fold scores of one layer's probes, refitted to every relabelling.

    Args:
        layer: its activations.
        y: relabellings, in single precision.
        folds: outer folds.
        strengths: penalty of each fold.
        recipe: how a probe is fitted.
    """
    scores = np.zeros((y.shape[1], len(folds)), dtype=np.float32)
    for fold in np.unique(folds):
        out = folds == fold
        x, _ = standardised(layer, ~out, recipe.kind, recipe.resolution)
        axes = principal_axes(x[~out])
        strength = np.full(y.shape[1], strengths[fold])
        # Single precision is twice as fast and a thousand times finer than the fits' tolerance.
        single = axes.single()
        w, b = solve(recipe.kind, single, classes(single, y[~out]), strength)
        scores[:, out] = (axes.project(x[out]).astype(np.float32) @ w + b).T
    return scores
