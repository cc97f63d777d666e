"""How each job of a sweep is getting on, as one small file a job.

Files rather than memory, because a job may run in another process or on another machine, and
because a killed process cannot report.
"""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from olmo_stages.atomic import OUTPUTS, process_runs, safe_name, write_file
from olmo_stages.expected import Expected, read_expected, told
from olmo_stages.headlines import restored, stored
from olmo_stages.provenance import redact, redact_arguments
from olmo_stages.slurm_queue import own_job, still_there
from olmo_stages.types import Headline

State = Literal["queued", "running", "stopped", "ok", "cached", "failed", "killed", "missing"]
"""`killed` and `missing` are found by `read_statuses`, `queued` is written by whoever submits a job
to Slurm; a job writes the others itself. A job that was told to stop is `stopped`: it has not
failed, and goes on when it is started again."""

LOGS = "logs"
"""Name of the folder of the logs in a sweep's folder."""

_FOLDER = "jobs"
_BELOW = ("*/jobs/*.json", "sweeps/*/jobs/*.json", "*/sweeps/*/jobs/*.json")
_MOST = 5  # sweeps that a message names
_ABOUT = ("stage", "reference", "size", "analysis", "data")
_DAMAGED = "what it said of itself is damaged; run it again"


@dataclass(frozen=True)
class Status:
    """How a job is getting on.

    Args:
        job: name, unique in its sweep.
        state: see `State`.
        folder: where its result is, once there is one.
        error: why it failed, in one line.
        seconds: wall time so far.
        overrides: what the sweep set for this job.
        headline: `Result.headline`.
        about: what tells jobs apart (`Job.about()`), in column order.
        slurm: id of the Slurm job that runs it; none of a stopped one that Slurm no longer has.
    """

    job: str
    state: State
    folder: str | None = None
    error: str = ""
    seconds: float = 0.0
    overrides: Sequence[str] = ()
    headline: Headline = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    slurm: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether something is at work on it, or will be without being asked again."""
        return self.state in {"queued", "running"} or (self.state == "stopped" and bool(self.slurm))


def write_status(sweep_dir: Path, status: Status) -> Path:
    """Write or replace a job's status, with the process and the Slurm job that wrote it.

    Returns:
        The file, in `sweep_dir/jobs`.
    """
    error = " ".join(status.error.split())
    clean = replace(
        status,
        error=redact(error),
        overrides=redact_arguments(status.overrides),
        slurm=status.slurm or own_job(),
    )
    writer = {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())}
    path = status_path(sweep_dir, status.job)
    content = {**asdict(clean), "headline": stored(clean.headline), "writer": writer}
    write_file(path, json.dumps(content).encode(), OUTPUTS)
    return path


def status_path(sweep_dir: Path, job: str) -> Path:
    """The file of a job's status."""
    return sweep_dir / _FOLDER / f"{safe_name(job)}.json"


def said(sweep_dir: Path, job: str) -> Status | None:
    """What was last written of a job, whatever became of it since; None if nothing was."""
    found = _read(status_path(sweep_dir, job), ended=False)
    return found.status if isinstance(found, _Said) else None


def read_statuses(
    sweep_dir: Path, expected: Sequence[str] | None = None, *, ended: bool = False
) -> list[Status]:
    """How the jobs of a sweep are getting on.

    Args:
        sweep_dir: folder of the sweep.
        expected: names of its jobs, in the order wanted; None = all that the sweep was ever asked
            for, then all others that wrote a status.
        ended: the sweep is over, so whatever still says `running` was killed, unless Slurm has its
            job. Without it a job is known to be killed only if its process was on this machine, or
            if it was a job of the Slurm that can be asked from here.

    Returns:
        One status a job; a job without a status is `missing`. What a job did not get to say about
        itself is told from what it was asked for.
    """
    asked = {safe_name(it.job): it for it in read_expected(sweep_dir)}
    stems = [safe_name(job) for job in expected or ()]
    if expected is None:
        written = (path.stem for path in (sweep_dir / _FOLDER).glob("*.json"))
        stems = list(dict.fromkeys([*asked, *sorted(written, key=_natural)]))
    names = dict(zip(stems, expected or stems, strict=True))
    found = _read_all({it: sweep_dir / _FOLDER / f"{it}.json" for it in stems}, ended=ended)
    silent = any(not isinstance(it, Status) or not it.about for it in found.values())
    data = _data_sets(asked, found) if silent else {}
    statuses: list[Status] = []
    for stem, status in found.items():
        wanted = asked.get(stem, Expected(names[stem]))
        if isinstance(status, str):
            status = Status(wanted.job, "missing", error=status, overrides=wanted.overrides)
        statuses.append(status if status.about else _told(status, wanted, data))
    return statuses


