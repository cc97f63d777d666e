"""How an example becomes a prompt: text, and where its content lies in it.

- `raw`: the text as it is.
- `chat_fixed`: one ChatML template that this project owns, byte-identical for every stage. The
  released chat templates differ from stage to stage (default system turn, date, functions), so a
  difference between stages under each stage's own template is partly a difference of prompts.
- `auto`: `raw` for texts, `chat_fixed` for chats.
"""

from dataclasses import dataclass
from typing import Literal, cast

from olmo_stages.errors import DataError
from olmo_stages.types import Example, Format, Message, check_choice

FORMATS = ("auto", "raw", "chat_fixed")
ROLES = ("system", "user", "assistant", "environment", "tool")

TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"


@dataclass(frozen=True)
class Span:
    """Content of one turn: `text[start:stop]` of a rendered prompt, in characters.

    Args:
        start: index of its first character.
        stop: index after its last character.
        role: role of the turn; `text` where there are no turns.
    """

    start: int
    stop: int
    role: str


@dataclass(frozen=True)
class Rendered:
    """A prompt before tokenisation.

    Args:
        id: id of the example, for error messages.
        text: the prompt; everything outside `spans` is template.
        spans: contents of the turns, in order.
        format: what it was rendered with; decides who adds the special tokens.
    """

    id: str
    text: str
    spans: tuple[Span, ...]
    format: Literal["raw", "chat_fixed"]


def as_format(value: str) -> Format:
    """Return a user's value as a format.

    Raises:
        ConfigError: it is none; the message names the alternatives.
    """
    check_choice("data.format", value, FORMATS)
    return cast("Format", value)


def render(example: Example, format: Format) -> Rendered:
    """Render one example; the same bytes for every stage.

    Args:
        example: text or chat.
        format: see the module's docstring.

    Returns:
        The prompt. In `chat_fixed` a text becomes one user message, and a chat whose last message
        is not the assistant's ends with the opening of an assistant turn.

    Raises:
        DataError: a chat is to be rendered raw, a role is unknown, or a content holds one of the
            template's own tokens and would forge a turn.
    """
    check_choice("format", format, FORMATS)
    if format == "raw" and example.messages is not None:
        raise DataError(
            f"example {example.id!r}: a chat has no raw form; use data.format=chat_fixed or auto"
        )
    if example.text is not None and format != "chat_fixed":
        whole = Span(0, len(example.text), "text")
        return Rendered(example.id, example.text, (whole,), "raw")
    messages = example.messages or (Message("user", str(example.text)),)
    return _chat_fixed(example.id, messages)


def _chat_fixed(example_id: str, messages: tuple[Message, ...]) -> Rendered:
    text = ""
    spans: list[Span] = []
    for message in messages:
        _check_message(example_id, message)
        text += f"{TURN_START}{message.role}\n"
        spans.append(Span(len(text), len(text) + len(message.content), message.role))
        text += f"{message.content}{TURN_END}\n"
    if messages[-1].role != "assistant":
        text += f"{TURN_START}assistant\n"
    return Rendered(example_id, text, tuple(spans), "chat_fixed")


def _check_message(example_id: str, message: Message) -> None:
    if message.role not in ROLES:
        raise DataError(
            f"example {example_id!r}: role {message.role!r} is unknown; "
            f"choose from {', '.join(ROLES)}"
        )
    for token in (TURN_START, TURN_END):
        if token in message.content:
            raise DataError(
                f"example {example_id!r}: its content holds the template's own token {token}, "
                "which would end or forge a turn; remove it from the text"
            )
