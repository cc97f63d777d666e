"""analysis=cka: how similar are two stages' representations, layer by layer?

The map of all pairs of layers comes with errors, a permutation null for each cell and for the
maximum over the map, and calibrated scores; its diagonal with bootstrap intervals over groups, a
floor (the same stage randomly initialised), a ceiling (two halves of the stage's own dimensions),
and other measures. Everything is said twice: for the features as they are, and with dominant
dimensions scaled down. A stage without a reference is compared with itself.

Source:
    Kornblith et al. 2019, 1905.00414; Murphy et al. 2024, 2405.01012 (debiasing); Gröger et al.
    2026, 2602.14486 (calibration against permutations); Davari et al. 2022, 2210.16156 (why one
    number is not enough).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar, cast, get_args

from olmo_stages.dominant import VARIANTS
from olmo_stages.errors import ConfigError
from olmo_stages.estimates import RESOLUTION, group_weights
from olmo_stages.progress import progress
from olmo_stages.similarity import choice
from olmo_stages.similarity.assembly import stage_matrices
from olmo_stages.similarity.design import Design, exchangeable_groups
from olmo_stages.similarity.findings import Findings
from olmo_stages.similarity.measure import Fitted, PairTable
from olmo_stages.similarity.rows import check_pair, chosen_rows, digest, owners_of
from olmo_stages.similarity.sides import Plan, Side, read
from olmo_stages.similarity.summary import caveats, figures, headline
from olmo_stages.similarity.tidy import Labels
from olmo_stages.types import (
    Activations,
    ActivationSource,
    Change,
    Finished,
    Measurement,
    Position,
    Result,
    Site,
    Stage,
    Wanted,
    check_choice,
    wanted_by,
)


@dataclass(frozen=True)
class CKA:
    """Options of the similarity analysis; conf/analysis/cka.yaml holds the defaults.

    Args:
        measure: the main measure, of which the map is made.
        also: further measures, along the diagonal.
        site: where each layer is read.
        position: which tokens of each example; `tokens` compares tokens instead of examples.
        layers: block indices; null = all.
        max_rows: largest number of examples or tokens compared.
        tokens_per_example: at position `tokens`, how many of each example; null = all.
        batch: rows of a minibatch, for `minibatch_cka`.
        neighbours: for `mutual_knn`.
        n_components: for `procrustes`.
        variance: share of the variance kept, for `svcca` and `pwcca`.
        n_resamples: bootstrap resamples of the groups.
        n_permutations: row permutations of the main measure's map; 0 = no p.
        n_permutations_also: row permutations of the other measures; 0 = no p.
        n_halves: random halves of the stage's own dimensions; 0 = no ceiling.
        random_init: whether to run the randomly initialised model of the same shape.
        keep_tables: whether the result keeps what the stage x stage matrices are made from.
    """

    measure: str
    also: Sequence[str]
    site: str
    position: str
    layers: Sequence[int] | None
    max_rows: int
    tokens_per_example: int | None
    batch: int
    neighbours: int
    n_components: int
    variance: float | int
    n_resamples: int
    n_permutations: int
    n_permutations_also: int
    n_halves: int
    random_init: bool
    keep_tables: bool

    name: ClassVar[str] = "cka"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._check_measures()
        check_choice("analysis.site", self.site, get_args(Site))
        check_choice("analysis.position", self.position, get_args(Position))
        if self.layers is not None and not self.layers:
            raise ConfigError("analysis.layers=[] leaves no layer to compare; give some, or null")
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise ConfigError(f"analysis.layers={list(self.layers)} names a layer twice")
        for option, least in (
            ("max_rows", 4),
            ("n_resamples", 100),
            ("n_permutations", 0),
            ("n_permutations_also", 0),
            ("n_halves", 0),
        ):
            if getattr(self, option) < least:
                raise ConfigError(
                    f"analysis.{option}={getattr(self, option)} is too small; give at least {least}"
                )
        if self.tokens_per_example is not None and self.tokens_per_example < 1:
            raise ConfigError(
                f"analysis.tokens_per_example={self.tokens_per_example}: give 1 or more, or null"
            )
        self.pair_tables()
        self.fitted()

    def _check_measures(self) -> None:
        if self.measure in choice.FITTED:
            raise ConfigError(
                f"analysis.measure={self.measure} has no map: choose from "
                f"{', '.join(choice.TABLES)}, and name it in analysis.also=[{self.measure}]"
            )
        check_choice("analysis.measure", self.measure, choice.TABLES)
        if isinstance(self.also, str):
            raise ConfigError(f"analysis.also={self.also} must be a list: [{self.also}]")
        for name in self.also:
            check_choice("analysis.also", name, choice.TABLES + choice.FITTED)
        if self.measure in self.also or len(set(self.also)) < len(self.also):
            raise ConfigError(f"analysis.also={list(self.also)} names a measure twice")

    def pair_tables(self) -> tuple[PairTable, ...]:
        """Measures with pair tables, the main one first."""
        names = [self.measure, *(name for name in self.also if name in choice.TABLES)]
        return tuple(
            choice.pair_table(name, batch=self.batch, neighbours=self.neighbours) for name in names
        )

    def fitted(self) -> tuple[Fitted, ...]:
        """Measures that are fitted."""
        names = [name for name in self.also if name in choice.FITTED]
        return tuple(
            choice.fitted(name, n_components=self.n_components, variance=float(self.variance))
            for name in names
        )

    def reads(self, stage: Stage, reference: Stage | None, seed: int) -> tuple[Wanted, ...]:
        """Both sides, and the floor."""
        floor = replace(stage, random_init=seed) if self.random_init else None
        return wanted_by((stage, reference, floor), self.site, self.position, self.layers)

    def __call__(
        self, stage: Stage, reference: Stage | None, activations: ActivationSource, seed: int
    ) -> Result:
        """Compare every layer of `stage` with every layer of `reference`, or of itself."""
        return _Run(self, stage, reference, activations, seed).result()


def across(jobs: Sequence[Finished]) -> Result | None:
    """Stage x stage matrices of a sweep, from what its jobs kept."""
    return stage_matrices(jobs)


def change(measurements: Sequence[Measurement]) -> Change | None:
    """The mean over layers of the measure that its maps are of."""
    maps = [row.metric for row in measurements if row.metric.endswith("_map")]
    if not maps:
        return None
    name = maps[0].removesuffix("_map")
    declared = choice.pair_table(name, batch=4, neighbours=1).declared
    return Change(
        name="CKA" if declared.title.endswith("CKA") else declared.title,
        says=f"{declared.title} of each layer with the parent's, mean over layers",
        metric=f"{name}_mean",
        variant="raw",
        metric_across=f"{name}_stages",
        variant_across="raw",
        unchanged=declared.high,
        resampled="95 % bootstrap interval over groups of examples",
        resampled_across="95 % jackknife interval over groups of examples",
        reverse="same",
    )


class _Run:
    """One call of the analysis: its inputs, read once, and the rows it collects."""

    def __init__(
        self,
        options: CKA,
        stage: Stage,
        reference: Stage | None,
        source: ActivationSource,
        seed: int,
    ) -> None:
        self.options, self.stage, self.seed, self.source = options, stage, seed, source
        self.reference = stage if reference is None else reference
        self.groups = [example.group for example in source.examples]
        self.measures, self.fitted = options.pair_tables(), options.fitted()
        self.main = self.measures[0]
        self.warnings: list[str] = []
        self.mixed: str | None = None

    @property
    def _keeps_tables(self) -> bool:
        # Those of prompts that differ would meet tables of other jobs as if they were the same.
        return self.options.keep_tables and self.mixed is None

    def result(self) -> Result:
        """Everything, in the order in which a reader asks for it."""
        n_steps = 3 + len(VARIANTS) * (self.options.n_permutations + len(self.options.also))
        with progress(f"cka {self.stage.label}: steps", n_steps) as advance:
            found = self._read(advance)
            for variant in VARIANTS:
                if variant != "raw" and not found.dominated:
                    found.repeat(variant)
                    for _ in range(self.options.n_permutations + len(self.options.also)):
                        advance()
                    continue
                found.compare(variant, advance)
                for measure in (*self.measures[1:], *self.fitted):
                    found.also(measure, variant)
                    advance()
        if self._keeps_tables:
            found.tensors |= {
                "units": self.design.units,
                "groups": self.design.groups,
                "blocks": self.design.block_of_row(),
                "compared": digest(self.acts, self.plan.rows),
            }
        return Result(
            measurements=tuple(found.rows),
            tensors=found.tensors,
            figures=figures(found),
            headline=headline(found),
            warnings=tuple(
                dict.fromkeys([
                    *([] if self.mixed is None else [self.mixed]),
                    *self.warnings,
                    *caveats(found, self.acts, self.options.n_permutations),
                    *found.warnings,
                ])
            ),
        )

    def _stream(self, stage: Stage) -> Iterator[Activations]:
        wanted = self.options.layers
        return self.source.stream(
            stage,
            site=cast("Site", self.options.site),
            position=cast("Position", self.options.position),
            layers=None if wanted is None else tuple(sorted(wanted)),
        )

    def _read(self, advance: Callable[[], None]) -> Findings:
        stream = self._stream(self.stage)
        self.acts = next(stream)
        self._choose_rows()
        x = read(chain([self.acts], stream), self.plan)
        advance()
        y = x
        if self.reference != self.stage:
            others = self._stream(self.reference)
            first = next(others)
            self.mixed = check_pair(self.acts, first)
            y = read(chain([first], others), self.plan)
        advance()
        floor: Side | None = None
        if self.options.random_init:
            plan = replace(self.plan, tables=self.measures[:1], fitted=(), n_halves=0)
            floor = read(self._stream(replace(self.stage, random_init=self.seed)), plan)
        advance()
        names = [f"{group:06d}" for group in self.design.groups]
        return Findings(
            x=x,
            y=y,
            floor=floor,
            plan=self.plan,
            labels=Labels(
                stage=self.stage.label,
                reference=self.reference.label,
                layers=x.indices,
                kinds=x.kinds,
                others=y.indices,
                other_kinds=y.kinds,
                n=len(self.plan.rows),
                n_groups=self.design.n_groups,
                seed=self.seed,
            ),
            weights=group_weights(names, self.options.n_resamples, self.seed),
            n_permutations=self.options.n_permutations,
            n_permutations_also=self.options.n_permutations_also,
            keep_tables=self._keeps_tables,
        )

    def _choose_rows(self) -> None:
        """Decide what is compared, and what is independent of what."""
        options = self.options
        unlimited = not self.fitted and all(it.batch is not None for it in self.measures)
        rows = chosen_rows(
            self.acts,
            self.groups,
            per_example=options.tokens_per_example,
            most=None if unlimited else options.max_rows,
            seed=self.seed,
        )
        owners = owners_of(self.acts)
        if len(rows) < len(owners):
            kind = "examples" if self.acts.owners is None else "tokens"
            self.warnings.append(
                f"{len(rows)} of {len(owners)} {kind} are compared (analysis.max_rows="
                f"{options.max_rows}, analysis.tokens_per_example={options.tokens_per_example})"
            )
        designs = {
            batch: Design.of(owners[rows], self.groups, batch, self.seed)
            for batch in {measure.batch for measure in self.measures}
        }
        self.plan = Plan(
            rows=rows,
            designs=designs,
            tables=self.measures,
            fitted=self.fitted,
            n_halves=options.n_halves,
            resolution=RESOLUTION[self.acts.dtype],
            seed=self.seed,
        )
        self.design = self.plan.design(self.main)
        self._check_groups()

    def _check_groups(self) -> None:
        free = exchangeable_groups(self.design)
        if free < self.design.n_groups:
            self.warnings.append(
                f"{self.design.n_groups - free} of {self.design.n_groups} groups have no other one "
                "of their shape to change places with; the null shuffles only the examples within "
                "them"
            )
        if self.design.n_groups < 10:
            self.warnings.append(
                f"{self.design.n_groups} groups: intervals over fewer than 10 are rough, and over "
                "fewer than 5 none is given"
            )
