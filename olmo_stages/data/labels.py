"""What the labels of somebody's file mean."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from olmo_stages.data.readers import Row, Table
from olmo_stages.errors import ConfigError, DataError

LABELS = {"0": 0, "1": 1, "false": 0, "true": 1, "no": 0, "yes": 1}
"""What labels mean unless the user says otherwise."""

Raw = str | int | float | bool


@dataclass(frozen=True)
class Labels:
    """What the raw labels mean; by default 0/1, true/false, yes/no in any case.

    Args:
        positive: the raw label that means 1, all others meaning 0.
        label_map: 0 or 1 for each raw label; instead of `positive`.
    """

    positive: Raw | None = None
    label_map: Mapping[Raw, int] | None = None

    def __post_init__(self) -> None:
        if self.positive is not None and self.label_map is not None:
            raise ConfigError("give data.positive or data.label_map, not both")
        for raw, label in (self.label_map or {}).items():
            if label not in {0, 1}:
                raise ConfigError(f"data.label_map maps {raw!r} to {label!r}; use 0 or 1")
        if len({_normal(raw) for raw in self.label_map or {}}) < len(self.label_map or {}):
            raise ConfigError(f"data.label_map names a label twice: {dict(self.label_map or {})}")


def meanings(table: Table, column: str, labels: Labels) -> "Meanings":
    """Return what the labels of a column mean.

    Args:
        table: the rows.
        column: where the labels stand.
        labels: the user's choice.

    Returns:
        A function of a row.

    Raises:
        DataError: no row has the label that the user calls positive.
    """
    if labels.label_map is not None:
        known = {_normal(raw): int(label) for raw, label in labels.label_map.items()}
    elif labels.positive is not None:
        known = {_normal(labels.positive): 1}
    else:
        known = LABELS
    names = table.class_names.get(column, ())
    by_name = _by_name(table, labels, known, names)
    found = Meanings(
        table, column, known, names, by_name, others_negative=labels.positive is not None
    )
    if labels.positive is not None and not any(found(row) for row in table.rows):
        raise DataError(
            f"{table.source}: no row has the label data.positive={labels.positive}; "
            f"column {column!r} holds {found.listing()}"
        )
    return found


def _by_name(table: Table, labels: Labels, known: Mapping[str, int], names: Sequence[str]) -> bool:
    """Whether `known` speaks of the names of classes rather than of their indices.

    Raises:
        DataError: it may speak of either, and they differ.
    """
    called = [_normal(name) for name in names]
    if labels.positive is None and labels.label_map is None:
        return bool(called) and all(name in known for name in called)
    if not called or not all(key in called for key in known):
        return False
    clash = [k for k in known if k.isdecimal() and int(k) < len(called) and called[int(k)] != k]
    if clash:
        raise DataError(
            f"{table.source}: label {clash[0]} is the name of one class and the index of another "
            f"(classes {', '.join(names)}); give the data a column of plain labels"
        )
    return True


@dataclass(frozen=True)
class Meanings:
    """Labels of one column: called with a row it returns 0 or 1."""

    table: Table
    column: str
    known: Mapping[str, int]
    names: tuple[str, ...]
    by_name: bool
    others_negative: bool

    def __call__(self, row: Row) -> int:
        """Return the label of a row.

        Raises:
            DataError: it has none, or one without a meaning.
        """
        raw = row.values.get(self.column)
        if is_missing(raw) or not plain(raw):
            raise DataError(f"{self.table.source}, {row.where}: no label; fill it in or remove it")
        for form in self._forms(raw):
            if form in self.known:
                return self.known[form]
        if self.others_negative:
            return 0
        raise DataError(
            f"{self.table.source}, {row.where}: label {raw!r} has no meaning; say which label is 1 "
            f"with data.positive or data.label_map (column {self.column!r} holds {self.listing()})"
        )

    def listing(self) -> str:
        """Return the first few raw labels that occur."""
        raw = [row.values.get(self.column) for row in self.table.rows]
        values = dict.fromkeys(" = ".join([repr(value), *self._name(value)]) for value in raw)
        shown = ", ".join(list(values)[:6])
        return shown + (", ..." if len(values) > 6 else "")

    def _forms(self, raw: object) -> list[str]:
        return [_normal(name) for name in self._name(raw)] if self.by_name else [_normal(raw)]

    def _name(self, raw: object) -> tuple[str, ...]:
        # Of one name, where the labels are indices of named classes.
        if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
            return self.names[raw : raw + 1]
        return ()


def is_missing(value: object) -> bool:
    """Return whether a cell holds nothing: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def plain(value: object) -> str:
    """Return a value as text, 3.0 as `3`: parquet turns integers with gaps into floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _normal(value: object) -> str:
    # As "1.0" a csv has what was 1 before a label was missing.
    return re.sub(r"^(-?\d+)\.0+$", r"\1", plain(value).casefold())
