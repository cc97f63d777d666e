"""analysis=probe: what can a linear probe read at each layer, and would something simpler do?

Every layer's score comes with an interval over groups, the permutation null of its layer and of the
maximum over layers, a control task, and four baselines: prompt length, bag of tokens, the embedding
layer, and a randomly initialised model of the same shape. Against a reference stage it comes with
the paired difference and with the transfer of probes in both directions.

Source:
    Alain & Bengio 2016 (linear probes); Hewitt & Liang 2019, 1909.03368 (control tasks); Buerger et
    al. 2024, 2407.12831 (affirmative and negated statements).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from olmo_stages.probing.names import BEST_LAYER, DIFFERENCE, DIFFERENCE_STAGES
from olmo_stages.probing.options import Options
from olmo_stages.types import (
    EMBEDDING_LAYER,
    ActivationSource,
    Change,
    Finished,
    Result,
    Stage,
    Wanted,
    wanted_by,
)

CHANGE = Change(
    name="probe",
    says="AUROC of the best layer's probe, which each fold's training set chose, less the parent's "
    "on the same held-out examples",
    metric=DIFFERENCE,
    variant=BEST_LAYER,
    metric_across=DIFFERENCE_STAGES,
    variant_across=BEST_LAYER,
    unchanged=0.0,
    resampled="95 % bootstrap interval of the paired difference over groups of examples",
    reverse="negated",
)


@dataclass(frozen=True)
class Probe(Options):
    """The probe analysis, with its options."""

    name: ClassVar[str] = "probe"
    version: ClassVar[int] = 3

    def reads(self, stage: Stage, reference: Stage | None, seed: int) -> tuple[Wanted, ...]:
        """Both sides, and the baselines that are activations."""
        untrained = replace(stage, random_init=seed) if self.random_init else None
        place = self.site, self.position
        return (
            *wanted_by((stage, reference), *place, self.layers),
            *wanted_by((stage,), *place, (EMBEDDING_LAYER,)),
            *wanted_by((untrained,), *place, self.layers),
        )

    def __call__(
        self, stage: Stage, reference: Stage | None, activations: ActivationSource, seed: int
    ) -> Result:
        """Probe every layer of `stage`, and compare with `reference` where there is one."""
        from olmo_stages.probing.run import Run  # late: a finished job waits for no solver

        return Run(self, stage, reference, activations, seed).result()


def across(jobs: Sequence[Finished]) -> Result | None:
    """Every stage of a sweep against every other, from the held-out scores that its jobs kept."""
    from olmo_stages.probing.assembly import stage_differences  # late, likewise

    return stage_differences(jobs)
