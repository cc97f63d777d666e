"""Stages along training, as a table for the terminal: one row a stage, one column a number."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from olmo_stages.figures.wording import or_gap, written
from olmo_stages.report.layout import NOTHING, needed_width, new_table, unclipped, whole
from olmo_stages.report.terminal import best_layer
from olmo_stages.types import Measurement, Result

_SUFFIX = "_trajectory"
_Column = tuple[str, str]
"""Metric and variant."""


def along_tables(result: Result, order: Sequence[str], title: str, width: int = 100) -> list[Table]:
    """The numbers of each stage at the layer of the headline, a table for each reference.

    Args:
        result: what was assembled; its metrics end in `_trajectory`.
        order: labels of the stages in the order of the rows.
        title: name of the tables.
        width: how many columns the terminal has; where it is too narrow, intervals but the
            first column's go, then columns from the right.

    Returns:
        None of them where the headline names no layer or there is no such metric. The second scale
        of a metric and further traits are left out.
    """
    layer = best_layer(result)
    rows = [it for it in result.measurements if it.metric.endswith(_SUFFIX) and it.layer == layer]
    if layer is None:
        return []
    own = [it for it in rows if it.trait == rows[0].trait and "standardised" not in it.variant]
    return [
        _of_reference([it for it in own if it.reference == reference], order, title, width)
        for reference in dict.fromkeys(it.reference for it in own)
    ]


def _of_reference(
    rows: Sequence[Measurement], order: Sequence[str], title: str, width: int
) -> Table:
    trait, reference, layer = rows[0].trait, rows[0].reference, rows[0].layer
    about = [title, *([trait] if trait else []), f"layer {layer}"]
    name = " · ".join(about) + (f" against {reference}" if reference else "")
    cells: dict[_Column, dict[str, Measurement]] = {}
    for row in rows:
        cells.setdefault((row.metric, row.variant), {})[row.stage] = row
    columns = [column for column, own in cells.items() if len(own) > 1]
    used = [label for label in order if any(label in cells[column] for column in columns)]
    shown = {column: cells[column] for column in columns}
    table = _table(name, shown, used, wide=len(shown))
    while needed_width(table) > width and len(shown) > 1:
        table = _table(name, shown, used, wide=1)
        shown.popitem()
    return unclipped(table, width)


def _table(
    name: str, cells: dict[_Column, dict[str, Measurement]], order: Sequence[str], *, wide: int
) -> Table:
    """The table; the first columns, as many as `wide` says, have intervals."""
    table = new_table(name, "")
    table.add_column("stage", no_wrap=True)
    for index, (metric, variant) in enumerate(cells):
        words = metric.removesuffix(_SUFFIX).split("_")
        head = "\n".join([*words, *([] if variant == "raw" else [variant])])
        table.add_column(Text(head), justify="right", no_wrap=True)
        if index == 0:
            table.add_column("null", justify="right", no_wrap=True)
            table.add_column("p max", justify="right", no_wrap=True)
    for label in order:
        texts = [label]
        for index, own in enumerate(cells.values()):
            texts.append(_number(own.get(label), wide=index < wide))
            if index == 0:
                texts += _chance(own.get(label))
        table.add_row(*map(Text, texts))
    return whole(table)


def _number(row: Measurement | None, *, wide: bool) -> str:
    if row is None or or_gap(row.value) is None:
        return NOTHING
    ends = (or_gap(row.ci_low), or_gap(row.ci_high)) if wide else (None, None)
    return written(row.value, *ends)


def _chance(row: Measurement | None) -> list[str]:
    null = None if row is None else or_gap(row.null)
    p = None if row is None else row.p_max
    return [NOTHING if null is None else written(null), NOTHING if p is None else f"{p:.3g}"]
