"""Published formats that a table is recognised by, from its columns, and what they map to.

- model-written evals and CAA: `question`, `answer_matching_behavior`,
  `answer_not_matching_behavior`. A pair a row, the group is the question.
- repeng and steering-vectors: `positive` and `negative`, `positive_str` and `negative_str`, or rows
  that are lists [positive, negative]. A pair a row.
- geometry-of-truth: `statement` and `label`. The group is the statement's subject, where a column
  names it.

What was recognised is said in a note, and every column that a user names in `data.columns` counts
before what is recognised.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from olmo_stages.data.dataset import content
from olmo_stages.data.mapping import Columns
from olmo_stages.data.readers import Row, Table
from olmo_stages.errors import DataError
from olmo_stages.types import Example, labels_of

QUESTION = "question"
MATCHING, NOT_MATCHING = "answer_matching_behavior", "answer_not_matching_behavior"
PAIRS = (("positive", "negative"), ("positive_str", "negative_str"), ("[0]", "[1]"))
SUBJECTS = ("subject", "entity", "city")
"""Columns of geometry-of-truth that name what a statement is about, the first one that exists."""

_READ_INDICES = ("read_positive_token_index", "read_negative_token_index")


@dataclass(frozen=True)
class Recognised:
    """A table and how it is read.

    Args:
        table: the rows, with columns put together where the format asks for it.
        columns: which column is what.
        notes: what was recognised, one sentence each.
        published: whether repeated rows are left out, as published files hold some, and not
            refused.
        has_counterparts: whether counterparts are looked for within the groups.
    """

    table: Table
    columns: Columns
    notes: tuple[str, ...] = ()
    published: bool = False
    has_counterparts: bool = False

    def finish(self, examples: tuple[Example, ...]) -> tuple[tuple[Example, ...], tuple[str, ...]]:
        """Leave repeated rows out and find counterparts, where the format is one for it.

        Returns:
            The examples, and notes.
        """
        notes = self.notes
        if self.published:
            kept = _without_repeats(examples)
            if left_out := len(examples) - len(kept):
                notes += (f"{self.table.source}: {left_out} repeated examples are left out.",)
            examples = kept
        if self.has_counterparts:
            examples = with_counterparts(examples)
            n_pairs = len({example.pair for example in examples} - {""})
            notes += (f"{self.table.source}: {n_pairs} pairs of counterparts were found.",)
        return examples, notes


def recognise(table: Table, columns: Columns, format: str) -> Recognised:
    """Find the published format of a table, if it has one and the user says nothing else.

    Args:
        table: the rows.
        columns: what the user said.
        format: how examples become prompts: with `raw`, question and answer of model-written evals
            are one text, else two turns of a chat.

    Returns:
        How to read the table; without a known format as it is.

    Raises:
        DataError: a row does not hold what its format promises.
    """
    if columns.text or columns.messages or columns.positive or columns.negative:
        return Recognised(table, columns)
    present = set(table.columns)
    if {QUESTION, MATCHING, NOT_MATCHING} <= present:
        return _model_written(table, columns, format)
    labelled = (columns.label or "label") in present
    for positive, negative in PAIRS:
        if {positive, negative} <= present and not labelled:
            return _pairs(table, columns, positive, negative)
    if "statement" in present and labelled and not present & {"text", "messages"}:
        return _statements(table, columns)
    return Recognised(table, columns)


def with_counterparts(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Join the two examples of a group that differ in their label and in one stretch of words.

    They begin alike and share at least half of the shorter one's words, before and after what
    differs. Groups of more than one example of a label are left as they are: which of them belong
    together is not known.
    """
    groups: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.trait, example.group].append(example)
    paired = {
        example.id: example.group
        for members in groups.values()
        if sorted(labels_of(members).tolist()) == [0, 1] and _one_stretch(*members)
        for example in members
    }
    return tuple(
        example if example.pair else replace(example, pair=paired.get(example.id, ""))
        for example in examples
    )


