"""Jobs that ask for the same, as one array: its script, and submitting it."""

import contextlib
import io
import os
import re
import shlex
import site
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.launching.slurm import cluster, submitted
from olmo_stages.launching.slurm.options import PREFIX, Options, Resources
from olmo_stages.launching.slurm.task import SlurmTask

LONGEST = 1000
"""Most jobs of one array; Slurm's own default is 1001."""

_TRANSIENT = re.compile(
    r"timed out|Unable to contact|temporarily unable|Resource temporarily unavailable|try again",
    re.IGNORECASE,
)
_TRIES = 4
_PAUSE_S = 5.0
# Options of sbatch whose variable is not named after them.
_VARIABLES = {"time": "TIMELIMIT", "mem": "MEM_PER_NODE", "array": "ARRAY_INX"}
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"})
_OF_PARENT = re.compile(r"^(SLURM|SLURMD|SRUN|SUBMITIT)_")


@dataclass(frozen=True)
class Array:
    """Jobs that are submitted together.

    Args:
        jobs: names, in their order.
        size: of their stages.
        resources: what each asks for.
    """

    jobs: Sequence[str]
    size: str
    resources: Resources


class Refused(ConfigError):
    """Slurm does not take a job."""


def grouped(sizes: Mapping[str, str], options: Options) -> list[Array]:
    """The arrays of jobs.

    Args:
        sizes: size of the stage by job.
        options: what they ask for.

    Returns:
        One array for each size, or several where it has more jobs than an array may.

    Raises:
        ConfigError: nothing says what a size needs.
    """
    arrays: list[Array] = []
    for size in dict.fromkeys(sizes.values()):
        jobs = [job for job, it in sizes.items() if it == size]
        resources = options.resources(size)
        parts = (jobs[i : i + LONGEST] for i in range(0, len(jobs), LONGEST))
        arrays += [Array(part, size, resources) for part in parts]
    return arrays


