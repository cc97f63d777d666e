"""The report of a study on Weights & Biases: built from files, sent where somebody is logged in.

What goes wrong on the way is one line; the files of the report on disk never depend on it.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from olmo_stages.atomic import write_file
from olmo_stages.document import Study
from olmo_stages.tracking import library
from olmo_stages.tracking.containment import (
    brief,
    comes_from_wandb,
    give_up_on_server,
    surroundings,
)
from olmo_stages.tracking.deadline import within
from olmo_stages.tracking.reachability import answers, has_key, question_address
from olmo_stages.tracking.sent import Sent, sent_of, sync_lines
from olmo_stages.tracking.spec import build, workspace

__all__ = ["NOTE", "SPEC", "Saved", "build", "save", "sync_lines", "workspace"]

SPEC = "wandb_report.json"
"""Where the specification of report and view is written, for the record and for another day."""
NOTE = "wandb.json"
"""Where it is noted what was saved, so that it is updated the next time."""

_PROJECT = "olmo-stages"


@dataclass(frozen=True)
class Saved:
    """What became of a report.

    Args:
        lines: what to tell people.
        report: its address; empty where it was not saved.
        workspace: address of the view; empty where it was not saved.
    """

    lines: tuple[str, ...]
    report: str = ""
    workspace: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether report and view were both saved."""
        return bool(self.report and self.workspace)


def save(
    study: Study,
    folder: Path,
    *,
    entity: str | None = None,
    project: str | None = None,
    timeout_s: float | int = 60.0,
) -> Saved:
    """Save the report of a study and a view of its runs on W&B, or update those saved before.

    The specification is written to `folder` first. Without a key, or without an answer, it stays
    at that.

    Args:
        study: what the report says.
        folder: where `wandb_report.json` and `wandb.json` go.
        entity: W&B user or team; None = that of the runs, else the default of whoever is logged in.
        project: None = that of most runs.
        timeout_s: seconds to wait for all of it.

    Returns:
        The addresses, and lines that say what happened and what to do; nothing that W&B or the
        network does wrong is raised.

    Raises:
        StoreError: `folder` cannot be written.
    """
    sent = sent_of(study)
    lines = sync_lines(study, entity or "", project or "")
    # Not in the folder, which is there to be published.
    with _scratch() as scratch, surroundings(Path(scratch)):
        target = _Target(
            entity or _usual([it.entity for it in sent]) or _setting("entity"),
            project or _usual([it.project for it in sent]) or _setting("project") or _PROJECT,
        )
        write_file(folder / SPEC, _specification(study, target))
        done, said = _try(study, folder, target, timeout_s)
    return Saved((*said, *_about_runs(sent, lines)), done.report, done.workspace)


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for the library's own files, which its service may still hold at the end."""
    return tempfile.TemporaryDirectory(prefix="olmo-stages-", ignore_cleanup_errors=True)


@dataclass(frozen=True)
class _Target:
    """Whose project; an empty entity is that of whoever is logged in."""

    entity: str
    project: str


@dataclass
class _Done:
    """What was saved so far."""

    report: str = ""
    workspace: str = ""

    def lines(self) -> list[str]:
        found = {"report": self.report, "workspace": self.workspace}
        return [f"W&B {name}: {url}" for name, url in found.items() if url]


def _try(
    study: Study, folder: Path, target: _Target, timeout_s: float | int
) -> tuple[_Done, list[str]]:
    """Save what can be saved, and say what became of it."""
    done = _Done()
    if reason := _obstacle():
        return done, [f"W&B: {reason}; what it will say is in {folder / SPEC}"]
    try:
        within(timeout_s, lambda: _publish(study, folder / NOTE, target, done))
    except Exception as error:
        if not comes_from_wandb(error):
            raise
        if isinstance(error, TimeoutError):
            give_up_on_server()
        what = "the workspace view" if done.report else "the report"
        return done, [*done.lines(), f"W&B: {what} was not saved ({brief(error)}); try again later"]
    return done, done.lines()


