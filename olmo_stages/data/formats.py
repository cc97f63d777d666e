"""How an example becomes a prompt: text, and where its content lies in it.

- `raw`: the text as it is.
- `scaffold`: plain text with named speakers, without special tokens, which a base model can read
  too: `User: {content}` and a last line `Assistant:`. No space follows, because in byte-level
  vocabularies it belongs to the first word of the answer.
- `chat_fixed`: one ChatML template that this project owns, byte-identical for every stage. The
  released chat templates differ from stage to stage (default system turn, date, functions), so a
  difference between stages under each stage's own template is partly a difference of prompts.
- `chat_native`: each checkpoint's own chat template; see `olmo_stages.data.native`.
- `auto`: `raw` for texts, `chat_fixed` for chats.
"""

import re
from dataclasses import replace
from typing import Literal, cast, get_args

from olmo_stages.data import native
from olmo_stages.data.prompts import Rendered, Span
from olmo_stages.data.traces import trace
from olmo_stages.errors import DataError
from olmo_stages.types import Example, Format, Message, check_choice

FORMATS: tuple[Format, ...] = get_args(Format)
ROLES = ("system", "user", "assistant", "environment", "tool")

TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"

SPEAKER = re.compile(rf"\n({'|'.join(role.capitalize() for role in ROLES)}):")
"""The beginning of another turn in `scaffold`."""


def as_format(value: str) -> Format:
    """Return a user's value as a format.

    Raises:
        ConfigError: it is none; the message names the alternatives.
    """
    check_choice("data.format", value, FORMATS)
    return cast("Format", value)


def resolve_format(
    example: Example, format: Format
) -> Literal["raw", "scaffold", "chat_fixed", "chat_native"]:
    """Return what an example is rendered with: the format itself, unless it is `auto`."""
    if format == "auto":
        return "raw" if example.messages is None else "chat_fixed"
    return format


def render(example: Example, format: Format, tokenizer: native.Templated | None = None) -> Rendered:
    """Render one example; the same bytes for every stage, except in `chat_native`.

    Args:
        example: text or chat.
        format: see the module's docstring.
        tokenizer: the stage's, whose chat template `chat_native` renders; unused otherwise.

    Returns:
        The prompt. Except in `raw`, a text becomes one user message, and a chat whose last message
        is not the assistant's ends with the opening of an assistant turn.

    Raises:
        DataError: a chat is to be rendered raw, a role is unknown, or a content would forge a turn
            or is changed by the stage's template.
        ModelError: the stage has no chat template, or one that cannot be used.
    """
    check_choice("format", format, FORMATS)
    chosen = resolve_format(example, format)
    if chosen == "raw":
        return _raw(example)
    messages = example.messages or (Message("user", str(example.text)),)
    match chosen:
        case "scaffold":
            rendered = _scaffold(example.id, messages)
        case "chat_fixed":
            rendered = _chat_fixed(example.id, messages)
        case "chat_native":
            rendered = native.render(example.id, messages, tokenizer)
    return replace(rendered, parts=_parts(rendered))


def _parts(rendered: Rendered) -> tuple[Span, ...]:
    if rendered.response is None:
        return ()
    before, response = rendered.text[: rendered.spans[-1].start], rendered.spans[-1]
    return trace(rendered.text, response, opened=before.rstrip().endswith("<think>"))


def _raw(example: Example) -> Rendered:
    if example.text is None:
        raise DataError(
            f"example {example.id!r}: a chat has no raw form; use data.format=chat_fixed, scaffold "
            "or auto"
        )
    return Rendered(example.id, example.text, (Span(0, len(example.text), "text"),), "raw")


def _scaffold(example_id: str, messages: tuple[Message, ...]) -> Rendered:
    text = ""
    spans: list[Span] = []
    for message in messages:
        _check_role(example_id, message)
        if forged := SPEAKER.search(message.content):
            raise DataError(
                f"example {example_id!r}: its content has a line that begins with {forged[1]}: and "
                "would forge a turn; use data.format=chat_fixed or change the line"
            )
        text += f"{message.role.capitalize()}: "
        spans.append(Span(len(text), len(text) + len(message.content), message.role))
        text += f"{message.content}\n"
    if messages[-1].role == "assistant":
        # The space is what the prompt lacks, so the answer begins with it.
        response = spans[-1].start - 1
        return Rendered(example_id, text[:-1], tuple(spans), "scaffold", response)
    return Rendered(example_id, f"{text}Assistant:", tuple(spans), "scaffold")


def _chat_fixed(example_id: str, messages: tuple[Message, ...]) -> Rendered:
    text = ""
    spans: list[Span] = []
    for message in messages:
        _check_role(example_id, message)
        _check_content(example_id, message)
        text += f"{TURN_START}{message.role}\n"
        spans.append(Span(len(text), len(text) + len(message.content), message.role))
        text += f"{message.content}{TURN_END}\n"
    if messages[-1].role == "assistant":
        return Rendered(example_id, text, tuple(spans), "chat_fixed", spans[-1].start)
    return Rendered(example_id, f"{text}{TURN_START}assistant\n", tuple(spans), "chat_fixed")


def _check_role(example_id: str, message: Message) -> None:
    if message.role not in ROLES:
        raise DataError(
            f"example {example_id!r}: role {message.role!r} is unknown; "
            f"choose from {', '.join(ROLES)}"
        )


def _check_content(example_id: str, message: Message) -> None:
    for token in (TURN_START, TURN_END):
        if token in message.content:
            raise DataError(
                f"example {example_id!r}: its content holds the template's own token {token}, "
                "which would end or forge a turn; remove it from the text"
            )
