"""Responses that stages write to chats: who writes them, how, and which of them are kept.

- `replay`: one stage writes the responses once, and every stage of a comparison reads the same
  tokens, so that a difference between stages is one of their activations.
- `own`: every stage reads what it wrote itself, so that a difference is also one of words.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from olmo_stages.checks import checked
from olmo_stages.data.formats import render, resolve_format
from olmo_stages.data.native import Templated
from olmo_stages.data.prompts import Rendered, Span
from olmo_stages.data.traces import trace
from olmo_stages.errors import ConfigError, DataError
from olmo_stages.types import Example, Format, Message, Position

OWN = "own"
EMPTY, NO_TRACE, NO_ANSWER = "empty", "without a trace", "without an answer behind a trace"

_OPENING = "<think>"
# Any text that every template leaves as it is.
_STAND_IN = "x"


@checked
@dataclass(frozen=True)
class Generation:
    """How responses are written.

    Args:
        max_new_tokens: tokens after which a response is cut.
        temperature: 0 = the likeliest token each time; else tokens are sampled at it.
        seed: of the sampling; each example draws from a stream of its own, so that neither batch
            size nor order changes what is drawn.

    Raises:
        ConfigError: a value out of range.
    """

    max_new_tokens: int = 512
    temperature: float | int = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(
                f"data.generation.max_new_tokens={self.max_new_tokens} leaves no response; give 1 "
                "or more"
            )
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(
                f"data.generation.temperature={self.temperature} is no temperature; give 0 (the "
                "likeliest token) or more"
            )
        if self.seed < 0:
            raise ConfigError(f"data.generation.seed={self.seed} is negative; give 0 or more")

    def __str__(self) -> str:
        how = "greedy"
        if self.temperature:
            how = f"sampled at temperature {self.temperature:g} with seed {self.seed}"
        return f"{how}, at most {self.max_new_tokens} tokens"


@dataclass(frozen=True)
class Respond:
    """That the chats of a data set are completed before they are read.

    Args:
        by: `own`, or `STAGE[@REVISION]` whose responses every stage reads.
        generation: how they are written.
    """

    by: str
    generation: Generation

    @property
    def mode(self) -> str:
        """`own` or `replay of STAGE`, as results and tables say it."""
        return OWN if self.by == OWN else f"replay of {self.by}"


def responding(by: str | None, generation: Generation) -> Respond | None:
    """What a data config asks for; None where nothing is to be completed."""
    return None if by is None else Respond(by, generation)


@dataclass(frozen=True)
class Response:
    """What a stage wrote to one prompt.

    Args:
        token_ids: as written, without the token at which it stopped.
        text: what they say.
        is_cut: whether it ended because no more tokens were allowed.
        opened: whether the prompt itself opened a trace of reasoning right before it.
    """

    token_ids: tuple[int, ...]
    text: str
    is_cut: bool = False
    opened: bool = False


def check_unanswered(name: str, examples: Sequence[Example], format: Format) -> None:
    """Refuse examples that no response can follow.

    Raises:
        ConfigError: texts that are read raw.
        DataError: chats that are answered already.
    """
    if n_raw := sum(resolve_format(example, format) == "raw" for example in examples):
        raise ConfigError(
            f"data.respond: {n_raw} of {len(examples)} examples of {name!r} are texts that are "
            "read raw, so nothing answers them; use data.format=chat_fixed or scaffold, or leave "
            "data.respond out"
        )
    answered = [it.id for it in examples if it.messages and it.messages[-1].role == "assistant"]
    if answered:
        raise DataError(
            f"data.respond: {len(answered)} of {len(examples)} examples of {name!r} already end "
            f"with an assistant turn ({answered[0]!r}); remove these turns, or leave data.respond "
            "out"
        )


def complete(
    example: Example, response: Response, format: Format, tokenizer: Templated | None = None
) -> Rendered:
    """Render a prompt with the response that was written to it, token by token as it was.

    The text before the response is the prompt as the stage was given it, and what follows is what
    the format puts behind the response of any chat. Nothing is tokenised again, so that an ordinary
    text that looks like a turn marker forges none.

    Args:
        example: not answered yet.
        response: what was written.
        format: how the example becomes a prompt.
        tokenizer: the stage's, for `chat_native`.

    Raises:
        DataError: the example cannot be rendered.
        ModelError: the stage has no chat template, or one that cannot be used.
    """
    prompt = render(example, format, tokenizer)
    end = ending(example, format, tokenizer)
    start = len(prompt.text)
    # In plain text the space behind the speaker's name is written with the response.
    space = int(prompt.format == "scaffold" and response.text.startswith(" "))
    span = Span(start + space, start + len(response.text), "assistant")
    text = prompt.text + response.text + end
    return replace(
        prompt,
        text=text,
        spans=(*prompt.spans, span),
        response=start,
        parts=trace(text, span, opened=opens_trace(prompt)),
        generated=response.token_ids,
    )


def ending(example: Example, format: Format, tokenizer: Templated | None = None) -> str:
    """What the format puts behind the response to an example, e.g. the end of the turn.

    Raises:
        DataError: the example cannot be rendered.
        ModelError: the stage has no chat template, or one that cannot be used.
    """
    messages = example.messages or (Message("user", str(example.text)),)
    answered = replace(example, text=None, messages=(*messages, Message("assistant", _STAND_IN)))
    rendered = render(answered, format, tokenizer)
    return rendered.text[rendered.spans[-1].stop :]


def opens_trace(prompt: Rendered) -> bool:
    """Whether a prompt without a response ends with the opening of a trace of reasoning."""
    return prompt.text.rstrip().endswith(_OPENING)


@dataclass(frozen=True)
class Tally:
    """What became of the responses of one stage.

    Args:
        stage: label of the stage that wrote them.
        asked: how many examples of each label; None = without labels.
        usable: how many responses to them could be read.
        kept: how many are left when those without a counterpart are gone too.
        missing: how many could not be read, by reason.
        n_cut: how many were cut, usable or not.
    """

    stage: str
    asked: Mapping[int | None, int]
    usable: Mapping[int | None, int]
    kept: Mapping[int | None, int]
    missing: Mapping[str, int] = field(default_factory=dict)
    n_cut: int = 0

    def __str__(self) -> str:
        parts = [
            f"{'' if label is None else f'label {label}: '}{self.usable[label]} of {n} usable, "
            f"{self.kept[label]} kept"
            for label, n in sorted(self.asked.items(), key=str)
        ]
        parts += [f"{n} {reason}" for reason, n in sorted(self.missing.items())]
        parts += [f"{self.n_cut} cut before their end"] if self.n_cut else []
        return f"responses of {self.stage}: {'; '.join(parts)}"

    def describe(self) -> dict[str, Any]:
        """The same as JSON data."""
        counts = {name: getattr(self, name) for name in ("asked", "usable", "kept", "missing")}
        named = {
            name: {"unlabelled" if k is None else str(k): n for k, n in it.items()}
            for name, it in counts.items()
        }
        return {"stage": self.stage, **named, "cut": self.n_cut}


@dataclass(frozen=True)
class Kept:
    """The examples whose responses can be read in every stage of a comparison.

    Args:
        examples: in the data set's order, with both sides of a pair or neither.
        tallies: one for each stage that wrote.
    """

    examples: tuple[Example, ...]
    tallies: tuple[Tally, ...]


def keep(
    examples: Sequence[Example],
    written: Mapping[str, Mapping[str, Response]],
    positions: Collection[Position] = (),
) -> Kept:
    """Choose the examples that every stage of a comparison can be read on.

    Args:
        examples: those that were asked.
        written: by label of the stage that wrote them, the responses by id of their example.
        positions: what is going to be read: a response without a trace is left out for
            `think_mean`, one without an answer for `answer_mean`.

    Returns:
        The same examples for every stage; an example whose counterpart (`Example.pair`) is lost is
        lost too.

    Raises:
        DataError: nothing is left of one label of a trait; gives the counts.
    """
    lost: set[str] = set()
    reasons: dict[str, dict[str, str]] = {}
    for stage, responses in written.items():
        found = {it.id: _missing(responses[it.id], positions) for it in examples}
        reasons[stage] = {example_id: reason for example_id, reason in found.items() if reason}
        lost |= set(reasons[stage])
    broken = {(it.trait, it.pair) for it in examples if it.id in lost and it.pair}
    kept = tuple(it for it in examples if it.id not in lost and (it.trait, it.pair) not in broken)
    tallies = tuple(
        _tally(stage, examples, kept, responses, reasons[stage])
        for stage, responses in written.items()
    )
    if {(it.trait, it.label) for it in kept} != {(it.trait, it.label) for it in examples}:
        raise DataError(
            f"too few responses can be read: {'. '.join(map(str, tallies))}; use another "
            "data.respond, a longer data.generation.max_new_tokens or another analysis.position"
        )
    return Kept(kept, tallies)


def _missing(response: Response, positions: Collection[Position]) -> str:
    """Why a response cannot be read; empty if it can."""
    text = response.text
    if not text.strip():
        return EMPTY
    parts = trace(text, Span(0, len(text), "assistant"), opened=response.opened)
    roles = {part.role for part in parts}
    if "think_mean" in positions and "think" not in roles:
        return NO_TRACE
    return NO_ANSWER if "answer_mean" in positions and "answer" not in roles else ""


def _tally(
    stage: str,
    examples: Sequence[Example],
    kept: Sequence[Example],
    responses: Mapping[str, Response],
    missing: Mapping[str, str],
) -> Tally:
    asked = Counter(it.label for it in examples)
    left = Counter(it.label for it in kept)
    usable = Counter(it.label for it in examples if it.id not in missing)
    return Tally(
        stage,
        asked=dict(asked),
        usable={label: usable[label] for label in asked},
        kept={label: left[label] for label in asked},
        missing=dict(Counter(missing.values())),
        n_cut=sum(responses[it.id].is_cut for it in examples),
    )
