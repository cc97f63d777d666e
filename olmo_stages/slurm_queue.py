"""What Slurm still has of jobs that were submitted to it, as far as it can be asked from here."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping

PATIENCE_S = 20.0
"""Seconds that Slurm has to answer."""

_UNKNOWN_JOB = "Invalid job id"


def own_job(environment: Mapping[str, str] | None = None) -> str:
    """Id of the Slurm job this process is a part of, as submitit and squeue spell it.

    Args:
        environment: None = this process's own.

    Returns:
        E.g. `12`, or `12_3` for an element of an array; empty outside of Slurm.
    """
    known = os.environ if environment is None else environment
    array, index = known.get("SLURM_ARRAY_JOB_ID"), known.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else known.get("SLURM_JOB_ID", "")


def still_there(jobs: Iterable[str]) -> dict[str, str] | None:
    """Which of these jobs Slurm still has, waiting or running.

    Args:
        jobs: ids, as `own_job` spells them.

    Returns:
        Slurm's state of each that it has, e.g. `PENDING`; None where Slurm cannot be asked.
    """
    wanted = frozenset(jobs)
    squeue = shutil.which("squeue")
    if squeue is None:
        return None
    ids = ",".join(sorted({it.partition("_")[0] for it in wanted}))
    # --array: an element a line, waiting ones too, which squeue would join otherwise.
    command = [squeue, "--noheader", "--array", "--format=%i %T", f"--jobs={ids}"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Of several ids it leaves out those it does not know; of a single one it says so and fails.
    if answer.returncode != 0:
        return {} if _UNKNOWN_JOB in answer.stderr else None
    pairs = (line.split() for line in answer.stdout.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[0] in wanted}
