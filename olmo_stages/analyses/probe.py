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
from itertools import permutations
from typing import ClassVar, cast, get_args

import numpy as np
from jaxtyping import Int

from olmo_stages.controls import bag_of_tokens, control_labels, control_types
from olmo_stages.data.splits import example_folds, folds
from olmo_stages.errors import ConfigError, DataError
from olmo_stages.estimates import RESOLUTION, unequal_groups
from olmo_stages.figures import layer_curves
from olmo_stages.heldout import Estimate, HeldOut, Where
from olmo_stages.nested import (
    Kind,
    Probes,
    Recipe,
    cross_validate,
    fit,
    permutation_null,
)
from olmo_stages.progress import progress
from olmo_stages.types import (
    EMBEDDING_LAYER,
    Activations,
    ActivationSource,
    Example,
    Measurement,
    Position,
    Result,
    Site,
    Stage,
    check_choice,
    check_pooled,
)


@dataclass(frozen=True)
class Probe:
    """Options of the probe analysis; conf/analysis/probe.yaml holds the defaults.

    Args:
        kind: `logistic`, `lda` or `mean_difference`.
        site: where each layer is read.
        position: which token of each example.
        layers: block indices; null = all.
        strengths: L2 penalties to choose from, relative to the mean loss of standardised features
            divided by sqrt(d_model).
        n_folds: outer folds; lowered when a class has fewer groups.
        n_inner: inner folds.
        n_resamples: bootstrap resamples of the groups.
        n_permutations: relabellings of the null; 0 = no p.
        n_controls: control tasks whose mean is the control score.
        random_init: whether to run the randomly initialised model of the same shape.
    """

    kind: str
    site: str
    position: str
    layers: Sequence[int] | None
    strengths: Sequence[float | int]
    n_folds: int
    n_inner: int
    n_resamples: int
    n_permutations: int
    n_controls: int
    random_init: bool

    name: ClassVar[str] = "probe"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_choice("analysis.kind", self.kind, get_args(Kind))
        check_choice("analysis.site", self.site, get_args(Site))
        check_pooled("analysis.position", self.position)
        for option, least in (
            ("n_folds", 2),
            ("n_inner", 2),
            ("n_resamples", 100),
            ("n_controls", 1),
        ):
            if getattr(self, option) < least:
                raise ConfigError(
                    f"analysis.{option}={getattr(self, option)} is too small; give at least {least}"
                )
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise ConfigError(f"analysis.layers={list(self.layers)} names a layer twice")
        if self.n_permutations < 0:
            raise ConfigError(
                f"analysis.n_permutations={self.n_permutations} is negative; 0 = none"
            )
        if not self.strengths or min(self.strengths) <= 0:
            raise ConfigError(
                f"analysis.strengths={list(self.strengths)}: give one or more positive penalties"
            )

    def __call__(
        self, stage: Stage, reference: Stage | None, activations: ActivationSource, seed: int
    ) -> Result:
        """Probe every layer of `stage`, and compare with `reference` where there is one."""
        return _Run(self, stage, reference, activations, seed).result()


def fewest_groups(examples: Sequence[Example]) -> int:
    """Number of groups in which the rarer class occurs."""
    return min(len({e.group for e in examples if e.label == label}) for label in (0, 1))


def largest_fold_count(examples: Sequence[Example], wanted: int) -> int:
    """`wanted`, or the smaller number of groups that the rarer class has."""
    return max(2, min(wanted, fewest_groups(examples)))


