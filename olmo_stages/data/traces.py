"""Where a response reasons and where it answers, found in its text.

`<think>` is no token of its own: it is three ordinary ones, the last of which merges with a line
end behind it, so that its token ids depend on what follows.

- A trace opens with `<think>` as the first thing in the response, or in the template right before
  it, or, where the response holds a `</think>` without either, with the response itself (a sampled
  response lacks the `<think>` that its prompt ended with).
- It ends at the first `</think>`. One that is never closed goes on to the end of the response, and
  such a response has no answer: the model never got to it.
- The answer is what follows `</think>`. A response without a trace has no answer in this sense.

White space at the ends of either is no part of it, so that a token that holds the end of a tag and
a line end counts as the tag's.
"""

import re

from olmo_stages.data.prompts import Span

_OPEN = re.compile(r"\s*<think>")
CLOSE = "</think>"


def trace(text: str, response: Span, *, opened: bool) -> tuple[Span, ...]:
    """Find reasoning and answer of a response.

    Args:
        text: the rendered prompt.
        response: content of its last turn, in characters of `text`.
        opened: whether the template opens the trace right before the response.

    Returns:
        A span `think`, then a span `answer`; either is left out where it is missing or blank.
    """
    opening = _OPEN.match(text, response.start, response.stop)
    start = opening.end() if opening else response.start
    close = text.find(CLOSE, start, response.stop)
    if opening is None and close < 0 and not opened:
        return ()
    think = _trimmed(text, start, response.stop if close < 0 else close, "think")
    if close < 0:
        return think
    return (*think, *_trimmed(text, close + len(CLOSE), response.stop, "answer"))


def _trimmed(text: str, start: int, stop: int, role: str) -> tuple[Span, ...]:
    inside = text[start:stop]
    start += len(inside) - len(inside.lstrip())
    stop = start + len(inside.strip())
    return (Span(start, stop, role),) if stop > start else ()
