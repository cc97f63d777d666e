"""What a person sees in the terminal: after each job, and at the end of a sweep."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from olmo_stages import command
from olmo_stages.activations.upkeep import EntryRow
from olmo_stages.records import Job, read
from olmo_stages.report.lineage import LineageKey, lineage_order
from olmo_stages.report.matrix import stage_tables
from olmo_stages.report.terminal import comparison_table, job_table, sweep_table
from olmo_stages.statuses import Status
from olmo_stages.types import Result, check_choice

_PIPED_WIDTH = 110


def show_job(job: Job, result: Result, folder: Path, *, cached: bool, tracked: str | None) -> None:
    """Print a job's tables, its warnings, and where its files are."""
    console = _console()
    console.print()
    console.print(job_table(result, job, console.width), crop=False)
    if (comparison := comparison_table(result, job, console.width)) is not None:
        console.print(comparison, crop=False)
    for warning in result.warnings:
        console.print(f"note: {warning}", style="yellow", markup=False, highlight=False)
    state = "already done (force=true redoes it)" if cached else "done"
    _line(console, f"{state}: {folder}")
    if tracked:
        _line(console, tracked)


def show_sweep(statuses: Sequence[Status], folder: Path) -> None:
    """Print the sweep's comparison table and the command that redoes what failed."""
    console = _console()
    console.print()
    place = lineage_order()

    def key(status: Status) -> tuple[str, LineageKey]:
        about = status.about
        return f"{about.get('analysis', '')} {about.get('data', '')}", place(about.get("stage", ""))

    ordered = sorted(statuses, key=key)
    console.print(sweep_table(ordered, folder.name, console.width), crop=False)
    _line(console, f"sweep: {folder}   (again as a table: olmo-stages report {folder})")
    undone = any(status.state not in {"ok", "cached"} for status in statuses)
    if undone and (again := command.recorded(folder)) is not None:
        _line(console, f"redo only what is missing: {again}")


def show_across(folders: Sequence[Path]) -> None:
    """Print what was assembled of a sweep's jobs: stage x stage, the notes, and the folder.

    Raises:
        StoreError: a folder holds no finished result, or a damaged one.
    """
    console = _console()
    place = lineage_order()
    for folder in folders:
        result = read(folder).result
        stages = {label for it in result.measurements for label in (it.stage, it.reference)}
        order = sorted(stages - {""}, key=place)
        for table in stage_tables(result, order, folder.name, console.width):
            console.print()
            console.print(table, crop=False)
        for warning in result.warnings:
            console.print(f"note: {warning}", style="yellow", markup=False, highlight=False)
        _line(console, f"all stages together: {folder}")


def show_stages(specs: Mapping[str, Mapping[str, Any]], size: str | None) -> None:
    """Print the lineage as a tree, each stage with its source in each size.

    Args:
        specs: the stages, parents before children.
        size: only stages of this size; None = all.

    Raises:
        ConfigError: no stage has that size.
    """
    if size is not None:
        sizes = dict.fromkeys(s for spec in specs.values() for s in spec["sources"])
        check_choice("size", size, tuple(sizes))
    root = Tree("stages (model=NAME)")
    nodes: dict[str, Tree] = {}
    for name, spec in specs.items():
        sources = {k: v for k, v in spec["sources"].items() if size in {None, k}}
        if sources:
            nodes[name] = nodes.get(spec["parent"] or "", root).add(Text(name, style="bold"))
            for key, source in sources.items():
                nodes[name].add(Text(f"{key:<5} {source}", style="dim"))
    if size is None:
        own = root.add(Text("custom", style="bold"))
        own.add(Text("model.path=DIRECTORY or HUB_ID, model.parent=STAGE or null", style="dim"))
    _console().print(root)


def show_entries(rows: Sequence[EntryRow], root: Path, none: str) -> None:
    """Print entries of the store.

    Args:
        rows: the entries.
        root: folder of the store.
        none: what to say when there is none.
    """
    console = _console()
    if not rows:
        _line(console, f"{root}: {none}")
        return
    table = Table(title=Text(str(root)), title_justify="left")
    for name in ("state", "stage", "captures", "layers", "examples", "MB", "used (UTC)", "folder"):
        table.add_column(name, overflow="fold")
    for row in rows:
        counts = [str(row.n_layers), str(row.n_examples), f"{row.n_bytes / 1e6:.1f}"]
        used = f"{datetime.fromtimestamp(row.used, UTC):%Y-%m-%d %H:%M}"
        cells = [row.state, row.stage, ", ".join(row.captures), *counts, used, row.folder.name[:12]]
        table.add_row(*map(Text, cells))
    console.print(table)
    for row in rows:
        if row.problem:
            _line(console, row.problem)


def _console() -> Console:
    # In a file or a pipe rich assumes 80 columns, too few for a table with intervals.
    return Console() if Console().is_terminal else Console(width=_PIPED_WIDTH)


def _line(console: Console, text: str) -> None:
    # Paths and commands are for copying: never wrapped, never coloured by guess.
    console.print(text, markup=False, highlight=False, soft_wrap=True)
