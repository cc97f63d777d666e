"""How the probes of one job are fitted and judged: once for everything that is scored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.data.splits import folds
from olmo_stages.errors import DataError
from olmo_stages.estimates import RESOLUTION
from olmo_stages.heldout import Estimate, HeldOut
from olmo_stages.layer_probe import Recipe
from olmo_stages.nested import Probes, cross_validate
from olmo_stages.types import Activations, Example, ProbeKind


@dataclass(frozen=True, eq=False)
class Design:
    """Examples with their folds and resamples, and how probes are fitted to them.

    Args:
        examples: labelled.
        held_out: their folds, and resamples of their groups.
        kind: of the probes.
        strengths: L2 penalties to choose from.
        n_inner: inner folds; lowered where a class of a training set has fewer groups.
    """

    examples: Sequence[Example]
    held_out: HeldOut
    kind: ProbeKind
    strengths: tuple[float, ...]
    n_inner: int

    def recipe(self, features: Activations | None) -> Recipe:
        """How to fit probes to activations, or to exact features such as counts."""

        def split(chosen: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " chosen"]:
            subset = [self.examples[i] for i in chosen]
            return folds(subset, _most_folds(subset, self.n_inner))

        recipe = Recipe(self.kind, self.strengths, split)
        if features is None:
            return recipe
        return replace(recipe, resolution=RESOLUTION[features.dtype])

    def probes(self, acts: Activations) -> Probes:
        """The probes of every layer and fold."""
        held_out = self.held_out
        return cross_validate(acts.values, held_out.labels, held_out.folds, self.recipe(acts))

    def auroc(self, acts: Activations) -> Estimate:
        """What probes of these activations score on held-out groups, by layer."""
        return self.held_out.auroc(self.probes(acts).score(acts.values))

    def auroc_of_counts(self, values: Float[np.ndarray, "head example feature"]) -> Estimate:
        """The same for features that are exact."""
        held_out = self.held_out
        probes = cross_validate(values, held_out.labels, held_out.folds, self.recipe(None))
        return held_out.auroc(probes.score(values))


@dataclass(frozen=True, eq=False)
class Side:
    """What probes read in one model.

    Args:
        acts: what they read.
        probes: of every layer and fold.
        scores: each by the probe that never saw the example's group.
        auroc: by layer.
        nested: AUROC of the layer that each fold's training set validated best.
        accuracy: balanced, by layer.
    """

    acts: Activations
    probes: Probes
    scores: Float[np.ndarray, "head example"]
    auroc: Estimate
    nested: Estimate
    accuracy: Estimate

    @classmethod
    def of(cls, design: Design, acts: Activations) -> "Side":
        """Fit and score the probes of a model."""
        probes, held_out = design.probes(acts), design.held_out
        scores = probes.score(acts.values)
        return cls(
            acts=acts,
            probes=probes,
            scores=scores,
            auroc=held_out.auroc(scores),
            nested=held_out.auroc(probes.of_best_layer(scores)),
            accuracy=held_out.balanced_accuracy(scores),
        )


def outer_folds(
    examples: Sequence[Example], wanted: int
) -> tuple[Int[np.ndarray, " example"], list[str]]:
    """Fold of each example, and what must be known of its groups.

    Args:
        examples: about one trait.
        wanted: number of folds; lowered where a class has fewer groups.

    Raises:
        DataError: the labels are about several traits, or a class has fewer than 3 groups.
    """
    traits = dict.fromkeys(example.trait or "trait" for example in examples)
    if len(traits) > 1:
        raise DataError(
            f"the labels of the examples are about {len(traits)} traits ({', '.join(traits)}); a "
            "probe reads one: give a data set with one trait"
        )
    n_groups = _fewest_groups(examples)
    if n_groups < 3:
        raise DataError(
            f"a class occurs in {n_groups} groups; nested cross-validation needs at least 3 groups "
            "of each class"
        )
    said: list[str] = []
    if n_groups < 10:
        said.append(f"a class occurs in {n_groups} groups; intervals over fewer than 10 are rough")
    n_folds = _most_folds(examples, wanted)
    if n_folds < wanted:
        said.append(f"{n_folds} outer folds instead of {wanted}: a class has {n_folds} groups")
    return folds(examples, n_folds), said


def _fewest_groups(examples: Sequence[Example]) -> int:
    """Number of groups in which the rarer class occurs."""
    return min(len({e.group for e in examples if e.label == label}) for label in (0, 1))


def _most_folds(examples: Sequence[Example], wanted: int) -> int:
    """`wanted`, or the smaller number of groups that the rarer class has."""
    return max(2, min(wanted, _fewest_groups(examples)))
