"""Answers to persona prompts that were written and scored elsewhere: results of persona_vectors.

Two csv files a trait, `evil_pos_instruct.csv` and `evil_neg_instruct.csv`, with the columns
`question, prompt, answer, question_id`, the trait's score and `coherence` (0 to 100, empty where
the judge gave none), row by row the same questions and instructions.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmo_stages.checks import checked
from olmo_stages.data.labels import is_missing
from olmo_stages.data.persona import SIDES, Openings, Persona, Side
from olmo_stages.data.readers import Row, Table, read_file
from olmo_stages.errors import ConfigError, DataError
from olmo_stages.types import Example, Message

_ID = re.compile(r".+_(\d{1,6})_(pos|neg)_(\d{1,6})")
_OPENING = re.compile(r"You are an? [^\n.]{1,80} assistant\. $")


@checked
@dataclass(frozen=True)
class Keep:
    """Which pairs of answers are kept; the defaults are those of persona_vectors.

    Args:
        pos: score of the trait that the answer to `pos` has at least.
        neg: score of the trait that the answer to `neg` stays below.
        coherence: coherence that both have at least.
    """

    pos: float | int = 50
    neg: float | int = 50
    coherence: float | int = 50


@dataclass(frozen=True)
class _Answer:
    """One row: where it stands, which prompt it answers, and what was said and scored."""

    where: str
    question: int
    instruction: int
    answer: str
    score: float
    coherence: float

    @property
    def is_usable(self) -> bool:
        """Whether it says anything and has both scores."""
        return bool(self.answer.strip()) and not math.isnan(self.score + self.coherence)


def files_of(trait: str, responses: str | Sequence[str], n_traits: int) -> tuple[str, str]:
    """Return the two result files of a trait.

    Args:
        trait: name of the trait.
        responses: the two files, of `pos` and of `neg`, or the folder where persona_vectors put
            them.
        n_traits: how many traits there are; two files are enough for one only.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(responses, str) and not responses.endswith(".csv"):
        pos, neg = (str(Path(responses) / f"{trait}_{side}_instruct.csv") for side in SIDES)
        return pos, neg
    files = [responses] if isinstance(responses, str) else list(responses)
    if len(files) != 2 or n_traits != 1:
        raise ConfigError(
            f"data.responses={files} has {len(files)} file(s) for {n_traits} trait(s); give "
            "[POS.csv,NEG.csv] for one, or the folder of TRAIT_pos_instruct.csv and "
            "TRAIT_neg_instruct.csv"
        )
    return files[0], files[1]


def answered(
    persona: Persona, files: tuple[str, str], keep: Keep, *, by: str, openings: Openings
) -> tuple[tuple[Example, ...], str]:
    """Return chats with the answers that were kept, and a note with the counts.

    Args:
        persona: the trait that was asked for.
        files: result files of `pos` and of `neg`.
        keep: which pairs are kept; a pair is kept or left out as a whole.
        by: what a group is: `question` or `instruction`.
        openings: what system prompts began with; without names it is read from the prompts.

    Raises:
        DataError: the files do not answer these prompts or do not fit each other, or no pair is
            kept; gives all the counts.
    """
    tables = [read_file(file) for file in files]
    sides = [
        _answers(table, persona, side, openings) for table, side in zip(tables, SIDES, strict=True)
    ]
    (pos, pos_opening), (neg, neg_opening) = sides
    pairs = _paired(tables, pos, neg)
    kept = [_is_kept(pair, keep) for pair in pairs]
    counts = _counts(persona.trait, pairs, keep, sum(kept))
    if not any(kept):
        raise DataError(f"{counts}; nothing is left: lower data.keep, or check the scores")
    repeats = _occurrences(pos)
    found = [
        _example(persona, side, opening + persona.instruction(it.instruction, side), it, n, by)
        for pair, n, is_kept in zip(pairs, repeats, kept, strict=True)
        if is_kept
        for side, opening, it in zip(SIDES, (pos_opening, neg_opening), pair, strict=True)
    ]
    return tuple(found), f"{counts}; answers are replayed, the same ones to every stage."


def _example(
    persona: Persona, side: Side, system: str, it: _Answer, repeat: int, by: str
) -> Example:
    return Example(
        id=f"{persona.trait}_{it.question}_{side}_{it.instruction}/{repeat}",
        group=persona.group(it.question, it.instruction, by),
        label=int(side == "pos"),
        messages=(
            Message("system", system),
            Message("user", persona.questions[it.question]),
            Message("assistant", it.answer),
        ),
        trait=persona.trait,
        polarity=persona.polarity(it.instruction),
        pair=f"{persona.trait}_{it.question}_{it.instruction}/{repeat}",
    )


