"""Runs of Weights & Biases, one a job.

What W&B does wrong becomes one warning. wandb is imported only when a job runs or is recorded.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from olmo_stages.atomic import write_file
from olmo_stages.checks import checked
from olmo_stages.errors import ConfigError
from olmo_stages.provenance import redact
from olmo_stages.records import TRACKING, Job, mark_digest, read_mark
from olmo_stages.stopping import unit
from olmo_stages.tracking import live
from olmo_stages.tracking.containment import (
    brief,
    comes_from_wandb,
    give_up_on_server,
    surroundings,
    warn_once,
)
from olmo_stages.tracking.filling import Copy, fill
from olmo_stages.tracking.notes import read_note, sync_line
from olmo_stages.tracking.reachability import answers, has_key, question_address
from olmo_stages.tracking.run_layout import group_name, run_name, run_tags
from olmo_stages.tracking.wholeness import becomes_whole
from olmo_stages.types import Result, check_choice

Mode = Literal["auto", "online", "offline"]

_LONGEST_NAME = 128
_UPLOAD_PATIENCE = 3.0  # in units of timeout_s; what is not uploaded then stays on disk

_logger = logging.getLogger(__name__)


@checked
@dataclass(frozen=True)
class Wandb:
    """One run of Weights & Biases a job, with a stable id.

    Args:
        project: W&B project.
        entity: W&B user or team; None = the default of whoever is logged in.
        mode: `auto` = online where an API key is configured and the server answers, else offline.
        tags: added to the job's own.
        directory: where W&B keeps its files, in a folder `wandb`.
        timeout_s: seconds to wait for a run to start on a server that answers.
    """

    project: str
    entity: str | None = None
    mode: str = "auto"
    tags: Sequence[str] = ()
    directory: str | Path = "outputs"
    timeout_s: float | int = 10.0

    def __post_init__(self) -> None:
        check_choice("tracking mode", self.mode, get_args(Mode))
        if not self.project or re.search(r"[/\\#?%:]", self.project):
            raise ConfigError(
                rf"tracking.project {self.project!r} must be a name without any of / \ # ? % :"
            )
        if isinstance(self.tags, str):
            raise ConfigError(f"tracking.tags {self.tags!r} must be a list: [{self.tags}]")
        if self.timeout_s <= 0:
            raise ConfigError(f"tracking.timeout_s {self.timeout_s} must be more than 0 seconds")

    @contextmanager
    def running(self, job: Job, *, group: str, config: Mapping[str, Any]) -> Iterator[None]:
        """Show online that a job is at work, under the id that its result will have.

        A job that was stopped or killed therefore continues its run when it is started again. No
        number is sent. Where there is no server nothing is done: nobody would see it.

        Args:
            job: what is run.
            group: name of the sweep.
            config: the full resolved configuration; secrets in it are not sent.

        Yields:
            Nothing. The run is left to `record`, or ended where the block raises.
        """
        self._show(_Start(job, group, redact({**config, "job": job.describe()})))
        try:
            yield
        except BaseException as error:
            if (run := live.take(job.run_id)) is not None:
                live.leave(run, error)
            raise

    def record(
        self, job: Job, result: Result, folder: Path, *, group: str, config: Mapping[str, Any]
    ) -> str | None:
        """Record a job, unless this very result was recorded before.

        A copy that did not become whole is made again the next time.

        Args:
            job: what was run; its `run_id` is the id of the run.
            result: what the analysis returned.
            folder: where the result is on disk.
            group: name of the sweep.
            config: the full resolved configuration; secrets in it are not sent.

        Returns:
            The address of the run, or its offline folder with the line that uploads it; None if
            nothing was recorded.

        Raises:
            StoreError: if `folder` holds no finished result.
        """
        digest = mark_digest(read_mark(folder))
        target = {"backend": "wandb", "project": self.project, "entity": self.entity}
        target |= {"run_id": job.run_id, "result": digest}
        earlier = read_note(folder)
        if earlier is not None and all(earlier.get(key) == it for key, it in target.items()):
            return _line(earlier) + " (recorded before)"
        copy = Copy(job, result, folder, group, config, digest)
        try:
            # Seconds, and the result is whole already: worth finishing when told to stop.
            with unit(), surroundings(self._place):
                sent = self._send(copy)
                if sent is None:
                    return None
                if sent["whole"]:
                    note = {**target, **sent, "group": group_name(group)}
                    write_file(folder / TRACKING, json.dumps(note, indent=2).encode())
        except Exception as error:
            if not comes_from_wandb(error):
                raise
            _logger.warning("W&B: not recorded (%s); the results are in %s", brief(error), folder)
            return None
        return _line(sent)

    @property
    def _place(self) -> Path:
        return Path(self.directory).absolute()

    def _show(self, start: "_Start") -> None:
        try:
            with surroundings(self._place):
                if self._choose_mode() == "online":
                    live.keep(start.job.run_id, self._start(start, "online"))
        except Exception as error:
            if not (isinstance(error, _StartError) or comes_from_wandb(error)):
                raise
            warn_once(f"W&B: {brief(error)}; not shown before there is a result")

    def _send(self, copy: Copy) -> dict[str, Any] | None:
        config = copy.whole_config()
        if (run := live.take(copy.job.run_id)) is not None and live.alive(run, config):
            return self._fill_and_end(run, copy)
        mode = self._choose_mode()
        if mode == "disabled":
            return None
        start = _Start(copy.job, copy.group, config)
        if mode == "online":
            try:
                return self._fill_and_end(self._start(start, "online"), copy)
            except _StartError as error:
                warn_once(f"W&B: {error}; recording offline")
        sent = self._fill_and_end(self._start(start, "offline"), copy)
        place = Path(sent["place"])
        if sent["whole"] and not becomes_whole(place):
            sent["whole"] = False
            _logger.warning("W&B: the copy is not whole (%s is cut short: a full disk?)", place)
        if sent["whole"]:
            _drop_superseded(place, copy.job.run_id)
        return sent

    def _choose_mode(self) -> Literal["online", "offline", "disabled"]:
        return _possible_mode() if self.mode == "auto" else cast(Any, self.mode)

    def _fill_and_end(self, run: Any, copy: Copy) -> dict[str, Any]:  # noqa: ANN401  (a wandb run)
        sent = {"url": run.url, "place": str(Path(run.dir).parent), "whole": True}
        try:
            try:
                fill(run, copy)
            except BaseException as error:
                live.leave(run, error)
                raise
            run.finish()
        except Exception as error:
            if not comes_from_wandb(error):
                raise
            sent |= {"url": None, "whole": False}
            give_up_on_server()
            _logger.warning("W&B: the copy is not whole (%s)", brief(error))
        return sent

    def _start(self, start: "_Start", mode: Literal["online", "offline"]) -> Any:  # noqa: ANN401  (wandb is imported late)
        import wandb

        job = start.job
        settings = wandb.Settings(
            root_dir=str(self._place),
            console="off",
            disable_code=True,
            disable_git=True,
            finish_timeout=_UPLOAD_PATIENCE * self.timeout_s,
            finish_timeout_raises=True,
            init_timeout=float(self.timeout_s),
            silent=True,
            # Its own is Ctrl-C; of a run that continues nobody knows when the button was pressed.
            stop_fn=_go_on,
            x_disable_machine_info=True,
            x_disable_meta=True,  # the provenance says more, and hides secrets in arguments
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self._place.mkdir(parents=True, exist_ok=True)
        try:
            return wandb.init(
                project=self.project,
                entity=self.entity,
                id=job.run_id,
                name=run_name(job)[:_LONGEST_NAME],
                group=group_name(start.group),
                job_type=job.analysis[:_LONGEST_NAME],
                tags=run_tags(job, self.tags),
                config=start.config,
                mode=mode,
                resume="allow",
                reinit="create_new",  # not `wandb.run`, which a failed job could leave behind
                settings=settings,
            )
        except Exception as error:
            if mode == "offline" or not comes_from_wandb(error):
                raise
            give_up_on_server()
            reason = brief(error).partition(" Consider increasing")[0]  # advice on wandb's own API
            raise _StartError(reason) from error


@dataclass(frozen=True, eq=False)
class _Start:
    """What is told when a run is started or continued."""

    job: Job
    group: str
    config: dict[str, Any]


def _go_on() -> None:
    """Do nothing when somebody presses the button that stops a run."""


class _StartError(Exception):
    """An online run could not be started."""


def _possible_mode() -> Literal["online", "offline", "disabled"]:
    """Return what W&B's own settings, the key and the server allow."""
    import wandb

    settings = wandb.setup().settings
    if settings.mode == "disabled":
        return "disabled"
    if settings.mode in {"offline", "dryrun"} or not has_key(settings):
        return "offline"
    if not answers(question_address(settings.base_url)):
        warn_once(f"W&B: {settings.base_url} does not answer; recording offline")
        return "offline"
    return "online"


def _drop_superseded(place: Path, run_id: str) -> None:
    """Remove older offline copies of a run that were never uploaded.

    `wandb sync` would upload each of them, and the run would show every layer twice.
    """
    for older in place.parent.glob(f"offline-run-*-{run_id}"):
        if older != place and not list(older.glob("*.synced")):
            shutil.rmtree(older, ignore_errors=True)


def _line(sent: Mapping[str, Any]) -> str:
    if sent["url"] is not None:
        return f"W&B: {sent['url']}"
    return f"W&B, offline; to upload: {sync_line([Path(sent['place'])])}"
