"""Jobs as Hydra hands them over: lists of words, of which each is composed where it runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from omegaconf import open_dict

from olmo_stages.launching import local
from olmo_stages.launching.asked import named
from olmo_stages.launching.child import Told
from olmo_stages.launching.fleet import LocalJob
from olmo_stages.launching.local import Way
from olmo_stages.launching.screen import say


@dataclass(frozen=True, eq=False)
class Given:
    """What Hydra gives a launcher.

    Args:
        context: its `HydraContext`.
        task: its task function.
        config: the configuration that is the same for all jobs.
    """

    context: Any
    task: Any
    config: Any


def run_locally(
    given: Given, way: Way, job_overrides: Sequence[Sequence[str]], first: int
) -> list[Any]:
    """Run jobs on this machine; one that is asked for twice runs once.

    Args:
        given: by Hydra.
        way: how many at a time, with what.
        job_overrides: the words of each job.
        first: Hydra's number of the first.

    Returns:
        What Hydra wants of each job: that it ended. How is in its status.
    """
    anew = given.config.force is True
    jobs: dict[frozenset[str], LocalJob] = {}
    for number, words in enumerate(job_overrides, start=first):
        overrides, name = named(words)
        work = partial(_compose_and_run, given, words, number)
        jobs.setdefault(frozenset(words), LocalJob(name, overrides, work, anew))
    if again := len(job_overrides) - len(jobs):
        say(f"note: {again} of {len(job_overrides)} jobs were asked for before; each runs once")
    sweep = Path(given.config.hydra.sweep.dir)
    sweep.mkdir(parents=True, exist_ok=True)
    local.run([*jobs.values()], sweep, way)
    return [JobReturn(overrides=words, status=JobStatus.COMPLETED) for words in job_overrides]


def composed(given: Given, words: Sequence[str], number: int) -> Any:  # noqa: ANN401  (DictConfig)
    """The configuration of one job, Hydra's own settings included."""
    setup_globals()
    config = given.context.config_loader.load_sweep_config(given.config, list(words))
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    return config


def run_here(given: Given, config: Any) -> Told:  # noqa: ANN401  (DictConfig)
    """Run one job in this process.

    Returns:
        How it ended.
    """
    done = run_job(
        hydra_context=given.context,
        task_function=given.task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    return done.return_value


def _compose_and_run(given: Given, words: Sequence[str], number: int) -> Told:
    return run_here(given, composed(given, words, number))
