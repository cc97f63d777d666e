"""A vector used where it was not found: held-out groups of both stages along the vectors of both.

Vectors are cross-fitted: a fold's examples are scored along vectors from the other folds, the same
folds in both stages. So the scores along a stage's own vector and along the other's are held out
alike, and two stages of identical weights give the same numbers.

Source:
    Du et al. 2025, 2504.02904 (probes and vectors moved from base to post-trained models, and their
    offsets).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from olmo_stages.heldout import Estimate, HeldOut

STAGE, REFERENCE = "stage", "reference"

Fit = Callable[
    [Float[np.ndarray, "example d_model"], Bool[np.ndarray, "fold example"]],
    Float[np.ndarray, "fold d_model"],
]
"""A layer's vectors, one a fold, from its activations and masks of the examples to be used."""


@dataclass(frozen=True, eq=False)
class Crossed:
    """One layer's held-out examples of one side along the cross-fitted vector of one side.

    Args:
        score: projection onto the unit vector, in the activations' own units.
        source: middle of the source's class means along it, over the source's training examples.
        own: middle of the target's class means along it, over the target's training examples.
    """

    score: Float[np.ndarray, " example"]
    source: Float[np.ndarray, " example"]
    own: Float[np.ndarray, " example"]


def crossed(
    sides: Mapping[str, Float[np.ndarray, "example d_model"]],
    labels: Int[np.ndarray, " example"],
    folds: Int[np.ndarray, " example"],
    fit: Fit,
) -> dict[str, Crossed]:
    """Every side along every side's cross-fitted vectors.

    Args:
        sides: activations of one layer by side, the same examples.
        labels: 0 or 1.
        folds: fold in which each example is held out; both classes are in the rest of each.
        fit: how a vector is found.

    Returns:
        By `SOURCE->TARGET`, where the source's vector is applied to the target's activations.
    """
    known = np.unique(folds)
    train = folds != known[:, None]
    mine = np.searchsorted(known, folds)
    units = {source: _units(fit(values, train)) for source, values in sides.items()}
    along: dict[tuple[str, str], np.ndarray] = {}
    for target, values in sides.items():
        wide = values.astype(np.float64)
        along |= {(source, target): wide @ units[source].T for source in sides}
    middles = {pair: _middles(scores, labels, train)[mine] for pair, scores in along.items()}
    return {
        f"{source}->{target}": Crossed(
            score=np.take_along_axis(along[source, target], mine[:, None], axis=1)[:, 0],
            source=middles[source, source],
            own=middles[source, target],
        )
        for source in sides
        for target in sides
    }


def _units(vectors: Float[np.ndarray, "fold d_model"]) -> Float[np.ndarray, "fold d_model"]:
    """Directions of vectors; zero, which ranks nothing, where there is none."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.where(lengths > 0, vectors / np.where(lengths > 0, lengths, 1.0), 0.0)


def _middles(
    along: Float[np.ndarray, "example fold"],
    labels: Int[np.ndarray, " example"],
    train: Bool[np.ndarray, "fold example"],
) -> Float[np.ndarray, " fold"]:
    """Middle of the class means of each fold's training examples, along its vector."""
    masks = [train & (labels == label) for label in (0, 1)]
    means = [(mask * along.T).sum(1) / mask.sum(1) for mask in masks]
    return (means[0] + means[1]) / 2


@dataclass(frozen=True, eq=False)
class Transfer:
    """What cross-fitted vectors are worth, layer by layer.

    Args:
        auroc: within folds, by `SOURCE->TARGET`.
        accuracy: balanced, by `SOURCE->TARGET:THRESHOLD`, the threshold being the source's or the
            target's own.
        separation: of the stage's classes, in within-class standard deviations: along the stage's
            `own` vector and along the `fixed` one, the reference's.
        shift: of the mean of all examples from the reference to the stage along the reference's
            vector, in units of the distance of the reference's class means along it.
    """

    auroc: dict[str, Estimate]
    accuracy: dict[str, Estimate]
    separation: dict[str, Estimate]
    shift: Estimate | None


