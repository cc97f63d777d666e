"""`dry_run=true`: what a command line would do, from Hydra's configuration; nothing is started."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from olmo_stages.dry_run import shown
from olmo_stages.dry_run.rehearsal import Asked, Place, Rehearsal, Submission, rehearse
from olmo_stages.errors import ConfigError
from olmo_stages.expected import told
from olmo_stages.launching.asked import asked_for, config_roots, named, words_of_jobs
from olmo_stages.launching.building import built, composed
from olmo_stages.launching.explanation import KNOWN, explain, is_request
from olmo_stages.launching.local import Way
from olmo_stages.launching.screen import say
from olmo_stages.launching.slurm import arrays, cluster, submitted
from olmo_stages.launching.slurm.options import Options, Resources, read_options
from olmo_stages.looking import looking
from olmo_stages.progress import watched
from olmo_stages.stages import searching
from olmo_stages.statuses import Status, read_statuses

_SHAPES = {True: "table", "json": "json", "script": "script"}
_BAD = 2
_BEFORE = {"stopped": "stopped before", "failed": "failed before", "killed": "killed before"}


@dataclass(frozen=True)
class _Launcher:
    """Who would start the jobs.

    Args:
        where: they would run, in words.
        place: what a job of a size is given.
        options: of Slurm; None elsewhere.
    """

    where: str
    place: Callable[[str], Place]
    options: Options | None = None


def leave(config: Any, *, multirun: bool) -> None:  # noqa: ANN401  (DictConfig)
    """Show what would run, and leave.

    Args:
        config: as Hydra composed it, its own settings included.
        multirun: whether it is that of a sweep.

    Raises:
        SystemExit: always: with 0, with 2 if a job cannot run, or with what the launch itself
            would end with.
    """
    try:
        code = _rehearse(config, multirun=multirun)
    except KNOWN as error:
        say(explain(error))
        code = _BAD if is_request(error) else 1
    # Hydra makes a warning of it, and would start the jobs.
    except Exception:  # noqa: BLE001
        say(traceback.format_exc())
        code = 1
    raise SystemExit(code)


def _rehearse(config: Any, *, multirun: bool) -> int:  # noqa: ANN401  (DictConfig)
    words = [it for it in config.hydra.overrides.task if it.lstrip("+").startswith("dry_run=")]
    asked = config.dry_run
    if asked not in _SHAPES:
        said = words[0] if words else f"dry_run={asked}"
        raise ConfigError(f"{said}: it is for all jobs; choose one of true, json, script, false")
    sweep = Path(config.hydra.sweep.dir)
    launcher = _launcher(config, multirun=multirun)
    with looking(), searching(config_roots(config.hydra)):
        in_slurm = _in_slurm(sweep) if launcher.options else {}
        before = {it.job: _before(it) for it in read_statuses(sweep)}
        before |= {job: f"in Slurm: {slurm}" for job, slurm in in_slurm.items()}
        found = rehearse(_jobs(config, before, multirun=multirun), launcher.place)
    shape = _SHAPES[asked]
    submissions = _submissions(found, launcher, sweep, in_slurm, scripts=shape != "table")
    if shape == "json":
        print(shown.to_json(found, launcher.where, submissions))  # noqa: T201  (for programs)
    else:
        shown.show(found, launcher.where, submissions, scripts=shape == "script")
    return _BAD if found.n["error"] else 0


def _jobs(config: Any, before: dict[str, str], *, multirun: bool) -> Iterator[Asked]:  # noqa: ANN401
    """The jobs, each composed when it is its turn."""
    words = words_of_jobs(config) if multirun else [list(config.hydra.overrides.task)]
    about = {it.job: it.about for it in asked_for(config)} if multirun else {}
    for of_job in watched(words, "dry run: composed"):
        overrides, name = named(of_job)
        asked = Asked(
            name, overrides, about=about.get(name) or told(overrides), before=before.get(name, "")
        )
        try:
            experiment = built(composed(config, of_job) if multirun else config)
        except KNOWN as error:
            yield replace(asked, error=explain(error))
        else:
            yield replace(asked, experiment=experiment)


def _launcher(config: Any, *, multirun: bool) -> _Launcher:  # noqa: ANN401  (DictConfig)
    settings = config.hydra.launcher
    params: Any = OmegaConf.to_container(settings, resolve=True)
    del params["_target_"]
    name = config.hydra.runtime.choices.get("hydra/launcher")
    kind = str(settings._target_).rpartition(".")[2]
    if not multirun:
        note = "" if name in {"local", "basic"} else f" (hydra/launcher={name} is for -m)"
        return _Launcher(f"here{note}", lambda _: Place())
    if kind == "LocalLauncher" and "n_jobs" in params:
        way = Way(**params)
        where = f"here, {way.n_jobs} at a time"
        device = "cpu" if way.gpus_per_job == 0 else None
        return _Launcher(where, lambda _: Place(device, way.gpus_per_job))
    if kind == "SlurmLauncher" and "sizes" in params:
        options = read_options(params)
        where = f"on Slurm, at most {options.array_parallelism} of an array at a time"
        return _Launcher(where, lambda size: _place(options.resources(size)), options)
    return _Launcher(f"with hydra/launcher={name}", lambda _: Place())


def _place(resources: Resources) -> Place:
    cpus = str(resources.flags.get("cpus-per-task", 1))
    n_cpus = int(cpus) if cpus.isdigit() else 1
    return Place(resources.device, resources.n_gpus, n_cpus, resources.minutes)


def _in_slurm(sweep: Path) -> dict[str, str]:
    """By job its id, of those that Slurm has from earlier launches."""
    last = {job: (it, slurm) for it in submitted.read(sweep).all for job, slurm in it.ids.items()}
    there = cluster.entries(slurm for _, slurm in last.values()) or {}
    return {
        job: slurm
        for job, (it, slurm) in last.items()
        if slurm in there and there[slurm].name == it.name
    }


def _before(status: Status) -> str:
    """How an earlier launch left a job, where it is not done."""
    if status.state in {"queued", "running"}:
        return f"{status.state} {status.slurm}".strip()
    return _BEFORE.get(status.state, "")


def _submissions(
    found: Rehearsal,
    launcher: _Launcher,
    sweep: Path,
    in_slurm: dict[str, str],
    *,
    scripts: bool,
) -> list[Submission]:
    """What sbatch would be given."""
    options = launcher.options
    if options is None:
        return []
    try:
        cluster.check()
    except ConfigError as error:
        say(f"note: {error}")
    sizes = {
        row.asked.job: row.asked.experiment.size
        for row in found.rows
        if row.runs and row.asked.experiment is not None and row.asked.job not in in_slurm
    }
    return [
        Submission(
            it.size,
            list(it.jobs),
            str(it.resources),
            arrays.script(it, options, sweep) if scripts else "",
        )
        for it in arrays.grouped(sizes, options)
    ]
