"""One job: run it, and leave word of how it goes."""

import time
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from olmo_stages import command
from olmo_stages.errors import StoreError
from olmo_stages.launching import current
from olmo_stages.launching.asked import config_roots, named
from olmo_stages.launching.building import others_of
from olmo_stages.launching.child import STOPPED, Told
from olmo_stages.launching.ending import leave_word
from olmo_stages.launching.explanation import KNOWN, explain
from olmo_stages.launching.screen import keep, labels, say
from olmo_stages.stages import searching
from olmo_stages.statuses import Status, write_status
from olmo_stages.stopping import Stopped, listening


class Attempt:
    """A job that is being run.

    Args:
        settings: what Hydra says of it.
        program: what was typed to run it.
    """

    def __init__(self, settings: Any, program: str) -> None:  # noqa: ANN401  (DictConfig)
        self._settings = settings
        self._program = program
        self._multirun = settings.mode == RunMode.MULTIRUN
        self.folder = Path(settings.sweep.dir if self._multirun else settings.run.dir)
        self._overrides, self._name = named(settings.overrides.task)
        self._started = time.time()
        self._is_noted = self._is_over = False

    def run(self, cfg: Any) -> Told:  # noqa: ANN401  (DictConfig)
        """Run it; a failure is noted, and raised by nobody.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            Stopped: it was told to stop.
        """
        try:
            with listening(self._note_stop) as listener:
                try:
                    status = self._attempt(cfg)
                except (KeyboardInterrupt, Stopped):
                    raise
                # A sweep goes on whatever stops one of its jobs, SystemExit and MemoryError too.
                except BaseException as error:
                    if listener.heard:  # what goes wrong on the way out is no failure
                        raise
                    status = self._failed(error)
                self._is_over = True
                current.launch.ended[self._name] = status
        except (KeyboardInterrupt, Stopped):
            self._note_stop()
            raise
        return {"state": status.state, "error": status.error}

    def _attempt(self, cfg: Any) -> Status:  # noqa: ANN401  (DictConfig)
        write_status(self.folder, self._status("running"))
        self._is_noted = True
        if not self._multirun:
            command.record(self.folder, self._program, current.launch.arguments)
            _warn_of_study(self._settings)
        status = perform(cfg, self._settings, self._name, self._overrides)
        self._is_over = True
        write_status(self.folder, status)
        return status

    def _failed(self, error: BaseException) -> Status:
        status = self._status("failed", explain(error))
        if self._multirun:
            label = labels([*current.launch.jobs]).get(self._name, self._name)
            if isinstance(error, KNOWN):
                say(f"job {label} failed: {status.error}")
            else:
                say(f"job {label} failed: {traceback.format_exc()}")
                keep(self.folder, self._name, traceback.format_exc())
        else:
            # Not raised through Hydra, which would print a line of its own before it.
            current.launch.error = error
        try:
            leave_word(self.folder, status, was_noted=self._is_noted)
        except StoreError as unwritten:
            if self._multirun and str(unwritten) != status.error:
                say(str(unwritten))
        return status

    def _note_stop(self) -> None:
        """Note that it was stopped, unless it has ended."""
        if not self._is_over:
            try:
                stopped = self._status("stopped", STOPPED)
                leave_word(self.folder, stopped, was_noted=self._is_noted)
            except StoreError as unwritten:
                say(str(unwritten))

    def _status(self, state: Any, error: str = "") -> Status:  # noqa: ANN401  (`State`, which `Status` checks)
        seconds = time.time() - self._started
        return Status(self._name, state, error=error, seconds=seconds, overrides=self._overrides)


def perform(cfg: Any, settings: Any, name: str, overrides: list[str]) -> Status:  # noqa: ANN401
    """Build the experiment, run it and show its table."""
    with searching(config_roots(settings)):
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        experiment = hydra.utils.instantiate(cfg, _convert_="all")
        outcome = experiment.run(
            config, lambda lacking: others_of(Path(settings.sweep.dir), name, lacking)
        )
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


def _warn_of_study(settings: Any) -> None:  # noqa: ANN401  (DictConfig)
    """Say so if a study's own sweep is not run because -m is missing."""
    study = settings.runtime.choices.get("experiment")
    if study and settings.sweeper.get("params"):
        swept = ", ".join(settings.sweeper.params)
        say(f"note: +experiment={study} sweeps over {swept} only with -m; this is one job of it")
