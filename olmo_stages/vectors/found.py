"""What was found about one trait: its vectors in all layers, and what their inference allows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from olmo_stages.dominant import VARIANTS, Variant
from olmo_stages.heldout import Where
from olmo_stages.vectors.contrast import Contrast
from olmo_stages.vectors.inference import Inference, two_sided, upper
from olmo_stages.vectors.nulls import Nulls
from olmo_stages.vectors.transfer import Transfer
from olmo_stages.vectors.turns import Side, Turn

LEVEL = 0.05
"""p, over the maximum over layers, from which on nothing is claimed."""

CHANCE = "not distinguishable from the null"
UNRELIABLE = "reliability not above zero"
SAME = "same weights"
TURNED = "turned more than the null"
MORE = "turned more than unrelated contrasts"
LESS = "turned less than unrelated contrasts"


@dataclass(frozen=True, eq=False)
class Found:
    """One trait in all layers.

    Args:
        contrast: its examples.
        nulls: what its cosine is compared with.
        where: stage, reference and layers.
        turns: by variant, one mapping a layer.
        transfer: its cross-fitted vectors on held-out groups.
        same: whether both stages have the same weights.
    """

    contrast: Contrast
    nulls: Nulls
    where: Where
    turns: tuple[dict[Variant, Turn], ...]
    transfer: Transfer
    same: bool

    @property
    def compared(self) -> bool:
        """Whether there is a reference."""
        return self.turns[0]["raw"].reference is not None

    @property
    def dominated(self) -> bool:
        """Whether a dimension dominates anywhere, so that the variants differ."""
        return any(turn["raw"].dominant for turn in self.turns)

    def each(self, get: Callable[[Turn], Any], variant: Variant = "raw") -> list[Any]:
        """Something of every layer."""
        return [get(turn[variant]) for turn in self.turns]

    def numbers(
        self, get: Callable[[Turn], float], variant: Variant = "raw"
    ) -> Float[np.ndarray, " layer"]:
        """A number of every layer."""
        return np.array(self.each(get, variant), dtype=np.float64)

    def sides(self) -> dict[str, Callable[[Turn], Side]]:
        """How to get at the stage's vector, and at the reference's where there is one."""
        found: dict[str, Callable[[Turn], Side]] = {"stage": lambda turn: turn.stage}
        return found | ({"reference": _reference} if self.compared else {})

    @cached_property
    def against(self) -> dict[tuple[Variant, str], tuple[Inference, Inference]]:
        """By variant and null: the cosine's inference, one-sided and two-sided.

        Empty where there is no reference, or where no label can change places.
        """
        found: dict[tuple[Variant, str], tuple[Inference, Inference]] = {}
        for variant in VARIANTS:
            for name in self.each(lambda turn: list(turn.samples), variant)[0]:
                if name != "unrelated" and not self.nulls.exchangeable:
                    continue
                samples = self.stacked(lambda turn, name=name: turn.samples[name], variant)
                if not samples.shape[1]:
                    continue
                rounding = self.stacked(lambda turn, name=name: turn.rounding[name], variant)
                value = self.numbers(lambda turn: turn.cosine.value, variant)
                least = 1 / self.nulls.n_different(name)
                found[variant, name] = (
                    upper(value, samples, rounding, least),
                    two_sided(value, samples, rounding, least),
                )
        return found

    def stacked(
        self, get: Callable[[Turn], np.ndarray], variant: Variant
    ) -> Float[np.ndarray, "layer sample"]:
        """Samples of every layer."""
        return np.stack(self.each(get, variant))

    def unreliable(self, name: str, variant: Variant = "raw") -> list[bool]:
        """Whether the interval of a side's reliability holds zero, layer by layer."""
        found = [it.reliability for it in self.each(self.sides()[name], variant)]
        # With too few groups for an interval the value itself is all that is known.
        ends = [it.low if math.isfinite(it.low) else it.value for it in found]
        return [not end > 0 for end in ends]

    @cached_property
    def reliable(self) -> Bool[np.ndarray, " layer"]:
        """Whether the vectors of both sides are more than noise, layer by layer."""
        return self.reliable_of("raw")

    def reliable_of(self, variant: Variant) -> Bool[np.ndarray, " layer"]:
        """The same of the vectors of a variant."""
        weak = np.array([self.unreliable(name, variant) for name in self.sides()])
        return np.logical_not(np.any(weak, axis=0))

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What must be said of the raw cosine of every layer."""
        judged = self.against.get(("raw", "relabelled"))
        notes: list[str] = []
        for i in range(len(self.turns)):
            said = [SAME] if self.same else []
            said += [] if judged is None else filter(None, [self._verdict(*judged, i)])
            said += filter(None, [self._beside_unrelated(i)])
            said += [] if self.reliable[i] else [UNRELIABLE]
            notes.append("; ".join(said))
        return tuple(notes)

    def _verdict(self, one_sided: Inference, both_sided: Inference, i: int) -> str:
        """A claim only where the numbers support it: what is noise has not turned."""
        if one_sided.p_max[i] <= LEVEL:
            return ""
        turned = both_sided.p_max[i] <= LEVEL and one_sided.z[i] < 0
        return TURNED if turned and self.reliable[i] else CHANCE

    def _beside_unrelated(self, i: int) -> str:
        """Where the classes lie far apart a relabelled contrast is the trait again, only weaker.

        What then tells whether the trait turned by itself are contrasts of the same texts that have
        no part in it.
        """
        judged = self.against.get(("raw", "unrelated"))
        if judged is None or not self.reliable[i] or judged[1].p_max[i] > LEVEL:
            return ""
        return MORE if judged[1].z[i] < 0 else LESS


def _reference(turn: Turn) -> Side:
    assert turn.reference is not None
    return turn.reference


def tensors(found: Sequence[Found]) -> dict[str, np.ndarray]:
    """The vectors of all layers by trait, and where the classes lie along them.

    Args:
        found: the traits, all in the same layers.
    """
    kept: dict[str, np.ndarray] = {"layers": np.array(found[0].where.layers, dtype=np.int64)}
    for one in found:
        for name, get in one.sides().items():
            prefix = f"{one.contrast.trait}.{'' if name == 'stage' else 'reference_'}"
            sides: list[Side] = one.each(get)
            kept[f"{prefix}vector"] = np.stack([side.vector for side in sides])
            kept[f"{prefix}midpoint"] = np.array([side.midpoint for side in sides])
            kept[f"{prefix}separation"] = np.array([side.separation for side in sides])
    return kept
