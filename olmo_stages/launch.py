"""From a command line to jobs. Only this module and `launching` know Hydra.

A job's outcome is a small file in the sweep's folder, because a job may run in another process or
on another machine. A failing job of a sweep never takes others with it; the last table and the exit
code tell of it.
"""

import contextlib
import os
import shlex
import sys
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import OmegaConf

from olmo_stages import command
from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.launching.asked import asked_for, config_roots, named, note
from olmo_stages.launching.ending import finish
from olmo_stages.launching.explanation import KNOWN, explain, is_request
from olmo_stages.launching.screen import say
from olmo_stages.stages import conf_folder, searching
from olmo_stages.statuses import Status, write_status

# Before anything imports torch: its threads spin while they wait, and with more threads than cores
# (a sweep of several processes, a shared machine) that makes each up to thirty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass
class _Launch:
    """What the launching process remembers of what it launched."""

    arguments: Sequence[str] = ()
    sweep: Path | None = None
    jobs: Collection[str] = ()
    expected: Path | None = None
    report: bool = False
    error: BaseException | None = None


_launch = _Launch()


class RememberSweep(Callback):
    """Notes where the sweep is; Hydra 1.3 calls nothing at the end of one that failed."""

    def on_multirun_start(self, config: Any, **kwargs: object) -> None:  # noqa: ANN401  (DictConfig)
        """Remember the sweep's folder, and note there what launched it and which jobs it has."""
        del kwargs
        _launch.sweep, _launch.report = Path(config.hydra.sweep.dir), config.report is True
        # Where the folder cannot be written, Hydra fails next, with the reason.
        with contextlib.suppress(StoreError):
            command.record(_launch.sweep, sys.argv[0], _launch.arguments)
            jobs = asked_for(config)
            _launch.jobs = {it.job for it in jobs}
            words = command.spelt(sys.argv[0], _launch.arguments)
            _launch.expected = note(_launch.sweep, jobs, words)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for; exits with 0, or 1 (a job failed), or 2 (bad request).

    Args:
        arguments: command line without the program's name; None = this process's own.

    Raises:
        Exception: what went wrong, with its traceback, if HYDRA_FULL_ERROR=1 asks for it.
    """  # noqa: DOC501
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    vars(_launch).update(vars(_Launch(arguments)))
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        sys.argv = [sys.argv[0], *command.completed(arguments)]
        with _raising():
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(
                task
            )()
            if _launch.error is not None:
                raise _launch.error
    except KNOWN as error:
        if is_request(error) and _launch.expected is not None:
            _launch.expected.unlink(missing_ok=True)  # nobody can run what was mistyped
        if wants_traceback:
            raise
        say(explain(error))
        sys.exit(2 if is_request(error) else 1)
    except KeyboardInterrupt:
        _finish(together=False)
        say("interrupted; the same command goes on from here")
        sys.exit(130)
    if not _finish(together=True):
        sys.exit(1)


def task(cfg: Any) -> None:  # noqa: ANN401  (a DictConfig, which the type hook does not take)
    """One job: compose it, run it, and leave word of how it went."""  # noqa: DOC501
    settings = HydraConfig.get()
    multirun = settings.mode == RunMode.MULTIRUN
    folder = Path(settings.sweep.dir if multirun else settings.run.dir)
    overrides, name = named(settings.overrides.task)
    started = time.time()
    try:
        write_status(folder, Status(name, "running", overrides=overrides))
        if not multirun:
            command.record(folder, sys.argv[0], _launch.arguments)
            _warn_of_study(settings)
        write_status(folder, _run(cfg, settings, name, overrides))
        if not multirun:
            _say_how_to_report(folder)
    except KeyboardInterrupt:
        write_status(folder, _failed(name, overrides, started, "interrupted"))
        raise
    # A sweep goes on whatever stops one of its jobs, SystemExit and MemoryError included.
    except BaseException as error:  # noqa: BLE001
        if not multirun:
            # Not raised through Hydra, which would print a line of its own before it.
            _launch.error = error
        else:
            text = explain(error) if isinstance(error, KNOWN) else traceback.format_exc()
            say(f"job {name} failed: {text}")
        try:
            write_status(folder, _failed(name, overrides, started, explain(error)))
        except StoreError as unwritten:
            _launch.error = _launch.error or unwritten


def compose(arguments: Sequence[str]) -> list[Any]:
    """The jobs that a command line stands for, built and not run.

    Args:
        arguments: `key=value` words; several values with commas make several jobs, as with -m.

    Returns:
        An `Experiment` for each.

    Raises:
        ConfigError: the words stand for no job; one line.
    """
    words = [it for it in arguments if it not in {"-m", "--multirun"}]
    try:
        parsed = OverridesParser.create().parse_overrides(words)
        jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
        with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return [
                hydra.utils.instantiate(hydra.compose("config", job), _convert_="all")
                for job in jobs
            ]
    except KNOWN as error:
        raise ConfigError(explain(error)) from error


def _warn_of_study(settings: Any) -> None:  # noqa: ANN401  (DictConfig)
    """Say so if a study's own sweep is not run because -m is missing."""
    study = settings.runtime.choices.get("experiment")
    if study and settings.sweeper.get("params"):
        swept = ", ".join(settings.sweeper.params)
        say(f"note: +experiment={study} sweeps over {swept} only with -m; this is one job of it")


def _say_how_to_report(folder: Path) -> None:
    from olmo_stages.report.show import show_lines

    show_lines([f"as a page: olmo-stages report {shlex.quote(str(folder))}"])


def _run(cfg: Any, settings: Any, name: str, overrides: list[str]) -> Status:  # noqa: ANN401
    """Build the experiment, run it and show its table."""
    with searching(config_roots(settings)):
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        experiment = hydra.utils.instantiate(cfg, _convert_="all")
        outcome = experiment.run(config)
    from olmo_stages.report.show import show_job

    show_job(
        outcome.job, outcome.result, outcome.folder, cached=outcome.cached, tracked=outcome.tracked
    )
    return Status(
        name,
        "cached" if outcome.cached else "ok",
        folder=str(outcome.folder),
        seconds=outcome.seconds,
        overrides=overrides,
        headline=dict(outcome.result.headline),
        about=outcome.job.about(),
    )


@contextmanager
def _raising() -> Iterator[None]:
    """Make Hydra raise what it would print in four to eight lines."""
    wanted = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if wanted is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = wanted


def _failed(name: str, overrides: list[str], started: float, why: str) -> Status:
    return Status(name, "failed", error=why, seconds=time.time() - started, overrides=overrides)


def _finish(*, together: bool) -> bool:
    """End the sweep that was launched, if it was one; whether all asked for is done."""
    if _launch.sweep is None:
        return True
    return finish(_launch.sweep, _launch.jobs, together=together, report=_launch.report)
