"""Nested, group-aware cross-validation of linear probes on all layers at once.

The outer folds give every example one score from a probe that never saw its group. The penalty is
chosen inside each outer training set by an inner group cross-validation on the balanced log loss,
and so is the layer, so that the outer fold is touched once. Standardisation is fitted on the outer
training set.

Features are divided by sqrt(d_model) after standardisation, so that an example has squared norm
about one whatever the width, and one grid of strengths serves 64 and 5120 dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int
from threadpoolctl import threadpool_limits

from olmo_stages import estimates
from olmo_stages.heldout import HeldOut
from olmo_stages.logistic import Axes, accelerated, polish, principal_axes
from olmo_stages.parallel import in_threads
from olmo_stages.types import ProbeKind

Found = TypeVar("Found")

Layer = Float[np.ndarray, "example feature"]
"""Activations of one layer."""

NEGLIGIBLE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-6}
"""Distance of the class means, in units of the examples' spread, below which it is rounding."""

LARGE = 100_000
"""Numbers a layer from which layers are fitted in threads; below, passing them on takes longer."""

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


@dataclass(frozen=True, eq=False)
class Fit:
    """One probe a layer, in the features' own coordinates: score = x @ direction + bias.

    Args:
        direction: weight vector.
        bias: offset.
        centre: mean of the training examples.
        strength: penalty that was chosen, relative to the mean loss.
        validation: inner cross-validated loss at that penalty.
    """

    direction: Float[np.ndarray, "head feature"]
    bias: Float[np.ndarray, " head"]
    centre: Float[np.ndarray, "head feature"]
    strength: Float[np.ndarray, " head"]
    validation: Float[np.ndarray, " head"]


@dataclass(frozen=True, eq=False)
class Probes:
    """The probes of every fold.

    Args:
        fits: one a fold, trained without that fold.
        trained_on: examples that were trained on where they were not held out.
        folds: fold in which each example is held out; -1 = never scored.
    """

    fits: tuple[Fit, ...]
    trained_on: Bool[np.ndarray, " example"]
    folds: Int[np.ndarray, " example"]

    @property
    def validation(self) -> Float[np.ndarray, "fold head"]:
        """Inner validation loss of each fold's training set."""
        return np.stack([fit.validation for fit in self.fits])

    @property
    def strengths(self) -> Float[np.ndarray, "fold head"]:
        """Penalty chosen in each fold."""
        return np.stack([fit.strength for fit in self.fits])

    def of_best_layer(
        self, scores: Float[np.ndarray, "head example"]
    ) -> Float[np.ndarray, "1 example"]:
        """Each example's score at the layer that its fold's training set validated best.

        The layer is thus chosen without the examples on which it is judged.
        """
        chosen = self.validation.argmin(1)
        return scores[chosen[self.folds], np.arange(len(self.folds))][None]

    def score(
        self, values: Float[np.ndarray, "head example feature"], *, centre_on_target: bool = False
    ) -> Float[np.ndarray, "head example"]:
        """Scores of activations of the same examples, each by the probe that never saw its group.

        Args:
            values: activations that were trained on, or another stage's.
            centre_on_target: replace the source's training mean by the target's mean over the same
                training examples, which moves the threshold but not the direction.

        Returns:
            Scores, log odds for the logistic kind; 0 for examples that are never held out.
        """
        scores = np.zeros(values.shape[:2])
        for fold, fit in enumerate(self.fits):
            held_out, trained = self.folds == fold, self.trained_on & (self.folds != fold)
            # Layer by layer: together they would be several gigabytes in double precision.
            for head, layer in enumerate(values):
                direction, offset = fit.direction[head], fit.bias[head]
                if centre_on_target:
                    shift = fit.centre[head] - layer[trained].mean(0, dtype=np.float64)
                    offset = offset + shift @ direction
                scores[head, held_out] = layer[held_out].astype(np.float64) @ direction + offset
        return scores


class _Standardised(NamedTuple):
    """Features of one layer in double precision, and the units in which they are."""

    x: Float[np.ndarray, "example feature"]
    unit: Float[np.ndarray, " feature"]


def standardised(
    layer: Layer,
    train: Bool[np.ndarray, " example"],
    kind: ProbeKind,
    resolution: float,
) -> _Standardised:
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
        return _Standardised(x, np.ones_like(spread))
    unit = np.where(varies, spread, 1.0) * x.shape[1] ** 0.5
    x *= varies / unit
    return _Standardised(x, unit)


