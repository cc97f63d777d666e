"""Stages against stages, as tables for the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from olmo_stages.report.layout import needed_width, new_table, plain, unclipped, whole
from olmo_stages.types import Measurement, Result

_SIGNED = ("difference", "change")
_Cells = dict[tuple[str, str], Measurement]


def stage_tables(result: Result, order: Sequence[str], title: str, width: int = 100) -> list[Table]:
    """A row a stage, a column a reference: the result's first metric over all layers.

    Args:
        result: what was assembled; the first row about two stages and no layer says which metric
            and variant is shown.
        order: labels of the stages in the order of the rows and columns.
        title: name of the tables.
        width: how many columns the terminal has.

    Returns:
        One table of the numbers about all layers; where there are none, one for each type of layer;
        none where no row is about two stages as wholes. A pair that was not measured is empty,
        one that is undefined a dash. Where the labels are too wide, the columns have numbers.
    """
    rows = [row for row in result.measurements if row.layer is None and row.reference]
    if not rows:
        return []
    shown = [row for row in rows if (row.metric, row.variant) == (rows[0].metric, rows[0].variant)]
    by_type: dict[str, _Cells] = {}
    for row in shown:
        by_type.setdefault(row.layer_type, {})[row.stage, row.reference] = row
    by_type = {"": by_type[""]} if "" in by_type else by_type
    metric = rows[0].metric.removesuffix("_stages").replace("_", " ")
    name = " · ".join([title, metric, *filter(None, [rows[0].variant])])
    tables = []
    for kind, cells in by_type.items():
        used = [label for label in order if any(label in pair for pair in cells)]
        full = f"{name} · {kind.replace('_', ' ') or 'over all layers'}"
        table = _matrix(cells, used, full, numbered=False)
        if needed_width(table) > width:
            table = _matrix(cells, used, full, numbered=True)
        tables.append(unclipped(table, width))
    return tables


def _matrix(cells: _Cells, order: Sequence[str], title: str, *, numbered: bool) -> Table:
    table = new_table(title, "")
    digits = _digits(list(cells.values()))
    table.add_column("", no_wrap=True)
    for index, label in enumerate(order, start=1):
        table.add_column(Text(str(index) if numbered else label), justify="right", no_wrap=True)
    for index, stage in enumerate(order, start=1):
        found = [cells.get((stage, reference)) for reference in order]
        values = ["" if row is None else plain(row.value, digits) for row in found]
        table.add_row(*map(Text, [f"{index} {stage}" if numbered else stage, *values]))
    return whole(table)


def _digits(rows: Sequence[Measurement]) -> str:
    """As few digits as show nothing that is not quite identical as if it were.

    Identical stages have the number 1, or 0 where it is a difference, which has its sign.
    """
    signed = all(row.metric.removesuffix("_stages").endswith(_SIGNED) for row in rows)
    same, sign = (0.0, "+") if signed else (1.0, "")
    values = [row.value for row in rows]
    for digits in (3, 4, 5):
        if all(value == same or float(f"{value:.{digits}f}") != same for value in values):
            return f"{sign}.{digits}f"
    return f"{sign}.6f"
