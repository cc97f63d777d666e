"""analysis=projection: how far along a trait vector held-out texts lie, and each of their tokens.

The vector is a given one, or the difference of the class means in the reference (in the stage
itself where there is none), cross-fitted by group, so that every text and token is scored along a
vector that never saw its group. Scores are in units in which the classes of the vector's own data
have their means at 0 and 1: a stage whose hostile texts score 1.5 along the vector of its parent
represents them as more hostile than the parent did. A given vector also scores texts without
labels, and then all that is said is about all of them.

Means are taken over the tokens of an example first and then over examples; intervals resample
groups. Of cross-fitted vectors they are widened as in analysis=probe.

Source:
    Chen et al. 2025, 2507.21509 (persona vectors: projections onto a trait's mean difference).
"""

import hashlib
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar, cast, get_args

import numpy as np

from olmo_stages.errors import ConfigError, PairingError
from olmo_stages.estimates import RESOLUTION
from olmo_stages.heldout import Where
from olmo_stages.progress import progress
from olmo_stages.types import (
    Activations,
    ActivationSource,
    PooledPosition,
    Position,
    Result,
    Site,
    Stage,
    Wanted,
    check_choice,
    check_pooled,
    wanted_by,
)
from olmo_stages.vectors.files import TraitVector, check_fits, load
from olmo_stages.vectors.origin import of_given, of_pair, of_tasks
from olmo_stages.vectors.projected import Projected
from olmo_stages.vectors.readout import Readout
from olmo_stages.vectors.scores import Ruler, has_units, of_vector
from olmo_stages.vectors.shown import figures, headline
from olmo_stages.vectors.tasks import Task, slots, tasks


@dataclass(frozen=True)
class Projection:
    """Options of the projection analysis; conf/analysis/projection.yaml holds the defaults.

    Args:
        vector: file of a trait vector; null = fitted to the data, cross-fitted by group.
        site: where each layer is read; null = where the vector was.
        position: which tokens of each example; null = those of the vector.
        layers: block indices; null = those of the vector, or all.
        tokens: whether to score every content token too.
        shown: examples whose tokens are drawn.
        n_folds: folds of vectors that are fitted; lowered when a class has fewer groups.
        n_resamples: bootstrap resamples of the groups.
        n_permutations: relabellings of the null; 0 = no p.
        content: digest of the vector's content, so that another vector in the same file is another
            job; not an option.
        positions: what is read of the examples, wherever it is said; not an option.
    """

    vector: str | None
    site: str | None
    position: str | None
    layers: Sequence[int] | None
    tokens: bool
    shown: int
    n_folds: int
    n_resamples: int
    n_permutations: int
    content: str = field(init=False, default="")
    positions: tuple[str, ...] = field(init=False, default=())

    name: ClassVar[str] = "projection"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.site is not None:
            check_choice("analysis.site", self.site, get_args(Site))
        if self.position is not None:
            check_pooled("analysis.position", self.position)
        for option, least in (
            ("shown", 0),
            ("n_folds", 2),
            ("n_resamples", 100),
            ("n_permutations", 0),
        ):
            if getattr(self, option) < least:
                raise ConfigError(
                    f"analysis.{option}={getattr(self, option)} is too small; give at least {least}"
                )
        if self.layers is not None and (
            not self.layers or len(set(self.layers)) < len(self.layers)
        ):
            raise ConfigError(
                f"analysis.layers={list(self.layers)}: name one or more layers, each once, or null"
            )
        given = self.given()
        if given is not None:
            content = Path(str(self.vector)).expanduser().read_bytes()
            object.__setattr__(self, "content", hashlib.sha256(content).hexdigest())
        object.__setattr__(self, "positions", _place(self, given)[1:])

    @property
    def needs_labels(self) -> bool:
        """Whether a vector is to be fitted; a given one scores texts without labels too."""
        return self.vector is None

    def given(self) -> TraitVector | None:
        """The vector in the file, at the chosen layers.

        Raises:
            ConfigError: it lacks a chosen layer.
            DataError: the file is missing, damaged or something else.
        """
        if self.vector is None:
            return None
        found = load(self.vector)
        return found if self.layers is None else found.select(self.layers)

    def reads(self, stage: Stage, reference: Stage | None, seed: int) -> tuple[Wanted, ...]:
        """Both sides; of the stage also its tokens, where they are scored."""
        del seed
        vector = self.given()
        site, pooled = _place(self, vector)
        layers = _chosen(self, vector)
        tokens: list[tuple[Site, Position]] = [(site, "tokens")] if self.tokens else []
        return (
            Wanted(stage, ((site, pooled), *tokens), layers),
            *wanted_by((reference,), site, pooled, layers),
        )

    def __call__(
        self, stage: Stage, reference: Stage | None, activations: ActivationSource, seed: int
    ) -> Result:
        """Score the examples as `stage` reads them."""
        return _Run(self, stage, reference, activations, seed).result()


