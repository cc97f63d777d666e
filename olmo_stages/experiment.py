"""The page to read first: one job, from activations to a result that is on disk and tracked."""

import datetime
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

from olmo_stages import records
from olmo_stages.activations.comparison import Formats
from olmo_stages.activations.extraction import Source
from olmo_stages.activations.request import declares, wanted
from olmo_stages.activations.responses import Completion
from olmo_stages.activations.store import default_store
from olmo_stages.cache import cache_folder
from olmo_stages.checks import checked
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.responses import OWN
from olmo_stages.errors import ConfigError, NotHere, OlmoStagesError, StoreError
from olmo_stages.looking import looking
from olmo_stages.miniature.world import vocabulary
from olmo_stages.models import checkpoints, digests
from olmo_stages.models.compute import FULL_PRECISION, Compute, of_quantised
from olmo_stages.records import Job, Recorded
from olmo_stages.revisions import twins
from olmo_stages.soups import common_root, is_miniature
from olmo_stages.stages import MINIATURE, catalogue, lookup
from olmo_stages.stopping import unit
from olmo_stages.tracking import Tracker
from olmo_stages.types import Analysis, PooledPosition, Position, Result, Stage, Wanted


@runtime_checkable
class Data(Protocol):
    """What conf/data/*.yaml describe."""

    def load(self, *, miniature: bool) -> Dataset:
        """Read the examples; `miniature` says whether the stage knows only that world's words."""
        ...


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a job came to.

    Args:
        job: what was asked.
        result: the numbers.
        folder: where they are.
        cached: whether they were there already.
        tracked: where the tracker put them, one line, or None.
        seconds: wall time.
    """

    job: Job
    result: Result
    folder: Path
    cached: bool
    tracked: str | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Ready:
    """What a job is given.

    Args:
        reference: the other side of a comparison, where there is one.
        dataset: the examples, before anybody responds to them.
        source: of activations.
        formats: what a reader must know of the prompts.
    """

    reference: Stage | None
    dataset: Dataset
    source: Source
    formats: Formats = field(default_factory=Formats)


@checked
@dataclass(frozen=True)
class Experiment:
    """One stage, one analysis: conf/config.yaml, read top to bottom.

    Args:
        model: the stage.
        data: the examples.
        analysis: what is measured.
        compute: where and how the forward pass runs.
        tracking: who else hears of the result.
        size: size of the stages.
        reference: `parent`, `base` (the root of the lineage), `none`, or `NAME[@REVISION]`.
        seed: of every random choice in the analysis.
        force: redo what is there already.
        outputs: folder of the results.
        cache: folder of activations and miniature models; None = the user's cache folder.
        sweep: name of the sweep, the tracker's group.
        report: whether its sweep ends with a page; for whoever launches it.
        dry_run: whether it is only told what would run; for whoever launches it.
    """

    model: Stage
    data: Data
    analysis: Analysis
    compute: Compute
    tracking: Tracker
    size: str
    reference: str | None
    seed: int
    force: bool
    outputs: str
    cache: str | None
    sweep: str | None
    report: bool = True
    dry_run: bool | str = False

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed} is negative; give 0 or more")

    def run(
        self,
        config: Mapping[str, Any],
        others: Callable[[Collection[Stage]], Iterable["Experiment"]] = lambda _: (),
    ) -> Outcome:
        """Ask for activations, analyse, record, track.

        Args:
            config: the resolved configuration, for the record.
            others: jobs of the same sweep that may read one of these stages; asked for only if
                there is something to compute, which is then kept for them too.

        Returns:
            The result and where it is. A finished job is not redone unless `force`.

        Raises:
            ConfigError: it is only to be told what would run.
        """
        if self.dry_run:
            raise ConfigError(
                f"dry_run={self.dry_run} is for a whole launch, python run.py ... dry_run=true; "
                "give it once, or false"
            )
        start, clock = records.now(), time.perf_counter()
        ready = self.ready()
        with ready.source:  # what it reads is not removed until the end
            _show(ready.formats)
            job = self.job(ready)
            folder = job.folder(Path(self.outputs))
            found = None if self.force else _finished(folder)
            group = self.sweep or ""
            if found is None:
                with self.tracking.running(job, group=group, config=config):
                    if declares(self.analysis):
                        own = wanted(self.analysis, self.model, ready.reference, self.seed)
                        ready.source.expect(own, lambda lacking: self.wanted_by(others(lacking)))
                    self._make(ready, job, config, start)
            result = (found or records.read(folder)).result
            tracked = self.tracking.record(job, result, folder, group=group, config=config)
        return Outcome(job, result, folder, found is not None, tracked, time.perf_counter() - clock)

    def _make(
        self, ready: "Ready", job: Job, config: Mapping[str, Any], start: datetime.datetime
    ) -> None:
        """Ask for activations, analyse, record."""
        reference, dataset, source = ready.reference, ready.dataset, ready.source
        result = self.analysis(self.model, reference, source, self.seed)
        said = _of_weights(source, self.model, reference)
        notes = (*dataset.notes, *ready.formats.warnings, *said)
        result = _told(result, notes, source, self.model)
        provenance = records.provenance(
            job=job.describe(),
            config=config,
            times=records.Times(start, records.now()),
            seed=self.seed,
            data_digest=(source.completed or dataset).digest,
            model_digests={
                stage.label: source.identity(stage).weights
                for stage in (self.model, reference)
                if stage is not None
            },
        )
        provenance["ran_on"] = source.ran_on
        if source.completed is not None:
            provenance["responses"] = source.completed.describe()
        folder = job.folder(Path(self.outputs))
        with unit():
            _write(folder, result, provenance, default_store(cache_folder(self.cache)).root)

    def wanted_by(self, others: Iterable["Experiment"]) -> list[Wanted]:
        """What other jobs are going to ask for of the same data, read in the same way."""
        found: dict[Wanted, None] = {}
        for it in others:
            if (it.data, it.compute, it.cache) != (self.data, self.compute, self.cache):
                continue
            with suppress(OlmoStagesError):  # it says so itself when it runs
                found |= dict.fromkeys(wanted(it.analysis, it.model, it.reference_stage(), it.seed))
        return list(found)

    def finished(self, device: str | None = None) -> bool | None:
        """Whether the result is there, without running, building or downloading anything.

        Args:
            device: of the machine that the job would run on, `cuda` or `cpu`; None = this one.

        Returns:
            None where it cannot be known here: results of this kind are there, but what the job
            would read (weights, responses, data of the hub) is not on this machine, or was never
            read, so that nobody knows whether they are its own.

        Raises:
            OlmoStagesError: what running the job would say, as far as looking shows it.
        """
        if self.force:
            return False
        here = self.on(device)
        with looking():
            try:
                return _is_sound(here.job(here.ready()).folder(Path(self.outputs)))
            except NotHere:
                return None if self._has_relatives() else False

    def on(self, device: str | None) -> "Experiment":
        """The same job as a machine with this device runs it; None = this machine."""
        return self if device is None else replace(self, compute=self.compute.on(device))

    def ready(self) -> "Ready":
        """Everything that the analysis is given, checked; no model is loaded.

        Raises:
            ConfigError: options that do not fit together.
            DataError: data that cannot be used.
            ModelError: a checkpoint that cannot be used.
        """
        _check_family(self.model, self.reference_stage(), cache_folder(self.cache))
        given = self.given()
        return replace(given, formats=given.source.check_formats(self.model, given.reference))

    def given(self) -> "Ready":
        """The same without a look at the checkpoints.

        Raises:
            ConfigError: options that do not fit together.
            DataError: data that cannot be used.
        """
        reference = self.reference_stage()
        dataset = self.data.load(miniature=any(map(is_miniature, self.model.lineage())))
        _check_labels(self.analysis, dataset)
        completion = self.completion(dataset, reference)
        cache = cache_folder(self.cache)
        return Ready(
            reference, dataset, Source(dataset, self.compute, cache, completion=completion)
        )

    def job(self, ready: "Ready") -> Job:
        """What the job is, and so where its result lies; responses are written for it if need be.

        Raises:
            DataError: too few responses can be read.
            ModelError: a stage cannot respond.
        """
        return Job(
            self.analysis.name,
            self.model,
            ready.reference,
            ready.dataset.name,
            self.identity(ready.source, ready.reference),
        )

    def _has_relatives(self) -> bool:
        """Whether there are results of this analysis, stage and reference, whatever their data."""
        kind = Job(self.analysis.name, self.model, self.reference_stage(), "", {})
        folder = kind.folder(Path(self.outputs)).parent
        return any(map(records.is_finished, folder.glob("*/")))

    def reference_stage(self) -> Stage | None:
        """The other side of a comparison, or None for a stage without one.

        Raises:
            ConfigError: `reference` names no stage, or the stage itself.
        """
        wanted = self.reference
        if wanted in {None, "none"}:
            return None
        if wanted == "parent":
            return self.model.parent
        if wanted == "base":
            return self._base()
        assert wanted is not None
        stage = self._lookup("reference", wanted, ("parent", "base", "none"))
        if stage == self.model:
            raise ConfigError(
                f"reference={wanted} is the stage itself; choose another, or reference=none"
            )
        return stage

    def completion(self, dataset: Dataset, reference: Stage | None) -> Completion | None:
        """Who completes the chats of a data set, and who reads them; None where nobody does.

        Raises:
            ConfigError: `data.respond` names no stage.
        """
        if dataset.respond is None:
            return None
        stages = (self.model, *([] if reference is None else [reference]))
        return Completion(stages, self._responder(dataset.respond.by, stages), _read(self.analysis))

    def _responder(self, by: str, stages: tuple[Stage, ...]) -> Stage | None:
        """The stage whose responses all read; None = each its own.

        Raises:
            ConfigError: there is no such stage.
        """
        if by == OWN:
            return None
        # A checkpoint of the user's own is known by its label alone.
        named = [stage for stage in stages if stage.label == by and stage.random_init is None]
        return named[0] if named else self._lookup("data.respond", by, (OWN,))

    def _lookup(self, option: str, wanted: str, others: tuple[str, ...]) -> Stage:
        """The stage that an option names.

        Raises:
            ConfigError: there is no such stage.
        """
        names = (*others, *(name for name in catalogue() if name not in others))
        if (name := wanted.partition("@")[0]) not in names:
            near = get_close_matches(name, names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(
                f"{option}={wanted} does not exist; choose from {', '.join(names)}{hint}"
            )
        return lookup(wanted, self.size)

    def _base(self) -> Stage | None:
        """The released root of the lineage; a revision of the root is compared with it too.

        Raises:
            ConfigError: the stage has no lineage.
        """
        root = self.model.lineage()[0]
        if root.members:  # an average of revisions of one root is compared with it, as they are
            root = common_root(root)
        if root.size not in catalogue().get(root.name, {"sources": ()})["sources"]:
            raise ConfigError(
                f"reference=base: stage {root.label} has no lineage; say what it was trained from "
                "with model.parent=STAGE, or name the reference, e.g. reference=base@main"
            )
        base = lookup(root.name, root.size)
        return None if base == self.model else base

    def identity(self, source: Source, reference: Stage | None) -> dict[str, Any]:
        """Everything that changes a number of this job, and nothing else."""
        options = asdict(self.analysis) if is_dataclass(self.analysis) else {}
        found = {
            "options": options,
            "version": getattr(self.analysis, "version", 0),
            "seed": self.seed,
            "activations": asdict(source.identity(self.model)),
            "reference": None if reference is None else asdict(source.identity(reference)),
        }
        # Absent otherwise, so that results without responses keep their folders.
        return found | ({"responses": source.completed.identity()} if source.completed else {})


def _check_family(model: Stage, reference: Stage | None, cache: Path) -> None:
    """Refuse to compare a real checkpoint with the miniature family.

    `size` is tiny unless told otherwise, so a fine-tune with `model.parent=think_sft` and no size
    would silently be set beside a miniature parent and read on the miniature world's words.

    Raises:
        ConfigError: the checkpoint's vocabulary is not the miniature family's.
    """
    if model.source == MINIATURE:
        return
    # The config alone, since weights may be gigabytes away, and before the reference is looked for:
    # what is wrong with what was typed is told first.
    path = checkpoints.locate(model, cache, weights=False).path
    others = (*model.lineage()[:-1], *([] if reference is None else [reference]))
    small = [stage.label for stage in others if stage.source == MINIATURE]
    if not small:
        return
    size = digests.read_config(path).get("vocab_size")
    if size != len(vocabulary()):
        raise ConfigError(
            f"{model.label} has {size} tokens, but {small[-1]} is of the miniature family "
            f"(size=tiny, {len(vocabulary())} tokens); give the size of your model, e.g. size=7b"
        )


def _check_labels(analysis: Analysis, dataset: Dataset) -> None:
    """Refuse to analyse data without labels where labels are needed.

    Raises:
        ConfigError: the analysis does not say that it needs none.
    """
    if not dataset.labelled and getattr(analysis, "needs_labels", True):
        raise ConfigError(
            f"analysis={analysis.name} needs labels, and data {dataset.name!r} is read without "
            "(data.unlabelled=true); give labels, or use what needs none: analysis=cka, or "
            "analysis=projection with a vector, analysis.vector=FILE"
        )


def _read(analysis: Analysis) -> tuple[Position, ...]:
    """The positions that an analysis is going to read, as far as its options say."""
    options = asdict(analysis) if is_dataclass(analysis) else {}
    asked = {options.get("position"), *(options.get("positions") or ())}
    found: tuple[Position, ...] = get_args(PooledPosition)
    return tuple(it for it in found if it in asked)


def _told(result: Result, warnings: tuple[str, ...], source: Source, model: Stage) -> Result:
    """The result with what holds for all of it: its data, its prompts, its responses, its model."""
    quantisation = source.identity(model).quantisation
    if quantisation != FULL_PRECISION:
        warnings += (of_quantised(quantisation),)
    headline = dict(result.headline)
    if source.completed is not None:
        warnings += source.completed.warnings
        headline["responses"] = source.completed.mode
    return replace(result, warnings=(*warnings, *result.warnings), headline=headline)


def _of_weights(source: Source, model: Stage, reference: Stage | None) -> tuple[str, ...]:
    """What a reader must know of the checkpoints themselves, one sentence each."""
    stages = (model, *([] if reference is None else [reference]))
    said = [it for stage in stages for it in source.caveats(stage)]
    found = {stage.label: source.identity(stage).weights for stage in stages}
    # Of equal digests analyses speak themselves.
    same = twins.under_two_commits(found) if len(set(found.values())) > 1 else None
    return (*said, *([] if same is None else [str(same)]))


def _show(formats: Formats) -> None:
    """Show where the two sides read other tokens, if they do so by choice."""
    if formats.diff is None:
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in (*formats.warnings, *formats.diff.excerpt.splitlines()):
        console.print(line, markup=False)


def _is_sound(folder: Path) -> bool:
    """Whether a result is there that `run` would take, without a word about one that is damaged."""
    try:
        records.read(folder)
    except StoreError:
        return False
    return True


def _write(folder: Path, result: Result, provenance: Mapping[str, Any], store: Path) -> None:
    """Write a result; where it cannot be written, say what of its work is kept.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        records.write(folder, result, provenance)
        return
    except StoreError as error:
        refused = str(error)
    # Not from within `except`: the command line tells the first error of a chain.
    raise StoreError(f"{refused}; activations stay in {store}, so that only the analysis is redone")


def _finished(folder: Path) -> Recorded | None:
    """The result that is there already; None if there is none, or a damaged one."""
    if not records.is_finished(folder):
        return None
    try:
        return records.read(folder)
    except StoreError as error:
        logging.getLogger(__name__).warning("%s (done again now)", error)
        return None
