"""From a command line to jobs. Only this module and `launching` know Hydra.

A job's outcome is a small file in the sweep's folder, because a job may run in another process or
on another machine. A failing job of a sweep never takes others with it; the last table and the exit
code tell of it.
"""

import contextlib
import gc
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode

from olmo_stages import command
from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.launching import current
from olmo_stages.launching.asked import asked_for, note
from olmo_stages.launching.child import Told
from olmo_stages.launching.ending import DONE, finish
from olmo_stages.launching.explanation import KNOWN, explain, is_request
from olmo_stages.launching.job import Attempt
from olmo_stages.launching.output import tolerate
from olmo_stages.launching.screen import say
from olmo_stages.stages import conf_folder
from olmo_stages.stopping import Stopped

# Before anything imports torch: its threads spin while they wait, and with more threads than cores
# (a sweep of several processes, a shared machine) that makes each up to thirty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What imports and configs make stays: going through it every 700 objects takes 3 % of a small job.
gc.set_threshold(10_000)

_CTRL_C = 130


class RememberSweep(Callback):
    """Notes where the sweep is; Hydra 1.3 calls nothing at the end of one that failed."""

    def on_multirun_start(self, config: Any, **kwargs: object) -> None:  # noqa: ANN401  (DictConfig)
        """Remember the sweep's folder, and note there what launched it and which jobs it has."""
        del kwargs
        launch, sweep = current.launch, Path(config.hydra.sweep.dir)
        launch.sweep, launch.report = sweep, config.report is True
        # Where the folder cannot be written, Hydra fails next, with the reason.
        with contextlib.suppress(StoreError):
            command.record(sweep, sys.argv[0], launch.arguments)
            jobs = asked_for(config)
            launch.jobs = {it.job for it in jobs}
            launch.expected = note(sweep, jobs, command.spelt(sys.argv[0], launch.arguments))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for.

    Exits with 0, or 1 (a job is not done), or 2 (bad request), or 128 and the signal's number (told
    to stop: 130 by Ctrl-C, 143 by SIGTERM).

    Args:
        arguments: command line without the program's name; None = this process's own.

    Raises:
        Exception: what went wrong, with its traceback, if HYDRA_FULL_ERROR=1 asks for it.
    """  # noqa: DOC501
    tolerate()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    current.begin(arguments)
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        sys.argv = [sys.argv[0], *command.completed(arguments)]
        with _raising():
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(
                task
            )()
            if current.launch.error is not None:
                raise current.launch.error
    except KNOWN as error:
        if is_request(error) and current.launch.expected is not None:
            current.launch.expected.unlink(missing_ok=True)  # nobody can run what was mistyped
        if wants_traceback:
            raise
        say(explain(error))
        sys.exit(2 if is_request(error) else 1)
    except (KeyboardInterrupt, Stopped) as stop:
        _leave(stop)
    try:
        is_done = finish(current.launch, together=True)
    except KeyboardInterrupt as stop:
        _leave(stop, has_table=True)
    if not is_done:
        sys.exit(1)


def _leave(stop: BaseException, *, has_table: bool = False) -> NoReturn:
    """End because of a signal."""
    # The table of a sweep must not cost whoever is in a hurry a traceback.
    with contextlib.suppress(KeyboardInterrupt):
        if not has_table:
            finish(current.launch, together=False)
        word = "stopped" if isinstance(stop, Stopped) else "interrupted"
        say(f"{word}; the same command goes on from here")
    sys.exit(stop.code if isinstance(stop, Stopped) else _CTRL_C)


def task(cfg: Any) -> Told:  # noqa: ANN401  (a DictConfig, which the type hook does not take)
    """One job: run it, and leave word of how it went.

    Returns:
        How it ended, for whoever launched it.
    """
    settings = HydraConfig.get()
    attempt = Attempt(settings, sys.argv[0])
    told = attempt.run(cfg)
    if settings.mode != RunMode.MULTIRUN and told["state"] in DONE:
        _say_how_to_report(attempt.folder)
    return told


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


def _say_how_to_report(folder: Path) -> None:
    from olmo_stages.report.show import show_lines

    show_lines([f"as a page: olmo-stages report {shlex.quote(str(folder))}"])


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