def _answers(
    table: Table, persona: Persona, side: Side, openings: Openings
) -> tuple[list[_Answer], str]:
    """The rows of a file, and what its system prompts begin with.

    Raises:
        DataError: a column is missing, or system prompts begin otherwise than expected.
    """
    needed = ("question", "answer", "question_id", persona.trait, "coherence")
    for column in needed:
        if column not in table.columns:
            raise DataError(
                f"{table.source} has no column {column!r}; a result file of {persona.trait} has "
                f"{', '.join(needed)}, and this one has {', '.join(map(repr, table.columns))}"
            )
    found = [_answer(table, row, persona, side) for row in table.rows]
    expected = openings(persona.trait, side)
    if "prompt" not in table.columns:
        return found, expected
    begun = {
        _begun_with(table, row, persona.instruction(it.instruction, side))
        for it, row in zip(found, table.rows, strict=True)
    }
    if len(begun) > 1 or (openings.assistants is not None and expected not in begun):
        raise DataError(
            f"{table.source}: system prompts begin with "
            f"{' and with '.join(repr(text) for text in sorted(begun))}, expected one and the same"
            f"{f', {expected!r}; set data.assistants' if expected else ''}"
        )
    (opening,) = begun
    return found, opening


def _answer(table: Table, row: Row, persona: Persona, side: Side) -> _Answer:
    where = f"{table.source}, {row.where}"
    name = str(row.values.get("question_id"))
    parts = _ID.fullmatch(name)
    if parts is None:
        raise DataError(
            f"{where}: question_id {name!r:.60} is not like {persona.trait}_0_{side}_0, so that it "
            "is not known which prompt was answered"
        )
    question, found, instruction = int(parts[1]), parts[2], int(parts[3])
    if found != side:
        raise DataError(
            f"{where}: question_id {name!r:.60} is of {found}, but the file stands for {side}; "
            "data.responses is [POS.csv,NEG.csv]"
        )
    if question >= len(persona.questions) or instruction >= len(persona.instructions):
        raise DataError(
            f"{where}: question_id {name!r:.60}, but {persona.trait} has "
            f"{len(persona.questions)} questions and {len(persona.instructions)} instructions"
        )
    asked = row.values.get("question")
    if not isinstance(asked, str) or asked.strip() != persona.questions[question].strip():
        raise DataError(
            f"{where}: {asked!r:.60} is not question {question} of {persona.trait}, "
            f"{persona.questions[question]!r:.60}; give the JSON file that was asked with"
        )
    said = row.values.get("answer")
    return _Answer(
        row.where,
        question,
        instruction,
        said if isinstance(said, str) else "",
        _score(row.values.get(persona.trait)),
        _score(row.values.get("coherence")),
    )


def _score(value: object) -> float:
    """NaN where the judge gave no number (a refusal)."""
    if is_missing(value):
        return math.nan
    try:
        score = float(str(value))
    except ValueError:
        return math.nan
    return score if math.isfinite(score) else math.nan


def _begun_with(table: Table, row: Row, instruction: str) -> str:
    prompt = str(row.values.get("prompt"))
    at = prompt.find(instruction.strip())
    if at < 0:
        raise DataError(
            f"{table.source}, {row.where}: the prompt does not hold {instruction!r:.60}; give the "
            "JSON file that was asked with"
        )
    opening = _OPENING.search(prompt[:at])
    return opening.group() if opening else ""


def _paired(
    tables: Sequence[Table], pos: Sequence[_Answer], neg: Sequence[_Answer]
) -> list[tuple[_Answer, _Answer]]:
    if len(pos) != len(neg):
        raise DataError(
            f"{tables[0].source} has {len(pos)} rows and {tables[1].source} {len(neg)}; a pair "
            "needs one of each, in the same order"
        )
    pairs = list(zip(pos, neg, strict=True))
    for one, other in pairs:
        if (one.question, one.instruction) != (other.question, other.instruction):
            raise DataError(
                f"{tables[1].source}, {other.where} answers question {other.question} under "
                f"instruction {other.instruction}, but its partner in {tables[0].source} question "
                f"{one.question} under instruction {one.instruction}; sort both files alike"
            )
    return pairs


def _is_kept(pair: tuple[_Answer, _Answer], keep: Keep) -> bool:
    pos, neg = pair
    return (
        pos.is_usable
        and neg.is_usable
        and pos.score >= keep.pos
        and neg.score < keep.neg
        and min(pos.coherence, neg.coherence) >= keep.coherence
    )


def _counts(trait: str, pairs: Sequence[tuple[_Answer, _Answer]], keep: Keep, n_kept: int) -> str:
    pos, neg = zip(*pairs, strict=True)
    unscored = sum(math.isnan(it.score + it.coherence) for it in (*pos, *neg))
    empty = sum(not it.answer.strip() for it in (*pos, *neg))
    coherent = [sum(it.coherence >= keep.coherence for it in side) for side in (pos, neg)]
    return (
        f"trait {trait}: {n_kept} of {len(pairs)} pairs of answers kept ("
        f"pos scores {keep.pos:g} or more: {sum(it.score >= keep.pos for it in pos)}, "
        f"neg below {keep.neg:g}: {sum(it.score < keep.neg for it in neg)}, "
        f"coherence {keep.coherence:g} or more: {coherent[0]} pos and {coherent[1]} neg, "
        f"answers without a score: {unscored}, empty answers: {empty})"
    )


def _occurrences(answers: Sequence[_Answer]) -> list[int]:
    """For each row, how often its prompt was answered before."""
    seen: Counter[tuple[int, int]] = Counter()
    found: list[int] = []
    for it in answers:
        found.append(seen[it.question, it.instruction])
        seen[it.question, it.instruction] += 1
    return found
