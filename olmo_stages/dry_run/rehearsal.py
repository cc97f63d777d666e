"""The jobs of a launch, one after another: their state, what each computes, how long it takes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from olmo_stages import miniature
from olmo_stages.dry_run import hours
from olmo_stages.dry_run.forecast import Forecast, Job, Step
from olmo_stages.errors import NotHere, OlmoStagesError
from olmo_stages.experiment import Experiment
from olmo_stages.looking import looking
from olmo_stages.plan import Needs
from olmo_stages.progress import watched
from olmo_stages.stages import MINIATURE
from olmo_stages.types import Stage


@dataclass(frozen=True)
class Asked:
    """A job of the launch.

    Args:
        job: its name.
        overrides: what the launch sets for it.
        experiment: the job; None where its configuration is wrong.
        error: what is wrong, one line.
        about: what can be told of it from its words, under the names of `records.Job.about`.
        before: how an earlier launch left it, in a few words.
    """

    job: str
    overrides: Sequence[str] = ()
    experiment: Experiment | None = None
    error: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    before: str = ""


@dataclass(frozen=True)
class Place:
    """What a job is given where it would run.

    Args:
        device: `cuda` or `cpu`; None = what this machine has.
        gpus: GPUs; None = one, if this machine has any.
        cpus: CPUs.
        minutes: its time limit; None = none.
    """

    device: str | None = None
    gpus: int | None = None
    cpus: int = 1
    minutes: int | None = None


@dataclass(frozen=True)
class Submission:
    """Jobs that would be submitted together.

    Args:
        size: of their stages.
        jobs: their names.
        asks: what each asks for.
        script: what would be given to sbatch.
    """

    size: str
    jobs: Sequence[str]
    asks: str
    script: str


@dataclass(frozen=True)
class Row:
    """What is told of a job.

    Args:
        asked: the job.
        told: what it reads; None where something is wrong with it.
        error: what is wrong with it.
        place: where it would run.
        steps_s: seconds that its own steps take, as far as is known.
        analysis_s: seconds that its analysis takes; None = not known.
    """

    asked: Asked
    told: Job | None = None
    error: str = ""
    place: Place = field(default_factory=Place)
    steps_s: float = 0.0
    analysis_s: float | None = None

    @property
    def state(self) -> str:
        """`done`, `missing`, `unknown` or `error`."""
        return "error" if self.told is None else self.told.state

    @property
    def runs(self) -> bool:
        """Whether it would run, as far as is known."""
        return self.state in {"missing", "unknown"}

    @property
    def about(self) -> Mapping[str, str]:
        """What tells jobs apart."""
        return self.asked.about if self.told is None else self.told.about

    @property
    def seconds(self) -> float:
        """What is known of the time it takes."""
        return self.steps_s + (self.analysis_s or 0.0)


@dataclass(frozen=True)
class Rehearsal:
    """What a launch would do.

    Args:
        rows: a job each, in their order.
        steps: what is left to compute, each once.
        needs: what the plan says of each step; None = its model or data are of unknown size.
        seconds: that each step takes; None = not known.
        to_train: miniature stages that are not on this machine.
    """

    rows: Sequence[Row]
    steps: Sequence[Step]
    needs: Sequence[Needs | None]
    seconds: Sequence[float | None]
    to_train: Sequence[str]

    @property
    def n(self) -> Counter[str]:
        """How many jobs are in each state."""
        return Counter(row.state for row in self.rows)

    @property
    def is_exact(self) -> bool:
        """Whether the number of steps is known for sure."""
        known = all(row.told is not None and row.told.is_whole for row in self.rows if row.runs)
        return known and not self.n["unknown"] and all(it.is_here for it in self.steps)

    @property
    def to_download(self) -> dict[str, int]:
        """Bytes by stage, of weights that are not on this machine."""
        # A random initialisation needs none.
        trained = [
            it
            for step, it in zip(self.steps, self.needs, strict=True)
            if it is not None and it.download_bytes and step.stage.random_init is None
        ]
        return {f"{it.stage} {it.size}": it.download_bytes for it in trained}

    @property
    def gpus(self) -> dict[str, tuple[str, ...]]:
        """By size the smallest GPUs that hold each of its models; none where none of them does."""
        largest: dict[str, Needs] = {}
        for step, it in zip(self.steps, self.needs, strict=True):
            if it is not None and step.device == "cuda":
                before = largest.setdefault(it.size, it)
                largest[it.size] = max(before, it, key=lambda it: it.peak_bytes)
        return {size: it.gpus for size, it in largest.items()}

    def hours(self, device: str) -> tuple[float, float]:
        """Hours of GPUs (`cuda`) or of CPUs (`cpu`): of steps, and of analyses."""
        found = [0.0, 0.0]
        for row in self.rows:
            n = row.place.gpus or 0
            if row.runs and (n > 0) == (device == "cuda"):
                found[0] += row.steps_s * (n or row.place.cpus) / 3600
                found[1] += (row.analysis_s or 0.0) * (n or row.place.cpus) / 3600
        return found[0], found[1]


def rehearse(jobs: Iterable[Asked], place: Callable[[str], Place]) -> Rehearsal:
    """Look at the jobs of a launch, in their order; nothing is started or written.

    Args:
        jobs: the jobs.
        place: where a job of a size would run.
    """
    jobs = list(jobs)
    forecast = Forecast([it.experiment for it in jobs if it.experiment is not None])
    analyses = hours.Analyses()
    needs: list[Needs | None] = []
    seconds: list[float | None] = []
    rows: list[Row] = []
    for asked in watched(jobs, "dry run: looked at"):
        row = _row(asked, forecast, place)
        for step in forecast.steps[len(needs) :]:
            needs.append(hours.needs(step))
            seconds.append(None if needs[-1] is None else hours.seconds(step, needs[-1]))
        rows.append(_timed(row, seconds, analyses) if row.runs else row)
    return Rehearsal(rows, forecast.steps, needs, seconds, _untrained(forecast.steps))


def _row(asked: Asked, forecast: Forecast, place: Callable[[str], Place]) -> Row:
    experiment = asked.experiment
    if experiment is None:
        return Row(asked, error=asked.error)
    try:
        where = place(experiment.size)
        told = forecast.add(experiment, where.device)
        if where.gpus is None:
            has_gpu = told.state != "done" and experiment.compute.resolve_device() == "cuda"
            where = replace(where, gpus=int(has_gpu))
    except OlmoStagesError as error:
        return Row(asked, error=" ".join(str(error).split()))
    return Row(asked, told, place=where)


def _timed(row: Row, seconds: Sequence[float | None], analyses: hours.Analyses) -> Row:
    assert row.told is not None
    assert row.asked.experiment is not None
    own = sum((seconds[it] or 0.0 for it in row.told.steps), 0.0)
    analysis_s = analyses.seconds(row.asked.experiment, row.told.about["data"])
    return replace(row, steps_s=own, analysis_s=analysis_s)


def _untrained(steps: Iterable[Step]) -> list[str]:
    """Miniature stages that would be trained first."""
    found: dict[str, None] = {}
    for step in steps:
        for stage in [it.stage for it in step.stage.members] or [step.stage]:
            if stage.source == MINIATURE and not _is_built(stage, step.cache):
                found[stage.name] = None
    return list(found)


def _is_built(stage: Stage, cache: Path) -> bool:
    with looking():
        try:
            miniature.ensure(stage.name, stage.revision, root=cache / MINIATURE)
        except NotHere:
            return False
    return True
