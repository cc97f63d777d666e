"""Sides that are measured in turns, and the rows of the one table that `make bench` prints.

A script measures its sides alternately, gives `show` its rows, and asserts that they computed the
same. `benchmarks/all.py` runs every script and joins their rows.
"""

import ctypes
import gc
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

FILE = "OLMO_STAGES_BENCHMARK_ROWS"
"""Variable that names the file to which rows are added, one JSON object a line."""


@dataclass(frozen=True)
class Row:
    """Two sides of one comparison, measured in turns.

    Args:
        what: what was done, with its sizes.
        against: the other side.
        ours: a figure a round.
        other: the same of the other side, round by round, or once for all rounds.
        target: what the ratio should be, e.g. `<= 1.10` or `>= 1.5`; "" where none was set. `<=`
            means ours / other, anything else other / ours ("times faster").
        unit: of the figures.
        note: what a reader of the figures must know, e.g. what was not measured but scaled.
    """

    what: str
    against: str
    ours: tuple[float, ...]
    other: tuple[float, ...]
    target: str = ""
    unit: str = "s"
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """A ratio a round, so that what slows both sides for a while cancels."""
        others = self.other * len(self.ours) if len(self.other) == 1 else self.other
        pairs = list(zip(self.ours, others, strict=True))
        if self.target.startswith("<="):
            return [ours / other for ours, other in pairs]
        return [other / ours for ours, other in pairs]

    @property
    def met(self) -> str:
        """Whether the median reached the target."""
        if not self.target:
            return ""
        relation, bound = self.target.split()
        median = statistics.median(self.ratios)
        good = median <= float(bound) if relation == "<=" else median >= float(bound)
        return "yes" if good else "NO"

    def cells(self) -> list[str]:
        """Its texts, in the order of `HEADS`."""
        of = "ours / other" if self.target.startswith("<=") else "other / ours"
        return [
            self.what,
            self.against,
            f"{_ranged(self.ours)} {self.unit}",
            f"{_ranged(self.other)} {self.unit}",
            f"{_ranged(self.ratios)}",
            of,
            self.target,
            self.met,
        ]


HEADS = ("what", "against", "ours", "other", "ratio", "of", "target", "met")


def _ranged(values: Sequence[float]) -> str:
    """Median and range."""
    median = f"{statistics.median(values):.3g}"
    return f"{median} ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else median


def in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, tuple[float, ...]]:
    """Seconds of each side in each round; every second round goes through them backwards."""
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: tuple(values) for name, values in seconds.items()}


def show(rows: Sequence[Row]) -> None:
    """Print rows, and add them to the file that `all.py` asks for."""
    console = Console(width=150)
    console.print(table(rows))
    if path := os.environ.get(FILE):
        with Path(path).open("a") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)


def table(rows: Sequence[Row]) -> Table:
    """For a terminal; medians, with ranges in brackets."""
    drawn = Table(*HEADS, box=box.SIMPLE)
    for row in rows:
        drawn.add_row(*row.cells())
        if row.note:
            drawn.add_row(f"  ({row.note})")
    return drawn


class Peak:
    """Peak of this process's anonymous memory above that at the start, in bytes: `most`."""

    def __enter__(self):
        gc.collect()
        # What was freed and not given back would hide what is taken next.
        ctypes.CDLL(None).malloc_trim(0)
        self.start, self.most, self.over = self.now(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_error):
        self.over.set()
        self.thread.join()

    def watch(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, self.now() - self.start)

    @staticmethod
    def now():
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return 1024 * int(line.split()[1])
        raise RuntimeError("this system does not tell RssAnon")
