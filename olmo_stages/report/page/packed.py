"""Figures and the rows behind them, packed small enough that one file can hold them all."""

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from olmo_stages.document import Choice, Section

DIGITS = 7
"""Significant digits of numbers: what activations in single precision bear."""

_WHOLE = 10.0**DIGITS
_UNUSUAL = {"nan": None, "inf": "Infinity", "-inf": "-Infinity"}
_UNREAD = {"meta", "template"}  # of a layout: the page has its own look, and the captions

Place = dict[str, int | list[int]]
"""Where the rows of a choice are: `table` and `runs`, each run a first row and a number of rows."""


@dataclass(frozen=True)
class Packed:
    """The figures of a section, each text base64 of gzipped JSON: no character that HTML knows.

    Args:
        tables: `{"tables": [{column: values}]}`, every row that is behind any of the figures once;
            values are a list, or `{"all": value}` where all rows share it. Empty without rows.
        figures: of each figure `{"choices": [{"name", "caption", "figure", "rows"}]}`, where
            `figure` is null if it is no JSON, and `rows` is null if there are none, else their
            `Place`.
    """

    tables: str
    figures: tuple[str, ...]


def packed(section: Section) -> Packed:
    """Pack the figures of a section; figures that draw the same numbers share their rows."""
    found = [choice.rows for figure in section.figures for choice in figure.choices]
    tables, places = _tables(found)
    place = iter(places)
    figures = [
        [
            {
                "name": it.name,
                "caption": it.caption or figure.caption,
                "figure": _plotly(it),
                "rows": next(place),
            }
            for it in figure.choices
        ]
        for figure in section.figures
    ]
    return Packed(
        _compressed({"tables": tables}) if tables else "",
        tuple(_compressed({"choices": choices}) for choices in figures),
    )


def _compressed(content: dict[str, Any]) -> str:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def _plotly(choice: Choice) -> dict[str, Any] | None:
    try:
        figure = json.loads(
            choice.plotly,
            # JavaScript knows no NaN in JSON, which Python's reader lets pass.
            parse_constant=lambda _: None,
            # Of large numbers, e.g. times, what is small may be what counts.
            parse_float=lambda it: (
                float(f"{float(it):.{DIGITS}g}") if abs(float(it)) < _WHOLE else float(it)
            ),
        )
        layout = figure.get("layout", {})
        kept = {key: value for key, value in layout.items() if key not in _UNREAD}
        return {"data": figure["data"], "layout": kept}
    except (ValueError, KeyError, AttributeError):
        return None


def _tables(frames: Sequence[pd.DataFrame]) -> tuple[list[dict[str, Any]], list[Place | None]]:
    """Every row once, in a table for each set of columns; where each frame's rows are."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, frame in enumerate(frames):
        if len(frame):
            alike.setdefault(tuple(map(str, frame.columns)), []).append(index)
    tables: list[dict[str, Any]] = []
    places: list[Place | None] = [None] * len(frames)
    for names, members in alike.items():
        columns = [
            _values([value for it in members for value in frames[it].iloc[:, column].tolist()])
            for column in range(len(names))
        ]
        known: dict[tuple[Any, ...], int] = {}
        numbers = iter([known.setdefault(row, len(known)) for row in zip(*columns, strict=True)])
        for it in members:
            own = [next(numbers) for _ in range(len(frames[it]))]
            places[it] = {"table": len(tables), "runs": _runs(own)}
        unique = zip(*known, strict=True)
        tables.append({name: _shared(list(it)) for name, it in zip(names, unique, strict=True)})
    return tables, places


def _runs(numbers: Sequence[int]) -> list[int]:
    runs: list[int] = []
    for number in numbers:
        if runs and runs[-2] + runs[-1] == number:
            runs[-1] += 1
        else:
            runs += [number, 1]
    return runs


def _shared(values: list[Any]) -> list[Any] | dict[str, Any]:
    return {"all": values[0]} if all(it == values[0] for it in values) else values


def _values(values: list[Any]) -> list[Any]:
    """Values as JSON has them: infinities as JavaScript's names, what is undefined as null."""
    # No function of ours is called by value: there are a million of them in a large study.
    digits = {it: f"{it:.{DIGITS}g}" for it in values if isinstance(it, float)}
    known = {it: _UNUSUAL[text] if text in _UNUSUAL else float(text) for it, text in digits.items()}
    missing = (None, pd.NA, pd.NaT)
    return [
        known[it]
        if isinstance(it, float)
        else it
        if isinstance(it, int | str)
        else None
        if any(it is none for none in missing)
        else str(it)
        for it in values
    ]
