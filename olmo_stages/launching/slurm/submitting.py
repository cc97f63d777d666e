"""Submitting the jobs of a sweep, so that each is found again whoever is killed meanwhile."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from olmo_stages.atomic import write_file
from olmo_stages.launching import current
from olmo_stages.launching.screen import log_of, say
from olmo_stages.launching.slurm import arrays, submitted
from olmo_stages.launching.slurm.arrays import Array, Refused
from olmo_stages.launching.slurm.options import Options
from olmo_stages.launching.slurm.task import SlurmTask
from olmo_stages.launching.slurm.watching import Waited
from olmo_stages.statuses import Status, read_statuses, said, status_path, write_status


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


def submit(
    sweep: Path,
    wanted: Sequence[Wanted],
    options: Options,
    waited: list[Waited],
    *,
    has_other: bool,
) -> None:
    """Submit jobs, one array for each size, and add them to those that are waited for.

    Raises:
        Refused: Slurm takes none of them, and there is nothing else to do.
    """
    by_job = {it.job: it for it in wanted}
    refused: dict[str, Refused] = {}
    for array in arrays.grouped({job: it.size for job, it in by_job.items()}, options):
        try:
            waited += _submit_array(sweep, array, [by_job[job] for job in array.jobs], options)
        except Refused as error:
            refused |= dict.fromkeys(array.jobs, error)
    if refused and not waited and not has_other:
        first, *_ = refused.values()
        raise first
    for error in dict.fromkeys(refused.values()):
        say(str(error))
    for job, error in refused.items():
        fail(sweep, job, by_job[job].overrides, str(error))


def fail(sweep: Path, job: str, overrides: Sequence[str], why: str) -> None:
    """Note of a job that it is not even submitted."""
    status = Status(job, "failed", error=why, overrides=overrides)
    write_status(sweep, status)
    (current.launch.ended[job],) = read_statuses(sweep, [job])  # with what it is about


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
    tasks = [SlurmTask(it.text) for it in wanted]
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
