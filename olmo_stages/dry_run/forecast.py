"""What the jobs of a sweep will read and compute, told before any of them runs.

A job that is finished reads nothing. The others are walked through in their order, with the code
that identifies results and activations when they run: what the store has, what an earlier job
leaves there, and what is left to compute, which is a `Step`: a forward pass over a data set, or the
writing of responses to it. Nothing is run, built, downloaded or written.

Of a checkpoint that is not on this machine the identity is not known; a stand-in made of its name
takes its place, so that jobs that share it are found all the same. Responses that nobody has
written yet are taken for ones that can all be read.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from olmo_stages.activations import extras, passes, request
from olmo_stages.activations.identity import PassIdentity, digest
from olmo_stages.activations.request import Work
from olmo_stages.activations.store import default_store
from olmo_stages.cache import cache_folder
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.responses import Response
from olmo_stages.errors import NotHere
from olmo_stages.experiment import Experiment, Ready
from olmo_stages.looking import looking
from olmo_stages.miniature.recipe import Recipe, chats, family
from olmo_stages.models.captures import Capture
from olmo_stages.models.checkpoints import ATTENTION, Checkpoint
from olmo_stages.models.compute import SCHEMES, Compute
from olmo_stages.models.released import release_of
from olmo_stages.shapes import WIDTHS
from olmo_stages.stages import MINIATURE
from olmo_stages.types import Example, Stage, Wanted

State = Literal["done", "missing", "unknown"]
"""`unknown`: what would tell is not on this machine."""

Kind = Literal["activations", "responses"]

_NOT_HERE = Dataset("", (Example("", "", None, text="?"),), labelled=False)
_UNKNOWN_DEPTH = 10_000  # blocks: more than any model has, so that all of them are no list of some


@dataclass(frozen=True)
class Step:
    """One forward pass, or one writing of responses, that no earlier job and no store provides.

    Args:
        kind: which of the two.
        stage: whose model runs.
        compute: how it runs.
        device: `cuda` or `cpu`, where it would run.
        cache: the cache folder.
        data: name of the data set.
        dataset: the examples; None where they are not on this machine.
        captures: sites and positions that are asked of a pass.
        layers: layers that are asked of a pass; None = all, embeddings included.
        is_here: whether the checkpoint is on this machine, so that it is known for sure that the
            step is needed.
    """

    kind: Kind
    stage: Stage
    compute: Compute
    device: str
    cache: Path
    data: str
    dataset: Dataset | None
    captures: tuple[Capture, ...] = ()
    layers: tuple[int, ...] | None = None
    is_here: bool = True


@dataclass(frozen=True)
class Job:
    """What is told of one job.

    Args:
        state: whether its result is there.
        about: what tells jobs apart, under the names of `records.Job.about`.
        steps: numbers of the steps that it is the first to need.
        shared: numbers of the steps that it needs and an earlier job takes.
        n_stored: how many of the things it reads are in the store.
        is_whole: whether its analysis tells all that it reads; if not, there may be more steps.
    """

    state: State
    about: Mapping[str, str]
    steps: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()
    n_stored: int = 0
    is_whole: bool = True


@dataclass
class Forecast:
    """Walks through jobs in their order.

    Args:
        jobs: all of them; a pass that one needs keeps what the others are going to need of it.

    Attributes:
        steps: what is left to compute, each once.
    """

    jobs: Sequence[Experiment] = ()
    steps: list[Step] = field(default_factory=list)
    _made: list[tuple[str, frozenset[Capture], frozenset[int], int]] = field(default_factory=list)
    _written: dict[str, int] = field(default_factory=dict)

    def add(self, experiment: Experiment, device: str | None = None) -> Job:
        """Look at the next job.

        Args:
            experiment: the job.
            device: of the machine that it would run on, `cuda` or `cpu`; None = this one.

        Returns:
            What is told of it; its steps are added to `steps`.

        Raises:
            OlmoStagesError: what running it would say, as far as looking shows it.
        """
        finished = experiment.finished(device)
        state: State = "unknown" if finished is None else "done" if finished else "missing"
        here = experiment.on(device)
        with looking():
            ready = _ready(here)
            about = _about(here, ready)
            if state == "done":
                return Job(state, about)
            walk = _Walk(self, here, device, ready)
            own = request.wanted(here.analysis, here.model, walk.reference, here.seed)
            walk.read(own)
        return Job(
            state,
            about,
            tuple(dict.fromkeys(walk.own)),
            tuple(it for it in dict.fromkeys(walk.shared) if it not in walk.own),
            walk.n_stored,
            request.declares(here.analysis),
        )

    def has(self, key: str, captures: Iterable[Capture], layers: Iterable[int]) -> int | None:
        """Number of the step that gives these captures and layers of a pass; None = no step."""
        captures, layers = set(captures), set(layers)
        found = (n for k, c, kept, n in self._made if k == key and captures <= c and layers <= kept)
        return next(found, None)

    def take(self, key: str, captures: Iterable[Capture], layers: Iterable[int], step: Step) -> int:
        """Note a forward pass that keeps these captures and layers; its number."""
        self.steps.append(step)
        number = len(self.steps) - 1
        self._made.append((key, frozenset(captures), frozenset(layers), number))
        return number

    def write(self, key: str, step: Step) -> tuple[int, bool]:
        """Note that responses are needed; the number of their step, and whether it is a new one."""
        if (number := self._written.get(key)) is not None:
            return number, False
        self.steps.append(step)
        self._written[key] = len(self.steps) - 1
        return len(self.steps) - 1, True


class _Walk:
    """What one job reads, in its order."""

    def __init__(
        self, forecast: Forecast, experiment: Experiment, device: str | None, ready: Ready | None
    ) -> None:
        self.forecast, self.experiment, self.ready = forecast, experiment, ready
        self.device = device
        self.reference = experiment.reference_stage() if ready is None else ready.reference
        self.store = default_store(cache_folder(experiment.cache))
        self.place = str(self.store.root)
        self.own: list[int] = []
        self.shared: list[int] = []
        self.n_stored = 0
        self.responses = self._responses()

    def read(self, wanted: Sequence[Wanted]) -> None:
        """Find what is wanted, or note the steps that give it, and what others want of them."""
        needs = [passes.need(self._work(it.stage), it) for it in wanted]
        for need in needs:
            for capture in need.captures:
                self._note(need.work.identity, (capture,), need.layers)

        def has(identity: PassIdentity, captures: Sequence[Capture], layers: Sequence[int]) -> bool:
            made = self.forecast.has(self.place + identity.key, captures, layers)
            return made is not None or self.store.find(identity, captures, layers) is not None

        def later(lacking: Collection[Stage]) -> list[passes.Need]:
            if not request.declares(self.experiment.analysis):
                return []
            jobs = (it.on(self.device) for it in self.forecast.jobs)
            others = (it for it in self.experiment.wanted_by(jobs) if it.stage in lacking)
            return [passes.need(self._work(it.stage), it) for it in others]

        for asked in passes.passes(needs, has, self._kept, later):
            whole = self._kept(asked)
            layers = None if len(asked.layers) > asked.work.n_layers else asked.layers
            step = self._step("activations", asked.work)
            step = replace(step, captures=asked.captures, layers=layers)
            key = self.place + asked.work.identity.key
            self.own.append(self.forecast.take(key, whole.captures, whole.layers, step))

    def _note(
        self, identity: PassIdentity, captures: Sequence[Capture], layers: Sequence[int]
    ) -> None:
        """Note where something that is read comes from, if it is there by then."""
        number = self.forecast.has(self.place + identity.key, captures, layers)
        if number is not None:
            self.shared.append(number)
        elif self.store.find(identity, captures, layers) is not None:
            self.n_stored += 1

    def _kept(self, asked: passes.Pass) -> passes.Pass:
        return extras.with_extras(asked, self._device())

    def _device(self) -> str:
        compute = self.experiment.compute
        if compute.device == "auto":
            return self.device or compute.resolve_device()
        return compute.device

    def _step(self, kind: Kind, work: Work) -> Step:
        dataset = None if self.ready is None else self.ready.dataset
        name = _called(self.experiment) if dataset is None else dataset.name
        is_here = work.checkpoint.path != Path()
        compute = self.experiment.compute
        cache = cache_folder(self.experiment.cache)
        return Step(
            kind, work.stage, compute, self._device(), cache, name, dataset, is_here=is_here
        )

    def _responses(self) -> dict[Stage, tuple[str, dict[str, Response] | None]]:
        """By stage that writes: what identifies its responses, and those that are there."""
        if self.ready is None or self.ready.dataset.respond is None:
            return {}
        completion = self.experiment.completion(self.ready.dataset, self.reference)
        assert completion is not None
        found: dict[Stage, tuple[str, dict[str, Response] | None]] = {}
        for stage in dict.fromkeys(map(completion.writer, completion.stages)):
            key, responses = found[stage] = self._written_by(stage)
            if responses is not None:
                self.n_stored += 1
                continue
            step = self._step("responses", self._prompting(stage))
            number, is_new = self.forecast.write(self.place + key, step)
            (self.own if is_new else self.shared).append(number)
        return found

    def _written_by(self, stage: Stage) -> tuple[str, dict[str, Response] | None]:
        assert self.ready is not None
        try:
            return self.ready.source.responses(stage)
        except NotHere:
            respond = self.ready.dataset.respond
            assert respond is not None
            work = self._stand_in(stage)
            return digest([work.identity.key, asdict(respond.generation)]), None

    def _prompting(self, stage: Stage) -> Work:
        """What is known of a stage reading the prompts, or a stand-in for it."""
        if self.ready is None:
            return self._stand_in(stage)
        try:
            return self.ready.source.work(stage, prompts_alone=True)
        except NotHere:
            return self._stand_in(stage)

    def _work(self, stage: Stage) -> Work:
        """What is known of a stage reading the job's data, or a stand-in for it."""
        if self.ready is None:
            return self._stand_in(stage)
        try:
            return self.ready.source.work(stage)
        except NotHere:
            work = self._prompting(stage)
        return self._completed(work) if self.responses else work

    def _completed(self, work: Work) -> Work:
        """The same reading responses, all of which can be read."""
        assert self.ready is not None
        dataset = self.ready.dataset
        completion = self.experiment.completion(dataset, self.reference)
        assert completion is not None
        key, responses = self.responses[completion.writer(work.stage)]
        if responses is not None:
            return work.reading(replace(dataset, responses=responses))
        data = digest([dataset.digest, key])
        return replace(work, identity=replace(work.identity, data=data))

    def _stand_in(self, stage: Stage) -> Work:
        compute, ready = self.experiment.compute, self.ready
        if ready is None:
            data, format = digest(repr(self.experiment.data)), ""
        else:
            data, format = ready.dataset.digest, str(ready.dataset.format)
        identity = PassIdentity(
            weights=digest(["stand-in", _spelt(stage)]),
            random_init=stage.random_init,
            dtype=compute.resolve_dtype(),
            quantisation=SCHEMES[compute.quantisation],
            attention=ATTENTION,
            tokenizer="",
            format=format,
            data=data,
            max_length=0,
        )
        told = release_of(stage)
        depth = _UNKNOWN_DEPTH if told is None or told.shape is None else told.shape.n_layers
        dataset = _NOT_HERE if ready is None else ready.dataset
        return Work(stage, Checkpoint(Path(), None), identity, depth, dataset, _width(stage))


