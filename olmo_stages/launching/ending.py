"""The end of a sweep: its table, what its jobs say together, its report, its exit code."""

import shlex
from collections.abc import Collection
from pathlib import Path

from olmo_stages.errors import OlmoStagesError
from olmo_stages.launching.explanation import one_line
from olmo_stages.launching.screen import say
from olmo_stages.statuses import read_statuses

DONE = frozenset({"ok", "cached"})
"""States of a job that there is nothing left to do of."""


def finish(
    sweep: Path, jobs: Collection[str] = (), *, together: bool = True, report: bool = False
) -> bool:
    """Show a sweep's table, then what its jobs say together.

    A mishap in assembling is one line: the results stand, and the exit code tells of the jobs.

    Args:
        sweep: its folder.
        jobs: names of those that this launch asked for; none = not known, so all.
        together: whether to assemble what is done.
        report: whether to make the report, too.

    Returns:
        Whether all asked for is done. An earlier launch may have asked the same sweep for others,
        which this one cannot answer for.
    """
    statuses = read_statuses(sweep, ended=True)
    from olmo_stages.report.across import assemble
    from olmo_stages.report.show import show_across, show_sweep

    show_sweep(statuses, sweep)
    if together:
        try:
            show_across(assemble(sweep, statuses))
        except OlmoStagesError as error:
            say(f"not assembled: {error}")
        if report and any(status.state in DONE for status in statuses):
            _report(sweep)
    own = [it for it in statuses if not jobs or it.job in jobs]
    return all(status.state in DONE for status in own)


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
