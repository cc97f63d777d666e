"""Jobs that are done already: found before anything is submitted, and read here."""

import copy
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import hydra
from omegaconf import open_dict, read_write

from olmo_stages.launching import local
from olmo_stages.launching.asked import config_roots
from olmo_stages.launching.batch import Given, composed, run_here
from olmo_stages.launching.child import Told
from olmo_stages.launching.local import LocalJob, Way
from olmo_stages.stages import searching

_RESULTS = "*/*/*/result.json"


@dataclass(frozen=True)
class Candidate:
    """A job that may be done.

    Args:
        job: name.
        words: its overrides, all of them.
        overrides: those that say what is run.
        number: in its sweep.
        device: of the machine that it would run on, `cuda` or `cpu`.
    """

    job: str
    words: Sequence[str]
    overrides: Sequence[str]
    number: int
    device: str


def done(given: Given, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those whose results are there.

    Looked at in a process of its own, since reading results starts threads, and jobs are forked
    from this one.

    Args:
        given: by Hydra.
        candidates: the jobs.
    """
    if not candidates or not any(Path(given.config.outputs).glob(_RESULTS)):
        return []
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_look, args=(given, candidates, there), daemon=True)
    process.start()
    there.close()
    try:
        names = here.recv()
    except EOFError:  # it was killed; the jobs find out for themselves
        return []
    finally:
        process.terminate()
        process.join()
    return [it for it in candidates if it.job in names]


def read(given: Given, candidates: Sequence[Candidate], sweep: Path) -> None:
    """Run jobs that are done, here: they read their results, and nothing is computed.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        Stopped: this process was told to stop.
    """
    jobs = [
        LocalJob(it.job, it.overrides, partial(_read, given, it)) for it in candidates
    ]  # fmt: skip
    if jobs:
        local.run(jobs, sweep, Way(gpus_per_job=0))


def _look(given: Given, candidates: Sequence[Candidate], answer: Connection) -> None:
    names: list[str] = []
    for it in candidates:
        try:
            if _experiment(_composed(given, it)).finished(it.device):
                names.append(it.job)
        except Exception:  # noqa: BLE001  (the job says the same, if it holds on its node)
            continue
    answer.send(names)


def _read(given: Given, candidate: Candidate) -> Told:
    config = _composed(given, candidate)
    # The result is of the node's number format, which `auto` would not find on this machine.
    compute: Any = _experiment(config).compute.on(candidate.device)
    config.compute.dtype = compute.dtype
    return run_here(given, config)


def _composed(given: Given, candidate: Candidate) -> Any:  # noqa: ANN401  (DictConfig)
    return composed(given, candidate.words, candidate.number)


def _experiment(config: Any) -> Any:  # noqa: ANN401
    cfg = copy.deepcopy(config)
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    with searching(config_roots(config.hydra)):
        return hydra.utils.instantiate(cfg, _convert_="all")
