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

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from olmo_stages import estimates
from olmo_stages.heldout import HeldOut
from olmo_stages.logistic import Axes, accelerated, polish, principal_axes
from olmo_stages.types import ProbeKind

NEGLIGIBLE = 1e-9
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
            offset = fit.bias
            if centre_on_target:
                shift = fit.centre - values[:, trained].mean(1, dtype=np.float64)
                offset = offset + (shift * fit.direction).sum(1)
            part = np.einsum("hnd,hd->hn", values[:, held_out].astype(np.float64), fit.direction)
            scores[:, held_out] = part + offset[:, None]
        return scores


def standardised(
    values: Float[np.ndarray, "head example feature"],
    train: Bool[np.ndarray, " example"],
    kind: ProbeKind,
    resolution: float,
) -> tuple[Float[Tensor, "head example feature"], Float[Tensor, "head 1 feature"]]:
    """Features in units of their training standard deviation, over sqrt(d_model), and those units.

    The mean difference is taken in raw units, as it is defined. A feature that is constant on the
    training set, up to the resolution, is replaced by zero.
    """
    x = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
    chosen = x[:, torch.from_numpy(train)]
    spread = chosen.std(1, correction=0, keepdim=True)
    varies = spread > resolution * chosen.abs().amax(1, keepdim=True)
    x = torch.where(varies, x, 0.0)
    if kind == "mean_difference":
        return x, torch.ones_like(spread)
    unit = torch.where(varies, spread, 1.0) * x.shape[2] ** 0.5
    return x / unit, unit


def solve(
    kind: ProbeKind,
    axes: Axes,
    y: Float[Tensor, "example target"],
    strength: Float[Tensor, "head target"],
) -> tuple[Float[Tensor, "head axis target"], Float[Tensor, "head 1 target"]]:
    """Weights and biases of every target in the axes' coordinates.

    LDA is (S + strength I)^-1 (mean_1 - mean_0) with the total covariance S. Without penalty that
    is the direction which the within-class covariance gives (Sherman-Morrison), and unlike it S
    does not depend on the labels, so one factorisation serves every relabelling. The threshold,
    like the mean difference's, is the midpoint of the class means.

    Source:
        Friedman 1989 (regularised discriminant analysis); Marks & Tegmark 2023 (mass mean).
    """
    counts = torch.stack([(1 - y).sum(0), y.sum(0)]).clamp_min(1)
    means = [axes.z.mT @ side / count for side, count in zip((1 - y, y), counts, strict=True)]
    difference = means[1] - means[0]
    # Classes with equal means up to rounding have no direction, and must not get a random one.
    spread = axes.spectrum.sum(1)[:, None, None].sqrt()
    alike = difference.norm(dim=1, keepdim=True) <= NEGLIGIBLE * spread
    if kind == "logistic":
        w, b = accelerated(axes, y, strength)
        return torch.where(alike, 0.0, w), torch.where(alike, 0.0, b)
    w = torch.where(alike, 0.0, difference)
    if kind == "lda":
        w = w / (axes.spectrum[:, :, None] + strength[:, None])
    return w, -(w * (means[0] + means[1]) / 2).sum(1, keepdim=True)


def choose_strength(
    recipe: Recipe,
    z: Float[Tensor, "head example axis"],
    y: Float[Tensor, " example"],
    inner: Int[np.ndarray, " example"],
) -> tuple[Int[Tensor, " head"], Float[Tensor, " head"]]:
    """Index into the grid, and its loss, by inner cross-validation; ties take the stronger."""
    grid = torch.tensor(recipe.grid, dtype=z.dtype)
    loss = z.new_zeros(len(grid), z.shape[0])
    for fold in np.unique(inner):
        out = torch.from_numpy(inner == fold)
        axes = principal_axes(z[:, ~out])
        targets = y[~out, None].expand(-1, len(grid))
        w, b = solve(recipe.kind, axes, targets, grid.expand(z.shape[0], -1))
        scores = axes.project(z[:, out]) @ w + b
        loss += validation_loss(recipe.kind, scores, y[out]).T * float(out.sum()) / len(inner)
    best = len(grid) - 1 - loss.flip(0).argmin(0)
    return best, loss.gather(0, best[None])[0]


def validation_loss(
    kind: ProbeKind, scores: Float[Tensor, "head example target"], y: Float[Tensor, " example"]
) -> Float[Tensor, "head target"]:
    """Balanced log loss; for kinds whose scores are not log odds, 1 - AUROC."""
    positive, negative = scores[:, y > 0], scores[:, y == 0]
    if not positive.shape[1] or not negative.shape[1]:
        # A fold of a control task may lack a class; it then has no say in the choice.
        return scores.new_zeros(scores.shape[0], scores.shape[2])
    if kind == "logistic":
        softplus = torch.nn.functional.softplus
        return (softplus(-positive).mean(1) + softplus(negative).mean(1)) / 2
    wins = (positive[:, :, None] - negative[:, None]).sign()
    return 1 - (wins.mean((1, 2)) + 1) / 2


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
    x, unit = standardised(values, train, recipe.kind, recipe.resolution)
    axes = principal_axes(x[:, torch.from_numpy(train)])
    y = torch.from_numpy(labels[train]).to(torch.float64)
    best, validation = choose_strength(recipe, axes.z, y, recipe.split_inner(np.flatnonzero(train)))
    strength = torch.tensor(recipe.grid, dtype=torch.float64)[best]
    w, b = solve(recipe.kind, axes, y[:, None], strength[:, None])
    w, b = w[..., 0], b[:, 0, 0]
    if recipe.kind == "logistic":
        alike = ~w.any(1)
        w, b = polish(axes, y, strength, (w, b))
        w, b = torch.where(alike[:, None], 0.0, w), torch.where(alike, 0.0, b)
    direction = (axes.rotation @ w[:, :, None])[..., 0]
    return Fit(
        direction=(direction / unit[:, 0]).numpy(),
        bias=(b - (axes.mean[:, 0] * direction).sum(1)).numpy(),
        centre=(axes.mean * unit)[:, 0].numpy(),
        strength=strength.numpy(),
        validation=validation.numpy(),
    )


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
    scores = np.zeros((len(values), *relabelled.shape))
    y = torch.from_numpy(relabelled.T).to(torch.float32)
    for head, layer in enumerate(values):
        for fold in np.unique(folds):
            out = folds == fold
            x, _ = standardised(layer[None], ~out, recipe.kind, recipe.resolution)
            # Single precision is twice as fast and a thousand times finer than the fits' tolerance.
            axes = principal_axes(x[:, torch.from_numpy(~out)]).single()
            strength = torch.full((1, len(relabelled)), strengths[fold, head])
            w, b = solve(recipe.kind, axes, y[torch.from_numpy(~out)], strength)
            held_out = axes.project(x[:, torch.from_numpy(out)].float()) @ w + b
            scores[head][:, out] = held_out[0].T.numpy()
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
    scores = permutation_scores(values, relabelled, folds, probes.strengths, recipe)
    statistic = [estimates.permutation_auroc(head, relabelled, folds) for head in scores]
    observed, null = np.array(statistic)[:, 0], np.array(statistic)[:, 1:].T
    p = np.array([estimates.permutation_p(float(o), null[:, i]) for i, o in enumerate(observed)])
    return {
        "null": list(np.median(null, axis=0)),
        "p": list(p),
        "p_max": list(estimates.max_statistic_p(observed, null)),
        "q": list(estimates.false_discovery_rate(p)),
    }
