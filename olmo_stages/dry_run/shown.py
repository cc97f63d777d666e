"""A dry run as tables for the terminal, or as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from olmo_stages import plan
from olmo_stages.command import changes_job
from olmo_stages.dry_run import hours
from olmo_stages.dry_run.forecast import Step
from olmo_stages.dry_run.rehearsal import Rehearsal, Row, Submission
from olmo_stages.report.layout import NOTHING, new_console, new_table, put_line, put_text

_STYLES = {"done": "cyan", "unknown": "yellow", "error": "bold red"}
_ABOUT = ("stage", "reference", "size", "analysis", "data")
# What the columns show already.
_SHOWN = {"model", "reference", "size", "analysis", "data", "model.revision", "model.path"}


def show(
    found: Rehearsal,
    where: str,
    submissions: Sequence[Submission],
    *,
    scripts: bool,
    console: Console | None = None,
) -> None:
    """Print the jobs, what is left to compute, what would be submitted, and how long it takes.

    Args:
        found: what was found out.
        where: where the jobs would run.
        submissions: what would be submitted to Slurm; none elsewhere.
        scripts: whether to print the scripts, too.
        console: to print to; None = standard output.
    """
    console = console or new_console()
    console.print(_jobs(found.rows))
    for number, row in enumerate(found.rows, 1):
        if row.error:
            put_text(console, f"job {number}: {row.error}", style="red")
    for line in (
        *_in_short(found, where),
        *_submitted(submissions),
        *_gpus(found),
        *_estimated(found),
    ):
        put_text(console, line)
    for line in _assumptions(found):
        put_line(console, f"  {line}", style="dim")
    for it in submissions if scripts else ():
        console.print()
        for line in it.script.rstrip().splitlines():
            put_line(console, line)


def to_json(found: Rehearsal, where: str, submissions: Sequence[Submission]) -> str:
    """The same as JSON; numbers of steps count from 0."""
    gpu, cpu = (sum(found.hours(it)) for it in ("cuda", "cpu"))
    content = {
        "where": where,
        "jobs": [_job(row) for row in found.rows],
        "steps": [
            _step(step, seconds) for step, seconds in zip(found.steps, found.seconds, strict=True)
        ],
        "submitted": [asdict(it) for it in submissions],
        "n": {
            **{it: found.n[it] for it in ("done", "missing", "unknown", "error")},
            "forward_passes": _count(found.steps, "activations"),
            "responses": _count(found.steps, "responses"),
        },
        "is_exact": found.is_exact,
        "gpu_hours": round(gpu, 6),
        "cpu_hours": round(cpu, 6),
        "download_bytes": found.to_download,
        "gpus": {size: list(it) for size, it in found.gpus.items()},
        "to_train": list(found.to_train),
        "assumptions": hours.ASSUMPTIONS,
    }
    return json.dumps(content, indent=2)


def _job(row: Row) -> dict[str, Any]:
    told = row.told
    known = row.runs and told is not None
    return {
        "job": row.asked.job,
        "state": row.state,
        "before": row.asked.before,
        "error": row.error,
        "about": dict(row.about),
        "steps": list(told.steps) if told else [],
        "shared": list(told.shared) if told else [],
        "n_stored": told.n_stored if told else 0,
        "tells_all": told.is_whole if told else False,
        "seconds": round(row.seconds, 1) if known else None,
        "analysis_seconds": row.analysis_s,
    }


def _step(step: Step, seconds: float | None) -> dict[str, Any]:
    return {
        "kind": step.kind,
        "stage": step.stage.label,
        "size": step.stage.size,
        "data": step.data,
        "captures": [list(it) for it in step.captures],
        "layers": None if step.layers is None else list(step.layers),
        "device": step.device,
        "seconds": None if seconds is None else round(seconds, 1),
        "is_here": step.is_here,
    }


def _jobs(rows: Sequence[Row]) -> Table:
    values = {it: {row.about.get(it, "") for row in rows if row.about.get(it)} for it in _ABOUT}
    columns = [it for it in _ABOUT if len(values[it]) > 1 or it in {"stage", "reference"}]
    same = [f"{it} {min(values[it])}" for it in _ABOUT if it not in columns and values[it]]
    table = new_table(f"dry run: {', '.join(same)}" if same else "dry run", "")
    others = _others(rows)
    first_to_need = {step: n for n, row in enumerate(rows, 1) for step in _own(row)}
    table.add_column("", justify="right", no_wrap=True)
    for name in columns:
        table.add_column(name, overflow="fold")
    if any(others):
        table.add_column("with", overflow="fold")
    table.add_column("state", overflow="fold")
    for name in ("to compute", "shared with job", "in the store", "about"):
        table.add_column(name, justify="right")
    for number, (row, words) in enumerate(zip(rows, others, strict=True), 1):
        told = row.told
        shared = sorted({first_to_need[it] for it in told.shared}) if told else []
        counts = (
            [
                str(len(told.steps)) + ("" if told.is_whole else "+"),
                _list(shared),
                str(told.n_stored),
                plan.duration(row.seconds) + ("" if row.analysis_s is not None else "+"),
            ]
            if row.runs and told
            else [NOTHING] * 4
        )
        cells = [str(number), *(row.about.get(it) or NOTHING for it in columns)]
        cells += [" ".join(words)] if any(others) else []
        state = row.state + (f" ({row.asked.before})" if row.asked.before else "")
        table.add_row(*map(Text, cells), Text(state, _STYLES.get(row.state, "")), *counts)
    return table


def _own(row: Row) -> Sequence[int]:
    return () if row.told is None else row.told.steps


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers)) or NOTHING


def _others(rows: Sequence[Row]) -> list[list[str]]:
    """What tells jobs apart besides what the columns show."""
    words = [[it for it in row.asked.overrides if changes_job(it)] for row in rows]
    everywhere = set.intersection(*map(set, words)) if words else set()
    return [
        [it for it in of_job if it not in everywhere and it.lstrip("+").split("=")[0] not in _SHOWN]
        for of_job in words
    ]


def _count(steps: Iterable[Step], kind: str) -> int:
    return sum(it.kind == kind for it in steps)


def _in_short(found: Rehearsal, where: str) -> list[str]:
    n = found.n
    to_run = n["missing"] + n["unknown"]
    lines = [
        f"{_n(len(found.rows), 'job')}: {n['done']} done, {to_run} to run {where}"
        + (f", {n['error']} that cannot run" if n["error"] else "")
    ]
    if n["unknown"]:
        lines.append(
            "unknown: what would tell whether a result is this job's is not on this machine"
        )
    passes, responses = (_count(found.steps, it) for it in ("activations", "responses"))
    about = "" if found.is_exact else "about "
    what = [_n(passes, "forward pass", "forward passes")]
    what += [f"{_n(responses, 'writing', 'writings')} of responses"] if responses else []
    said = f"{about}{' and '.join(what)}{_which(found.steps)}" if found.steps else "nothing"
    lines.append(f"to compute: {said}")
    if found.to_download:
        total = sum(found.to_download.values()) / 1e9
        lines.append(f"to download: {total:.1f} GB ({', '.join(found.to_download)})")
    if found.to_train:
        lines.append(f"to train first, of the miniature family: {', '.join(found.to_train)}")
    return lines


def _which(steps: Sequence[Step]) -> str:
    """Whose passes these are, each as often as it runs."""
    names = [
        f"{step.stage.label}" + (" (responses)" if step.kind == "responses" else "")
        for step in steps
    ]
    counted = {it: names.count(it) for it in dict.fromkeys(names)}
    said = [name if n == 1 else f"{n} x {name}" for name, n in counted.items()]
    return f" ({', '.join(said)})" if said else ""


def _submitted(submissions: Sequence[Submission]) -> list[str]:
    if not submissions:
        return []
    return [
        f"to submit: {_n(len(submissions), 'array')}",
        *(f"  size={it.size}: {_n(len(it.jobs), 'job')}, each {it.asks}" for it in submissions),
    ]


def _gpus(found: Rehearsal) -> list[str]:
    return [
        f"a model of size={size} fits {' or '.join(gpus) or 'no GPU that is known here'}"
        for size, gpus in found.gpus.items()
    ]


def _estimated(found: Rehearsal) -> list[str]:
    lines: list[str] = []
    for device, unit in (("cuda", "GPU hours"), ("cpu", "CPU hours")):
        own = [row for row in found.rows if row.runs and _on(row) == device]
        if own:
            steps, analyses = found.hours(device)
            parts = f"forward passes and responses {_hours(steps)}, analyses {_hours(analyses)}"
            unknown = sum(row.analysis_s is None for row in own)
            more = f", the analyses of {_n(unknown, 'job')} not counted" if unknown else ""
            lines.append(f"estimate: {_hours(steps + analyses)} {unit} ({parts}{more})")
    if missing := sum(it is None for it in found.seconds):
        lines.append(f"not counted: {_n(missing, 'step')} of models or data of unknown size")
    for number, row in enumerate(found.rows, 1):
        limit = row.place.minutes
        if row.runs and limit is not None and row.seconds > 60 * limit:
            lines.append(
                f"job {number} takes about {_hours(row.seconds / 3600)} h, longer than its limit "
                f"of {_hours(limit / 60)} h: it would go on in a new one"
            )
    return lines


def _assumptions(found: Rehearsal) -> list[str]:
    """What the estimates stand on, where there are any."""
    if not any(row.runs for row in found.rows):
        return []
    writes = any(it.kind == "responses" for it in found.steps)
    return [it for it in hours.ASSUMPTIONS if writes or it != hours.OF_RESPONSES]


def _on(row: Row) -> str:
    return "cuda" if row.place.gpus else "cpu"


def _hours(value: float) -> str:
    return (
        "less than 0.01" if 0 < value < 0.01 else f"{value:.2f}" if value < 10 else f"{value:.0f}"
    )


def _n(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