def _one_stretch(one: Example, other: Example) -> bool:
    """Whether two texts share most words, around a stretch of at least a word of each."""
    left, right = str(one.text).split(), str(other.text).split()
    before = _alike(left, right)
    after = _alike(left[before:][::-1], right[before:][::-1])
    shorter = min(len(left), len(right))
    return before > 0 and shorter / 2 <= before + after < shorter


def _alike(left: Sequence[str], right: Sequence[str]) -> int:
    return sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(left, right, strict=False)))


def _without_repeats(examples: Sequence[Example]) -> tuple[Example, ...]:
    first: dict[tuple[object, ...], Example] = {}
    for example in examples:
        key = (example.id, example.group, example.label, *content(example))
        first.setdefault(key, example)
    return tuple(first.values())


def _model_written(table: Table, columns: Columns, format: str) -> Recognised:
    asked = (f"{QUESTION} + {MATCHING}", f"{QUESTION} + {NOT_MATCHING}")
    rows: list[Row] = []
    for row in table.rows:
        question = _text(table, row, QUESTION)
        answers = [_text(table, row, name) for name in (MATCHING, NOT_MATCHING)]
        if format == "raw":
            sides = [_continued(table, row, question, answer) for answer in answers]
        else:
            sides = [_asked(question, answer) for answer in answers]
        rows.append(Row(row.where, {**row.values, **dict(zip(asked, sides, strict=True))}))
    space = (
        "leading spaces of answers are kept, as in plain text"
        if format == "raw"
        else "leading spaces of answers belong to plain text (data.format=raw) and are left out"
    )
    note = (
        f"{table.source} was read as model-written evaluations: the question with the answer that "
        f"matches the behaviour is positive, with the other one negative; {space}."
    )
    return Recognised(
        replace(table, rows=tuple(rows), columns=(*table.columns, *asked)),
        replace(columns, positive=asked[0], negative=asked[1], group=columns.group or QUESTION),
        (note,),
        published=True,
    )


def _asked(question: str, answer: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer.lstrip()},
    ]


def _continued(table: Table, row: Row, question: str, answer: str) -> str:
    if not (question[-1].isspace() or answer[0].isspace()):
        raise DataError(
            f"{table.source}, {row.where}: with data.format=raw the answer {answer!r:.60} would "
            "stick to its question; use data.format=chat_fixed or scaffold, or begin answers with "
            "a space"
        )
    return question + answer


def _text(table: Table, row: Row, column: str) -> str:
    value = row.values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{table.source}, {row.where}: column {column!r} holds {value!r:.60}, which is no "
            "text; fill it in or remove the row"
        )
    return value


def _pairs(table: Table, columns: Columns, positive: str, negative: str) -> Recognised:
    what = "lists of two" if positive == "[0]" else f"columns {positive} and {negative}"
    first = "the first text" if positive == "[0]" else positive
    notes = (f"{table.source} was read as pairs ({what}): {first} has label 1, its partner 0.",)
    asked = [n for n in _READ_INDICES if any(row.values.get(n) is not None for row in table.rows)]
    if asked:
        notes += (
            f"{table.source}: {', '.join(asked)} are not used; which token is read is the "
            "analysis's position.",
        )
    return Recognised(table, replace(columns, positive=positive, negative=negative), notes)


def _statements(table: Table, columns: Columns) -> Recognised:
    named = columns.group or ("group" if "group" in table.columns else None)
    group = named or next((name for name in SUBJECTS if name in table.columns), None)
    if group is None:
        about = (
            "no column names their subjects, so that each statement is a group of its own and two "
            "about one subject may be trained and tested on; name one with data.columns.group"
        )
    else:
        about = f"statements of one {group} stay together"
    unpaired = columns.pair is None and "pair" not in table.columns
    return Recognised(
        table,
        replace(columns, text="statement", group=group),
        (f"{table.source} was read as labelled statements: {about}.",),
        published=True,
        has_counterparts=group is not None and unpaired,
    )
