"""What a launching process says while it runs."""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from olmo_stages.statuses import Status, log_of
from olmo_stages.types import Headline, Measurement

_BACK = "\r\x1b[2K"  # to the start of the line, which is emptied
_FEW = 3  # numbers of a headline on a line


def say(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201  (no console is set up here)


def keep(sweep: Path, job: str, text: str) -> None:
    """Put what was said of a failed job into its log, unless all that it says goes there."""
    path = log_of(sweep, job)
    try:
        if path.exists() and os.path.samestat(path.stat(), os.fstat(2)):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.write(text.rstrip() + "\n")
    except OSError:  # it was said on the terminal, too
        return


def labels(names: Sequence[str]) -> dict[str, str]:
    """What tells jobs apart, by their names: without what they have in common."""
    words = {name: name.split(",") for name in names}
    shared = set[str].intersection(*map(set, words.values())) if len(words) > 1 else set[str]()
    return {
        name: ",".join(it for it in parts if it not in shared) or name
        for name, parts in words.items()
    }


class Board:
    """A line for each job that has ended; on a terminal also how far all have come.

    Args:
        n_jobs: how many there are.
        is_quiet: say nothing of jobs that say everything themselves.
    """

    def __init__(self, n_jobs: int, *, is_quiet: bool) -> None:
        self._n_jobs = n_jobs
        self._n_ended = 0
        self._is_quiet = is_quiet
        self._is_live = not is_quiet and sys.stderr.isatty()
        self._shown = ""
        self._started = time.monotonic()

    def line(self, text: str) -> None:
        """Print a line."""
        self.clear()
        say(text)

    def ended(self, label: str, status: Status, log: Path | None) -> None:
        """Tell how a job ended, and where its log is if not well."""
        self._n_ended += 1
        if self._is_quiet:
            return
        said = f"{status.state}: {status.error}" if status.error else status.state
        if status.error.startswith(status.state):
            said = status.error
        if status.headline:
            said += f": {_brief(status.headline)}"
        where = f"; log: {log}" if status.error and log is not None else ""
        done = f"[{self._n_ended}/{self._n_jobs}]"
        self.line(f"{done} {label}: {said} ({status.seconds:.0f} s){where}")

    def show(self, running: Sequence[str], *, is_stopping: bool) -> None:
        """Show what runs, on a terminal."""
        if not self._is_live:
            return
        what = "stopping" if is_stopping else "running"
        passed = timedelta(seconds=round(time.monotonic() - self._started))
        text = f"{self._n_ended} of {self._n_jobs} ended, {passed}, {what}: {', '.join(running)}"
        # Within the line: one that wraps could not be taken back.
        text = text[: shutil.get_terminal_size().columns - 1]
        if text != self._shown:
            sys.stderr.write(f"{_BACK}{text}")
            sys.stderr.flush()
        self._shown = text

    def clear(self) -> None:
        """Take back what `show` showed."""
        if self._shown:
            sys.stderr.write(_BACK)
            sys.stderr.flush()
        self._shown = ""


def _brief(headline: Headline) -> str:
    return ", ".join(f"{key} {_written(value)}" for key, value in [*headline.items()][:_FEW])


def _written(value: str | float | int | Measurement | None) -> str:
    number = value.value if isinstance(value, Measurement) else value
    return f"{number:.3f}" if isinstance(number, float) else str(number)
