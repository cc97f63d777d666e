"""What was submitted to Slurm for a sweep, so that the next launch finds it again."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from olmo_stages.atomic import write_file
from olmo_stages.provenance import now

FOLDER = "slurm"
"""Name of the folder in a sweep's folder that holds scripts and logs."""

_NOTES = "submitted"
_COMMENT = "olmo-stages:"


@dataclass(frozen=True)
class Submission:
    """One array, or one job.

    Args:
        token: what tells it from all others.
        jobs: names, in the order of the array.
        identity: digests of what changes a job's numbers, by job.
        asked: what each asks for, as on the command line.
        submitted: when, as ISO 8601.
        slurm: id that Slurm gave it; None = not known to be submitted.
        name: of the job in Slurm.
    """

    token: str
    jobs: Sequence[str]
    identity: Mapping[str, Mapping[str, str]]
    asked: str
    submitted: str
    slurm: str | None = None
    name: str = ""

    @property
    def comment(self) -> str:
        """What Slurm is given along, to find it by where its id was never noted."""
        return f"{_COMMENT}{self.token}"

    @property
    def ids(self) -> dict[str, str]:
        """Id of each job in Slurm, as squeue spells it; none where it is not known."""
        if self.slurm is None:
            return {}
        if len(self.jobs) == 1:
            return {self.jobs[0]: self.slurm}
        return {job: f"{self.slurm}_{i}" for i, job in enumerate(self.jobs)}


@dataclass(frozen=True)
class Submissions:
    """All that was submitted for a sweep.

    Args:
        sweep: folder of the sweep.
        all: the earliest first.
    """

    sweep: Path
    all: Sequence[Submission] = field(default_factory=list)

    def last(self, job: str) -> Submission | None:
        """The submission that a job was last in, of those that Slurm took."""
        found = [it for it in self.all if job in it.ids]
        return found[-1] if found else None

    def unsure(self) -> list[Submission]:
        """Those of launches that were killed before they could note what Slurm said."""
        return [it for it in self.all if it.slurm is None]


def new(
    jobs: Sequence[str], identity: Mapping[str, Mapping[str, str]], asked: str, name: str
) -> Submission:
    """A submission that is about to be made."""
    return Submission(uuid.uuid4().hex[:12], jobs, identity, asked, now().isoformat(), None, name)


def note(sweep: Path, submission: Submission, slurm: str | None = None) -> Submission:
    """Write a submission down, with the id that Slurm gave it.

    Raises:
        StoreError: the sweep's folder cannot be written.
    """
    noted = replace(submission, slurm=slurm)
    write_file(_place(sweep, noted), json.dumps(asdict(noted)).encode())
    return noted


def forget(sweep: Path, submissions: Iterable[Submission]) -> None:
    """Remove what Slurm never took."""
    for submission in submissions:
        _place(sweep, submission).unlink(missing_ok=True)


def read(sweep: Path) -> Submissions:
    """What was submitted for a sweep; without notes that are damaged."""
    found = map(_read, (sweep / FOLDER / _NOTES).glob("*.json"))
    known = sorted((it for it in found if it is not None), key=lambda it: it.submitted)
    return Submissions(sweep, known)


def log(sweep: Path, slurm: str) -> Path:
    """Where what a job printed is, by its id in Slurm."""
    return sweep / FOLDER / slurm / f"{slurm}_0_log.out"


def _place(sweep: Path, submission: Submission) -> Path:
    return sweep / FOLDER / _NOTES / f"{submission.token}.json"


def _read(path: Path) -> Submission | None:
    try:
        return Submission(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
