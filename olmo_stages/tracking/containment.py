"""Keeps W&B's files in one folder, its noise down and its failures apart from ours."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from olmo_stages.provenance import redact
from olmo_stages.tracking.reachability import question_address, remember_failure

_logger = logging.getLogger(__name__)
_warned: set[str] = set()
_THEIRS = frozenset({"wandb", "wandb_workspaces"})


@contextmanager
def surroundings(place: Path) -> Iterator[None]:
    """Keep wandb quiet and its files under `place`, without touching the user's own settings."""
    ours = {
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        "WANDB_ARTIFACT_DIR": str(place / "wandb" / "artifacts"),
        "WANDB_CACHE_DIR": str(place / "wandb" / "cache"),
        "WANDB_DATA_DIR": str(place / "wandb" / "data"),
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def comes_from_wandb(error: Exception) -> bool:
    """Return whether an error is the disk's or was raised inside wandb.

    By origin rather than by class: besides `wandb.errors.Error` wandb lets through exceptions of
    private modules (closed mailboxes, lost service) that derive from Exception alone.
    """
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _THEIRS:
            return True
        trace = trace.tb_next
    return isinstance(error, OSError)


def brief(error: Exception) -> str:
    """Return an error as one short line without secrets."""
    return str(redact(" ".join(str(error).split())))[:200] or type(error).__name__


def give_up_on_server() -> None:
    """Let what comes be recorded offline, by a new W&B service.

    The old one still holds the id of the run that failed, or is dead.
    """
    import wandb

    remember_failure(question_address(wandb.setup().settings.base_url))
    end_service()


def end_service() -> None:
    """End W&B's service, be it dead; the next run starts another."""
    import wandb

    try:
        wandb.teardown()
    except Exception as error:
        if not comes_from_wandb(error):
            raise
        _logger.debug("W&B: %s", brief(error))


def warn_once(message: str) -> None:
    """Warn, unless this process has said so already."""
    if message not in _warned:
        _warned.add(message)
        _logger.warning(message)
