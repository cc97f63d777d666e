"""Tables for the terminal: one job over its layers, one sweep over its jobs.

Columns come from what a result holds, never from the name of an analysis.
"""

import math
import string
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement as Width
from rich.table import Table
from rich.text import Text

from olmo_stages.records import Job
from olmo_stages.statuses import Status
from olmo_stages.types import EMBEDDING_LAYER, Measurement, Result

_TYPES = {"sliding_attention": "S", "full_attention": "F", "embedding": "E"}
_LEGEND = {"S": "S = sliding attention", "F": "F = full attention", "E": "E = embeddings"}
_NOTHING = "-"
_STYLES = {"ok": "green", "cached": "cyan", "running": "yellow"}
_LONGEST_ERROR = 200
_WIDE = 10_000
# What the columns of a sweep's table show already.
_SHOWN = {"model", "data", "analysis", "size", "reference", "model.revision", "model.path"}


def job_table(result: Result, job: Job, width: int = 100) -> Table:
    """One row a layer of the stage, one column a metric.

    The rows are those of the main variant: the one named like the analysis, or without a name.
    Intervals are shown for the first metric and for comparisons with a reference; where that is
    too wide, for the first metric only; then the log loss goes, which nobody compares by, and then
    all intervals.

    Args:
        result: what the analysis returned.
        job: what was run; names the table.
        width: how many columns the terminal has.

    Returns:
        A table whose numbers are whole, be it too wide; its caption explains the letters.
    """
    main = _main(result, job)
    first = main[0].metric if main else ""
    compared = {row.metric for row in main if row.reference}
    table = _layers(result, job, {first} | compared)
    for intervals, left_out in (({first}, ""), ({first}, "log_loss"), (set[str](), "log_loss")):
        if needed_width(table) <= width:
            break
        table = _layers(result, job, intervals, left_out)
    return unclipped(table, width)


def needed_width(table: Table) -> int:
    """How many columns a table needs without clipping what must not be broken."""
    console = Console(width=_WIDE)
    return Width.get(console, console.options, table).minimum


def unclipped(table: Table, width: int) -> Table:
    """Make a table wider than the terminal rather than have rich clip its numbers."""
    table.width = needed if (needed := needed_width(table)) > width else None
    return table


def _layers(result: Result, job: Job, wide: set[str], left_out: str = "") -> Table:
    """The table of a job with intervals for the metrics `wide`."""
    main = [row for row in _main(result, job) if row.metric != left_out]
    metrics = list(dict.fromkeys(row.metric for row in main))
    first = metrics[0] if metrics else ""
    notes = list(dict.fromkeys(row.note for row in main if row.note))
    with_p = any(row.p_max is not None for row in main if row.metric == first)
    table = _table(_title(job), _caption(main, notes))
    table.add_column("layer", justify="right", no_wrap=True)
    table.add_column("type", no_wrap=True)
    for metric in metrics:
        table.add_column(Text(metric.replace("_", "\n")), justify="right", no_wrap=True)
    table.add_column("p max" if with_p else "", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)  # letters of the notes
    best = best_layer(result)
    for layer in sorted({row.layer for row in main}, key=_layer_order):
        at = {row.metric: row for row in main if row.layer == layer}
        cells = [_layer(layer), next((_TYPES.get(row.layer_type, "") for row in at.values()), "")]
        cells += [_number(at.get(metric), wide=metric in wide) for metric in metrics]
        cells += [_p(at.get(first)), _letters(at.values(), notes)]
        is_best = layer is not None and layer == best
        table.add_row(*(Text(cell) for cell in cells), style="bold" if is_best else None)
    return _whole(table)


def comparison_table(result: Result, job: Job, width: int = 100) -> Table | None:
    """What the main number has to be compared with: baselines, controls, reference, transfer.

    Rows are the other variants of the first metric, and the metrics that the main variant does
    not have, at the best layer or over all layers.

    Args:
        result: what the analysis returned; its headline names the best layer.
        job: what was run.
        width: how many columns the terminal has.

    Returns:
        None if there is nothing to compare with.
    """
    main = _main(result, job)
    best = best_layer(result)
    own = {row.metric for row in main}
    first = main[0].metric if main else ""
    others = [
        row
        for row in result.measurements
        if row not in main
        and row.layer in {best, None, EMBEDDING_LAYER}
        and row.metric in {first} | _not(own, row)
    ]
    if not others:
        return None
    shown = [row for row in main if row.metric == first and row.layer == best]
    table = _table(f"compared with, at layer {_layer(best)}" if best is not None else "others", "")
    for name in ("variant", "metric"):
        table.add_column(name, overflow="fold")
    table.add_column("layer", justify="right")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for row in [*shown, *others]:
        cells = [row.variant or job.analysis, row.metric.replace("_", " "), _layer(row.layer)]
        cells += [_number(row, wide=True), row.note]
        table.add_row(*(Text(cell) for cell in cells), style="bold" if row in shown else None)
    return unclipped(_whole(table), width)


