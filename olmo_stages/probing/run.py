"""One run of the probe analysis: everything that it measures of a stage, in order."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from olmo_stages.controls import bag_of_tokens
from olmo_stages.estimates import unequal_groups
from olmo_stages.figures import layer_curves
from olmo_stages.heldout import HeldOut, Where
from olmo_stages.nested import fit, one_thread_if_small, permutation_null
from olmo_stages.probing import captions
from olmo_stages.probing.comparison import comparison
from olmo_stages.probing.control import control
from olmo_stages.probing.design import Design, Side, outer_folds
from olmo_stages.probing.kept import tables
from olmo_stages.probing.names import BEST_LAYER, DIFFERENCE, PROBE
from olmo_stages.probing.options import Options
from olmo_stages.probing.polarity import polarities
from olmo_stages.progress import progress
from olmo_stages.types import (
    EMBEDDING_LAYER,
    Activations,
    ActivationSource,
    Headline,
    Measurement,
    Position,
    ProbeKind,
    Result,
    Site,
    Stage,
)


class Run:
    """One call of the analysis: its inputs, read once, and the rows it collects."""

    def __init__(
        self,
        options: Options,
        stage: Stage,
        reference: Stage | None,
        source: ActivationSource,
        seed: int,
    ) -> None:
        self.options, self.stage, self.seed, self.source = options, stage, seed, source
        self.examples = source.examples
        split, self.warnings = outer_folds(self.examples, options.n_folds)
        self.held_out = HeldOut.of(self.examples, split, options.n_resamples, seed)
        self.design = Design(
            examples=self.examples,
            held_out=self.held_out,
            kind=cast("ProbeKind", options.kind),
            strengths=tuple(map(float, options.strengths)),
            n_inner=options.n_inner,
        )
        self.acts = self._activations(stage)
        self.other = None if reference is None else self._activations(reference)
        self.where = Where(stage.label, "", self.acts.layers, self.acts.layer_types, seed)
        self.beside: Side | None = None
        self.compared: list[Measurement] = []

    def _activations(self, stage: Stage, layers: tuple[int, ...] | None = None) -> Activations:
        wanted = self.options.layers
        if layers is None and wanted is not None:
            layers = tuple(wanted)
        return self.source(
            stage,
            site=cast("Site", self.options.site),
            position=cast("Position", self.options.position),
            layers=layers,
        )

    def result(self) -> Result:
        """Everything, in the order in which a reader asks for it."""
        steps = [self._score, self._baselines, self._control, self._null, self._polarities]
        steps += [self._compare] if self.other is not None else []
        with one_thread_if_small(self.acts.values):
            with progress(f"probe {self.stage.label}", len(steps)) as advance:
                for step in steps:
                    step()
                    advance()
            if self.other is None:
                self.warnings.append(
                    f"{self.stage.label} has no reference: difference and transfer left out"
                )
            self._caveats()
            return self._assemble()

    def _score(self) -> None:
        self.own = Side.of(self.design, self.acts)
        self.best = int(self.own.probes.validation.mean(0).argmin())

    def _baselines(self) -> None:
        lengths = np.array([[[len(ids)] for ids in self.acts.token_ids]], dtype=np.float32)
        exact = {"length": lengths, "bag_of_tokens": bag_of_tokens(self.acts.token_ids)}
        self.baselines = {name: self.design.auroc_of_counts(it) for name, it in exact.items()}
        embedding = self._activations(self.stage, (EMBEDDING_LAYER,))
        self.baselines["embedding"] = self.design.auroc(embedding)
        if self.options.random_init:
            untrained = self._activations(replace(self.stage, random_init=self.seed))
            self.baselines["random_init"] = self.design.auroc(untrained)

    def _control(self) -> None:
        self.control, said = control(
            self.design,
            self.acts,
            n_folds=self.options.n_folds,
            n_tasks=self.options.n_controls,
            seed=self.seed,
        )
        self.warnings += [said] if said else []

    def _null(self) -> None:
        self.p: dict[str, list[float]] = {}
        if not self.options.n_permutations:
            self.warnings.append("no permutation null was run: analysis.n_permutations=0")
            return
        unequal = unequal_groups(self.held_out.labels, self.held_out.groups)
        if unequal:
            self.warnings.append(
                f"{unequal} groups hold both labels unequally often; their examples were permuted "
                "one by one, so p is too small if they are paraphrases of one another"
            )
        self.p = permutation_null(
            self.acts.values,
            self.held_out,
            self.own.probes,
            self.design.recipe(self.acts),
            self.options.n_permutations,
            self.seed,
        )
        if not self.p:
            self.warnings.append(
                "no permutation p: groups of one label exchange it with groups of the same size, "
                "and here no such group has the other label"
            )

    def _polarities(self) -> None:
        self.polarity, said = polarities(self.design, self.acts)
        self.warnings += said

    def _compare(self) -> None:
        """Paired difference from the reference, and transfer in both directions."""
        assert self.other is not None
        self.beside = Side.of(self.design, self.other)
        versus = replace(self.where, reference=self.other.stage.label)
        self.compared, said = comparison(self.held_out, self.own, self.beside, versus)
        self.warnings += said

    def _notes(self) -> list[str]:
        """For each layer the baseline that its interval does not clear, if any."""
        notes: list[str] = []
        for head in range(len(self.acts.layers)):
            values = {
                name: float(estimate.value[head if name == "random_init" else 0])
                for name, estimate in self.baselines.items()
            }
            best = max(values, key=lambda name: values[name])
            low, _ = self.own.auroc.interval(head)
            clears = low > values[best]
            notes.append("" if clears else f"not above baseline {best} ({values[best]:.2f})")
        return notes

    def _caveats(self) -> None:
        if self.acts.n_truncated:
            self.warnings.append(
                f"{self.acts.n_truncated} of {len(self.examples)} texts were longer than the "
                "context and lost their beginning"
            )
        if not self.options.random_init:
            self.warnings.append("the random-initialised baseline was left out on request")

    def _assemble(self) -> Result:
        where = self.where
        whole = replace(where, layers=(None,), layer_types=("",))
        embedding = replace(where, layers=(EMBEDDING_LAYER,), layer_types=("embedding",))
        notes = self._notes()
        rows = where.rows("auroc", PROBE, self.own.auroc, note=notes, **self.p)
        rows += where.rows("balanced_accuracy", PROBE, self.own.accuracy)
        if self.options.kind == "logistic":
            rows += where.rows("log_loss", PROBE, self.held_out.log_loss(self.own.scores))
        if self.control is not None:
            rows += where.rows("balanced_accuracy", "control", self.control)
            rows += where.rows("selectivity", PROBE, self.own.accuracy - self.control)
        rows += whole.rows("auroc", BEST_LAYER, self.own.nested)
        places = {"embedding": embedding, "random_init": where}
        for baseline, estimate in self.baselines.items():
            place = places.get(baseline, whole)
            rows += place.rows("auroc", f"baseline:{baseline}", estimate)
        for direction, estimate in self.polarity.items():
            rows += where.rows("polarity_auroc", direction, estimate)
        rows += self.compared
        final = fit(
            self.acts.values,
            self.held_out.labels,
            np.ones(len(self.examples), dtype=bool),
            self.design.recipe(self.acts),
        )
        return Result(
            measurements=tuple(rows),
            tensors={
                "direction": final.direction,
                "bias": final.bias,
                "strength": final.strength,
                "layers": np.array(self.acts.layers, dtype=np.int64),
                "n_resamples": np.array([self.options.n_resamples]),
            },
            figures={
                "auroc": layer_curves(
                    rows,
                    "auroc",
                    title=f"Probe AUROC by layer, {self.stage.label}",
                    y_label="AUROC on held-out groups",
                    caption=captions.of_curves(self.own.auroc.n_groups, null=bool(self.p)),
                    chance=0.5,
                )
            },
            headline=self._headline(rows),
            warnings=tuple(self.warnings),
            tables=tables(self.design, self.own, self.beside),
        )

    def _headline(self, rows: Sequence[Measurement]) -> Headline:
        layer = self.acts.layers[self.best]
        at = {(row.metric, row.variant): row for row in rows if row.layer in {layer, None}}
        own = at["auroc", PROBE]
        compared = {}
        if self.beside is not None:
            compared = {"auroc - reference": at[DIFFERENCE, BEST_LAYER]}
        return {
            "best layer": layer,
            "auroc": at["auroc", BEST_LAYER],
            "p (max)": own.p_max,
            "selectivity": at.get(("selectivity", PROBE)),
            **compared,
            "note": own.note,
        }
