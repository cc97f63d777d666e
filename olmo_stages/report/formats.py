"""The lead table of a report for other programs: JSON, CSV, and a Markdown table."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Literal

from olmo_stages.document import Cell, Shift, Study
from olmo_stages.figures.wording import or_gap
from olmo_stages.markdown import escaped
from olmo_stages.report.layout import printable
from olmo_stages.report.lead import (
    NAMING,
    lead_digits,
    lead_marks,
    lead_notes,
    placed,
    words,
)
from olmo_stages.types import Measurement

SCHEMA = 1
"""Version of the JSON object; raised when a field changes its name or meaning."""

Format = Literal["json", "csv", "md"]

_NUMBERS = {
    "low": "ci_low",
    "high": "ci_high",
    "null": "null",
    "p": "p",
    "p_max": "p_max",
    "n": "n",
    "n_groups": "n_groups",
}
"""What is given of a number besides its value, and which field of a measurement it is."""
_SAID = ("note", "holds_unchanged")
"""What is said of a number besides."""
_FORMULA = ("=", "+", "-", "@")


def formatted(study: Study, form: Format) -> str:
    """Return the lead table in a format for other programs."""
    writers: Mapping[Format, Callable[[Study], str]]
    writers = {"json": to_json, "csv": to_csv, "md": to_markdown}
    return writers[form](study)


def to_json(study: Study) -> str:
    """Return the lead table, and what is to be known beside it, as one JSON object.

    Returns:
        An object with `schema`, `title`, `asked`, `question`, `prediction`, `findings`, `columns`
        (what each number is), `lead` (a row a stage), `problems` (jobs without a result),
        `warnings`, `commands`, `sweeps` and `made` (UTC). A number is an object with `value`,
        `low`, `high` (95 % interval), `null`, `p`, `p_max`, `n`, `n_groups`, `note`, `why` (why it
        is not known, or a caveat) and `holds_unchanged` (whether the interval holds the value of
        two equal models or, of a similarity, lies above it: no sign of change). What is
        undefined or unknown is null; there is no NaN.
    """
    found = placed(study)
    columns = study.lead.columns
    rows = [
        {
            head: _object(cell, found.get((index, column)), is_number=column in _numbers(study))
            for column, (head, cell) in enumerate(zip(columns, row, strict=True))
        }
        for index, row in enumerate(study.lead.rows)
    ]
    content = {
        "schema": SCHEMA,
        **{name: getattr(study, name) for name in ("title", "asked", "question", "prediction")},
        "findings": study.findings,
        "columns": _columns(study),
        "lead": rows,
        "problems": [asdict(it) for it in study.problems],
        **{name: getattr(study, name) for name in ("warnings", "commands", "sweeps")},
        "made": study.made.isoformat(),
    }
    return json.dumps(content, indent=2, allow_nan=False)


def to_csv(study: Study) -> str:
    """Return the lead table with a row a stage and ten columns a number.

    Returns:
        Text whose columns are those of the lead table, a number's followed by `NAME_low`,
        `NAME_high`, `NAME_null`, `NAME_p`, `NAME_p_max`, `NAME_n`, `NAME_n_groups`, `NAME_note`
        (a caveat, or why it is not known) and `NAME_holds_unchanged` (as in `to_json`). What is
        undefined or unknown is empty. A text that a spreadsheet would compute has a ' before it.
    """
    numbers, found = _numbers(study), placed(study)
    heads = [
        name
        for column, head in enumerate(study.lead.columns)
        for name in [head, *(f"{head}_{it}" for it in (*_NUMBERS, *_SAID) if column in numbers)]
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_text, heads))
    for index, row in enumerate(study.lead.rows):
        cells = []
        for column, cell in enumerate(row):
            if column in numbers:
                cells += [*_values(cell).values(), *_said(cell, found.get((index, column)))]
            else:
                cells.append(_text(cell))
        writer.writerow(cells)
    return text.getvalue()


def to_markdown(study: Study) -> str:
    """Return the lead table as a Markdown table, numbers with their intervals and marks.

    Below it is what its columns and marks mean.
    """
    heads = [escaped(head) for head in study.lead.columns]
    rule = ["---" if column < NAMING else "---:" for column in range(len(heads))]
    digits = lead_digits(study)
    rows = [
        [
            f"{escaped(it) if isinstance(it, str) else words(it, how)} {mark}".strip()
            for it, mark, how in zip(row, marks, digits, strict=True)
        ]
        for row, marks in zip(study.lead.rows, lead_marks(study), strict=True)
    ]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in [heads, rule, *rows])
    notes = "".join(f"- {escaped(it)}\n" for it in lead_notes(study))
    return table + (f"\n{notes}" if notes else "")


def _numbers(study: Study) -> set[int]:
    """The columns of numbers with intervals, be none of them known."""
    rows = study.lead.rows
    return {
        column
        for column in range(NAMING, len(study.lead.columns))
        if all(isinstance(row[column], Measurement | None) for row in rows)
    }


def _columns(study: Study) -> dict[str, dict[str, Any]]:
    """What each number of the lead table is, by head."""
    found: dict[int, list[Shift]] = {}
    for (_, column), shift in placed(study).items():
        found.setdefault(column, []).append(shift)
    told = {}
    for column in sorted(_numbers(study)):
        head = study.lead.columns[column]
        told[head] = {"says": study.lead.notes.get(head, "")}
        if shifts := found.get(column):
            resampled = dict.fromkeys(it.change.resampled for it in shifts if it.row is not None)
            told[head] |= {
                "unchanged": shifts[-1].change.unchanged,
                "resampled": "; ".join(resampled) or shifts[-1].change.intervals,
                "section": shifts[-1].section,
            }
    return told


def _object(cell: Cell, shift: Shift | None, *, is_number: bool) -> Any:  # noqa: ANN401  (JSON)
    if not is_number:
        return _values(cell)["value"]
    return {
        **_values(cell),
        "note": cell.note if isinstance(cell, Measurement) else "",
        "why": "" if shift is None else shift.why,
        "holds_unchanged": None if shift is None else shift.holds_unchanged,
    }


def _said(cell: Cell, shift: Shift | None) -> list[Cell]:
    """What is said of a number, in the order of `_SAID`."""
    notes = [cell.note if isinstance(cell, Measurement) else "", shift.why if shift else ""]
    held = None if shift is None or shift.holds_unchanged is None else str(shift.holds_unchanged)
    return [_text("; ".join(dict.fromkeys(filter(None, notes)))), held]


def _values(cell: Cell) -> dict[str, Any]:
    """The numbers of a cell; None for what is undefined or unknown."""
    if not isinstance(cell, Measurement):
        value = or_gap(cell) if isinstance(cell, float) else cell
        return {"value": value, **dict.fromkeys(_NUMBERS)}
    more = {name: getattr(cell, of) for name, of in _NUMBERS.items()}
    return {
        name: or_gap(it) if isinstance(it, float) else it
        for name, it in {"value": cell.value, **more}.items()
    }


def _text(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text
