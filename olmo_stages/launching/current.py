"""What the launching process remembers of what it launched.

One for the process, because Hydra makes the objects in between and hands nothing on: its callback
notes the sweep, the task and the launchers note how jobs ended, and the end of the command line
reads all of it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from olmo_stages.statuses import Status


@dataclass
class Launch:
    """A command line that is being run.

    Args:
        arguments: its words, without the program's name.
        sweep: folder of the sweep, once it is known; None for a single job.
        jobs: names of those that it asks for.
        expected: where they are noted, if nothing was asked like that before.
        report: whether the sweep ends with a report.
        error: why the single job failed.
        ended: how jobs ended as this process saw it, by their names. Files may say otherwise where
            another launch is at work on the same jobs, or where the disk is full.
    """

    arguments: Sequence[str] = ()
    sweep: Path | None = None
    jobs: Collection[str] = ()
    expected: Path | None = None
    report: bool = False
    error: BaseException | None = None
    ended: dict[str, Status] = field(default_factory=dict)


launch = Launch()
"""The launch of this process."""


def begin(arguments: Sequence[str]) -> None:
    """Forget what was launched before, as a program that launches several times needs."""
    vars(launch).update(vars(Launch(arguments)))
