"""Tables for the terminal: one job over its layers, one sweep over its jobs.

Columns come from what a result holds, never from the name of an analysis.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter

from rich.table import Table
from rich.text import Text

from olmo_stages.figures.wording import SMALL, as_in, needed, written
from olmo_stages.records import Job
from olmo_stages.report.layout import (
    NOTHING,
    letter,
    needed_width,
    new_table,
    plain,
    printable,
    unclipped,
    whole,
)
from olmo_stages.statuses import Status
from olmo_stages.types import EMBEDDING_LAYER, Measurement, Result

_TYPES = {"sliding_attention": "S", "full_attention": "F", "embedding": "E"}
_LEGEND = {"S": "S = sliding attention", "F": "F = full attention", "E": "E = embeddings"}
_STYLES = {"ok": "green", "cached": "cyan"} | dict.fromkeys(
    ("queued", "running", "stopped"), "yellow"
)
_LONGEST_ERROR = 200
_LONGEST_VARIANT = 30  # longer ones, with the names of traits in them, are folded
SINGLE = 1e-7
"""Relative resolution of activations in single precision."""
# What the columns of a sweep's table show already.
_SHOWN = {"model", "data", "analysis", "size", "reference", "model.revision", "model.path"}


def job_table(result: Result, job: Job, width: int = 100) -> Table:
    """One row a layer of the stage, one column a metric.

    The rows are those of the main variant: the one named like the analysis, or without a name, or
    else that of the first row. Metrics over pairs of layers, and numbers about all layers of a
    type, have no place in it. Intervals are shown for the first metric and for comparisons with a
    reference; where that is too wide, for the first metric only; then the log loss goes, which
    nobody compares by, and then all intervals.

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


def _layers(result: Result, job: Job, wide: set[str], left_out: str = "") -> Table:
    """The table of a job with intervals for the metrics `wide`."""
    main = [row for row in _main(result, job) if row.metric != left_out]
    metrics = list(dict.fromkeys(row.metric for row in main))
    first = metrics[0] if metrics else ""
    notes = list(dict.fromkeys(row.note for row in main if row.note))
    with_p = any(row.p_max is not None for row in main if row.metric == first)
    table = new_table(_title(job), _caption(main, notes))
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
    return whole(table)


def comparison_table(result: Result, job: Job, width: int = 100) -> Table | None:
    """What the main number has to be compared with: baselines, controls, reference, transfer.

    Rows are the other variants of the first metric, the metrics that the main variant does not
    have, and the main variant's numbers about all layers of a type, at the layer of the headline or
    over all layers. Of several traits the first one is shown, and with dominant dimensions as they
    are; only of the first metric all is shown that the files hold.

    Args:
        result: what the analysis returned; its headline names the layer.
        job: what was run.
        width: how many columns the terminal has.

    Returns:
        None if there is nothing to compare with.
    """
    main = _main(result, job)
    best = best_layer(result)
    own = {row.metric for row in main}
    first = main[0].metric if main else ""
    rows = _off_maps(result.measurements)
    variants = _main_variants(rows, job)
    others = [
        row
        for row in rows
        if row.layer in {best, None, EMBEDDING_LAYER}
        and (
            row.metric == first
            or row.metric not in own
            or (_is_about_a_type(row) and row.variant in variants)
        )
        and (row.metric == first or (row.trait == rows[0].trait and not _is_second(row, rows)))
        and row not in main
    ]
    if not others:
        return None
    shown = [row for row in main if row.metric == first and row.layer == best]
    table = new_table(
        f"compared with, at layer {_layer(best)}" if best is not None else "others", ""
    )
    several = len({row.trait for row in rows}) > 1
    for name in ("variant", "metric"):
        table.add_column(name, overflow="fold")
    table.add_column("layer", justify="right")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for row in [*shown, *others]:
        name = " · ".join(filter(None, [row.trait if several else "", row.variant]))
        cells = [name or job.analysis, row.metric.replace("_", " "), _place(row)]
        cells += [_number(row, wide=True), row.note]
        table.add_row(*(Text(cell) for cell in cells), style="bold" if row in shown else None)
    variants = table.columns[0]
    variants.no_wrap = max(len(str(cell)) for cell in variants.cells) <= _LONGEST_VARIANT
    return unclipped(whole(table), width)


