"""Nested, group-aware cross-validation of linear probes on all layers at once.

The outer folds give every example one score from a probe that never saw its group. The penalty is
chosen inside each outer training set by an inner group cross-validation on the balanced log loss,
and so is the layer, so that the outer fold is touched once. Standardisation is fitted on the outer
training set.

Features are divided by sqrt(d_model) after standardisation, so that an example has squared norm
about one whatever the width, and one grid of strengths serves 64 and 5120 dimensions.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int
from threadpoolctl import ThreadpoolController

from olmo_stages import estimates
from olmo_stages.checks import checked
from olmo_stages.heldout import HeldOut
from olmo_stages.layer_probe import Layer, Recipe, fit_layer, relabelled_scores
from olmo_stages.parallel import in_threads

Found = TypeVar("Found")

_LARGE = 100_000  # numbers a layer


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

    found = _by_layer(lambda layer, _: fit_layer(layer[train], y, inner, recipe), values)
    return Fit(*map(np.array, zip(*found, strict=True)))


def one_thread_if_small(
    values: Float[np.ndarray, "head example feature"],
) -> AbstractContextManager[object]:
    """Matrix products of one thread, where waiting for others would take longer than the work."""
    if values[0].size < _LARGE:
        return _libraries().limit(limits=1, user_api="blas")
    return nullcontext()


@cache
def _libraries() -> ThreadpoolController:
    """Looked for once, which takes as long as some fits; numpy, which does them, is there."""
    return ThreadpoolController()


def _by_layer(
    work: Callable[[Layer, int], Found],
    values: Float[np.ndarray, "head example feature"],
) -> list[Found]:
    """Do the work on each layer and its number, large ones in threads.

    Callers give lambdas: a function within a function is decorated anew at each call.
    """
    if values[0].size < _LARGE:
        with one_thread_if_small(values):
            return [work(layer, number) for number, layer in enumerate(values)]
    return list(in_threads(lambda number: work(values[number], number), range(len(values))))


@checked
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


@checked
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
        lambda layer, i: relabelled_scores(layer, y, folds, strengths[:, i], recipe), values
    )
    return np.stack(found)


@checked
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
                relabelled_scores(layer, y, folds, strengths[:, i], recipe), relabelled, folds
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