def _told(status: Status, asked: Expected, data: Mapping[str, str]) -> Status:
    """A status of a job that did not get to say what it is about."""
    about = dict(asked.about or told(status.overrides))
    if "stage" not in about:
        return status
    if "data" in about:
        about["data"] = data.get(about["data"], about["data"])
    return replace(status, about={it: about[it] for it in _ABOUT if it in about})


def _data_sets(asked: Mapping[str, Expected], found: Mapping[str, Status | str]) -> dict[str, str]:
    """What the data sets of finished jobs are called, by what they were asked for as."""
    names: dict[str, set[str]] = {}
    for stem, status in found.items():
        if not isinstance(status, str) and "data" in status.about:
            about = asked[stem].about if stem in asked else told(status.overrides)
            names.setdefault(about.get("data", ""), set()).add(status.about["data"])
    return {word: min(known) for word, known in names.items() if len(known) == 1}


@dataclass(frozen=True)
class _Said:
    """What a job said of itself, and who it was."""

    status: Status
    writer: Mapping[str, Any]


def _read_all(paths: Mapping[str, Path], *, ended: bool) -> dict[str, Status | str]:
    """Each status, or why there is none, by the key of its path."""
    said = {key: _read(path, ended=ended) for key, path in paths.items()}
    ids = {it.status.slurm for it in said.values() if isinstance(it, _Said) and it.status.goes_on}
    there = still_there(ids - {""}) if ids - {""} else None
    if there is not None:
        # It may have ended between its word and Slurm's.
        again = [key for key, it in said.items() if _is_lost(it, there)]
        said |= {key: _read(paths[key], ended=ended) for key in again}
    return {
        key: it if isinstance(it, str) else _as_it_is(it, there, ended=ended)
        for key, it in said.items()
    }


def _is_lost(said: "_Said | str", there: Mapping[str, str]) -> bool:
    """Whether it is at work on a Slurm job that Slurm has no more."""
    if isinstance(said, str) or not said.status.goes_on:
        return False
    return bool(said.status.slurm) and said.status.slurm not in there


def _read(path: Path, *, ended: bool) -> "_Said | str":
    try:
        content = json.loads(path.read_bytes())
        writer = content.pop("writer")
        if content["state"] not in get_args(State):
            return _DAMAGED
        status = Status(**{**content, "headline": restored(content.get("headline", {}))})
        return _Said(status, {it: writer[it] for it in ("host", "pid", "born")})
    except FileNotFoundError:
        return "never started" if ended else "not started"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return _DAMAGED


def _as_it_is(said: _Said, there: Mapping[str, str] | None, *, ended: bool) -> Status:
    """What a job said of itself, set right by what became of it since.

    Args:
        said: by the job.
        there: what Slurm has; None = it was not asked, or did not answer.
        ended: see `read_statuses`.
    """
    status = said.status
    if not status.goes_on:
        return status
    slurms = (there or {}).get(status.slurm, "")
    lost = there is not None and _is_lost(said, there)
    dead = _gone(said.writer) or slurms == "PENDING"
    if status.state == "running" and slurms and dead:
        # Preempted or its node lost, without a word of its own; Slurm starts it again.
        why = f"killed; Slurm still has its job {status.slurm} ({slurms})"
        return replace(status, state="stopped", error=why)
    if status.state == "running" and (dead or lost or (ended and not slurms)):
        return replace(status, state="killed", error=_killed(status.slurm if lost else ""))
    if status.state == "queued" and lost:
        why = f"never started; Slurm no longer has its job {status.slurm}"
        return replace(status, state="missing", error=why)
    if status.state == "stopped" and lost:
        return replace(status, slurm="")
    return status


def _killed(slurm: str) -> str:
    return "killed before it finished" + (f" (Slurm job {slurm})" if slurm else "")


def _gone(writer: Mapping[str, Any]) -> bool:
    if writer["host"] != socket.gethostname():
        return False
    return not process_runs(writer["pid"]) or _born(writer["pid"]) != writer["born"]


def _born(pid: int) -> str:
    """Return a process's start time in clock ticks, which tells it from a later one of its id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]  # a zombie has ended, only nobody asked how


def _natural(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)


def log_of(sweep_dir: Path, job: str) -> Path:
    """Where the output of a job goes that does not go to a terminal."""
    return sweep_dir / LOGS / f"{safe_name(job)}.log"


def sweeps_below(path: Path) -> str:
    """Name the first sweeps below a folder, for people; empty where there are none."""
    near = sorted({str(it.parent.parent) for below in _BELOW for it in path.glob(below)})
    return ", ".join(near[:_MOST]) + (", ..." if len(near) > _MOST else "")
