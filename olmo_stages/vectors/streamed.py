"""One layer of both stages made into the vectors of every trait, and what they are worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from olmo_stages.dominant import Variant
from olmo_stages.estimates import RESOLUTION
from olmo_stages.heldout import HeldOut
from olmo_stages.types import Activations
from olmo_stages.vectors.plan import Plan
from olmo_stages.vectors.traits import TraitCosines, trait_cosines
from olmo_stages.vectors.transfer import REFERENCE, STAGE, Crossed, crossed
from olmo_stages.vectors.turns import Turn, turn


@dataclass(frozen=True, eq=False)
class Trait:
    """What is made of one trait in every layer."""

    plan: Plan
    held_out: HeldOut

    def fit(
        self, values: Float[np.ndarray, "row d_model"], train: Bool[np.ndarray, "fold row"]
    ) -> Float[np.ndarray, "fold d_model"]:
        """Its vectors from some of its examples each."""
        extract, contrast = self.plan.extract, self.plan.contrast
        if extract.kind in {"mean_difference", "pca"}:
            return extract(values, contrast.targets().within(list(train)))
        # Covariance and scale are those of all rows that are given: not of held-out ones.
        subsets = [contrast.subset(np.flatnonzero(mask)) for mask in train]
        return np.concatenate([
            extract(values[mask], subset.targets())
            for mask, subset in zip(train, subsets, strict=True)
        ])

    def crossed(
        self, sides: Mapping[str, Float[np.ndarray, "example d_model"]]
    ) -> dict[str, Crossed]:
        """Every side's vectors on every side's held-out examples."""
        own = {name: values[self.plan.contrast.rows] for name, values in sides.items()}
        return crossed(own, self.held_out.labels, self.held_out.folds, self.fit)


@dataclass(frozen=True, eq=False)
class LayerFound:
    """What one layer came to: by trait, and between the stage's traits."""

    index: int
    kind: str
    turns: list[dict[Variant, Turn]]
    crossed: list[dict[str, Crossed]]
    between: dict[Variant, TraitCosines] | None


def read_layer(acts: Activations, other: Activations | None, traits: Sequence[Trait]) -> LayerFound:
    """Find and judge the vectors of one layer.

    Args:
        acts: the layer of the stage.
        other: the same layer of the reference, of the same examples.
        traits: what to make of it.
    """
    sides = {STAGE: acts.values[0]} | ({} if other is None else {REFERENCE: other.values[0]})
    read = [acts] if other is None else [acts, other]
    resolution = max(RESOLUTION[it.dtype] for it in read)
    names = [f"{it.stage.label} layer {it.layers[0]}" for it in read]
    between = None
    if len(traits) > 1:
        plans = [trait.plan for trait in traits]
        between = trait_cosines(sides[STAGE], plans, resolution, names[0])
    return LayerFound(
        index=acts.layers[0],
        kind=acts.layer_types[0],
        turns=[
            turn(sides[STAGE], sides.get(REFERENCE), it.plan, resolution, (names[0], names[-1]))
            for it in traits
        ],
        crossed=[it.crossed(sides) for it in traits],
        between=between,
    )
