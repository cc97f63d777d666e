"""Progress on stderr: a bar in a terminal, one line elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


def say(text: str) -> None:
    """Print one line on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, style="dim", markup=False)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show progress.

    Args:
        description: what goes on.
        total: amount of work.

    Yields:
        A function to call with the amount that was just done.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        say(description)
        yield lambda _amount: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda amount: bar.advance(task, amount)
