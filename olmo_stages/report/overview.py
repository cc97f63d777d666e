"""What a report says first, in the terminal: the lead table, what was found, what is missing."""

from collections.abc import Sequence

from rich.console import Console

from olmo_stages.document import Problem, Study
from olmo_stages.report.layout import new_console, put_line, put_text
from olmo_stages.report.lead import grid_table, lead_notes, lead_tables


def show_study(study: Study, *, ended: bool = False) -> None:
    """Print what a report says first: the lead table, what was found, and what is missing.

    An analysis that has no number in the lead table is shown with the headlines of its jobs.

    Args:
        study: what is shown.
        ended: at the end of a sweep, whose tables have told already what failed.
    """
    console = new_console()
    _show_asked(console, study)
    for table in lead_tables(study, console.width):
        console.print(table, crop=False)
    for note in lead_notes(study):
        put_text(console, note, style="dim")
    if study.findings:
        console.print()
    for finding in study.findings:
        put_text(console, f"- {finding}")
    console.print()
    if not ended:
        _show_headlines(console, study)
        _show_problems(console, study.problems)
        own = [f"{section.title}: {note}" for section in study.sections for note in section.notes]
        for note in [*study.warnings, *own]:
            put_text(console, f"note: {note}", style="yellow")


def _show_asked(console: Console, study: Study) -> None:
    console.print()
    put_line(console, study.title, style="bold")
    about = {"": study.asked, "question: ": study.question, "prediction: ": study.prediction}
    for name, text in about.items():
        if text:
            put_text(console, name + text)


def _show_headlines(console: Console, study: Study) -> None:
    """Print what jobs found whose analysis has no number in the lead table."""
    told = {shift.section for edge in study.edges for shift in edge.shifts}
    told |= {shift.section for shift in study.beside}
    for section in study.sections:
        # Where no analysis has a number there, the lead table holds headlines itself.
        if told and section.key not in told:
            console.print()
            console.print(grid_table(section.lead, section.title, console.width), crop=False)


def _show_problems(console: Console, problems: Sequence[Problem]) -> None:
    for it in problems:
        put_text(console, f"no result of {it.job}: {it.state}, {it.reason}", style="bold red")
    for again in dict.fromkeys(it.command for it in problems if it.command):
        put_line(console, f"redo only what is missing: {again}")