class _Run:
    """One call of the analysis: its inputs, read once, and the rows it collects."""

    def __init__(
        self,
        options: Probe,
        stage: Stage,
        reference: Stage | None,
        source: ActivationSource,
        seed: int,
    ) -> None:
        self.options, self.stage, self.seed, self.source = options, stage, seed, source
        self.examples = source.examples
        self.warnings: list[str] = []
        traits = dict.fromkeys(example.trait or "trait" for example in self.examples)
        if len(traits) > 1:
            raise DataError(
                f"the labels of the examples are about {len(traits)} traits "
                f"({', '.join(traits)}); a probe reads one: give a data set with one trait"
            )
        n_groups = fewest_groups(self.examples)
        if n_groups < 3:
            raise DataError(
                f"a class occurs in {n_groups} groups; nested cross-validation needs at least 3 "
                "groups of each class"
            )
        if n_groups < 10:
            self.warnings.append(
                f"a class occurs in {n_groups} groups; intervals over fewer than 10 are rough"
            )
        n_folds = largest_fold_count(self.examples, options.n_folds)
        if n_folds < options.n_folds:
            self.warnings.append(
                f"{n_folds} outer folds instead of {options.n_folds}: a class has {n_folds} groups"
            )
        self.folds = folds(self.examples, n_folds)
        self.held_out = HeldOut.of(self.examples, self.folds, options.n_resamples, seed)
        self.acts = self._activations(stage)
        self.reference = reference
        self.other = None if reference is None else self._activations(reference)
        self.where = Where(stage.label, "", self.acts.layers, self.acts.layer_types, seed)
        self.versus = replace(self.where, reference="" if reference is None else reference.label)
        self.rows: list[Measurement] = []
        self.difference: Estimate | None = None

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

    def _recipe(self, features: Activations | None) -> Recipe:
        """How to fit probes to activations, or to exact features such as counts."""

        def split(chosen: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " chosen"]:
            subset = [self.examples[i] for i in chosen]
            return folds(subset, largest_fold_count(subset, self.options.n_inner))

        recipe = Recipe(
            cast("Kind", self.options.kind), tuple(map(float, self.options.strengths)), split
        )
        return (
            recipe if features is None else replace(recipe, resolution=RESOLUTION[features.dtype])
        )

    def _probes(self, acts: Activations) -> Probes:
        return cross_validate(acts.values, self.held_out.labels, self.folds, self._recipe(acts))

    def result(self) -> Result:
        """Everything, in the order in which a reader asks for it."""
        steps = [self._score, self._baselines, self._control, self._null, self._polarities]
        steps += [self._compare] if self.other is not None else []
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
        self.probes = self._probes(self.acts)
        self.scores = self.probes.score(self.acts.values)
        self.auroc = self.held_out.auroc(self.scores)
        self.accuracy = self.held_out.balanced_accuracy(self.scores)
        self.nested = self.held_out.auroc(self.probes.of_best_layer(self.scores))
        self.best = int(self.probes.validation.mean(0).argmin())

    def _baselines(self) -> None:
        lengths = np.array([[[len(ids)] for ids in self.acts.token_ids]], dtype=np.float32)
        self.baselines: dict[str, Estimate] = {}
        exact = {"length": lengths, "bag_of_tokens": bag_of_tokens(self.acts.token_ids)}
        for name, values in exact.items():
            probes = cross_validate(values, self.held_out.labels, self.folds, self._recipe(None))
            self.baselines[name] = self.held_out.auroc(probes.score(values))
        read = {"embedding": self._activations(self.stage, (EMBEDDING_LAYER,))}
        if self.options.random_init:
            read["random_init"] = self._activations(replace(self.stage, random_init=self.seed))
        for name, acts in read.items():
            self.baselines[name] = self.held_out.auroc(self._probes(acts).score(acts.values))

    def _control(self) -> None:
        self.control: Estimate | None = None
        found = control_types([e.group for e in self.examples], self.acts.token_ids)
        if found is None:
            self.warnings.append(
                "no control task and no selectivity: neither groups nor tokens repeat enough"
            )
            return
        name, types = found
        if name != "group":
            self.warnings.append(f"groups hardly repeat: the control task is about the {name}")
        tasks = [self._control_task(types, task) for task in range(self.options.n_controls)]
        self.control = replace(
            tasks[0],
            value=np.mean([task.value for task in tasks], axis=0),
            samples=np.mean([task.samples for task in tasks], axis=0),
        )

    def _control_task(self, types: Sequence[str], task: int) -> Estimate:
        """Balanced accuracy on labels by type, each type being met in training."""
        labels = control_labels(types, f"{self.seed}:{task}")
        chosen = labels >= 0
        relabelled = [
            replace(e, label=max(int(label), 0), group=kind)
            for e, label, kind in zip(self.examples, labels, types, strict=True)
        ]
        outer = np.full(len(labels), -1)
        pool = [e for e, c in zip(relabelled, chosen, strict=True) if c]
        outer[chosen] = example_folds(pool, min(self.options.n_folds, len(pool)))
        recipe = replace(
            self._recipe(self.acts),
            split_inner=lambda rows: example_folds(
                [relabelled[i] for i in rows], self.options.n_inner
            ),
        )
        labels = np.maximum(labels, 0)
        probes = cross_validate(self.acts.values, labels, outer, recipe, train=chosen)
        held_out = replace(self.held_out, labels=labels, folds=outer)
        return held_out.balanced_accuracy(probes.score(self.acts.values))

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
            self.probes,
            self._recipe(self.acts),
            self.options.n_permutations,
            self.seed,
        )
        if not self.p:
            self.warnings.append(
                "no permutation p: groups of one label exchange it with groups of the same size, "
                "and here no such group has the other label"
            )

    def _polarities(self) -> None:
        self.polarity: dict[str, Estimate] = {}
        kinds = np.array([e.polarity for e in self.examples])
        names = sorted(set(kinds) - {""})
        for source, target in permutations(names, 2):
            try:
                probes = cross_validate(
                    self.acts.values,
                    self.held_out.labels,
                    self.folds,
                    self._recipe(self.acts),
                    train=kinds == source,
                    test=kinds == target,
                )
            except DataError as error:
                self.warnings.append(f"{source}->{target} left out: {error}")
                continue
            held_out = replace(self.held_out, folds=probes.folds)
            self.polarity[f"{source}->{target}"] = held_out.auroc(probes.score(self.acts.values))

    def _compare(self) -> None:
        """Paired difference from the reference, and transfer in both directions."""
        assert self.other is not None
        assert self.reference is not None
        other = self.other
        probes = self._probes(other)
        scores = probes.score(other.values)
        theirs = self.held_out.auroc(scores)
        self.difference = self.nested - self.held_out.auroc(probes.of_best_layer(scores))
        self.rows += replace(self.versus, layers=(None,), layer_types=("",)).rows(
            "auroc_difference", "best_layer", self.difference
        )
        self._warn_about_pair(other)
        if other.layers != self.acts.layers:
            self.warnings.append(
                f"{self.reference.label} has other layers: no difference or transfer by layer"
            )
            return
        self.rows += self.versus.rows("auroc", "reference", theirs)
        self.rows += self.versus.rows(
            "balanced_accuracy", "reference", self.held_out.balanced_accuracy(scores)
        )
        self.rows += self.versus.rows("auroc_difference", self.options.name, self.auroc - theirs)
        if other.values.shape[2] != self.acts.values.shape[2]:
            self.warnings.append(
                f"d_model {self.acts.values.shape[2]} and {other.values.shape[2]}: no transfer"
            )
            return
        sides = {"stage": (self.probes, self.acts), "reference": (probes, other)}
        for source, (fitted, _) in sides.items():
            for target, (_, acts) in sides.items():
                self._transfer(f"{source}->{target}", fitted, acts)

    def _transfer(self, variant: str, probes: Probes, target: Activations) -> None:
        """Score one side's probes on the other side's activations of the same held-out examples."""
        scores = probes.score(target.values)
        own = probes.score(target.values, centre_on_target=True)
        accuracy = self.held_out.balanced_accuracy
        self.rows += self.versus.rows("transfer_auroc", variant, self.held_out.auroc(scores))
        for threshold, at in (("source", scores), ("own", own)):
            self.rows += self.versus.rows(
                "transfer_balanced_accuracy", f"{variant}:{threshold}", accuracy(at)
            )

    def _warn_about_pair(self, other: Activations) -> None:
        pair = f"{self.stage.label} and {other.stage.label}"
        if other.model_digest == self.acts.model_digest:
            self.warnings.append(f"{pair} have the same weights: every difference is exactly 0")
        differ = sum(a != b for a, b in zip(self.acts.token_ids, other.token_ids, strict=True))
        if differ:
            self.warnings.append(
                f"{pair} see different token ids in {differ} of {len(self.examples)} examples"
            )

    def _notes(self) -> list[str]:
        """For each layer the baseline that its interval does not clear, if any."""
        notes: list[str] = []
        for head in range(len(self.acts.layers)):
            values = {
                name: float(estimate.value[head if name == "random_init" else 0])
                for name, estimate in self.baselines.items()
            }
            best = max(values, key=lambda name: values[name])
            low, _ = self.auroc.interval(head)
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
        name, where = self.options.name, self.where
        whole = replace(where, layers=(None,), layer_types=("",))
        embedding = replace(where, layers=(EMBEDDING_LAYER,), layer_types=("embedding",))
        notes = self._notes()
        rows = where.rows("auroc", name, self.auroc, note=notes, **self.p)
        rows += where.rows("balanced_accuracy", name, self.accuracy)
        if self.options.kind == "logistic":
            rows += where.rows("log_loss", name, self.held_out.log_loss(self.scores))
        if self.control is not None:
            rows += where.rows("balanced_accuracy", "control", self.control)
            rows += where.rows("selectivity", name, self.accuracy - self.control)
        rows += whole.rows("auroc", "best_layer", self.nested)
        places = {"embedding": embedding, "random_init": where}
        for baseline, estimate in self.baselines.items():
            place = places.get(baseline, whole)
            rows += place.rows("auroc", f"baseline:{baseline}", estimate)
        for direction, estimate in self.polarity.items():
            rows += where.rows("polarity_auroc", direction, estimate)
        rows += self.rows
        final = fit(
            self.acts.values,
            self.held_out.labels,
            np.ones(len(self.examples), dtype=bool),
            self._recipe(self.acts),
        )
        return Result(
            measurements=tuple(rows),
            tensors={
                "direction": final.direction,
                "bias": final.bias,
                "strength": final.strength,
                "layers": np.array(self.acts.layers, dtype=np.int64),
            },
            figures={
                "auroc": layer_curves(
                    rows,
                    "auroc",
                    title=f"Probe AUROC by layer, {self.stage.label}",
                    y_label="AUROC on held-out groups",
                    chance=0.5,
                )
            },
            headline=self._headline(notes),
            warnings=tuple(self.warnings),
        )

    def _headline(self, notes: list[str]) -> dict[str, str | float | int | None]:
        best = self.best
        low, high = self.nested.interval(0)
        headline: dict[str, str | float | int | None] = {
            "best layer": self.acts.layers[best],
            "auroc": float(self.nested.value[0]),
            "95 % interval": f"{low:.3f}-{high:.3f}",
            "p (max)": self.p["p_max"][best] if self.p else None,
            "selectivity": None
            if self.control is None
            else float((self.accuracy - self.control).value[best]),
        }
        if self.difference is not None:
            low, high = self.difference.interval(0)
            value = float(self.difference.value[0])
            headline["auroc - reference"] = f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
        headline["note"] = notes[best]
        return headline