def solve(
    kind: ProbeKind,
    axes: Axes,
    y: Float[np.ndarray, "example target"],
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
        y: 0 or 1; a negative label leaves the example out, which LDA cannot do.
        strength: penalty of each target.

    Source:
        Friedman 1989 (regularised discriminant analysis); Marks & Tegmark 2023 (mass mean).
    """
    sides = [(y == label).astype(axes.z.dtype) for label in (0, 1)]
    means = [axes.z.T @ (side / np.maximum(side.sum(0), 1)) for side in sides]
    difference = means[1] - means[0]
    # Classes with equal means up to rounding have no direction, and must not get a random one.
    spread = NEGLIGIBLE[axes.z.dtype] * np.sqrt(axes.spectrum.sum())
    alike = np.sqrt(np.einsum("at,at->t", difference, difference)) <= spread
    if kind == "logistic":
        w, b = accelerated(axes, y, strength)
        return np.where(alike, 0, w), np.where(alike, 0, b)
    w = np.where(alike, 0, difference)
    if kind == "lda":
        w /= axes.spectrum[:, None] + strength.astype(w.dtype)
    return w, -np.einsum("at,at->t", w, means[0] + means[1]) / 2


class _Tried(NamedTuple):
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
) -> _Tried:
    """Fit every penalty to the training set, and to it without each inner fold."""
    grid, z = np.array(recipe.grid), axes.z
    numbers = np.unique(inner)
    if recipe.kind == "lda":
        return _each_in_its_own_axes(recipe, axes, y, inner)
    # In single precision, which is a thousand times finer than the fits' tolerance.
    fitted = axes.single() if recipe.kind == "logistic" else axes
    without = np.where(inner[:, None] == numbers, -1.0, y[:, None])
    targets = np.repeat(np.concatenate([without, y[:, None]], axis=1), len(grid), axis=1)
    w, b = solve(recipe.kind, fitted, targets, np.tile(grid, len(numbers) + 1))
    columns = np.split(np.arange(len(b)), len(numbers) + 1)
    loss = np.zeros(len(grid))
    for fold, its in zip(numbers, columns[:-1], strict=True):
        out = inner == fold
        loss += validation_loss(recipe.kind, z[out] @ w[:, its] + b[its], y[out]) * out.mean()
    return _Tried(loss, w[:, columns[-1]], b[columns[-1]])


def _each_in_its_own_axes(
    recipe: Recipe,
    axes: Axes,
    y: Float[np.ndarray, " example"],
    inner: Int[np.ndarray, " example"],
) -> _Tried:
    grid = np.array(recipe.grid)
    loss = np.zeros(len(grid))
    for fold in np.unique(inner):
        out = inner == fold
        part = principal_axes(axes.z[~out])
        targets = np.repeat(y[~out, None], len(grid), axis=1)
        w, b = solve(recipe.kind, part, targets, grid)
        scores = part.project(axes.z[out]) @ w + b
        loss += validation_loss(recipe.kind, scores, y[out]) * out.mean()
    return _Tried(loss, *solve(recipe.kind, axes, np.repeat(y[:, None], len(grid), 1), grid))


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


class _Probe(NamedTuple):
    """What `Fit` says of one layer."""

    direction: np.ndarray
    bias: float
    centre: np.ndarray
    strength: float
    validation: float


def fit(
    values: Float[np.ndarray, "head example feature"],
    labels: Int[np.ndarray, " example"],
    train: Bool[np.ndarray, " example"],
    recipe: Recipe,
) -> Fit:
    """Choose the penalty by inner cross-validation and fit every layer's probe to convergence.

    Args:
        values: activations of the layers, or any features.
        labels: 0 or 1.
        train: examples to learn from.
        recipe: how a probe is fitted.

    Returns:
        The probes.
    """
    y, inner = labels[train].astype(np.float64), recipe.split_inner(np.flatnonzero(train))

    found = _by_layer(lambda layer, _: _fit_layer(layer[train], y, inner, recipe), values)
    return Fit(*map(np.array, zip(*found, strict=True)))


def _by_layer(
    work: Callable[[Layer, int], Found],
    values: Float[np.ndarray, "head example feature"],
) -> list[Found]:
    """Do the work on each layer and its number, with matrix products of one thread.

    Threads that wait for work of microseconds would take longer than the work.

    Callers give lambdas: a function within a function is decorated anew at each call.
    """
    if values[0].size < LARGE:
        with threadpool_limits(1, user_api="blas"):
            return [work(layer, number) for number, layer in enumerate(values)]
    return list(in_threads(lambda number: work(values[number], number), range(len(values))))


def _fit_layer(
    layer: Layer,
    y: Float[np.ndarray, " example"],
    inner: Int[np.ndarray, " example"],
    recipe: Recipe,
) -> _Probe:
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
    return _Probe(direction / unit, bias, axes.mean * unit, strength, float(tried.loss[best]))


def cross_validate(
    values: Float[np.ndarray, "head example feature"],
    labels: Int[np.ndarray, " example"],
    folds: Int[np.ndarray, " example"],
    recipe: Recipe,
    *,
    train: Bool[np.ndarray, " example"] | None = None,
    test: Bool[np.ndarray, " example"] | None = None,
) -> Probes:
    """Fit and score every layer's probe on every outer fold.

    Args:
        values: activations of the layers, or any features.
        labels: 0 or 1.
        folds: outer fold of each example.
        recipe: how a probe is fitted.
        train: examples that may be trained on (outside the held-out fold); default all.
        test: examples that are scored; default all.

    Returns:
        The probes with out-of-fold scores.
    """
    everyone = np.ones(len(labels), dtype=bool)
    train, test = everyone if train is None else train, everyone if test is None else test
    fits = tuple(
        fit(values, labels, (folds != fold) & train, recipe) for fold in range(int(folds.max()) + 1)
    )
    return Probes(fits, train, np.where(test, folds, -1))


def permutation_scores(
    values: Float[np.ndarray, "head example feature"],
    relabelled: Int[np.ndarray, "permutation example"],
    folds: Int[np.ndarray, " example"],
    strengths: Float[np.ndarray, "fold head"],
    recipe: Recipe,
) -> Float[np.ndarray, "head permutation example"]:
    """Out-of-fold scores of the probes refitted to every relabelling.

    The penalties are those that the true labels chose in each fold's training set. That choice
    never saw the held-out labels, so it favours the true labels only through the training set; the
    calibration of the resulting p is tested by simulation.

    Args:
        values: activations of the layers.
        relabelled: relabellings; put the true labels first to get the observed statistic of the
            very same procedure.
        folds: outer folds.
        strengths: penalty of each fold and layer.
        recipe: how a probe is fitted.

    Returns:
        Scores, one row a relabelling.
    """
    y = relabelled.T.astype(np.float32)

    found = _by_layer(
        lambda layer, i: _relabelled_scores(layer, y, folds, strengths[:, i], recipe), values
    )
    return np.stack(found)


def _relabelled_scores(
    layer: Layer,
    y: Float[np.ndarray, "example permutation"],
    folds: Int[np.ndarray, " example"],
    strengths: Float[np.ndarray, " fold"],
    recipe: Recipe,
) -> Float[np.ndarray, "permutation example"]:
    scores = np.zeros((y.shape[1], len(folds)), dtype=np.float32)
    for fold in np.unique(folds):
        out = folds == fold
        x, _ = standardised(layer, ~out, recipe.kind, recipe.resolution)
        axes = principal_axes(x[~out])
        strength = np.full(y.shape[1], strengths[fold])
        # Single precision is twice as fast and a thousand times finer than the fits' tolerance.
        w, b = solve(recipe.kind, axes.single(), y[~out], strength)
        scores[:, out] = (axes.project(x[out]).astype(np.float32) @ w + b).T
    return scores


def permutation_null(
    values: Float[np.ndarray, "head example feature"],
    held_out: HeldOut,
    probes: Probes,
    recipe: Recipe,
    n_permutations: int,
    seed: int,
) -> dict[str, list[float]]:
    """What AUROC the same procedure gives to relabelled examples, layer by layer.

    Args:
        values: activations of the layers.
        held_out: labels, groups and folds.
        probes: of the true labels; lend their penalties.
        recipe: how a probe is fitted.
        n_permutations: number of relabellings.
        seed: of the relabellings.

    Returns:
        For each layer the null's median `null`, its own `p`, the family-wise `p_max` against the
        maximum over layers, and the false discovery rate `q`. Empty where no label can be
        exchanged.
    """
    labels, folds = held_out.labels, held_out.folds
    relabelled = estimates.permuted_labels(labels, held_out.groups, n_permutations, seed)
    if (relabelled == labels).all():
        return {}
    # The true labels go first, so that the observed statistic comes from the very same fits.
    relabelled = np.concatenate([labels[None], relabelled])
    y, strengths = relabelled.T.astype(np.float32), probes.strengths

    statistic = np.stack(
        _by_layer(
            lambda layer, i: estimates.permutation_auroc(
                _relabelled_scores(layer, y, folds, strengths[:, i], recipe), relabelled, folds
            ),
            values,
        )
    )
    observed, null = statistic[:, 0], statistic[:, 1:].T
    p = np.array([estimates.permutation_p(float(o), null[:, i]) for i, o in enumerate(observed)])
    return {
        "null": list(np.median(null, axis=0)),
        "p": list(p),
        "p_max": list(estimates.max_statistic_p(observed, null)),
        "q": list(estimates.false_discovery_rate(p)),
    }