class _Run:
    """One call of the analysis: its inputs, read layer by layer, and what comes of them."""

    def __init__(
        self,
        options: Projection,
        stage: Stage,
        reference: Stage | None,
        source: ActivationSource,
        seed: int,
    ) -> None:
        self.options, self.stage, self.reference, self.seed = options, stage, reference, seed
        self.source, self.vector = source, options.given()
        place: tuple[Site, PooledPosition] = _place(options, self.vector)
        self.place = place
        self.tasks = tasks(
            source.examples,
            n_folds=None if self.vector else options.n_folds,
            n_resamples=options.n_resamples,
            n_permutations=options.n_permutations,
            seed=seed,
        )
        self.slots = slots(self.tasks, len(source.examples))
        self.rulers: list[Ruler] = []
        self.layers: list[tuple[int, str]] = []

    def result(self) -> Result:
        """Everything, in the order in which a reader asks for it."""
        n_steps = 2 if self.options.tokens else 1
        with progress(f"projection {self.stage.label}", n_steps) as advance:
            self._score_examples()
            advance()
            readout = None
            if self.options.tokens:
                readout = self._score_tokens()
                advance()
        found = Projected(
            tasks=self.tasks,
            where=self._where("" if self.vector or not self.reference else self.reference.label),
            versus=None if self.reference is None else self._where(self.reference.label),
            rulers=tuple(self.rulers),
            slots=self.slots,
            readout=readout,
            has_units=self.vector is None or has_units(self.vector),
        )
        rows = found.rows()
        return Result(
            measurements=tuple(rows),
            tensors=found.tensors(),
            figures=figures(found, rows, self.source.examples, self.options.shown),
            headline=headline(found, rows, self._vector_in_short()),
            warnings=tuple(self._warnings()),
            tables=found.tables(self.source.examples),
        )

    def _where(self, reference: str) -> Where:
        layers, types = zip(*self.layers, strict=True)
        return Where(self.stage.label, reference, layers, types, self.seed)

    def _stream(self, stage: Stage, position: Position) -> Iterator[Activations]:
        layers = _chosen(self.options, self.vector)
        site, pooled = self.place
        try:
            if self.options.tokens and stage == self.stage:
                # Asked for one after the other, they would be two forward passes.
                self.source.prefetch(stage, [(site, pooled), (site, "tokens")], layers)
            return self.source.stream(stage, site=site, position=position, layers=layers)
        except ConfigError as error:
            if self.vector is None or self.options.layers is not None:
                raise
            raise ConfigError(
                f"the vector of trait {self.vector.trait!r} is not of this model: {error}"
            ) from error

    def _score_examples(self) -> None:
        others = None if self.reference is None else self._stream(self.reference, self.place[1])
        for acts, other in _paired(self._stream(self.stage, self.place[1]), others):
            ruler = self._ruler(acts, other)
            raw = ruler.raw(acts.values[0], self.slots)
            units = ruler.in_units(raw, self.slots)
            self.rulers.append(ruler)
            for task in self.tasks:
                task.raw.append(raw[task.rows])
                task.units.append(units[task.rows])
                self._add_null(task, acts, other)
            if other is not None:
                theirs = ruler.in_units(ruler.raw(other.values[0], self.slots), self.slots)
                for task in self.tasks:
                    task.differences.append((units - theirs)[task.rows])
            if not self.layers:
                self.first = _described(acts), None if other is None else _described(other)
            self.layers.append((acts.layers[0], acts.layer_types[0]))

    def _ruler(self, acts: Activations, other: Activations | None) -> Ruler:
        """The directions of a layer: the given one, or those of every trait and fold."""
        if self.vector is not None:
            check_fits(
                self.vector,
                d_model=acts.values.shape[2],
                layer_types=dict(zip(acts.layers, acts.layer_types, strict=True)),
                size=self.stage.size,
            )
            return of_vector(self.vector, acts.layers[0])
        source = acts if other is None else other
        fitted = [task.fit(source.values[0], RESOLUTION[source.dtype]) for task in self.tasks]
        return reduce(operator.add, fitted)

    def _add_null(self, task: Task, acts: Activations, other: Activations | None) -> None:
        if self.vector is not None:
            task.reorder(task.raw[-1])
            return
        source = acts if other is None else other
        task.relabel(source.values[0], acts.values[0], RESOLUTION[source.dtype])

    def _score_tokens(self) -> Readout:
        readout: Readout | None = None
        stream = self._stream(self.stage, "tokens")
        for acts, ruler in zip(stream, self.rulers, strict=True):
            if readout is None:
                readout = Readout.of(acts, self.source.readings(self.stage))
            rows = self.slots[readout.owners]
            raw = ruler.raw(acts.values[0], rows)
            readout.add(acts.layers[0], ruler.in_units(raw, rows))
        assert readout is not None
        return readout

    def _vector_in_short(self) -> str:
        if self.vector is not None:
            return f"of {self.vector.told('stage') or 'unknown origin'}"
        return f"of {(self.reference or self.stage).label}, cross-fitted"

    def _warnings(self) -> Iterator[str]:
        acts, other = self.first
        if self.vector is not None:
            yield from of_given(self.vector, self.stage, acts, self.source.examples)
        elif self.reference is None:
            yield f"{self.stage.label} has no reference: the vector is its own, cross-fitted"
        if other is not None and self.reference is not None:
            yield from of_pair(self.stage, self.reference, acts, other)
        yield from of_tasks(self.tasks, self.options.n_folds, self.options.n_permutations)
        if acts.n_truncated:
            yield (
                f"{acts.n_truncated} of {len(acts.ids)} texts were longer than the context and "
                "lost their beginning"
            )


