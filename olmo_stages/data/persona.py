"""Persona data: pairs of system prompts that ask for a trait and for its opposite, and questions.

The format is that of persona_vectors (Chen et al. 2507.21509), a JSON file a trait:
`{"instruction": [{"pos": ..., "neg": ...}, ...], "questions": [...], "eval_prompt": ...}`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from olmo_stages.data.readers import parse_json
from olmo_stages.errors import ConfigError, DataError
from olmo_stages.types import Example, Message, check_choice

Side = Literal["pos", "neg"]
SIDES: tuple[Side, ...] = get_args(Side)
GROUPS = ("question", "instruction")
_EXPECTED = 'expected {"instruction": [{"pos": "...", "neg": "..."}], "questions": ["..."]}'


@dataclass(frozen=True)
class Persona:
    """What one trait is asked for with.

    Args:
        trait: name of the trait.
        instructions: system prompts that ask for it, each with one that asks for its opposite.
        questions: what users ask.
        eval_prompt: how a judge is to score answers; empty = not said.
        polarities: kind of each pair of instructions, e.g. affirmative; empty = not said.
    """

    trait: str
    instructions: tuple[tuple[str, str], ...]
    questions: tuple[str, ...]
    eval_prompt: str = ""
    polarities: tuple[str, ...] = ()

    def instruction(self, number: int, side: Side) -> str:
        """Return the system prompt of one side of a pair."""
        return self.instructions[number][SIDES.index(side)]

    def group(self, question: int, instruction: int, by: str) -> str:
        """Return what stays together in a split: all of a question, or all of an instruction."""
        return self.questions[question] if by == "question" else f"instruction {instruction}"

    def polarity(self, instruction: int) -> str:
        """Return the kind of a pair of instructions, or nothing."""
        return self.polarities[instruction] if self.polarities else ""


@dataclass(frozen=True)
class Openings:
    """What system prompts begin with: `You are an evil assistant. ` and the instruction.

    Args:
        assistants: what the assistant is called where the trait is asked for, and where its
            opposite is; `{trait}` stands for the trait. None = system prompts are instructions
            alone.

    Raises:
        ConfigError: not two names.
    """

    assistants: Sequence[str] | None = None

    def __post_init__(self) -> None:
        names = self.assistants
        if names is not None and (
            isinstance(names, str) or len(names) != 2 or not all(name.strip() for name in names)
        ):
            raise ConfigError(
                f"data.assistants={names} are not two names; give e.g. ['{{trait}}',helpful]"
            )

    def __call__(self, trait: str, side: Side) -> str:
        """Return the opening of one side, with a space behind it; empty if there is none."""
        if self.assistants is None:
            return ""
        name = self.assistants[SIDES.index(side)].replace("{trait}", trait)
        # The article as persona_vectors chooses it.
        return f"You are {'an' if name[0].lower() in 'aeiou' else 'a'} {name} assistant. "


def prompts(persona: Persona, by: str, openings: Openings) -> tuple[Example, ...]:
    """Return chats of a system prompt and a question: every instruction with every question.

    Args:
        persona: the trait.
        by: what a group is: `question` or `instruction`.
        openings: what system prompts begin with.

    Returns:
        Examples, label 1 where the trait is asked for; the counterpart has the same question and
        the other instruction of the pair. Ids are those of persona_vectors, `evil_3_pos_1`.

    Raises:
        ConfigError: `by` is neither.
    """
    check_choice("data.group", by, GROUPS)
    return tuple(
        Example(
            id=f"{persona.trait}_{i}_{side}_{k}",
            group=persona.group(i, k, by),
            label=int(side == "pos"),
            messages=(
                Message("system", openings(persona.trait, side) + persona.instruction(k, side)),
                Message("user", question),
            ),
            trait=persona.trait,
            polarity=persona.polarity(k),
            pair=f"{persona.trait}_{i}_{k}",
        )
        for i, question in enumerate(persona.questions)
        for k in range(len(persona.instructions))
        for side in SIDES
    )


def note(persona: Persona, by: str) -> str:
    """Return what a reader must know of the groups."""
    n = f"questions: {len(persona.questions)}, pairs of instructions: {len(persona.instructions)}"
    other = GROUPS[by == "question"]
    return (
        f"trait {persona.trait}: {n}; groups are {by}s, so that every {other} is in training and "
        f"in test, and results speak of new {by}s, not of new {other}s."
    )


def read(path: str | Sequence[str]) -> tuple[Persona, ...]:
    """Read persona files.

    Args:
        path: a JSON file, a folder of them, or a list of files; a trait is named after its file.

    Returns:
        The traits, of a folder in the order of the files' names.

    Raises:
        ConfigError: two files have the same name.
        DataError: a file is missing, or does not hold what it should.
    """
    files = [Path(name).expanduser() for name in ([path] if isinstance(path, str) else path)]
    if isinstance(path, str) and files[0].is_dir():
        files = sorted(files[0].glob("*.json"))
    if not files:
        raise DataError(f"data.path={path} holds no JSON files; {_EXPECTED} in each")
    traits = [file.stem for file in files]
    repeated = {trait for trait in traits if traits.count(trait) > 1}
    if repeated:
        raise ConfigError(
            f"data.path names two files {min(repeated)}.json, but a trait is named after its "
            "file; rename one"
        )
    return tuple(_read_file(file) for file in files)


def _read_file(file: Path) -> Persona:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error.strerror or error} (looked from {Path.cwd()})"
        ) from error
    if not text.strip():
        raise DataError(f"{file} is empty; {_EXPECTED}")
    content = parse_json(text, str(file))
    if not isinstance(content, Mapping):
        raise DataError(f"{file} holds no object; {_EXPECTED}")
    eval_prompt = content.get("eval_prompt")
    if not isinstance(eval_prompt, str | None):
        raise DataError(f"{file}: 'eval_prompt' is {eval_prompt!r:.60}; expected a text")
    return Persona(
        trait=file.stem,
        instructions=_instructions(file, _list(file, content, "instruction")),
        questions=_questions(file, _list(file, content, "questions")),
        eval_prompt=eval_prompt or "",
    )


def _list(file: Path, content: Mapping[str, Any], key: str) -> list[Any]:
    if key not in content:
        keys = ", ".join(map(repr, content)) or "nothing"
        raise DataError(f"{file} has no {key!r}, but {keys:.200}; {_EXPECTED}")
    if not isinstance(content[key], list) or not content[key]:
        raise DataError(f"{file}: {key!r} is {content[key]!r:.60}; {_EXPECTED}")
    return content[key]


def _questions(file: Path, items: list[Any]) -> tuple[str, ...]:
    for number, item in enumerate(items, start=1):
        if not isinstance(item, str) or not item.strip():
            raise DataError(f"{file}: question {number} is {item!r:.60}; expected a text")
    first: dict[str, int] = {}
    for number, item in enumerate(items, start=1):
        if first.setdefault(item.strip(), number) != number:
            raise DataError(
                f"{file}: questions {first[item.strip()]} and {number} are the same "
                f"({item!r:.60}); remove one"
            )
    return tuple(items)


def _instructions(file: Path, items: list[Any]) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for number, item in enumerate(items, start=1):
        if not isinstance(item, Mapping):
            raise DataError(f"{file}: instruction {number} is {item!r:.60}; {_EXPECTED}")
        if "pos" in item and "neg" not in item:
            raise DataError(
                f"{file}: instruction {number} has 'pos' but no 'neg': a role file, as of "
                "assistant-axis, says what to be but nothing to compare it with; add a 'neg' to "
                "each instruction"
            )
        found.append((_side(file, number, item, "pos"), _side(file, number, item, "neg")))
    for number, pair in enumerate(found, start=1):
        if (earlier := found.index(pair) + 1) != number:
            raise DataError(f"{file}: instructions {earlier} and {number} are the same; remove one")
    both = {pos for pos, _ in found} & {neg for _, neg in found}
    if both:
        raise DataError(f"{file}: {min(both)!r:.60} is a 'pos' and a 'neg'; change one")
    return tuple(found)


def _side(file: Path, number: int, item: Mapping[str, Any], side: Side) -> str:
    value = item.get(side)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{file}: {side!r} of instruction {number} is {value!r:.60}; expected a text"
        )
    return value
