"""Progress on stderr: a bar where a person watches, one line a step where a file does."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

Item = TypeVar("Item")

_MANY = 50


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Show how far long work has come.

    Args:
        description: what is being done, naming the stage.
        total: number of steps; None = not known beforehand.

    Yields:
        A function to call after each step.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)
        done = int(bar.tasks[task].completed)
    if not console.is_terminal:
        console.print(f"{description}: {done} done", markup=False, highlight=False)


def watched(items: Sequence[Item], description: str) -> Iterator[Item]:
    """The items one after another, with `progress` where they are many."""
    with progress(description, len(items)) if len(items) >= _MANY else nullcontext(int) as advance:
        for item in items:
            yield item
            advance()


def say(text: str) -> None:
    """Tell the user something while they wait."""
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)
