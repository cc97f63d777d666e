"""What a user sees while the family is being built."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)


class BuildProgress:
    """One bar a stage on a terminal, one line a finished stage elsewhere; on standard error.

    Args:
        steps: number of steps of each stage that will be built.
        home: where the checkpoints go.
    """

    def __init__(self, steps: dict[str, int], home: str) -> None:
        self.steps = steps
        console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.plain = not console.is_terminal
        self.rows: dict[str, TaskID] = {}
        self.started: dict[str, float] = {}
        self.say = console.print if console.is_terminal else self._write
        self.say(f"Building {len(steps)} stages of the miniature family once, in {home}")

    def __enter__(self) -> "BuildProgress":
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def show(self, stage: str, state: str, step: int, what: str) -> None:
        """Show an event of a worker."""
        if stage not in self.rows:
            self.rows[stage] = self.bars.add_task(stage, total=self.steps[stage])
            self.started[stage] = time.monotonic()
        row = self.rows[stage]
        if state == "waiting":
            self.bars.update(row, description=f"{stage} (another process)")
            self.say(f"  {stage}: waiting for {what}, which builds it")
        elif state == "training":
            self.bars.update(row, completed=step, description=stage)
        else:
            self.bars.update(row, completed=self.steps[stage], description=stage)
            self.bars.stop_task(row)
            if self.plain:
                seconds = time.monotonic() - self.started[stage]
                self.say(f"  {stage}: {self.steps[stage]} steps, {seconds:.0f} s")

    @staticmethod
    def _write(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
