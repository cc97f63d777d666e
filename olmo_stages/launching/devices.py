"""What jobs at the same time share of one machine: CPU threads and GPUs.

Nothing here initialises CUDA: a process that has cannot fork one that uses it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

from olmo_stages.errors import ConfigError

_PATIENCE_S = 60  # a driver that has not run for long takes its time


class Gpus:
    """The GPUs of this machine, handed out to jobs.

    Args:
        names: as CUDA_VISIBLE_DEVICES has them.
        per_job: so many to each; None = all of them where jobs run one after another, else as many
            as there are for each.
        n_jobs: jobs at a time.

    Raises:
        ConfigError: there are fewer than one job asks for.
    """

    def __init__(self, names: Sequence[str], per_job: int | None, n_jobs: int) -> None:
        if per_job is not None and per_job > len(names):
            raise ConfigError(
                f"hydra.launcher.gpus_per_job={per_job}, but there are {len(names)} GPUs here; "
                "give fewer, 0 for none, or null to share those there are"
            )
        if per_job is None and names and n_jobs > 1:
            per_job = max(1, len(names) // n_jobs)
        self._per_job = per_job
        self._used = Counter(dict.fromkeys(names, 0))

    def take(self) -> list[str] | None:
        """The GPUs of the next job, those that fewest jobs use; None = whatever this process has.

        Of more jobs than GPUs several use one.
        """
        if self._per_job is None:
            return None
        chosen = sorted(self._used, key=lambda name: self._used[name])[: self._per_job]
        self._used.update(chosen)
        return chosen

    def give_back(self, taken: Sequence[str] | None) -> None:
        """Take back what `take` gave."""
        self._used.subtract(taken or ())


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them; none without a driver.

    Where a GPU is split into instances, these are named instead of it.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [it.strip() for it in chosen.split(",") if it.strip() not in {"", "-1"}]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, "-L"], capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return named_by(done.stdout) if done.returncode == 0 else []


def named_by(listing: str) -> list[str]:
    """The names of GPUs, or of their instances, that `nvidia-smi -L` prints."""
    found: list[str] = []
    for kind, name in re.findall(r"UUID: ((?:GPU|MIG)-)([\w/-]+)\)", listing):
        if kind == "MIG-" and found and found[-1].startswith("GPU-"):
            found.pop()  # the GPU that this instance is one of
        found.append(kind + name)
    return found


def threads_of_each(n_jobs: int) -> int | None:
    """CPU threads of a job beside others; None = all, or what the user has set."""
    if n_jobs == 1 or os.environ.get("OMP_NUM_THREADS"):
        return None
    # Slurm, containers and taskset give a process fewer than the machine has.
    has_affinity = hasattr(os, "sched_getaffinity")
    available = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, available // n_jobs)


def limit_threads(n_threads: int) -> None:
    """Let this process compute with so many threads, in libraries loaded by now or later."""
    from threadpoolctl import threadpool_limits

    for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB"):
        os.environ[f"{library}_NUM_THREADS"] = str(n_threads)
    threadpool_limits(n_threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n_threads)


def uses_cuda() -> bool:
    """Whether this process has initialised CUDA."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