def script(array: Array, options: Options, sweep: Path) -> str:
    """The script that sbatch is given for an array, without its comment.

    Raises:
        ConfigError: the extra is not installed.
    """
    executor = _executor(array, options, sweep, "")
    many = {"map_count": len(array.jobs)} if len(array.jobs) > 1 else {}
    executor.parameters.update(many)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def submit(
    array: Array, tasks: Sequence[SlurmTask], options: Options, sweep: Path, comment: str
) -> str:
    """Submit an array.

    Args:
        array: the jobs.
        tasks: what each runs.
        options: of the launcher.
        sweep: folder of the sweep.
        comment: finds the array again should this process be killed now.

    Returns:
        Slurm's id of it.

    Raises:
        Refused: Slurm does not take it; one line with the remedy.
        StoreError: the sweep's folder cannot be written.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = _executor(array, options, sweep, comment)
    why = ""
    for tries_left in reversed(range(_TRIES)):
        try:
            with _as_from_a_shell(array.resources), contextlib.redirect_stderr(io.StringIO()):
                jobs = executor.submit_array(list(tasks))
        except (FailedJobError, FailedSubmissionError) as error:
            why = str(error)
        except OSError as error:
            cluster.cancel(cluster.with_comment(comment))
            raise StoreError(f"cannot submit from {sweep}: {error}") from error
        except BaseException:  # what was submitted half would wait for its rest in vain
            cluster.cancel(cluster.with_comment(comment))
            raise
        else:
            return jobs[0].job_id.partition("_")[0]
        # It may have been taken all the same.
        cluster.cancel(cluster.with_comment(comment))
        _clear(sweep)
        if not _TRANSIENT.search(why) or not tries_left:
            break
        time.sleep(_PAUSE_S)
    raise Refused(_explained(why, array))


def _clear(sweep: Path) -> None:
    """Remove what submitit wrote for an array that was not taken."""
    folder = sweep / submitted.FOLDER
    for left in (*folder.glob("*.pkl"), *folder.glob(".submission_file_*.sh")):
        if not left.is_symlink():
            left.unlink(missing_ok=True)


def _executor(array: Array, options: Options, sweep: Path, comment: str) -> Any:  # noqa: ANN401
    """Submitit's executor for an array.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise ConfigError(
            "hydra/launcher=slurm needs an extra: pip install 'olmo-stages[slurm]'"
        ) from error

    class Executor(SlurmExecutor):
        """As submitit's, also where a script is only shown."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    executor = Executor(sweep / submitted.FOLDER / "%j", max_num_timeout=options.max_timeouts)
    limit = array.resources.minutes
    further = {"requeue": True, "ntasks-per-node": "1", "comment": comment}
    if "no-requeue" in array.resources.flags:
        del further["requeue"]
    if not comment or "comment" in array.resources.flags:
        del further["comment"]
    executor.update_parameters(
        job_name=sweep.name,
        time=limit,
        signal_delay_s=options.signal_s(limit),
        array_parallelism=options.array_parallelism,
        setup=[*_surroundings(array.resources), *options.setup],
        stderr_to_stdout=True,
        wckey=None,
        additional_parameters={**further, **array.resources.flags},
    )
    return executor


def _surroundings(resources: Resources) -> list[str]:
    """Lines of shell that give a job what the launching process has."""
    lines = [
        # Of sites where jobs start with an empty environment: what the lines below set arrives.
        "export SLURM_EXPORT_ENV=ALL",
        # The folder a job is started in must not hide installed modules.
        "export PYTHONSAFEPATH=1",
        "export PYTHONUNBUFFERED=1",
    ]
    if places := _own_places():
        lines.append(f"export PYTHONPATH={shlex.quote(os.pathsep.join(places))}")
    if "cpus-per-task" in resources.flags:
        # srun no longer takes it over by itself, and torch would see all cores of the node.
        lines += [
            'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
            'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}"',
        ]
    return lines


def _own_places() -> list[str]:
    """Where this process finds modules besides where any process of its Python does."""
    usual = {Path(it) for it in (*sysconfig.get_paths().values(), *site.getsitepackages())}
    usual |= {Path(it) / "lib-dynload" for it in list(usual)} | {Path(site.getusersitepackages())}
    places = [Path(it or ".").absolute() for it in sys.path if not it.endswith(".zip")]
    return [str(it) for it in dict.fromkeys(places) if it not in usual and it.is_dir()]


@contextmanager
def _as_from_a_shell(resources: Resources) -> Iterator[None]:
    """Hide what would speak against the script: of a job this runs in, and of the user's defaults.

    An element of an array would pass its own index on, and sbatch heeds SBATCH_PARTITION more than
    the partition in a script.
    """
    asked = {"time", "array", "signal", "requeue", "no-requeue", "open-mode", *resources.flags}
    variables = {
        f"SBATCH_{_VARIABLES.get(it, it.upper().replace('-', '_'))}" for it in asked
    } | {"SBATCH_JOB_NAME"}  # fmt: skip
    hidden = {
        key: os.environ.pop(key)
        for key in list(os.environ)
        if key in variables or (_OF_PARENT.match(key) and key not in _KEPT)
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


_LESS = f"give less, or another {PREFIX}.partition"
# Of what sbatch says a pattern, and what to do about it.
_REMEDIES = {
    "account": f"give one of yours with {PREFIX}.account=NAME (sacctmgr show associations)",
    "qos": f"give one of yours with {PREFIX}.qos=NAME (sacctmgr show qos)",
    "submit limit": f"launch fewer jobs at a time, or give another {PREFIX}.qos",
    "time limit": f"give less with {PREFIX}.time, or another {PREFIX}.partition",
    "feature": f"give another {PREFIX}.constraint",
    "gres": f"{_LESS}, or {PREFIX}.gres as your cluster spells it",
    "node configuration|memory spec|processors|node count": f"no node has that; {_LESS}",
    "timed out|contact": "Slurm does not answer; the same command tries again",
}


def _explained(said: str, array: Array) -> str:
    """What sbatch says, in one line with the remedy."""
    lines = [it.strip() for it in said.splitlines() if it.strip()]
    errors = [it for it in lines if "error" in it.lower()] or lines or ["no reason"]
    cause = re.sub(r"^sbatch: |error: |Batch job submission failed: ", "", errors[-1])
    if "partition name" in cause:
        remedy = f"give {PREFIX}.partition={'|'.join(cluster.partitions())}"
    else:
        fitting = (
            it for pattern, it in _REMEDIES.items() if re.search(pattern, cause, re.IGNORECASE)
        )
        remedy = next(fitting, f"what a job asks for is set with {PREFIX}, see docs/cluster.md")
    asked = f"size={array.size} with {array.resources.spelt}"
    return f"Slurm refuses jobs of {asked}: {cause.rstrip('.')}; {remedy}"
