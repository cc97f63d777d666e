"""What a person sees in the terminal: after each job, and at the end of a sweep."""

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from olmo_stages import command, miniature
from olmo_stages.activations.cleaning import Cleaned
from olmo_stages.activations.upkeep import EntryRow
from olmo_stages.lineage import LineageKey, lineage_order
from olmo_stages.records import Job, read
from olmo_stages.report.along import along_tables
from olmo_stages.report.layout import NOTHING, new_console, put_line, put_text
from olmo_stages.report.matrix import stage_tables
from olmo_stages.report.terminal import comparison_table, job_table, reasons, sweep_table
from olmo_stages.revisions.names import spelling, spellings_of
from olmo_stages.revisions.twins import Twins, of_folders
from olmo_stages.stages import MINIATURE, Release
from olmo_stages.statuses import Status, log_of
from olmo_stages.types import Result

_ORGANISATION = "allenai"

Placed = tuple[int, Release]
"""A stage and its depth in the tree."""


def show_job(job: Job, result: Result, folder: Path, *, cached: bool, tracked: str | None) -> None:
    """Print a job's tables, its warnings, and where its files are."""
    console = new_console()
    console.print()
    console.print(job_table(result, job, console.width), crop=False)
    if (comparison := comparison_table(result, job, console.width)) is not None:
        console.print(comparison, crop=False)
    for warning in result.warnings:
        put_text(console, f"note: {warning}", style="yellow")
    state = "already done (force=true redoes it)" if cached else "done"
    put_line(console, f"{state}: {folder}")
    if tracked:
        put_line(console, tracked)


def show_sweep(statuses: Sequence[Status], folder: Path) -> None:
    """Print a sweep's table, why jobs are not done, and the command that redoes these."""
    console = new_console()
    console.print()
    place = lineage_order()

    def key(status: Status) -> tuple[str, LineageKey]:
        about = status.about
        return f"{about.get('analysis', '')} {about.get('data', '')}", place(about.get("stage", ""))

    ordered = sorted(statuses, key=key)
    for jobs in _by_analysis(ordered):
        console.print(sweep_table(jobs, folder.name, console.width), crop=False)
        for job, reason in reasons(jobs):
            log = log_of(folder, job)
            put_line(console, f"{reason}; log: {log}" if log.is_file() else reason)
    again = f"olmo-stages report {shlex.quote(str(folder))}"
    put_line(console, f"sweep: {folder}   (again: {again})")
    undone = [status.job for status in statuses if status.state not in {"ok", "cached"}]
    goes_on = any(status.goes_on for status in statuses)
    for again in () if goes_on else command.again(folder, undone):
        put_line(console, f"redo only what is missing: {again}")
    for twins in _same_weights(statuses):
        put_text(console, f"note: {twins}", style="yellow")


def _by_analysis(statuses: Sequence[Status]) -> list[list[Status]]:
    """Jobs of one analysis together: a column means one thing, and headlines are an analysis's own.

    A job that failed early is not known to be of any; it stands with the others if they are of one.
    """
    known = {status.about["analysis"] for status in statuses if "analysis" in status.about}
    if len(known) < 2:
        return [list(statuses)]
    groups = groupby(statuses, key=lambda status: status.about.get("analysis", ""))
    return [list(jobs) for _, jobs in groups]


def show_lines(lines: Sequence[str], *, apart: bool = False) -> None:
    """Print paths and commands, for copying; `apart` = on standard error."""
    console = Console(stderr=True) if apart else new_console()
    for line in lines:
        put_line(console, line)


def _same_weights(statuses: Sequence[Status]) -> tuple[Twins, ...]:
    """Stages of a sweep whose weights are the same, as an upload error makes them."""
    from huggingface_hub import constants  # late: only a sweep's end needs it

    folders = [Path(status.folder) for status in statuses if status.folder is not None]
    return of_folders(folders, Path(constants.HF_HUB_CACHE))


def show_across(folders: Sequence[Path]) -> None:
    """Print what was assembled of a sweep's jobs: stage x stage, along training, notes, folder.

    Raises:
        StoreError: a folder holds no finished result, or a damaged one.
    """
    console = new_console()
    place = lineage_order()
    for folder in folders:
        result = read(folder).result
        stages = {label for it in result.measurements for label in (it.stage, it.reference)}
        order = sorted(stages - {""}, key=place)
        tables = stage_tables(result, order, folder.name, console.width)
        along = along_tables(result, order, folder.name, console.width)
        for table in [*tables, *along]:
            console.print()
            console.print(table, crop=False)
        for warning in result.warnings:
            put_text(console, f"note: {warning}", style="yellow")
        put_line(console, f"all stages together: {folder}")


