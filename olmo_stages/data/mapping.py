"""Rows of somebody's file to examples: which column is what, and what its labels mean."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from olmo_stages.checks import checked
from olmo_stages.data.dataset import content_id
from olmo_stages.data.labels import Labels, is_missing, meanings, plain
from olmo_stages.data.readers import Row, Table
from olmo_stages.errors import ConfigError, DataError
from olmo_stages.types import Example, Message


@checked
@dataclass(frozen=True)
class Columns:
    """Names of the columns; None = the column of the field's own name, where there is one.

    Args:
        text: plain text.
        messages: chat, a list of objects with `role` and `content`.
        label: class, see `Labels`.
        group: what must stay together in a split; without it each row stands alone.
        id: unique name of a row; without it a digest of its content.
        trait: what the label is about.
        polarity: kind of statement, e.g. affirmative or negated.
        pair: joins a row of label 1 with its counterpart of label 0; empty where it has none.
            Without groups of their own the two are a group.
        positive: paired data: the text (or chat) that has the trait; instead of text and label.
        negative: paired data: its counterpart, put into the same group.
    """

    text: str | None = None
    messages: str | None = None
    label: str | None = None
    group: str | None = None
    id: str | None = None
    trait: str | None = None
    polarity: str | None = None
    pair: str | None = None
    positive: str | None = None
    negative: str | None = None


def examples(
    table: Table, columns: Columns, labels: Labels | None, trait: str = ""
) -> tuple[Example, ...]:
    """Turn rows into examples.

    Args:
        table: the rows.
        columns: which column is what.
        labels: what the raw labels mean; None = the rows are read without labels, whatever columns
            they have, and a `pair` is only a group.
        trait: what the labels are about, where no column says it.

    Returns:
        Examples in the order of the rows; of paired data two a row.

    Raises:
        ConfigError: column options that contradict one another, or pairs without labels.
        DataError: a missing column or value, an empty text, a label without a meaning.
    """
    found = _resolve(columns, table, labelled=labels is not None)
    if labels is None:
        if "positive" in found:
            raise ConfigError(
                f"data.unlabelled=true: {table.source} holds pairs (columns {found['positive']!r} "
                f"and {found['negative']!r}), whose sides are labels; leave data.unlabelled out, "
                "or read one column with data.columns.text"
            )
        return tuple(_single(table, row, found, trait, None) for row in table.rows)
    if "positive" in found:
        return tuple(e for row in table.rows for e in _pair(table, row, found, trait))
    label = meanings(table, found["label"], labels)
    return tuple(_single(table, row, found, trait, label(row)) for row in table.rows)


def limited(found: Sequence[Example], limit: int | None, seed: int) -> tuple[Example, ...]:
    """Choose at most `limit` examples by a hash of their groups' names, whole groups only.

    Args:
        found: examples in any order; the choice does not depend on it.
        limit: how many examples at most; None = all.
        seed: another seed makes another choice.

    Returns:
        The chosen examples in their order.

    Raises:
        DataError: not even one group fits, or nothing is left of a trait.
    """
    if limit is None or len(found) <= limit:
        return tuple(found)
    sizes: dict[str, int] = {}
    for example in found:
        sizes[example.group] = sizes.get(example.group, 0) + 1
    chosen: set[str] = set()
    room = limit
    for group in sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()):
        if sizes[group] > room:
            break
        chosen.add(group)
        room -= sizes[group]
    if not chosen:
        raise DataError(f"data.limit={limit} is smaller than a group; groups are kept whole")
    left = tuple(example for example in found if example.group in chosen)
    lost = {example.trait for example in found} - {example.trait for example in left}
    if lost:
        raise DataError(f"data.limit={limit} leaves nothing of trait {min(lost)!r}; give more")
    return left


def _resolve(columns: Columns, table: Table, *, labelled: bool) -> dict[str, str]:
    # The column of each field that has one; what is asked for must exist and fit together.
    asked = {f.name: getattr(columns, f.name) for f in fields(columns)}
    for name, column in asked.items():
        if column is not None and column not in table.columns:
            raise DataError(_missing(table, name, column))
    found = {name: column or name for name, column in asked.items()}
    found = {name: column for name, column in found.items() if column in table.columns}
    if _holds_pairs(asked, found, labelled=labelled):
        needed = ("positive", "negative")
        found.pop("pair", None)
        for other in ("text", "messages", "label", "pair"):
            if asked[other]:
                raise ConfigError(f"data.columns: give positive and negative, or {other}, not both")
    else:
        found = {k: v for k, v in found.items() if k not in {"positive", "negative"}}
        needed = (_content_field(asked, found, table), *(["label"] if labelled else []))
        found.pop("text" if needed[0] == "messages" else "messages", None)
    for name in needed:
        if name not in found:
            raise DataError(_missing(table, name, name))
    return found


def _holds_pairs(
    asked: Mapping[str, str | None], found: Mapping[str, str], *, labelled: bool
) -> bool:
    if asked["positive"] or asked["negative"]:
        return True
    if not labelled and (asked["text"] or asked["messages"]):
        return False  # one side of pairs may be read by its name
    return {"positive", "negative"} <= set(found) and "label" not in found


def _content_field(asked: Mapping[str, str | None], found: Mapping[str, str], table: Table) -> str:
    if asked["text"] and asked["messages"]:
        raise ConfigError("data.columns: give text or messages, not both")
    if asked["text"] or asked["messages"]:
        return "text" if asked["text"] else "messages"
    if "text" in found and "messages" in found:
        raise DataError(
            f"{table.source} has a column text and a column messages; say which to read with "
            "data.columns.text=text or data.columns.messages=messages"
        )
    return "messages" if "messages" in found else "text"


def _missing(table: Table, name: str, column: str) -> str:
    # Who names a column of labels has some.
    none = name == column == "label"
    return (
        f"{table.source} has no column {column!r}; it has {', '.join(map(repr, table.columns))}; "
        f"set data.columns.{name}"
        + (", or data.unlabelled=true where there are no labels" if none else "")
    )


def _single(
    table: Table, row: Row, found: Mapping[str, str], trait: str, label: int | None
) -> Example:
    key = "messages" if "messages" in found else "text"
    text, messages = _content(table, row, found[key], chat=key == "messages")
    own_trait = _value(table, row, found, "trait") or ""
    example_id = _value(table, row, found, "id") or _digest(_flat(text, messages), own_trait)
    cell = row.values.get(found.get("pair", ""))
    pair = "" if is_missing(cell) else plain(cell)
    return Example(
        id=example_id,
        group=_value(table, row, found, "group") or pair or example_id,
        label=label,
        text=text,
        messages=messages,
        trait=own_trait or trait,
        polarity=_value(table, row, found, "polarity") or "",
        pair="" if label is None else pair,
    )


def _pair(table: Table, row: Row, found: Mapping[str, str], trait: str) -> list[Example]:
    sides = {
        1: _content(table, row, found["positive"], chat=None),
        0: _content(table, row, found["negative"], chat=None),
    }
    own_trait = _value(table, row, found, "trait") or ""
    both = [part for side in sides.values() for part in _flat(*side)]
    pair_id = _value(table, row, found, "id") or _digest(both, own_trait)
    return [
        Example(
            id=f"{pair_id}/{'positive' if label else 'negative'}",
            group=_value(table, row, found, "group") or pair_id,
            label=label,
            text=text,
            messages=messages,
            trait=own_trait or trait,
            polarity=_value(table, row, found, "polarity") or "",
            pair=pair_id,
        )
        for label, (text, messages) in sides.items()
    ]


def _digest(parts: list[str], own_trait: str) -> str:
    # The same text may stand in a table once for each of several traits.
    return content_id(parts) + (f"/{own_trait}" if own_trait else "")


def _flat(text: str | None, messages: tuple[Message, ...] | None) -> list[str]:
    return [text or "", *(part for m in messages or () for part in (m.role, m.content))]


def _value(table: Table, row: Row, found: Mapping[str, str], name: str) -> str | None:
    # None where there is no such column.
    if name not in found:
        return None
    value = row.values.get(found[name])
    text = "" if is_missing(value) else plain(value)
    if not text:
        raise DataError(
            f"{table.source}, {row.where}: column {found[name]!r} is empty; fill it in or remove "
            "the row"
        )
    return text


def _content(
    table: Table, row: Row, column: str, *, chat: bool | None
) -> tuple[str | None, tuple[Message, ...] | None]:
    # Either text or messages; `chat` says which is expected, None = either.
    where = f"{table.source}, {row.where}"
    value = row.values.get(column)
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where}: column {column!r} is an empty text; fill it in or remove it")
    if isinstance(value, str) and not chat:
        return value, None
    if chat is False:
        raise DataError(f"{where}: column {column!r} holds {value!r:.60}, which is not a text")
    return None, _messages(f"{where}: column {column!r}", value)


def _messages(where: str, value: object) -> tuple[Message, ...]:
    remedy = 'expected a list like [{"role": "user", "content": "..."}]'
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is no JSON; {remedy}") from error
    if not isinstance(value, list) or not value:
        raise DataError(f"{where} holds {value!r:.60}; {remedy}")
    found: list[Message] = []
    for turn in value:
        parts = (turn.get("role"), turn.get("content")) if isinstance(turn, Mapping) else ()
        strings = [part for part in parts if isinstance(part, str) and part.strip()]
        if len(strings) != 2:
            raise DataError(f"{where} holds the turn {turn!r:.60}; {remedy}, no content empty")
        found.append(Message(*strings))
    return tuple(found)
