"""The end of a sweep: its table, what its jobs say together, its report, its exit code."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from olmo_stages.errors import OlmoStagesError
from olmo_stages.launching.current import Launch
from olmo_stages.launching.explanation import one_line
from olmo_stages.launching.screen import say
from olmo_stages.statuses import Status, read_statuses, write_status

DONE = frozenset({"ok", "cached"})
"""States of a job that there is nothing left to do of."""


def leave_word(sweep: Path, status: Status, *, was_noted: bool) -> None:
    """Note how a job ended, in its sweep's folder.

    Args:
        sweep: the folder.
        status: how it ended.
        was_noted: it was noted as running. If it is noted as done now, another launch has done it
            meanwhile, which is not forgotten because this one has not.

    Raises:
        StoreError: the folder cannot be written.
    """
    if was_noted and status.state not in DONE:
        (noted,) = read_statuses(sweep, [status.job])
        if noted.state in DONE:
            return
    write_status(sweep, status)


def finish(launch: Launch, *, together: bool) -> bool:
    """Show a sweep's table, then what its jobs say together.

    A mishap in assembling is one line: the results stand, and the exit code tells of the jobs.

    Args:
        launch: what was launched; nothing is to be said of a single job.
        together: whether to assemble what is done, and to make the report where one is wanted.

    Returns:
        Whether all asked for is done. An earlier launch may have asked the same sweep for others,
        which this one cannot answer for.
    """
    if launch.sweep is None:
        return True
    statuses = _as_seen(launch, read_statuses(launch.sweep))
    from olmo_stages.report.across import assemble
    from olmo_stages.report.show import show_across, show_sweep

    show_sweep(statuses, launch.sweep)
    own = [it for it in statuses if not launch.jobs or it.job in launch.jobs]
    if together:
        try:
            show_across(assemble(launch.sweep, statuses))
        except OlmoStagesError as error:
            say(f"not assembled: {error}")
        if launch.report and any(status.state in DONE for status in statuses):
            _report(launch.sweep)
    return all(status.state in DONE for status in own)


def _as_seen(launch: Launch, noted: Sequence[Status]) -> list[Status]:
    """How jobs ended as this process saw it where it did, else as the files say."""
    found = {it.job: it for it in noted}
    seen = {
        name: it
        for name, it in launch.ended.items()
        if name not in found or found[name].state != it.state
    }
    return [*(found | seen).values()]


def _report(sweep: Path) -> None:
    """Make the report of a sweep that has ended; a fault in it costs a line and nothing else."""
    from olmo_stages.report.delivery import deliver_sweep

    again = f"olmo-stages report {shlex.quote(str(sweep))}"
    try:
        deliver_sweep(sweep)
    except KeyboardInterrupt:
        say(f"no report: interrupted; {again} makes it")
    # Jobs may be a week's work and are done; what a report trips over must not look as if not.
    except Exception as error:  # noqa: BLE001
        why = str(error) if isinstance(error, OlmoStagesError) else one_line(error)
        say(f"no report: {why}; {again} tries once more")
