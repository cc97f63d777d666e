"""A sweep on Slurm, from its jobs to how each of them ended."""

import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from olmo_stages.errors import ConfigError
from olmo_stages.launching import current
from olmo_stages.launching.asked import named
from olmo_stages.launching.batch import Given
from olmo_stages.launching.explanation import KNOWN, explain
from olmo_stages.launching.screen import say
from olmo_stages.launching.slurm import cluster, finished, submitted, task
from olmo_stages.launching.slurm.finished import Candidate
from olmo_stages.launching.slurm.options import Options, read_options
from olmo_stages.launching.slurm.submitted import Submission
from olmo_stages.launching.slurm.submitting import Wanted, fail, submit
from olmo_stages.launching.slurm.watching import Waited, Watch
from olmo_stages.leases import hold
from olmo_stages.stopping import Stopped

_LOCK = "launch"


def launch(
    given: Given, params: Mapping[str, Any], job_overrides: Sequence[Sequence[str]], first: int
) -> list[JobReturn]:
    """Run the jobs of a sweep on Slurm and wait for them.

    Args:
        given: by Hydra.
        params: the keys of the launcher.
        job_overrides: the words of each job.
        first: number of the first job.

    Returns:
        That each job was seen to its end; how it ended is in its status.

    Raises:
        ConfigError: nothing can be submitted; one line.
        KeyboardInterrupt: Ctrl-C; the jobs go on.
        Stopped: this process was told to stop; the jobs go on.
    """
    options = read_options(plain(params))
    cluster.check()
    sweep = Path(given.config.hydra.sweep.dir)
    wanted = _all_wanted(given, sweep, job_overrides, first)
    waited: list[Waited] = []
    with _terminated():
        try:
            done = finished.done(given, [_candidate(it, options) for it in wanted])
            known = {it.job for it in done}
            with hold(sweep / submitted.FOLDER / _LOCK, on_wait=_say_locked):
                waited += _found_again(sweep, [it for it in wanted if it.job not in known])
                known |= {it.job for it in waited}
                new = [it for it in wanted if it.job not in known]
                submit(sweep, new, options, waited, has_other=bool(done))
            finished.read(given, done, sweep)
            current.launch.ended.update(Watch(sweep, waited, options.poll_s).run())
        except (KeyboardInterrupt, Stopped):
            _say_how_to_look(sweep, waited)
            raise
    return [JobReturn(overrides=words, status=JobStatus.COMPLETED) for words in job_overrides]


def _all_wanted(
    given: Given, sweep: Path, job_overrides: Sequence[Sequence[str]], first: int
) -> list[Wanted]:
    """The jobs of the sweep, each once; without those that cannot even be composed.

    Raises:
        ConfigError: two of them are the same but for where or how they run.
    """
    found: dict[str, Sequence[str]] = {}
    wanted: list[Wanted] = []
    for number, words in enumerate(job_overrides, start=first):
        overrides, job = named(words)
        if differing := set(found.get(job, words)) ^ set(words):
            raise ConfigError(
                f"{' '.join(sorted(differing))}: two jobs would differ only in where or how they "
                "run, and write the same result; sweep over what is run"
            )
        try:
            if job not in found:
                wanted.append(_wanted(given, words, number))
        except KNOWN as error:
            say(f"job {job} failed: {explain(error)}")
            fail(sweep, job, overrides, explain(error))
        found[job] = words
    if again := len(job_overrides) - len(found):
        say(f"note: {again} of {len(job_overrides)} jobs were asked for before; each runs once")
    return wanted


def _candidate(wanted: Wanted, options: Options) -> Candidate:
    device = options.resources(wanted.size).device
    return Candidate(wanted.job, wanted.words, wanted.overrides, wanted.number, device)


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the launcher as data, whatever Hydra made of them."""
    return {
        key: OmegaConf.to_container(it, resolve=True) if OmegaConf.is_config(it) else it
        for key, it in params.items()
    }


def _wanted(given: Given, words: Sequence[str], number: int) -> Wanted:
    overrides, job = named(words)
    told = task.describe(given.config, given.context.config_loader, job, list(words), number)
    text = json.dumps(told)
    return Wanted(job, words, overrides, number, text, told["size"], told["identity"])


def _found_again(sweep: Path, wanted: Sequence[Wanted]) -> list[Waited]:
    """The jobs that Slurm still has from earlier launches.

    Raises:
        ConfigError: one of them was submitted with another configuration.
    """
    earlier = submitted.read(sweep)
    for lost in earlier.unsure():
        cluster.cancel(cluster.with_comment(lost.comment))
    submitted.forget(sweep, earlier.unsure())
    last = {it.job: earlier.last(it.job) for it in wanted}
    ids = {job: it.ids[job] for job, it in last.items() if it is not None}
    there = cluster.entries(ids.values())
    if there is None:
        raise ConfigError("Slurm does not answer (squeue); give the command again later")
    found: list[Waited] = []
    for it in wanted:
        before = last[it.job]
        entry = None if before is None else there.get(ids[it.job])
        if before is None or entry is None or entry.name != before.name:
            continue
        _check_same(it, before, ids[it.job])
        found.append(Waited(it.job, ids[it.job], before.name, before.asked, tuple(it.overrides)))
    if found:
        jobs = " ".join(it.slurm for it in found[:5]) + (" ..." if len(found) > 5 else "")
        say(f"in Slurm from an earlier launch, not submitted again: {len(found)} ({jobs})")
    return found


def _check_same(wanted: Wanted, before: Submission, slurm: str) -> None:
    """Refuse to take a job for one of another configuration.

    Raises:
        ConfigError: it is of another.
    """
    if changed := task.differing(wanted.identity, before.identity.get(wanted.job, {})):
        raise ConfigError(
            f"Slurm still has job {wanted.job} ({slurm}), submitted when its {', '.join(changed)} "
            f"was configured otherwise; wait for it or scancel {slurm}, then give the command again"
        )


def _say_locked(owner: str) -> None:
    say(f"another launch submits jobs of this sweep ({owner}); waiting for it")


def _say_how_to_look(sweep: Path, waited: Sequence[Waited]) -> None:
    ids = sorted({it.slurm.partition("_")[0] for it in waited})
    if not ids:
        return
    jobs = ",".join(ids)
    say(
        f"the jobs go on in Slurm: squeue -j {jobs} shows them, scancel {' '.join(ids)} cancels "
        f"them, olmo-stages report {sweep} shows what is done; the same command comes back to them"
    )


@contextmanager
def _terminated() -> Iterator[None]:
    """Take SIGTERM as a person's Ctrl-C, but for the exit code."""

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        raise Stopped(signal.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