def sweep_table(statuses: Sequence[Status], title: str = "", width: int = 100) -> Table:
    """One row a job: what it was, its headline, and how it ended.

    Args:
        statuses: the jobs, in the order of the rows.
        title: name of the sweep.
        width: how many columns the terminal has.

    Returns:
        A table whose columns are the stage, whatever else tells the jobs apart, the overrides that
        differ, the headlines' keys in the order they come, and the state. A failed job has its
        reason in a row below.
    """
    about = _telling(statuses)
    differing = _differing(statuses)
    options = [key for key in differing if key not in _SHOWN]
    heads = list(dict.fromkeys(key for status in statuses for key in status.headline))
    table = _table(title, "")
    for name in [*(about or ["job"]), *options]:
        table.add_column(Text(name), overflow="fold")
    for head in heads:
        numeric = any(isinstance(it.headline.get(head), int | float) for it in statuses)
        table.add_column(Text(head), justify="right" if numeric else "left", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for status in statuses:
        names = [status.about.get(name, "") for name in about]
        if not status.about:
            own = [key for key in differing if key in _SHOWN] if about else differing
            names = [_job_name(status, own or differing), *names[1:]]
        names += [_settings(status).get(key, "") for key in options]
        values = [_value(status.headline.get(head)) for head in heads]
        state = Text(status.state, style=_STYLES.get(status.state, "bold red"))
        table.add_row(*(Text(cell) for cell in names + values), state)
    failed = [it for it in statuses if it.error]
    table.caption = Text(
        "\n".join(f"{_job_name(it, differing)}: {_one_line(it.error)}" for it in failed)
    )
    return unclipped(_whole(table), width)


def best_layer(result: Result) -> int | None:
    """Return the layer that the headline names, if it does."""
    layer = result.headline.get("best layer", result.headline.get("layer"))
    return layer if isinstance(layer, int) else None


def _main(result: Result, job: Job) -> list[Measurement]:
    return [row for row in result.measurements if row.variant in {"", job.analysis}]


def _not(own: set[str], row: Measurement) -> set[str]:
    return set() if row.metric in own else {row.metric}


def _table(title: str, caption: str) -> Table:
    return Table(
        title=Text(title) if title else None,
        caption=Text(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def _title(job: Job) -> str:
    reference = "" if job.reference is None else f" against {job.reference.label}"
    return f"{job.analysis} · {job.stage.label} ({job.stage.size}){reference} · {job.data}"


def _caption(rows: Sequence[Measurement], notes: Sequence[str]) -> str:
    kinds = {_TYPES.get(row.layer_type, "") for row in rows}
    legend = ", ".join(text for kind, text in _LEGEND.items() if kind in kinds)
    lines = [f"{_letter(index)}: {note}" for index, note in enumerate(notes)]
    if any(row.p_max is not None for row in rows):
        lines.insert(0, "p max: p against the null of the maximum over layers")
    return "\n".join([legend, *lines] if legend else lines)


def _letters(rows: Iterable[Measurement], notes: Sequence[str]) -> str:
    return " ".join(sorted({_letter(notes.index(row.note)) for row in rows if row.note}))


def _letter(index: int) -> str:
    letters = string.ascii_lowercase
    return letters[index] if index < len(letters) else str(index + 1)


def _layer_order(layer: int | None) -> float:
    return math.inf if layer is None else float(layer)


def _layer(layer: int | None) -> str:
    if layer is None:
        return "all"
    return "emb" if layer == EMBEDDING_LAYER else str(layer)


def _number(row: Measurement | None, *, wide: bool) -> str:
    if row is None:
        return _NOTHING
    digits = "+.3f" if row.metric.endswith("difference") else ".3f"
    text = _plain(row.value, digits)
    if wide and row.ci_low is not None and row.ci_high is not None:
        # Two digits, unless rounding would show an interval that leaves its value out.
        kept = round(row.ci_low, 2) <= round(row.value, 3) <= round(row.ci_high, 2)
        short = digits.replace("3", "2") if kept else digits
        text += f" [{_plain(row.ci_low, short)}, {_plain(row.ci_high, short)}]"
    return text


def _p(row: Measurement | None) -> str:
    return "" if row is None or row.p_max is None else _plain(row.p_max, ".3g")


def _plain(value: float, digits: str) -> str:
    return format(value, digits) if math.isfinite(value) else _NOTHING


def _value(value: str | float | int | None) -> str:
    if value is None:
        return _NOTHING
    return _plain(value, ".3f") if isinstance(value, float) else str(value)


def _telling(statuses: Sequence[Status]) -> list[str]:
    names = dict.fromkeys(name for status in statuses for name in status.about)
    known = [status.about for status in statuses if status.about]
    differing = [name for name in names if len({about.get(name, "") for about in known}) > 1]
    return list(dict.fromkeys([*(["stage"] if "stage" in names else []), *differing]))


def _settings(status: Status) -> dict[str, str]:
    """What the sweep set for a job, by option."""
    pairs = (override.lstrip("+~").partition("=") for override in status.overrides)
    return {key: value for key, _, value in pairs}


def _differing(statuses: Sequence[Status]) -> list[str]:
    """The options that the jobs of a sweep do not share."""
    settings = [_settings(status) for status in statuses]
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if len({each.get(key) for each in settings}) > 1]


def _job_name(status: Status, keys: Sequence[str]) -> str:
    settings = _settings(status)
    own = " ".join(f"{key}={settings[key]}" for key in keys if key in settings)
    return own or status.about.get("stage") or " ".join(status.overrides) or status.job


def _whole(table: Table) -> Table:
    """Let no column that must not be broken be narrower than its longest cell."""
    for column in table.columns:
        if column.no_wrap:
            lines = [
                line for cell in (column.header, *column.cells) for line in str(cell).splitlines()
            ]
            column.min_width = max(map(cell_len, lines), default=0)
    return table


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 1] + "…"
