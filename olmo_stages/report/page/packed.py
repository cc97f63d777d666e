"""Figures and the rows behind them, packed small enough that one file can hold them all."""

import base64
import gzip
import json
import math
from typing import Any

import pandas as pd

from olmo_stages.document import Choice, Figure

DIGITS = 7
"""Significant digits of the rows' numbers: what activations in single precision bear."""

_UNUSUAL = {"nan": None, "inf": "Infinity", "-inf": "-Infinity"}
_UNREAD = {"meta", "template"}  # of a layout: the page has its own look, and the captions


def packed(figure: Figure) -> str:
    """Return a figure as base64 of gzipped JSON, which holds no character that HTML knows.

    Returns:
        `{"choices": [{"name", "figure", "rows"}]}`, where `figure` is null if it is no JSON, and
        `rows` is null if there are none, else their number and columns (`{"count", "columns"}`): a
        list, or `{"all": value}` where all rows share it.
    """
    choices = [
        {"name": it.name, "figure": _plotly(it), "rows": _rows(it.rows)} for it in figure.choices
    ]
    text = json.dumps({"choices": choices}, separators=(",", ":"), ensure_ascii=True)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def _plotly(choice: Choice) -> dict[str, Any] | None:
    try:
        # JavaScript knows no NaN in JSON, which Python's reader lets pass.
        figure = json.loads(choice.plotly, parse_constant=lambda _: None)
        layout = figure.get("layout", {})
        kept = {key: value for key, value in layout.items() if key not in _UNREAD}
        return {"data": figure["data"], "layout": kept}
    except (ValueError, KeyError, AttributeError):
        return None


def _rows(rows: pd.DataFrame) -> dict[str, Any] | None:
    if not len(rows):
        return None
    columns = {str(name): _column(column) for name, column in rows.items()}
    return {"count": len(rows), "columns": columns}


def _column(column: pd.Series) -> list[Any] | dict[str, Any]:
    """Values as JSON has them: infinities as JavaScript's names, what is undefined as null."""
    column = column.infer_objects()
    # No function of ours is called by value: there are a million of them in a large study.
    if pd.api.types.is_float_dtype(column.dtype):
        digits = [f"{it:.{DIGITS}g}" for it in column.to_numpy(float, na_value=math.nan)]
        found = [_UNUSUAL[it] if it in _UNUSUAL else float(it) for it in digits]
    else:
        known = column.astype(object).where(column.notna(), None).tolist()
        found = [it if it is None or isinstance(it, int | str) else str(it) for it in known]
    return {"all": found[0]} if all(it == found[0] for it in found) else found