def _width(stage: Stage) -> int:
    """Width of the stream of a model that is not here; 0 = not known."""
    if stage.source == MINIATURE:
        return Recipe().architecture.d_model
    told = release_of(stage)
    widths = None if told is None else WIDTHS.get((told.family, told.size))
    return 0 if widths is None else widths.d_model


def _spelt(stage: Stage) -> list[Any]:
    """What weights a stage has, as far as its name tells."""
    if stage.members:
        return [[_spelt(it.stage), it.weight] for it in stage.members]
    if stage.source != MINIATURE:
        return [stage.source.casefold(), stage.revision]
    if stage.random_init is None:
        return [MINIATURE, stage.name, stage.revision]
    # All of one architecture have the same config, and one tokenizer for texts and one for chats.
    return [MINIATURE, family(stage.name), chats(stage.name)]


def _ready(experiment: Experiment) -> Ready | None:
    """What the job is given; None where its data are not on this machine."""
    try:
        return experiment.ready()
    except NotHere:
        pass
    try:
        return experiment.given()
    except NotHere:
        return None


def _about(experiment: Experiment, ready: Ready | None) -> dict[str, str]:
    reference = experiment.reference_stage()
    return {
        "stage": experiment.model.label,
        "reference": "" if reference is None else reference.label,
        "size": experiment.model.size,
        "analysis": experiment.analysis.name,
        "data": _called(experiment) if ready is None else ready.dataset.name,
    }


def _called(experiment: Experiment) -> str:
    """Name of data that are not on this machine."""
    named = (getattr(experiment.data, it, None) for it in ("name", "path"))
    return str(next((it for it in named if it), "data"))
