"""A checkpoint's own chat template, rendered as transformers does it: Jinja in a sandbox.

A template may add text (a default system turn, the opening of a trace), strip contents, or drop
earlier reasoning. Where a content lies is found by rendering again with marks around it: taking the
marks away must give the prompt back, character by character, and what stood between them is the
content. Where no place of the marks does that, the template is refused rather than guessed at.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from olmo_stages.data.prompts import Rendered, Span
from olmo_stages.data.traces import CLOSE
from olmo_stages.errors import DataError, ModelError
from olmo_stages.types import Message

REMEDY = "use data.format=chat_fixed, the same for every stage"

_PRIVATE_USE = range(0xE000, 0xF900)
Renderer = Callable[[Sequence[str]], str]


@runtime_checkable
class Templated(Protocol):
    """The part of a Hugging Face tokenizer that renders chats."""

    @property
    def all_special_tokens(self) -> list[str]:
        """Tokens that stand for no text."""
        ...

    def get_chat_template(self) -> str:
        """The Jinja source."""
        ...

    def apply_chat_template(self, conversation: Any, **options: bool) -> Any:  # noqa: ANN401
        """Render messages, dictionaries of role and content."""
        ...


def check_template(template: str | None, where: str) -> str:
    """Return a chat template that may be used.

    Args:
        template: its Jinja source; None = there is none.
        where: whose it is, for the message.

    Raises:
        ModelError: there is none, or its prompts change from day to day.
    """
    if not template:
        raise ModelError(
            f"{where} has no chat template (a base model has none) for data.format=chat_native; "
            "use data.format=scaffold or raw, or chat_fixed to put it into this project's own"
        )
    if "strftime_now" in template:
        raise ModelError(
            f"{where}: its chat template writes today's date, so the same data would give other "
            f"prompts tomorrow; {REMEDY}"
        )
    return template


def render(example_id: str, messages: tuple[Message, ...], tokenizer: Templated | None) -> Rendered:
    """Render a chat with the tokenizer's template and find its contents.

    Args:
        example_id: for error messages.
        messages: the turns.
        tokenizer: whose template.

    Returns:
        The prompt, with the opening of an assistant turn unless the last turn is the assistant's.

    Raises:
        DataError: the template refuses the chat, or drops or rewrites a content, or a content
            holds a special token.
        ModelError: there is no template, or one that cannot be used.
    """
    check_template(_template(tokenizer), "the tokenizer")
    assert tokenizer is not None
    _check_contents(example_id, messages, tokenizer)
    roles = [message.role for message in messages]
    answered = roles[-1] == "assistant"

    def rendered(contents: Sequence[str], *, prompting: bool = not answered) -> str:
        turns = zip(roles[: len(contents)], contents, strict=True)
        chat = [{"role": role, "content": content} for role, content in turns]
        return _apply(example_id, tokenizer, chat, prompting=prompting)

    contents = [message.content for message in messages]
    text = rendered(contents)
    found = [_locate(example_id, messages, i, text, rendered) for i in range(len(messages))]
    spans = tuple(sorted(found, key=lambda span: span.start))
    if not answered:
        return Rendered(example_id, text, spans, "chat_native")
    if spans[-1] is not found[-1]:
        raise DataError(
            f"example {example_id!r}: the chat template does not put the response last; {REMEDY}"
        )
    start = found[-1].start
    prompt = rendered(contents[:-1], prompting=True) if len(contents) > 1 else text[:start]
    response = len(prompt) if text.startswith(prompt) else start
    return Rendered(example_id, text, spans, "chat_native", response)


def _template(tokenizer: Templated | None) -> str | None:
    try:
        return None if tokenizer is None else tokenizer.get_chat_template()
    except ValueError:  # there is none, or several and none by default
        return None


def _apply(
    example_id: str, tokenizer: Templated, chat: list[dict[str, str]], *, prompting: bool
) -> str:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompting)
    # What a template raises by itself, and what its operations raise.
    except (TemplateError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"example {example_id!r}: the chat template refuses it ({reason:.120}); {REMEDY}"
        ) from error


def _check_contents(example_id: str, messages: tuple[Message, ...], tokenizer: Templated) -> None:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special = {*tokenizer.all_special_tokens, *(str(it) for it in added if it.special)}
    for message in messages:
        forged = sorted(token for token in special if token in message.content)
        if forged:
            raise DataError(
                f"example {example_id!r}: its content holds the special token {forged[0]}, which "
                "could end or forge a turn; remove it from the text"
            )


def _locate(
    example_id: str, messages: tuple[Message, ...], i: int, text: str, rendered: Renderer
) -> Span:
    """Where the content of turn `i` lies in `text`.

    Raises:
        DataError: it cannot be told, or some of it is gone.
    """
    contents = [message.content for message in messages]
    first, second = _marks([text, *contents])

    def with_content(content: str) -> str:
        return rendered([*contents[:i], content, *contents[i + 1 :]])

    for start, stop in _cuts(contents[i], first, text, with_content):
        content = contents[i]
        marked = with_content(
            content[:start] + first + content[start:stop] + second + content[stop:]
        )
        once = marked.count(first) == marked.count(second) == 1
        if once and marked.replace(first, "").replace(second, "") == text:
            return Span(marked.index(first), marked.index(second) - 1, messages[i].role)
    raise DataError(
        f"example {example_id!r}: the chat template drops or rewrites its {messages[i].role} turn "
        f"({contents[i]!r:.40}), so its content cannot be found in the prompt; {REMEDY}"
    )


def _cuts(
    content: str, mark: str, text: str, with_content: Callable[[str], str]
) -> Iterator[tuple[int, int]]:
    """What may be left of a content, as start and stop, the most first.

    White space at its ends, or a trace of reasoning at its beginning.
    """
    yield from _ends(content, 0)
    answer = content.rfind(CLOSE) + len(CLOSE)
    if answer >= len(CLOSE):
        # A mark inside the trace shows whether the trace is gone or only written otherwise.
        middle = answer - len(CLOSE)
        if with_content(content[:middle] + mark + content[middle:]) == text:
            yield from _ends(content, answer)


def _ends(content: str, start: int) -> Iterator[tuple[int, int]]:
    rest = content[start:]
    trimmed = (len(content) - len(rest.lstrip()), len(content.rstrip()))
    if trimmed[1] > trimmed[0]:
        for stop in dict.fromkeys((len(content), trimmed[1])):
            for first in dict.fromkeys((start, trimmed[0])):
                yield first, stop


def _marks(texts: Sequence[str]) -> tuple[str, str]:
    """Two characters that stand nowhere in these texts."""
    used = set().union(*texts)
    free = (chr(code) for code in _PRIVATE_USE if chr(code) not in used)
    return next(free), next(free)
