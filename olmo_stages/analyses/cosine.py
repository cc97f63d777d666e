"""analysis=cosine: is a trait's vector the same in another stage?

For each trait and layer a vector is found in the stage and in its reference. Their cosine comes
with the reliability of both, corrected for their noise, and beside what the same relabelling in
both stages gives, another one in each, and contrasts that have nothing to do with the label:
between adjacent stages even a shuffled contrast has a cosine near 1. The vectors are also used on
held-out groups of both stages, and compared across traits.

Source:
    Chen et al. 2025, 2507.21509 (persona vectors); Zou et al. 2023, 2310.01405 (paired
    differences); Marks & Tegmark 2023, 2310.06824 (mean difference).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import ClassVar, cast, get_args

import numpy as np

from olmo_stages.data.splits import folds
from olmo_stages.errors import ConfigError, PairingError
from olmo_stages.heldout import HeldOut, Where
from olmo_stages.parallel import in_threads
from olmo_stages.progress import progress
from olmo_stages.types import (
    Activations,
    ActivationSource,
    Change,
    Finished,
    Position,
    Result,
    Site,
    Stage,
    Wanted,
    check_choice,
    check_pooled,
    wanted_by,
)
from olmo_stages.vectors.by_layer import by_layer
from olmo_stages.vectors.caveats import caveats, of_reading
from olmo_stages.vectors.contrast import Contrast, Targets, contrasts
from olmo_stages.vectors.found import CHANCE, LESS, MORE, TURNED, Found, tensors
from olmo_stages.vectors.kinds import KINDS, Kind, extractor
from olmo_stages.vectors.nulls import control, draw
from olmo_stages.vectors.plan import Plan
from olmo_stages.vectors.rows import rows_of, trait_rows
from olmo_stages.vectors.streamed import LayerFound, Trait, read_layer
from olmo_stages.vectors.summary import figures, headline
from olmo_stages.vectors.trajectory import trajectories
from olmo_stages.vectors.transfer import transfer

CHANGE = Change(
    name="cosine",
    says="cosine of the trait's vector with the parent's, corrected for the noise of both, mean "
    "over the layers where both are reliable",
    metric="corrected_cosine_mean",
    variant="raw",
    unchanged=1.0,
    resampled="95 % jackknife interval over groups of examples, as wide as if all layers erred "
    "together",
    reverse="same",
)

NOTES = {
    CHANCE: "the null is that of shuffled labels",
    TURNED: "the null is that of shuffled labels; two-sided p over all layers at most 0.05",
    MORE: "two-sided p over all layers at most 0.05",
    LESS: "two-sided p over all layers at most 0.05",
}
"""What the notes of headlines mean."""


@dataclass(frozen=True)
class Cosine:
    """Options of the analysis; conf/analysis/cosine.yaml holds the defaults.

    Args:
        kind: how a vector is found: `mean_difference`, `pca`, `lda` or `logistic`.
        site: where each layer is read.
        position: which token of each example, or the mean of which.
        layers: block indices; null = all.
        shrinkage: of the covariance, for `lda`: share of the mean variance that is mixed in.
        strength: L2 penalty, for `logistic`, relative to the mean loss.
        n_permutations: relabellings of the nulls; 0 = none, and no p.
        n_unrelated: contrasts unrelated to the label; 0 = none.
        n_folds: folds of the cross-fitted vectors; lowered when a class has fewer groups.
        n_resamples: bootstrap resamples of the groups, for held-out scores.
    """

    kind: str
    site: str
    position: str
    layers: Sequence[int] | None
    shrinkage: float | int
    strength: float | int
    n_permutations: int
    n_unrelated: int
    n_folds: int
    n_resamples: int

    name: ClassVar[str] = "cosine"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_choice("analysis.kind", self.kind, KINDS)
        check_choice("analysis.site", self.site, get_args(Site))
        check_pooled("analysis.position", self.position)
        if self.layers is not None and not self.layers:
            raise ConfigError("analysis.layers=[] leaves no layer to compare; give some, or null")
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise ConfigError(f"analysis.layers={list(self.layers)} names a layer twice")
        for option, least in (
            ("n_permutations", 0),
            ("n_unrelated", 0),
            ("n_folds", 2),
            ("n_resamples", 100),
        ):
            if getattr(self, option) < least:
                raise ConfigError(
                    f"analysis.{option}={getattr(self, option)} is too small; give at least {least}"
                )
        if not 0 < self.shrinkage <= 1:
            raise ConfigError(f"analysis.shrinkage={self.shrinkage}: give more than 0, at most 1")
        if not 0 < self.strength < float("inf"):
            raise ConfigError(f"analysis.strength={self.strength}: give a positive penalty")

    def reads(self, stage: Stage, reference: Stage | None, seed: int) -> tuple[Wanted, ...]:
        """Both sides."""
        del seed
        return wanted_by((stage, reference), self.site, self.position, self.layers)

    def __call__(
        self, stage: Stage, reference: Stage | None, activations: ActivationSource, seed: int
    ) -> Result:
        """Find the vectors of `stage`, and set them beside those of `reference`."""
        return _Run(self, stage, reference, activations, seed).result()


def across(jobs: Sequence[Finished]) -> Result | None:
    """All jobs of a sweep by layer, and those that share a reference as a curve along training."""
    drawn, found = by_layer(jobs), trajectories(jobs)
    if not drawn:
        return found
    together = found or Result((), headline={"stages": len({job.stage for job in jobs})})
    return replace(together, figures={**drawn, **together.figures})


class _Run:
    """One call of the analysis: its inputs, read once."""

    def __init__(
        self,
        options: Cosine,
        stage: Stage,
        reference: Stage | None,
        source: ActivationSource,
        seed: int,
    ) -> None:
        self.options, self.stage, self.seed, self.source = options, stage, seed, source
        self.reference = reference
        self.examples = source.examples
        self.extract = extractor(
            cast("Kind", options.kind),
            shrinkage=float(options.shrinkage),
            strength=float(options.strength),
        )
        self.warnings: list[str] = []

    def result(self) -> Result:
        """Everything, in the order in which a reader asks for it."""
        contrasted = contrasts(self.examples, paired=self.extract.needs_pairs)
        held_out = [self._held_out(contrast) for contrast in contrasted]
        pairs = self._pairs()
        first = next(pairs)
        self._check(*first)
        self.traits = [
            Trait(self._plan(contrast, first[0]), held)
            for contrast, held in zip(contrasted, held_out, strict=True)
        ]
        with progress(f"cosine {self.stage.label}: layers", None) as advance:
            layers = list(self._layers(chain([first], pairs), advance))
        same = first[1] is not None and first[0].model_digest == first[1].model_digest
        return self._assembled(layers, same=same)

    def _stream(self, stage: Stage) -> Iterator[Activations]:
        wanted = self.options.layers
        return self.source.stream(
            stage,
            site=cast("Site", self.options.site),
            position=cast("Position", self.options.position),
            layers=None if wanted is None else tuple(sorted(wanted)),
        )

    def _pairs(self) -> Iterator[tuple[Activations, Activations | None]]:
        """One layer of the stage after another, with the reference's.

        Raises:
            PairingError: the two do not have the same layers.
        """
        if self.reference is None:
            yield from ((acts, None) for acts in self._stream(self.stage))
            return
        for one, other in zip_longest(self._stream(self.stage), self._stream(self.reference)):
            if one is None or other is None or one.layers != other.layers:
                layers = [it.layers[0] for it in (one, other) if it is not None]
                raise PairingError(
                    f"{self.stage.label} and {self.reference.label} have other layers, the first "
                    f"is {min(layers)}; compare models of one depth"
                )
            yield one, other

    def _check(self, acts: Activations, other: Activations | None) -> None:
        """Refuse what cannot be compared, and note what must be known.

        Raises:
            PairingError: other examples, or another width.
        """
        self.warnings += of_reading(acts, other)
        if other is None:
            return
        pair = f"{acts.stage.label} and {other.stage.label}"
        if acts.ids != other.ids:
            raise PairingError(
                f"{pair} hold different examples or another order ({len(acts.ids)} and "
                f"{len(other.ids)}); read both from the same data"
            )
        widths = (acts.values.shape[2], other.values.shape[2])
        if widths[0] != widths[1]:
            raise PairingError(
                f"{pair} have d_model {widths[0]} and {widths[1]}: vectors of different spaces "
                "have no cosine; compare models of one width, or use analysis=cka"
            )

    def _held_out(self, contrast: Contrast) -> HeldOut:
        """Folds and resamples of a trait's examples."""
        examples = [self.examples[i] for i in contrast.rows]
        fewest = min(len({e.group for e in examples if e.label == label}) for label in (0, 1))
        n_folds = min(self.options.n_folds, fewest)
        if n_folds < self.options.n_folds:
            self.warnings.append(
                f"{contrast.trait}: {n_folds} folds instead of {self.options.n_folds}: a class has "
                f"{fewest} groups"
            )
        split = folds(examples, n_folds)
        return HeldOut.of(examples, split, self.options.n_resamples, self.seed)

    def _plan(self, contrast: Contrast, acts: Activations) -> Plan:
        options, pairs = self.options, self.extract.needs_pairs
        nulls = draw(contrast, options.n_permutations, options.n_unrelated, self.seed, pairs=pairs)
        return Plan(contrast, self.extract, nulls, self._controls(contrast, acts), self.seed)

    def _controls(self, contrast: Contrast, acts: Activations) -> dict[str, Targets]:
        """Contrasts about the length and the polarity of the same texts, where they vary."""
        examples = [self.examples[i] for i in contrast.rows]
        values = {"length": [float(len(acts.token_ids[i])) for i in contrast.rows]}
        kinds = sorted({e.polarity for e in examples})
        if len(kinds) == 2:
            values["polarity"] = [float(kinds.index(e.polarity)) for e in examples]
        pairs = self.extract.needs_pairs
        made = {
            name: control(contrast, np.array(it), self.seed, pairs=pairs)
            for name, it in values.items()
        }
        return {name: targets for name, targets in made.items() if targets is not None}

    def _layers(
        self,
        pairs: Iterator[tuple[Activations, Activations | None]],
        advance: Callable[[], None],
    ) -> Iterator[LayerFound]:
        for found in in_threads(lambda pair: read_layer(*pair, self.traits), pairs):
            yield found
            advance()

    def _assembled(self, layers: Sequence[LayerFound], *, same: bool) -> Result:
        where = Where(
            self.stage.label,
            "" if self.reference is None else self.reference.label,
            tuple(layer.index for layer in layers),
            tuple(layer.kind for layer in layers),
            self.seed,
        )
        found = [
            Found(
                contrast=trait.plan.contrast,
                nulls=trait.plan.nulls,
                where=where,
                turns=tuple(layer.turns[i] for layer in layers),
                transfer=transfer([layer.crossed[i] for layer in layers], trait.held_out),
                same=same,
            )
            for i, trait in enumerate(self.traits)
        ]
        rows = [row for one in found for row in rows_of(one)]
        between = [layer.between for layer in layers if layer.between is not None]
        if between:
            rows += trait_rows(between, found)
        return Result(
            measurements=tuple(rows),
            tensors=tensors(found),
            figures=figures(found, rows),
            headline=headline(found, rows),
            warnings=(*self.warnings, *caveats(found, self.stage, self.reference)),
        )
