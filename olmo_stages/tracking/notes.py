"""What the tracker noted beside a result, and the line that uploads runs which wait."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from olmo_stages.records import TRACKING

OFFLINE = "offline-run-*"
"""Name of the folder of a run that waits, as a pattern."""


def read_note(folder: Path) -> dict[str, Any] | None:
    """Return what the tracker noted in the folder of a result; None if there is nothing."""
    try:
        note = json.loads((folder / TRACKING).read_bytes())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and {"url", "place"} <= note.keys() else None


def sync_line(places: Sequence[Path], options: Sequence[str] = ()) -> str:
    """Return the command that uploads runs.

    Args:
        places: folders of runs; one called `offline-run-*` stands for all of that name.
        options: of the command.
    """
    return " ".join([shlex.join(["wandb", "sync", *options]), *map(_quoted, places)])


def _quoted(place: Path) -> str:
    if place.name != OFFLINE:
        return shlex.quote(_near(place))
    return f"{shlex.quote(_near(place.parent))}/{OFFLINE}"


def _near(path: Path) -> str:
    near = os.path.relpath(path)
    if near.startswith(os.pardir):
        return str(path)
    return near if not near.startswith("-") else os.path.join(os.curdir, near)  # noqa: PTH118  (Path drops the dot)