def show_stages(found: Sequence[Release], *, with_details: bool) -> None:
    """Print the lineage as a tree, with the source of each stage.

    Args:
        found: the stages, parents before children; in one size, or in all.
        with_details: of one size: a table with context, layers, format and revisions.

    Raises:
        ConfigError: conf/model spells a revision in a way that cannot be read.
    """
    if with_details:
        _show_releases(found)
        return
    root = Tree("stages (model=NAME)")
    nodes: dict[str, Tree] = {}
    for it in found:
        if it.name not in nodes:
            parent = (it.parent or "").partition("@")[0]
            nodes[it.name] = nodes.get(parent, root).add(Text(it.name, style="bold"))
        nodes[it.name].add(Text(f"{it.size:<5} {it.source}", style="dim"))
    own = root.add(Text("custom", style="bold"))
    own.add(Text("model.path=DIRECTORY or HUB_ID, model.parent=STAGE or null", style="dim"))
    soup = root.add(Text("soup", style="bold"))
    soup.add(Text("model.of=[NAME@REVISION,...] model.weights=[1,3]", style="dim"))
    new_console().print(root)


def _show_releases(found: Sequence[Release]) -> None:
    """Print the stages of one size as a table a family, each below its parent."""
    console = new_console()
    prefix = f"{_ORGANISATION}/"
    place = lineage_order()
    for family in dict.fromkeys(it.family for it in found):
        members = [it for it in found if it.family == family]
        put_line(console, _shape(members[0]))
        table = Table(box=None)
        for name in ("stage", f"source ({prefix}...)", "format"):
            table.add_column(Text(name), no_wrap=True)
        table.add_column("revisions besides main", overflow="fold")
        for depth, it in _descending(sorted(members, key=lambda it: place(it.name))):
            cells = [" " * depth + it.name, it.source.removeprefix(prefix), it.format or NOTHING]
            table.add_row(*map(Text, [*cells, _branches(it)]))
        console.print(table)
        console.print()
    put_line(console, "N = step (NNNN: padded with zeros), K = ingredient, T = tokens in billions")
    put_line(console, f"which there are: olmo-stages revisions STAGE --size {found[0].size}")


def _descending(found: Sequence[Release], parent: str = "", depth: int = 0) -> list[Placed]:
    """The stages, each followed by its descendants, with their depth in the tree."""
    names = {it.name for it in found}
    placed: list[Placed] = []
    for it in found:
        before = (it.parent or "").partition("@")[0]
        if (before if before in names else "") == parent:
            placed += [(depth, it), *_descending(found, it.name, depth + 1)]
    return placed


def _shape(release: Release) -> str:
    said, shape = f"{release.family} {release.size}", release.shape
    if shape is None:
        return said
    kinds = Counter(kind.removesuffix("_attention") for kind in shape.layer_types)
    layers = " + ".join(f"{n} {kind}" for kind, n in kinds.items())
    said += f": {shape.n_layers} layers ({layers} attention), context {shape.context:,} tokens"
    if shape.pretraining_context is not None:
        said += f" (stage1, stage2: {shape.pretraining_context:,})"
    return said


def _branches(release: Release) -> str:
    if release.source == MINIATURE:
        spellings = spellings_of(miniature.revisions(release.name))
    elif release.branches is None:
        return "not known"
    else:
        spellings = tuple(map(spelling, release.branches))
    return "\n".join(it.text for it in spellings) or "none"


def show_entries(rows: Sequence[EntryRow], root: Path, none: str) -> None:
    """Print entries of the store.

    Args:
        rows: the entries.
        root: folder that they are in.
        none: what to say when there is none.
    """
    console = new_console()
    if not rows:
        put_line(console, f"{root}: {none}")
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
            put_line(console, row.problem)


def show_cleaned(cleaned: Cleaned, root: Path, *, is_dry_run: bool) -> None:
    """Print what went of a cache, and what stays all the same.

    Args:
        cleaned: what `gc` did.
        root: the cache folder.
        is_dry_run: nothing went; this is what would.
    """
    show_entries(cleaned.removed, root, "nothing to remove")
    console = new_console()
    if cleaned.removed:
        n_bytes = sum(row.n_bytes for row in cleaned.removed)
        put_line(console, f"{'would free' if is_dry_run else 'freed'} {n_bytes / 1e6:,.1f} MB")
    for row, why in cleaned.kept:
        what = " ".join(filter(None, [row.stage, ", ".join(row.captures)]))
        size = f"{row.n_bytes / 1e6:,.1f} MB"
        put_line(console, f"kept, {why}: {what + ', ' if what else ''}{size}, {row.folder}")
