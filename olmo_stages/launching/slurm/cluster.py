"""What Slurm says: which jobs it has, why they wait, how they ended."""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from olmo_stages.errors import ConfigError

PATIENCE_S = 60.0
"""Seconds that Slurm has to answer; a busy one takes long."""

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "srun")
"""What must be there to launch."""

NO_TRACE = "NO_TRACE"
"""No word of Slurm's: an element that is cancelled while it waits is just struck off its array."""

_UNKNOWN_JOB = "Invalid job id"
# How Slurm numbers all elements of an array that were cancelled together before they started.
_REST = str(2**32 - 2)


@dataclass(frozen=True)
class Entry:
    """A job that Slurm has.

    Args:
        state: Slurm's word, e.g. `PENDING`.
        reason: why it waits, Slurm's word; `None` where it does not.
        node: where it runs.
        name: of the job, as it was submitted.
    """

    state: str
    reason: str
    node: str
    name: str


@dataclass(frozen=True)
class End:
    """How Slurm says a job ended.

    Args:
        state: Slurm's word, e.g. `NODE_FAIL`; without whom it was cancelled by.
        by: name of who cancelled it; empty if nobody did.
        code: exit code.
        signal: number of the signal that ended it, or 0.
        node: where it ran; empty where it never did.
    """

    state: str
    by: str = ""
    code: int = 0
    signal: int = 0
    node: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it is one; accounting lags some seconds behind."""
        return self.state in _OVER


_OVER = frozenset({
    NO_TRACE,
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "REVOKED", "TIMEOUT",
})  # fmt: skip


def check() -> None:
    """Find out whether jobs can be submitted from here.

    Raises:
        ConfigError: a command of Slurm is missing.
    """
    missing = [it for it in COMMANDS if shutil.which(it) is None]
    if missing:
        raise ConfigError(
            f"hydra/launcher=slurm: there is no {missing[0]} here; give the command on a login "
            "node of the cluster, or leave hydra/launcher=slurm out"
        )


def entries(jobs: Iterable[str]) -> dict[str, Entry] | None:
    """Those of some jobs that Slurm still has, waiting or running.

    Args:
        jobs: ids, e.g. `12`, or `12_3` for an element of an array.

    Returns:
        Nothing of those that have ended; None where Slurm does not answer.
    """
    wanted = frozenset(jobs)
    if not wanted:
        return {}
    ids = ",".join(sorted({it.partition("_")[0] for it in wanted}))
    # --array: an element a line, waiting ones too, which squeue would join otherwise.
    answer = _ask(["squeue", "--noheader", "--array", "--format=%i|%T|%N|%j|%r", f"--jobs={ids}"])
    if answer is None:
        return None
    # Of several ids it leaves out those it does not know; of a single one it says so and fails.
    if answer.returncode != 0:
        return {} if _UNKNOWN_JOB in answer.stderr else None
    found: dict[str, Entry] = {}
    for line in answer.stdout.splitlines():
        job, *rest = line.split("|", 4)
        if job in wanted and len(rest) == 4:
            state, node, name, reason = (it.strip() for it in rest)
            found[job] = Entry(state, reason, node, name)
    return found


def ends(jobs: Iterable[str]) -> dict[str, End]:
    """How jobs ended, as far as Slurm's accounting, or else its memory, tells.

    Returns:
        Nothing of a job that neither knows; what is not over yet where accounting lags behind;
        `NO_TRACE` of an element of an array that others of the array are still known of.
    """
    wanted = frozenset(jobs)
    ids = sorted({it.partition("_")[0] for it in wanted})
    found = _of(wanted, _accounted(ids)) if ids else {}
    rest = frozenset(it for it in wanted if it not in found or not found[it].is_over)
    for array in sorted({it.partition("_")[0] for it in rest}):
        memory = _remembered(array)
        remembered = _of(rest, memory)
        found |= {key: it for key, it in remembered.items() if it.is_over or key not in found}
        if memory:
            of_array = {it for it in rest if it.startswith(f"{array}_")}
            found |= dict.fromkeys(of_array - found.keys(), End(NO_TRACE))
    return found


def partitions() -> tuple[str, ...]:
    """Names of the partitions there are."""
    answer = _ask(["sinfo", "--noheader", "--format=%R"])
    lines = [] if answer is None or answer.returncode else answer.stdout.split()
    return tuple(dict.fromkeys(lines))


def with_comment(comment: str) -> tuple[str, ...]:
    """Ids of one's own jobs that were submitted with a comment."""
    answer = _ask(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%A|%F|%k"])
    if answer is None or answer.returncode:
        return ()
    rows = [line.split("|", 2) for line in answer.stdout.splitlines()]
    return tuple(dict.fromkeys(row[1] for row in rows if len(row) == 3 and row[2] == comment))


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs, as far as they are still there."""
    if jobs:
        _ask(["scancel", *jobs])


def _ask(words: Sequence[str]) -> "subprocess.CompletedProcess[str] | None":
    """What a command of Slurm answers; None where it does not."""
    if shutil.which(words[0]) is None:
        return None
    try:
        return subprocess.run(
            list(words), capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _accounted(ids: Sequence[str]) -> dict[str, End]:
    given = [word for it in ids for word in ("-j", it)]
    answer = _ask(["sacct", "-o", "JobID,State,ExitCode,NodeList", "--parsable2", *given])
    if answer is None or answer.returncode:
        return {}
    head, *lines = answer.stdout.splitlines() or [""]
    names = head.split("|")
    rows: list[dict[str, str]] = [dict(zip(names, line.split("|"), strict=False)) for line in lines]
    found: dict[str, End] = {}
    for row in rows:
        name, _, step = row.get("JobID", "").partition(".")
        end = _end(row.get("State", ""), row.get("ExitCode", ""), row.get("NodeList", ""))
        if not step:
            found |= dict.fromkeys(_expanded(name), end)
        elif end.signal and name in found and not found[name].signal:
            # Of a job whose only step was killed srun makes an exit code.
            found[name] = replace(found[name], signal=end.signal)
    return found


def _of(wanted: frozenset[str], ends: Mapping[str, End]) -> dict[str, End]:
    """What is known of jobs; of elements of an array without an entry, by that of the rest."""
    rest = {job: ends.get(f"{job.partition('_')[0]}_{_REST}") for job in wanted if "_" in job}
    known = {job: ends.get(job) or rest.get(job) for job in wanted}
    return {job: it for job, it in known.items() if it is not None}


def _remembered(job: str) -> dict[str, End]:
    answer = _ask(["scontrol", "--oneliner", "show", "job", job])
    found: dict[str, End] = {}
    for line in answer.stdout.splitlines() if answer and answer.returncode == 0 else ():
        words = [word.partition("=") for word in reversed(line.split())]
        said: dict[str, str] = {key: value for key, is_pair, value in words if is_pair}
        index = said.get("ArrayTaskId")
        name = said.get("JobId", "") if index is None else f"{said.get('ArrayJobId')}_[{index}]"
        end = _end(said.get("JobState", ""), said.get("ExitCode", ""), said.get("NodeList", ""))
        found |= dict.fromkeys(_expanded(name), end)
    return found


def _expanded(job: str) -> list[str]:
    """The elements that an id such as `12_[3,5-7%4]` stands for."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?::\d+)?(?:%\d+)?\]", job)
    if match is None:
        return [job]
    found: list[str] = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        found += [f"{match[1]}_{it}" for it in range(int(first), int(last or first) + 1)]
    return found


def _end(state: str, exit_code: str, node: str) -> End:
    word, _, by = state.partition(" by ")
    code, _, number = exit_code.partition(":")
    numbers = [int(it) if it.isdigit() else 0 for it in (code, number)]
    # A shell, and so srun, says 128 + the signal of what it ran.
    if numbers[1] == 0 and 128 < numbers[0] <= 128 + 64:
        numbers[1] = numbers[0] - 128
    place = "" if node in {"None assigned", "(null)"} else node
    return End(word.strip(" +"), _person(by), numbers[0], numbers[1], place)


def _person(uid: str) -> str:
    try:
        return pwd.getpwuid(int(uid)).pw_name
    except (KeyError, ValueError):
        return uid
