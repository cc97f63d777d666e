"""Copies of results for Weights & Biases. The files on disk come first; nothing here may cost them.

What W&B does wrong becomes one warning. wandb is imported only when a job is recorded.
"""

import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args, runtime_checkable

from olmo_stages.atomic import write_file
from olmo_stages.errors import ConfigError
from olmo_stages.provenance import redact
from olmo_stages.records import MEASUREMENTS, TENSORS, TRACKING, Job, mark_digest, read_mark
from olmo_stages.tracking.containment import (
    brief,
    comes_from_wandb,
    give_up_on_server,
    surroundings,
)
from olmo_stages.tracking.notes import read_note, sync_line
from olmo_stages.tracking.reachability import answers, has_key, question_address
from olmo_stages.tracking.run_layout import (
    TABLE,
    artifact_name,
    figure_name,
    group_name,
    history,
    metric_name,
    run_name,
    run_tags,
    summary,
)
from olmo_stages.types import Measurement, Result, check_choice

Mode = Literal["auto", "online", "offline"]

_LONGEST_NAME = 128
_LARGEST_FILE = 20e6  # bytes; pair tables of many rows are for this machine
_UPLOAD_PATIENCE = 3.0  # in units of timeout_s; what is not uploaded then stays on disk

_logger = logging.getLogger(__name__)
_warned: set[str] = set()


@runtime_checkable
class Tracker(Protocol):
    """Something that is told about finished jobs."""

    def record(
        self, job: Job, result: Result, folder: Path, *, group: str, config: Mapping[str, Any]
    ) -> str | None:
        """Record a job whose result is in `folder`; return a line for people, or None."""
        ...


@dataclass(frozen=True)
class NoTracking:
    """Files only."""

    def record(
        self, job: Job, result: Result, folder: Path, *, group: str, config: Mapping[str, Any]
    ) -> str | None:
        """Do nothing."""
        del job, result, folder, group, config


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
        copy = _Copy(job, result, folder, group, config, digest)
        try:
            with surroundings(self._place):
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

    def _send(self, copy: "_Copy") -> dict[str, Any] | None:
        mode = self._choose_mode()
        if mode == "disabled":
            return None
        if mode == "online":
            try:
                return self._run(copy, "online")
            except _StartError as error:
                _warn_once(f"W&B: {error}; recording offline")
        return self._run(copy, "offline")

    def _choose_mode(self) -> Literal["online", "offline", "disabled"]:
        return _possible_mode() if self.mode == "auto" else cast(Any, self.mode)

    def _run(self, copy: "_Copy", mode: Literal["online", "offline"]) -> dict[str, Any]:
        run = self._start(copy, mode)
        sent = {"url": run.url, "place": str(Path(run.dir).parent), "whole": True}
        try:
            try:
                _fill(run, copy)
            except BaseException:
                run.finish(exit_code=1)
                raise
            run.finish()
        except Exception as error:
            if not comes_from_wandb(error):
                raise
            sent |= {"url": None, "whole": False}
            give_up_on_server()
            _logger.warning("W&B: the copy is not whole (%s)", brief(error))
        if mode == "offline":
            _drop_superseded(Path(run.dir).parent, copy.job.run_id)
        return sent

    def _start(self, copy: "_Copy", mode: Literal["online", "offline"]) -> Any:  # noqa: ANN401  (wandb is imported late)
        import wandb

        job = copy.job
        settings = wandb.Settings(
            root_dir=str(self._place),
            console="off",
            disable_code=True,
            disable_git=True,
            finish_timeout=_UPLOAD_PATIENCE * self.timeout_s,
            finish_timeout_raises=True,
            init_timeout=float(self.timeout_s),
            silent=True,
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
                group=group_name(copy.group),
                job_type=job.analysis[:_LONGEST_NAME],
                tags=run_tags(job, self.tags),
                config=copy.whole_config(),
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
class _Copy:
    """What is sent about one job."""

    job: Job
    result: Result
    folder: Path
    group: str
    config: Mapping[str, Any]
    digest: str

    def whole_config(self) -> dict[str, Any]:
        provenance = json.loads((self.folder / "provenance.json").read_bytes())
        rest = {key: it for key, it in provenance.items() if key not in {"config", "job", "argv"}}
        return redact({**self.config, "job": self.job.describe(), "provenance": rest})


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
        _warn_once(f"W&B: {settings.base_url} does not answer; recording offline")
        return "offline"
    return "online"


def _fill(run: Any, copy: _Copy) -> None:  # noqa: ANN401  (a wandb run)
    import wandb

    job, result = copy.job, copy.result
    prefix = metric_name(job.analysis)
    run.define_metric("layer", hidden=True, summary="none")
    # No automatic summary: it would show the last layer's value as if it were the run's.
    run.define_metric(f"{prefix}/*", step_metric="layer", summary="none")
    layers = history(result.measurements, job.analysis)
    _warn_of_older_curves(run, copy)
    for step, values in enumerate(layers):
        if step >= run.starting_step:  # a resumed run has the others already
            run.log(values, step=step)
    columns: list[Any] = [it.name for it in dataclasses.fields(Measurement)]
    rows: list[Any] = [[getattr(row, it) for it in columns] for row in result.measurements]
    media: dict[str, Any] = {TABLE: wandb.Table(columns=columns, data=rows)}
    media |= {figure_name(name): _figure(text) for name, text in result.figures.items()}
    run.log(media, step=max(len(layers), run.starting_step))
    run.log_artifact(_artifact(copy))
    run.summary.update(summary(result, job.analysis))
    run.summary["result_digest"] = copy.digest


def _figure(text: str) -> Any:  # noqa: ANN401  (wandb is imported late)
    import plotly.io
    import wandb

    return wandb.Plotly(plotly.io.from_json(text))


def _artifact(copy: _Copy) -> Any:  # noqa: ANN401  (wandb is imported late)
    import wandb

    name = artifact_name(copy.job.analysis, copy.job.run_id)
    artifact = wandb.Artifact(name, type="result", metadata={"result_digest": copy.digest})
    tables = read_mark(copy.folder).get("tables", {}).values()
    for file in (MEASUREMENTS, TENSORS, *tables):
        if (copy.folder / file).stat().st_size <= _LARGEST_FILE:
            artifact.add_file(str(copy.folder / file), name=file, skip_cache=True)
        else:
            _warn_once(f"W&B: {file} of over {_LARGEST_FILE / 1e6:.0f} MB stays on disk only")
    return artifact


def _warn_of_older_curves(run: Any, copy: _Copy) -> None:  # noqa: ANN401  (a wandb run)
    if run.starting_step and run.summary.get("result_digest") != copy.digest:
        _logger.warning(
            "W&B: the layer curves of run %s stay those of its first recording; "
            "its table, figures and files are new",
            copy.job.run_id,
        )


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


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        _logger.warning(message)
