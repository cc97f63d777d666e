"""What a person sees in the terminal: after each job, and at the end of a sweep."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from olmo_stages.records import Job
from olmo_stages.report.terminal import comparison_table, job_table, sweep_table
from olmo_stages.statuses import Status
from olmo_stages.types import Result


def show_job(job: Job, result: Result, folder: Path, *, cached: bool, tracked: str | None) -> None:
    """Print a job's tables, its warnings, and where its files are."""
    console = Console()
    console.print()
    console.print(job_table(result, job))
    if (comparison := comparison_table(result, job)) is not None:
        console.print(comparison)
    for warning in result.warnings:
        console.print(f"note: {warning}", style="yellow", markup=False, highlight=False)
    state = "already done (force=true redoes it)" if cached else "done"
    _line(console, f"{state}: {folder}")
    if tracked:
        _line(console, tracked)


def show_sweep(statuses: Sequence[Status], folder: Path) -> None:
    """Print the sweep's comparison table and the command that redoes what failed."""
    console = Console()
    console.print()
    console.print(sweep_table(statuses, folder.name))
    _line(console, f"sweep: {folder}   (again as a table: olmo-stages report {folder})")
    for status in statuses:
        if status.state not in {"ok", "cached"}:
            _line(console, f"redo: python run.py {' '.join(status.overrides)}")


def _line(console: Console, text: str) -> None:
    # Paths and commands are for copying: never wrapped, never coloured by guess.
    console.print(text, markup=False, highlight=False, soft_wrap=True)
