"""A prompt before tokenisation: text, and where the contents of its turns lie, in characters."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Span:
    """Content of one turn, or a part of it: `text[start:stop]` of a rendered prompt, in characters.

    Args:
        start: index of its first character.
        stop: index after its last character.
        role: role of the turn, `text` where there are no turns; `think` or `answer` for a part.
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
        response: where the response begins, if the last turn is the assistant's: the text before
            is what the model would be prompted with.
        parts: reasoning and answer within the response; see `olmo_stages.data.traces`.
        generated: token ids of the response, where a model wrote it; None = it is tokenised.
    """

    id: str
    text: str
    spans: tuple[Span, ...]
    format: Literal["raw", "scaffold", "chat_fixed", "chat_native"]
    response: int | None = None
    parts: tuple[Span, ...] = ()
    generated: tuple[int, ...] | None = None
