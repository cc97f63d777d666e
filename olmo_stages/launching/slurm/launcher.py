"""A sweep on Slurm, from its jobs to how each of them ended."""

import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from olmo_stages.atomic import write_file
from olmo_stages.errors import ConfigError
from olmo_stages.launching import current
from olmo_stages.launching.asked import named
from olmo_stages.launching.batch import Given
from olmo_stages.launching.screen import log_of, say
from olmo_stages.launching.slurm import arrays, cluster, finished, submitted, task
from olmo_stages.launching.slurm.arrays import Array, Refused
from olmo_stages.launching.slurm.finished import Candidate
from olmo_stages.launching.slurm.options import Options, read_options
from olmo_stages.launching.slurm.submitted import Submission
from olmo_stages.launching.slurm.watching import Waited, Watch
from olmo_stages.leases import hold
from olmo_stages.statuses import Status, said, status_path, write_status
from olmo_stages.stopping import Stopped

_LOCK = "launch"


@dataclass(frozen=True)
class Wanted:
    """A job of the sweep.

    Args:
        job: name.
        words: its overrides, all of them.
        overrides: those that say what is run.
        number: in the sweep.
        text: what its node is told.
        size: of its stage.
        identity: digests of what changes its numbers.
    """

    job: str
    words: Sequence[str]
    overrides: Sequence[str]
    number: int
    text: str
    size: str
    identity: Mapping[str, str]


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
    wanted = _all_wanted(given, job_overrides, first)
    waited: list[Waited] = []
    with _terminated():
        try:
            done = finished.done(given, [_candidate(it, options) for it in wanted])
            todo = {it.job: it for it in wanted}
            for it in done:
                del todo[it.job]
            with hold(sweep / submitted.FOLDER / _LOCK, on_wait=_say_locked):
                waited += _found_again(sweep, [*todo.values()])
                new = [it for job, it in todo.items() if job not in {it.job for it in waited}]
                waited += _submit(sweep, new, options)
            finished.read(given, done, sweep)
            current.launch.ended.update(Watch(sweep, waited, options.poll_s).run())
        except (KeyboardInterrupt, Stopped):
            _say_how_to_look(sweep, waited)
            raise
    return [JobReturn(overrides=words, status=JobStatus.COMPLETED) for words in job_overrides]


def _all_wanted(given: Given, job_overrides: Sequence[Sequence[str]], first: int) -> list[Wanted]:
    """The jobs of the sweep, each once.

    Raises:
        ConfigError: two of them are the same but for where or how they run.
    """
    found: dict[str, Wanted] = {}
    for number, words in enumerate(job_overrides, start=first):
        job = named(words)[1]
        if job not in found:
            found[job] = _wanted(given, words, number)
        elif set(found[job].words) != set(words):
            differing = sorted(set(found[job].words) ^ set(words))
            raise ConfigError(
                f"{' '.join(differing)}: two jobs would differ only in where or how they run, and "
                "write the same result; sweep over what is run"
            )
    if again := len(job_overrides) - len(found):
        say(f"note: {again} of {len(job_overrides)} jobs were asked for before; each runs once")
    return [*found.values()]


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


def _submit(sweep: Path, wanted: Sequence[Wanted], options: Options) -> list[Waited]:
    """Submit jobs, one array for each size.

    Raises:
        Refused: Slurm takes none of them.
    """
    by_job = {it.job: it for it in wanted}
    found: list[Waited] = []
    refused: list[tuple[Array, Refused]] = []
    for array in arrays.grouped({job: it.size for job, it in by_job.items()}, options):
        of_array = [by_job[job] for job in array.jobs]
        try:
            found += _submit_array(sweep, array, of_array, options)
        except Refused as error:
            refused.append((array, error))
    if refused and not found:
        raise refused[0][1]
    for array, error in refused:
        say(str(error))
        for job in array.jobs:
            status = Status(job, "failed", error=str(error), overrides=list(by_job[job].overrides))
            write_status(sweep, status)
            current.launch.ended[job] = status
    return found


def _submit_array(
    sweep: Path, array: Array, wanted: Sequence[Wanted], options: Options
) -> list[Waited]:
    asked = array.resources.spelt
    identity = {it.job: it.identity for it in wanted}
    # What an earlier run of the jobs said must not be taken for the end of this one.
    before = {it.job: _raw(status_path(sweep, it.job)) for it in wanted}
    for it in wanted:
        write_status(sweep, Status(it.job, "queued", overrides=list(it.overrides)))
    noted = submitted.note(sweep, submitted.new(array.jobs, identity, asked, sweep.name))
    tasks = [task.SlurmTask(it.text) for it in wanted]
    try:
        slurm = arrays.submit(array, tasks, options, sweep, noted.comment)
    except BaseException:
        submitted.forget(sweep, [noted])
        _take_back(sweep, before)
        raise
    noted = submitted.note(sweep, noted, slurm)
    count = f"{len(wanted)} jobs" if len(wanted) > 1 else "1 job"
    say(f"submitted {count} of size={array.size} as Slurm job {slurm} ({array.resources})")
    for it in wanted:
        _note_queued(sweep, it, noted.ids[it.job])
    return [
        Waited(it.job, noted.ids[it.job], noted.name, asked, tuple(it.overrides)) for it in wanted
    ]


def _raw(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _take_back(sweep: Path, before: Mapping[str, bytes | None]) -> None:
    """Leave the statuses as they were before something was submitted in vain."""
    for job, content in before.items():
        if content is None:
            status_path(sweep, job).unlink(missing_ok=True)
        else:
            write_file(status_path(sweep, job), content)


def _note_queued(sweep: Path, wanted: Wanted, slurm: str) -> None:
    """Note a job's id, unless it has begun and says so itself; and where it prints."""
    status = said(sweep, wanted.job)
    if status is not None and status.state == "queued":
        write_status(sweep, Status(wanted.job, "queued", overrides=wanted.overrides, slurm=slurm))
    link = log_of(sweep, wanted.job)
    with suppress(OSError):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(Path("..") / submitted.log(sweep, slurm).relative_to(sweep))


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