def _place(options: Projection, vector: TraitVector | None) -> tuple[Site, PooledPosition]:
    """Site and position that are read: the options', else the vector's, else the usual."""
    usual = ("resid_post", "mean") if vector is None else (vector.site, vector.position)
    site, position = options.site or usual[0], options.position or usual[1]
    return cast("Site", site), cast("PooledPosition", position)


def _chosen(options: Projection, vector: TraitVector | None) -> tuple[int, ...] | None:
    """Layers that are read: the options', else the vector's, else all."""
    wanted = vector.layers if options.layers is None and vector else options.layers
    return None if wanted is None else tuple(sorted(wanted))


def _described(acts: Activations) -> Activations:
    """What is known of activations, without their values."""
    return replace(acts, values=np.zeros((1, acts.values.shape[1], 0), dtype=np.float32))


def _paired(
    own: Iterator[Activations], others: Iterator[Activations] | None
) -> Iterator[tuple[Activations, Activations | None]]:
    """Layers of the stage with those of its reference, where there is one.

    Raises:
        PairingError: they hold other examples, other layers, or have another width.
    """
    if others is None:
        yield from ((acts, None) for acts in own)
        return
    for acts, other in zip_longest(own, others):
        if acts is None or other is None:
            shorter = "the stage" if acts is None else "the reference"
            raise PairingError(f"{shorter} has fewer layers than the other side: {_ALIKE}")
        _check_pair(acts, other)
        yield acts, other


_ALIKE = (
    "a vector of one can be used in the other only if they are alike; choose another reference, or "
    "layers that both have"
)


def _check_pair(acts: Activations, other: Activations) -> None:
    pair = f"{acts.stage.label} and {other.stage.label}"
    if acts.ids != other.ids:
        raise PairingError(f"{pair} hold other examples; read both from the same data")
    if acts.layers != other.layers:
        raise PairingError(f"{pair} have layers {acts.layers} and {other.layers}: {_ALIKE}")
    widths = acts.values.shape[2], other.values.shape[2]
    if widths[0] != widths[1]:
        raise PairingError(f"{pair} have d_model {widths[0]} and {widths[1]}: {_ALIKE}")
