"""How each job of a sweep is getting on, as one small file a job.

Files rather than memory, because a job may run in another process or on another machine, and
because a killed process cannot report.
"""

import dataclasses
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from olmo_stages.atomic import process_runs, safe_name, write_file
from olmo_stages.expected import Expected, read_expected, told
from olmo_stages.headlines import restored, stored
from olmo_stages.provenance import redact, redact_arguments
from olmo_stages.types import Headline

State = Literal["running", "ok", "cached", "failed", "killed", "missing"]
"""`killed` and `missing` are found by `read_statuses`; a job writes the others itself."""

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
    """

    job: str
    state: State
    folder: str | None = None
    error: str = ""
    seconds: float = 0.0
    overrides: Sequence[str] = ()
    headline: Headline = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)


def write_status(sweep_dir: Path, status: Status) -> Path:
    """Write or replace a job's status, with the process that wrote it.

    Returns:
        The file, in `sweep_dir/jobs`.
    """
    error = " ".join(status.error.split())
    clean = dataclasses.replace(
        status, error=redact(error), overrides=redact_arguments(status.overrides)
    )
    writer = {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())}
    path = sweep_dir / _FOLDER / f"{safe_name(status.job)}.json"
    content = {**dataclasses.asdict(clean), "headline": stored(clean.headline), "writer": writer}
    write_file(path, json.dumps(content).encode())
    return path


def read_statuses(
    sweep_dir: Path, expected: Sequence[str] | None = None, *, ended: bool = False
) -> list[Status]:
    """How the jobs of a sweep are getting on.

    Args:
        sweep_dir: folder of the sweep.
        expected: names of its jobs, in the order wanted; None = all that the sweep was ever asked
            for, then all others that wrote a status.
        ended: the sweep is over, so whatever still says `running` was killed. Without it a job is
            known to be killed only if its process was on this machine.

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
    found = {stem: _read(sweep_dir / _FOLDER / f"{stem}.json", ended=ended) for stem in stems}
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
    return dataclasses.replace(status, about={it: about[it] for it in _ABOUT if it in about})


def _data_sets(asked: Mapping[str, Expected], found: Mapping[str, Status | str]) -> dict[str, str]:
    """What the data sets of finished jobs are called, by what they were asked for as."""
    names: dict[str, set[str]] = {}
    for stem, status in found.items():
        if not isinstance(status, str) and "data" in status.about:
            about = asked[stem].about if stem in asked else told(status.overrides)
            names.setdefault(about.get("data", ""), set()).add(status.about["data"])
    return {word: min(known) for word, known in names.items() if len(known) == 1}


def _read(path: Path, *, ended: bool) -> Status | str:
    """A status, or why there is none."""
    try:
        content = json.loads(path.read_bytes())
        writer = content.pop("writer")
        if content["state"] not in get_args(State):
            return _DAMAGED
        status = Status(**{**content, "headline": restored(content.get("headline", {}))})
    except FileNotFoundError:
        return "never started" if ended else "not started"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return _DAMAGED
    if status.state == "running" and (ended or _gone(writer)):
        return dataclasses.replace(status, state="killed", error="killed before it finished")
    return status


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


def sweeps_below(path: Path) -> str:
    """Name the first sweeps below a folder, for people; empty where there are none."""
    near = sorted({str(it.parent.parent) for below in _BELOW for it in path.glob(below)})
    return ", ".join(near[:_MOST]) + (", ..." if len(near) > _MOST else "")
