"""Jobs of a sweep on this machine, each in a process of its own.

The launching process imports what jobs need, once, and forks them: it computes nothing, so that
whatever becomes of a job (killed for want of memory, a fault in a library, sys.exit) it is there to
note it, to start the next one, and to end with the table.
"""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from olmo_stages.errors import ConfigError
from olmo_stages.launching.child import SIGNALS
from olmo_stages.launching.devices import Gpus, uses_cuda, visible_gpus
from olmo_stages.launching.fleet import Fleet, LocalJob
from olmo_stages.launching.preparing import ALL, import_for_all
from olmo_stages.stopping import Stopped


@dataclass(frozen=True)
class Way:
    """How jobs are run.

    Args:
        n_jobs: so many at a time.
        gpus_per_job: GPUs of each; None = all of them where jobs run one after another, else as
            many as there are for each.

    Raises:
        ConfigError: a number is no count.
    """

    n_jobs: int = 1
    gpus_per_job: int | None = None

    def __post_init__(self) -> None:
        if self.n_jobs < 1:
            raise ConfigError(f"hydra.launcher.n_jobs={self.n_jobs} is below 1; give 1 or more")
        if self.gpus_per_job is not None and self.gpus_per_job < 0:
            raise ConfigError(
                f"hydra.launcher.gpus_per_job={self.gpus_per_job} is negative; give 0 for none"
            )


def run(jobs: Sequence[LocalJob], sweep: Path, way: Way) -> None:
    """Run jobs; how each ended is in its status and in `current.launch.ended`.

    Args:
        jobs: those that are asked for; no two of them of one name run at the same time.
        sweep: folder of the sweep.
        way: how many at a time, with what.

    Raises:
        ConfigError: there are too few GPUs, or jobs cannot be forked from this process.
        KeyboardInterrupt: Ctrl-C; the jobs have stopped.
        Stopped: this process was told to stop; the jobs have stopped.
    """
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if uses_cuda():
        raise ConfigError(
            "this process has used a GPU, and no job can be forked from it; use "
            "hydra/launcher=basic, or launch from a new process"
        )
    names = visible_gpus() if way.n_jobs > 1 or way.gpus_per_job is not None else []
    gpus = Gpus(names, way.gpus_per_job, way.n_jobs)
    import_for_all(ALL)
    with _heard() as heard:
        Fleet(jobs, sweep, way.n_jobs, gpus).run(heard)
    if heard:
        raise KeyboardInterrupt if heard[0] == signal.SIGINT else Stopped(heard[0])


@contextmanager
def _heard() -> Iterator[list[signal.Signals]]:
    """Signals that come while the block runs, noted rather than answered.

    So that none of them comes between a process that has started and the note of it.
    """
    heard: list[signal.Signals] = []
    is_main = threading.current_thread() is threading.main_thread()  # only that one may answer
    before = {it: signal.getsignal(it) for it in SIGNALS} if is_main else {}
    try:
        for it, handler in before.items():
            if handler != signal.SIG_IGN:  # as of whoever runs in the background of a script
                signal.signal(it, lambda number, _: heard.append(signal.Signals(number)))
        yield heard
    finally:
        for it, handler in before.items():
            signal.signal(it, signal.SIG_DFL if handler is None else handler)