def _obstacle() -> str:
    """Why nothing can be saved now, with the remedy; empty if nothing is in the way."""
    import wandb

    settings = wandb.setup().settings
    if settings.mode not in {"online", "shared"}:
        return f"the report is not saved, because WANDB_MODE is {settings.mode}"
    if not has_key(settings):
        return "the report is not saved for want of a key; run `wandb login`, then this again"
    if not answers(question_address(settings.base_url)):
        return f"the report is not saved, because {settings.base_url} does not answer"
    return ""


def _publish(study: Study, note: Path, target: _Target, done: _Done) -> None:
    """Save or update report and view, and note each at once.

    Raises:
        ConnectionError: the server does not say to whom they shall belong.
    """
    import wandb

    api = wandb.Api()
    entity = target.entity or api.default_entity
    if not entity:
        raise ConnectionError("the server names no default entity; set WANDB_ENTITY")
    # The library looks for the project before it would make it.
    if target.project not in {it.name for it in api.projects(entity)}:
        api.create_project(target.project, entity)
    known = _Target(entity, target.project)
    earlier = _earlier(note, known)
    done.report = _save_report(study, known, earlier.report)
    _write_note(note, known, _Done(done.report, earlier.workspace))
    done.workspace = _save_view(study, known, earlier.workspace)
    _write_note(note, known, done)


def _save_report(study: Study, target: _Target, earlier: str) -> str:
    made = build(study, target.entity, target.project, online=True)
    found = _load(library.reports().Report.from_url, earlier)
    if found is not None:  # keeps its id, and what people said about it
        for name in ("title", "description", "blocks", "width"):
            setattr(found, name, getattr(made, name))
    # The library puts the title in as it is.
    return quote((found or made).save().url, safe=":/?=&%+,;@")


def _save_view(study: Study, target: _Target, earlier: str) -> str:
    made = workspace(study, target.entity, target.project)
    found = _load(library.workspaces().Workspace.from_url, earlier)
    if found is not None:
        for name in ("name", "sections", "settings", "runset_settings"):
            setattr(found, name, getattr(made, name))
    return (found or made).save().url


def _load(load: Callable[[str], Any], url: str) -> Any:  # noqa: ANN401  (of a library that is imported late)
    """Return what was saved before; None if it is gone, which the library says in two ways."""
    try:
        return load(url) if url else None
    except (TypeError, ValueError):
        return None


def _earlier(note: Path, target: _Target) -> _Done:
    """What was saved to the same place before."""
    try:
        content = json.loads(note.read_bytes())
        if (content["entity"], content["project"]) == (target.entity, target.project):
            return _Done(str(content["report"]), str(content["workspace"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return _Done()


def _write_note(note: Path, target: _Target, done: _Done) -> None:
    write_file(note, json.dumps({**asdict(target), **asdict(done)}, indent=2).encode())


def _specification(study: Study, target: _Target) -> bytes:
    """Report and view as the server would get them."""
    report = build(study, target.entity, target.project)._to_model()
    view = workspace(study, target.entity, target.project)._to_model()
    parts = {"report": report, "workspace": view}
    dumped = {
        name: {"displayName": it.display_name}
        | {"spec": json.loads(it.spec.model_dump_json(by_alias=True, exclude_none=True))}
        for name, it in parts.items()
    }
    whole = {**asdict(target), "description": report.description, **dumped}
    return json.dumps(whole, indent=1, ensure_ascii=False).encode()


def _about_runs(sent: Sequence[Sent], lines: Sequence[str]) -> list[str]:
    """Say which runs the panels cannot show yet, and what uploads them."""
    if not sent:
        return ["W&B: no job was recorded as a run, so that the panels have nothing to show"]
    waiting = sum(it.waits for it in sent)
    elsewhere = sum(not it.is_uploaded and not it.waits for it in sent)
    said = []
    if elsewhere:
        said.append(
            f"W&B: runs on another machine, to be uploaded there: {elsewhere} of {len(sent)}"
        )
    if waiting:
        here = f"W&B: runs on this machine only, which panels cannot show: {waiting} of {len(sent)}"
        said.append(f"{here}; to upload: {'; '.join(lines)}")
    return said


def _usual(names: Sequence[str]) -> str:
    """The most frequent of names that are not empty."""
    counted = Counter(filter(None, names)).most_common(1)
    return counted[0][0] if counted else ""


def _setting(name: str) -> str:
    import wandb

    return getattr(wandb.setup().settings, name) or ""