def transfer(layers: Sequence[Mapping[str, Crossed]], held_out: HeldOut) -> Transfer:
    """Estimates with intervals over groups, of layers that `crossed` scored.

    Args:
        layers: one mapping a layer, all with the same keys.
        held_out: labels, groups and folds of the examples.
    """
    scores = {name: np.stack([layer[name].score for layer in layers]) for name in layers[0]}
    accuracy: dict[str, Estimate] = {}
    for name in layers[0]:
        for threshold in ("source", "own"):
            middle = np.stack([getattr(layer[name], threshold) for layer in layers])
            found = held_out.balanced_accuracy(scores[name] - middle)
            accuracy[f"{name}:{threshold}"] = found
    own, fixed = f"{STAGE}->{STAGE}", f"{REFERENCE}->{STAGE}"
    at_home = f"{REFERENCE}->{REFERENCE}"
    separations = {"own": own} | ({"fixed": fixed} if fixed in scores else {})
    return Transfer(
        auroc={name: held_out.auroc(values) for name, values in scores.items()},
        accuracy=accuracy,
        separation={
            kind: _separation(scores[name], held_out) for kind, name in separations.items()
        },
        shift=_shift(scores[fixed], scores[at_home], held_out) if fixed in scores else None,
    )


def _separation(scores: Float[np.ndarray, "head example"], held_out: HeldOut) -> Estimate:
    def statistic(weights: Float[np.ndarray, "any example"]) -> Float[np.ndarray, "any head"]:
        moments = _Moments.of(scores, held_out, weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            return moments.gap / moments.spread

    return held_out.estimate(statistic)


def _shift(
    stage: Float[np.ndarray, "head example"],
    reference: Float[np.ndarray, "head example"],
    held_out: HeldOut,
) -> Estimate:
    def statistic(weights: Float[np.ndarray, "any example"]) -> Float[np.ndarray, "any head"]:
        moved = weights @ (stage - reference).T / weights.sum(1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return moved / _Moments.of(reference, held_out, weights).gap

    return held_out.estimate(statistic)


@dataclass(frozen=True, eq=False)
class _Moments:
    """Distance of the class means within folds, and the spread around them, for every resample.

    A fold has its own vector, so that its scores have their own origin: classes are compared within
    folds, and the folds' distances averaged by the number of their examples. A fold in which a
    resample lacks a class has no say.
    """

    gap: Float[np.ndarray, "any head"]
    spread: Float[np.ndarray, "any head"]

    @classmethod
    def of(
        cls,
        scores: Float[np.ndarray, "head example"],
        held_out: HeldOut,
        weights: Float[np.ndarray, "any example"],
    ) -> "_Moments":
        shape = (len(weights), len(scores))
        gap, squares = np.zeros(shape), np.zeros(shape)
        total, freedom = np.zeros((len(weights), 1)), np.zeros((len(weights), 1))
        for fold in np.unique(held_out.folds[held_out.folds >= 0]):
            means: list[np.ndarray] = []
            counts: list[np.ndarray] = []
            for label in (0, 1):
                chosen = (held_out.folds == fold) & (held_out.labels == label)
                part, w = scores[:, chosen].T, weights[:, chosen]
                # Around a value near the mean, so that squares of a large offset do not cancel.
                origin = part.mean(axis=0)
                count = w.sum(1, keepdims=True)
                mean = w @ (part - origin) / np.maximum(count, 1)
                squares += w @ (part - origin) ** 2 - count * mean**2
                freedom += np.maximum(count - 1, 0)
                means.append(mean + origin)
                counts.append(count)
            size = (counts[0] + counts[1]) * (counts[0] > 0) * (counts[1] > 0)
            gap += size * (means[1] - means[0])
            total += size
        with np.errstate(invalid="ignore", divide="ignore"):
            return cls(gap / total, np.sqrt(np.maximum(squares, 0) / freedom))
