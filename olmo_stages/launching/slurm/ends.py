"""How a job ended that did not get to say so itself, and why one waits, in words for people."""

import os
from dataclasses import dataclass
from pathlib import Path

from olmo_stages.launching.slurm.cluster import NO_TRACE, End
from olmo_stages.launching.slurm.options import PREFIX
from olmo_stages.statuses import State

_TAIL = 8192
_LONGEST = 160
_FEWER = "asks for more than there is ({asked}); give less"
_LESS_TIME = f"asks for more time than is allowed; give less with {PREFIX}.time"
_OTHER = f"or another {PREFIX}.partition"
_HELD = "is held; scontrol release starts it, or ask your administrators"
# Reasons for which a job waits until somebody does something.
_FOR_EVER = {
    "PartitionConfig": f"{_FEWER}, {_OTHER}",
    "PartitionNodeLimit": f"{_FEWER}, {_OTHER}",
    "PartitionTimeLimit": f"{_LESS_TIME}, {_OTHER}",
    "PartitionDown": f"waits for a partition that is down; wait too, or give {_OTHER}",
    "PartitionInactive": f"waits for a partition that is inactive; give {_OTHER}",
    "BadConstraints": f"fits no node; give another {PREFIX}.constraint, {_OTHER}",
    "AccountNotAllowed": f"may not use the partition; give another {PREFIX}.account, {_OTHER}",
    "QOSNotAllowed": f"may not use the partition; give another {PREFIX}.qos, {_OTHER}",
    "InvalidAccount": f"has an unknown account; give another {PREFIX}.account",
    "InvalidQOS": f"has an unknown QOS; give another {PREFIX}.qos",
    "ReservationDeleted": f"has a reservation that is gone; give another with {PREFIX}.options",
    "DependencyNeverSatisfied": "depends on a job that failed; cancel it",
    "JobHeldUser": _HELD,
    "JobHeldAdmin": _HELD,
    "JobHoldMaxRequeue": _HELD,
    "launch failed requeued held": f"could not be started on its node and {_HELD}",
}  # fmt: skip


@dataclass(frozen=True)
class Word:
    """What a job that ended without a word is said to have come to.

    Args:
        state: for its status.
        reason: one line.
    """

    state: State
    reason: str


def words_for(end: End | None, asked: str, log: Path, started: bool) -> Word:  # noqa: FBT001
    """What became of a job, in words.

    Args:
        end: what Slurm says; None = it does not know any more.
        asked: what the job asked for.
        log: what it printed.
        started: whether it ever said that it ran.
    """
    state, reason = _told(end, asked, started)
    if state == "failed" and (last := last_words(log)):
        reason = f"{reason}: {last}"
    elif state == "failed" and not log.exists():
        reason = f"{reason}, and left no log at {log.parent}: do all nodes see that folder?"
    return Word(state, reason)


def _told(end: End | None, asked: str, started: bool) -> tuple[State, str]:  # noqa: FBT001
    if end is not None and end.state == NO_TRACE and not started:
        return "killed", "cancelled in Slurm before it started"
    if end is None or end.state == NO_TRACE:
        return ("killed" if started else "failed"), "ended, and Slurm no longer says how"
    place = f" {end.node}" if end.node else ""
    again = "the same command goes on from there"
    told: dict[str, str] = {
        "CANCELLED": f"cancelled in Slurm{f' by {end.by}' if end.by else ''}",
        "TIMEOUT": f"killed at its time limit before it could stop; give it more with "
        f"{PREFIX}.time or tell it earlier with {PREFIX}.signal_delay_s, {again}",
        "OUT_OF_MEMORY": f"out of memory ({asked}); give it more with {PREFIX}.memory",
        "NODE_FAIL": f"its node{place} failed; {again}",
        "BOOT_FAIL": f"its node{place} did not start; {again}",
        "PREEMPTED": f"preempted, and Slurm did not queue it again; {again}",
        "DEADLINE": "its deadline passed",
        "REVOKED": "another cluster runs it",
    }
    if end.state in told:
        return "killed", told[end.state]
    if end.signal:
        guess = f" (out of memory? more with {PREFIX}.memory)" if end.signal == 9 else ""
        return "killed", f"killed: signal {end.signal}{guess}"
    if started:
        return "killed", f"ended with exit code {end.code} without saying how it went"
    return "failed", f"ended with exit code {end.code} before it began"


def last_words(log: Path) -> str:
    """The last line of a log that tells of an error, or else the last one."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL), os.SEEK_SET)
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [it.strip() for it in text.splitlines() if it.strip()]
    # srun's own summary names a number alone.
    lines = [it for it in lines if not it.startswith("srun: ")]
    errors = [it for it in lines if "error" in it.lower() or "not found" in it.lower()]
    return (errors or lines or [""])[-1][:_LONGEST]


def waits_for_ever(reason: str, asked: str) -> str | None:
    """What to do about a job that Slurm will not start by itself; None of one that it will.

    Args:
        reason: Slurm's word.
        asked: what the job asks for.
    """
    word = reason.strip("()").partition(",")[0]
    if word in _FOR_EVER:
        return _FOR_EVER[word].replace("{asked}", asked)
    if "PerJob" in word:  # QOSMaxGRESPerJob, AssocMaxWallDurationPerJobLimit and their like
        return f"{_FEWER}, or another {PREFIX}.qos".replace("{asked}", asked)
    return None
