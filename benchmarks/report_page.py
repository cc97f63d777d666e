"""How long the report of a sweep takes, from results to table and page, and how large the page is.

A sweep of 12 stages and three analyses is made from planted activations by the real analyses (only
their resamples and permutations are few, which changes neither rows nor figures), once with the 8
layers of the miniature family and once with the 32 of a 7B model. Its report is then made in a
process of its own, as `olmo-stages report` does it: first with everything that jobs say together
still to be assembled, then with that on disk. Run by `make bench`.

    python benchmarks/report_page.py
    python benchmarks/report_page.py --outputs DIR     # the sweeps are kept there for the next time
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console
from rich.table import Table
from sides import Row, show

ROOT = Path(__file__).resolve().parent.parent
SECONDS, BYTES = 20.0, 6_000_000
PHASES = ("import", "read", "assemble", "study", "table", "page")


class Clock:
    """Seconds of named phases; one within another does not count for the outer one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.running: list[str] = []
        self.since = time.perf_counter()

    def _note(self) -> None:
        now = time.perf_counter()
        if self.running:
            self.seconds[self.running[-1]] += now - self.since
        self.since = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._note()
        self.running.append(name)
        try:
            yield
        finally:
            self._note()
            self.running.pop()

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            with self.phase(name):
                return work(*given, **named)

        return timed


def report(sweep: Path) -> dict[str, Any]:
    """Make the report of a sweep in this process; what each phase took, and what came of it."""
    clock = Clock()
    with clock.phase("import"):
        from olmo_stages import results
        from olmo_stages.report import across, page, study
    pool, together = study.pool, across.together
    with (
        mock.patch.object(study, "pool", clock.timed("read", pool)),
        mock.patch.object(across, "together", clock.timed("assemble", together)),
        clock.phase("study"),
    ):
        found = study.build([sweep])
    folder = sweep / "report"
    with clock.phase("table"):
        frame = results.gather([sweep], [Path(it) for it in found.assembled])
        results.save(frame, folder / "measurements.parquet")
    with clock.phase("page"):
        page.write(found, folder / "index.html")
    return {
        "seconds": clock.seconds,
        "bytes": (folder / "index.html").stat().st_size,
        "rows": len(frame),
        "figures": sum(len(it.figures) for it in found.sections),
        "cpu": time.process_time(),
        # Kibibytes on Linux, bytes on macOS.
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024),
    }


def apart(sweep: Path) -> dict[str, Any]:
    """The same in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, "--report", str(sweep)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def make(outputs: Path, size: Any, n_stages: int) -> Path:
    """A sweep without anything assembled; one that is there is taken as it is."""
    from tests.report import swept

    found = outputs / "sweeps" / "post_training"
    if not (outputs / "whole").exists():
        chosen = [it for it in swept.stages() if it.label not in swept.REVISIONS][-n_stages:]
        names = ("probe", "cka", "cosine")
        swept.sweep(outputs, size, chosen=chosen, names=names, hostile=False, together=False)
        (outputs / "whole").touch()
    return found


def forget(sweep: Path) -> None:
    """Remove what was assembled, as if no report had ever been made."""
    for file in sorted((sweep / "across").glob("**/*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()


def row(table: Table, what: str, found: dict[str, Any]) -> Row:
    total = sum(found["seconds"].values())
    phases = [f"{found['seconds'][name]:.1f}" for name in PHASES]
    size = f"{found['bytes'] / 1e6:.2f}"
    bad = ["too slow"] * (total > SECONDS) + ["too large"] * (found["bytes"] > BYTES)
    cells = [
        f"{total:.1f}",
        f"{found['cpu']:.1f}",
        size,
        f"{found['memory'] / 1e6:.0f}",
        str(found["figures"]),
    ]
    table.add_row(what, *phases, *cells, ", ".join(bad) or "met")
    return Row(f"report, {what}", "what it may take", (total,), (SECONDS,), "<= 1.0")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="quick; its times mean nothing")
    parser.add_argument("--outputs", type=Path, help="where the sweeps are kept")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.report is not None:
        print(json.dumps(report(options.report)))
        return
    sys.path.insert(0, str(ROOT))
    from tests.report import swept

    sizes, n_stages = [swept.MINIATURE, swept.OLMO_7B], 12
    if options.small:
        sizes, n_stages = [swept.SMALL], 2
    title = f"report of {n_stages} stages x 3 analyses, seconds; {os.cpu_count()} cores"
    heads = ("layers", *PHASES, "total", "CPU", "MB", "memory, MB", "figures", "targets")
    table = Table(*heads, title=title)
    table.caption = (
        f"targets: {SECONDS:g} s in all, {BYTES / 1e6:g} MB; on a busy machine look at CPU. "
        "What is assembled is made again where the code has changed since."
    )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            outputs = (options.outputs or Path(temporary)) / f"{size.layers} layers"
            sweep = make(outputs, size, n_stages)
            forget(sweep)
            for state in ("nothing assembled", "assembled"):
                rows.append(row(table, f"{size.layers} layers, {state}", apart(sweep)))
    Console(width=140).print(table)
    show(rows)


if __name__ == "__main__":
    main()