def sweep_table(statuses: Sequence[Status], title: str = "", width: int = 100) -> Table:
    """One row a job: what it was, its headline, and how it ended.

    Args:
        statuses: the jobs, in the order of the rows.
        title: name of the sweep.
        width: how many columns the terminal has.

    Returns:
        A table whose columns are the stage, whatever else tells the jobs apart, the overrides that
        differ, the headlines' keys in the order they come, and the state. Measurements have their
        intervals; where that is too wide, only the first one and differences have.
    """
    rows = [(head, it) for status in statuses for head, it in status.headline.items()]
    wide = list(dict.fromkeys(head for head, it in rows if isinstance(it, Measurement)))
    compared = {
        head
        for head, it in rows
        if isinstance(it, Measurement) and it.metric.endswith("difference")
    }
    droppable = [head for head in wide[1:] if head not in compared]
    table = _jobs(statuses, title, wide)
    while droppable and needed_width(table) > width:
        wide.remove(droppable.pop())
        table = _jobs(statuses, title, wide)
    return unclipped(table, width)


def _jobs(statuses: Sequence[Status], title: str, wide: Sequence[str]) -> Table:
    """The table of a sweep with intervals in the columns `wide`."""
    about = _telling(statuses)
    differing = _differing(statuses)
    options = [key for key in differing if key not in _SHOWN]
    heads = list(dict.fromkeys(key for status in statuses for key in status.headline))
    table = new_table(title, "")
    for name in [*(about or ["job"]), *options]:
        table.add_column(Text(name), overflow="fold")
    for head in heads:
        numeric = head not in wide and any(
            isinstance(it.headline.get(head), int | float | Measurement) for it in statuses
        )
        table.add_column(Text(head), justify="right" if numeric else "left", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for status in statuses:
        names = [status.about.get(name, "") for name in about]
        if not status.about:
            own = [key for key in differing if key in _SHOWN] if about else differing
            names = [_job_name(status, own or differing), *names[1:]]
        names += [_settings(status).get(key, "") for key in options]
        values = [_value(status.headline.get(head), wide=head in wide) for head in heads]
        state = Text(status.state, style=_STYLES.get(status.state, "bold red"))
        table.add_row(*(Text(cell) for cell in names + values), state)
    return whole(table)


def reasons(statuses: Sequence[Status]) -> list[tuple[str, str]]:
    """Of the jobs that are not done: name, and why, in one line."""
    differing = _differing(statuses)
    undone = [it for it in statuses if it.error]
    return [(it.job, f"{_job_name(it, differing)}: {_one_line(it.error)}") for it in undone]


def best_layer(result: Result) -> int | None:
    """Return the layer that the headline names, if it does: its first key that ends in `layer`."""
    named = [value for key, value in result.headline.items() if key.endswith("layer")]
    return named[0] if named and isinstance(named[0], int) else None


def _off_maps(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The rows of the metrics that set a layer beside its own counterpart, if beside any.

    Of a metric over pairs of layers (a map, or the best match of each layer) no row is kept: those
    about the same layer alone would pass for a whole column.
    """
    maps = {row.metric for row in measurements if row.pairs_layers}
    return [row for row in measurements if row.metric not in maps]


def _is_about_a_type(row: Measurement) -> bool:
    return row.layer is None and row.layer_type != ""


def _is_second(row: Measurement, rows: Sequence[Measurement]) -> bool:
    """Whether it says of scaled-down dimensions what another row says of them as they are."""
    first = replace(row, variant=row.variant.replace("standardised", "raw"))
    about = attrgetter("metric", "variant", "trait", "layer", "layer_type")
    return first.variant != row.variant and about(first) in map(about, rows)


def _main_variants(rows: Sequence[Measurement], job: Job) -> set[str]:
    usual = {"", job.analysis}
    if not rows or any(row.variant in usual for row in rows):
        return usual
    return {rows[0].variant}


def _main(result: Result, job: Job) -> list[Measurement]:
    rows = _off_maps(result.measurements)
    rows = [row for row in rows if row.trait == rows[0].trait]
    variants = _main_variants(rows, job)
    main = [row for row in rows if row.variant in variants and not _is_about_a_type(row)]
    layered = {row.metric for row in main if row.layer is not None}
    # A metric without layers would be a column of dashes beside those that have them.
    return [row for row in main if not layered or row.metric in layered]


def _title(job: Job) -> str:
    reference = "" if job.reference is None else f" against {job.reference.label}"
    return f"{job.analysis} · {job.stage.label} ({job.stage.size}){reference} · {job.data}"


def _caption(rows: Sequence[Measurement], notes: Sequence[str]) -> str:
    kinds = {_TYPES.get(row.layer_type, "") for row in rows}
    legend = ", ".join(text for kind, text in _LEGEND.items() if kind in kinds)
    lines = [f"{letter(index)}: {printable(note)}" for index, note in enumerate(notes)]
    if any(row.p_max is not None for row in rows):
        lines.insert(0, "p max: p against the null of the maximum over layers (or pairs of layers)")
    return "\n".join([legend, *lines] if legend else lines)


def _letters(rows: Iterable[Measurement], notes: Sequence[str]) -> str:
    return " ".join(sorted({letter(notes.index(row.note)) for row in rows if row.note}))


def _layer_order(layer: int | None) -> float:
    return math.inf if layer is None else float(layer)


def _layer(layer: int | None) -> str:
    if layer is None:
        return "all"
    return "emb" if layer == EMBEDDING_LAYER else str(layer)


def _place(row: Measurement) -> str:
    """Return the layer of a number, or the type of the layers that it is about."""
    if _is_about_a_type(row):
        return row.layer_type.removesuffix("_attention")
    return _layer(row.layer)


def _number(row: Measurement | None, *, wide: bool) -> str:
    if row is None:
        return NOTHING
    digits = "+.3f" if _is_change(row) else ".3f"
    same = wide and _spread(row) and _rounded(row.ci_low) == _rounded(row.ci_high)
    tiny = row.metric.endswith("change") and abs(row.value) < SMALL
    near = needed(row.value, row.ci_low if wide else None, row.ci_high if wide else None) > 3
    if same or tiny or near:
        ends = (row.ci_low, row.ci_high) if wide else (None, None)
        return written(row.value, *ends)
    text = _whole(row.value, digits)
    if wide and row.ci_low is not None and row.ci_high is not None:
        # Two digits, unless rounding would show an interval that leaves its value out.
        kept = round(row.ci_low, 2) <= round(row.value, 3) <= round(row.ci_high, 2)
        short = digits.replace("3", "2") if kept else digits
        text += f" [{_whole(row.ci_low, short)}, {_whole(row.ci_high, short)}]"
    return text


def _whole(value: float, digits: str) -> str:
    """As `plain`, but nothing is shown as 0 that is not."""
    return as_in(value, digits) if math.isfinite(value) else NOTHING


def _is_change(row: object) -> bool:
    return isinstance(row, Measurement) and row.metric.endswith(("difference", "change"))


def _spread(row: Measurement) -> bool:
    """Whether the ends of an interval differ by more than single precision tells apart."""
    if row.ci_low is None or row.ci_high is None:
        return False
    return row.ci_high - row.ci_low > SINGLE * abs(row.value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _p(row: Measurement | None) -> str:
    return "" if row is None or row.p_max is None else plain(row.p_max, ".3g")


def _value(value: str | float | int | Measurement | None, *, wide: bool) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, Measurement):
        ends = (value.ci_low, value.ci_high) if wide else (None, None)
        sign = "+" if _is_change(value) else ""
        return written(value.value, *ends, sign=sign) if math.isfinite(value.value) else NOTHING
    if not isinstance(value, float):
        return str(value)
    return written(value) if math.isfinite(value) else NOTHING


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


def _one_line(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 1] + "…"
