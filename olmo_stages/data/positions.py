"""From a position's name to the tokens that are read.

A token is found by what it holds, never by counting back from the end. Special tokens (BOS, turn
markers, end of text) are no content, and a token that straddles the border of a content, of a trace
of reasoning or of an answer counts as inside.
"""

from collections.abc import Sequence
from typing import get_args

from olmo_stages.data.spans import Prompt
from olmo_stages.errors import DataError
from olmo_stages.types import MEANS, Position, check_choice

POSITIONS: tuple[Position, ...] = get_args(Position)

ATTENTION_SINK = 0
"""Sequence position whose activations are huge whatever the token is (Sun et al. 2402.17762)."""

_ANSWERED = "no assistant turn at the end"
_MISSING: dict[Position, tuple[str, str]] = {
    "last_prompt": ("nothing left of the prompt after truncation", "allow a longer context"),
    "last_user": ("no user turn (left)", "read last_content, or use data.format=chat_fixed"),
    "first_response": (_ANSWERED, "read last, where the response begins, or add responses"),
    "response_mean": (_ANSWERED, "read mean, or add responses"),
    "think_mean": (
        "no reasoning (<think>...</think>) in an assistant turn at the end",
        "read response_mean",
    ),
    "answer_mean": (
        "no answer behind a </think> in an assistant turn at the end (no trace, or never closed)",
        "read response_mean",
    ),
}


def resolve(prompt: Prompt, position: Position) -> tuple[int, ...]:
    """Token indices that are read for a position.

    Of any example:

    - `last`: the last token, template included: where the answer begins, if there is none yet.
    - `last_content`: the last content token that is not special.
    - `first_content`: the first content token that is not special.
    - `mean`: the average of all content tokens that are not special, except the attention sink at
      sequence position 0. Where the sink is the only content token it is read all the same, so
      that no example is lost; `reads_sink` tells.
    - `tokens`: the tokens of `mean`, one row each.

    Of chats; an example that lacks what is asked for is an error, because the examples of a
    comparison must be read alike:

    - `last_prompt`: the last token before the response, template included, whatever the response
      is; without a response the last token.
    - `last_user`: the last token of the last user turn that is not special.
    - `first_response`: the first token of the response, the content of an assistant turn at the
      end, that is not special. What the template itself opens the turn with (a `<think>`) belongs
      to the prompt.
    - `response_mean`, `think_mean`, `answer_mean`: the average, as for `mean`, of the response, of
      its trace of reasoning without the tags, or of what follows the trace. A trace that is never
      closed goes on to the end and leaves no answer; see `olmo_stages.data.traces`.

    Args:
        prompt: the tokenised prompt.
        position: name of the position.

    Returns:
        Ascending indices into `prompt.token_ids`; exactly one, except for means and `tokens`.

    Raises:
        DataError: the example lacks what the position reads.
    """
    return resolve_all([prompt], position)[0]


def resolve_all(prompts: Sequence[Prompt], position: Position) -> list[tuple[int, ...]]:
    """Token indices that are read of each prompt; see `resolve`.

    Raises:
        DataError: some examples lack what the position reads; says how many and names the first.
    """
    check_choice("position", position, POSITIONS)
    found = [_read(prompt, position) for prompt in prompts]
    missing = [prompt.id for prompt, tokens in zip(prompts, found, strict=True) if not tokens]
    if missing:
        what, remedy = _MISSING[position]
        first = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise DataError(
            f"position {position}: {len(missing)} of {len(prompts)} examples have {what}: {first}; "
            f"{remedy}, or leave these examples out"
        )
    return found


def left_out(prompt: Prompt, position: Position) -> dict[str, int]:
    """Count the tokens of a prompt that a position for several tokens leaves out, by reason.

    Each token has one reason, the first of these that holds, so that the counts and the tokens
    that are read add up to the prompt after truncation.

    - `sink`: the token at sequence position 0, whatever it is (content, BOS or turn marker).
    - `special`: a special token (BOS, turn marker, end of text), inside a content or around it.
    - `other`: a token of a content, or of a part of it, that the position does not ask for (other
      turns, tags, an answer for `think_mean`); never so for `mean` and `tokens`.
    - `template`: any other token around the content.

    Args:
        prompt: the tokenised prompt.
        position: name of the position.

    Returns:
        Counts of the reasons for means and `tokens`, `other` where it can occur; nothing for a
        position that reads a single token by its definition.

    Raises:
        DataError: the example lacks what the position reads.
    """
    if position not in {*MEANS, "tokens"}:
        return {}
    counts = {"sink": 0, "special": 0, "template": 0}
    if position not in {"mean", "tokens"}:
        counts["other"] = 0
    content = set(prompt.content_tokens)
    for i in set(range(len(prompt.token_ids))).difference(resolve(prompt, position)):
        if i == ATTENTION_SINK:
            counts["sink"] += 1
        elif prompt.special[i]:
            counts["special"] += 1
        else:
            counts["other" if i in content else "template"] += 1
    return counts


def reads_sink(prompt: Prompt, position: Position) -> bool:
    """Whether what is read is the attention sink, the token at sequence position 0, and no other.

    So it is for means and `tokens` only where no other token is left to read.

    Raises:
        DataError: the example lacks what the position reads.
    """
    return resolve(prompt, position) == (ATTENTION_SINK,)


def _read(prompt: Prompt, position: Position) -> tuple[int, ...]:
    """The tokens; none if the example lacks what is asked for."""
    if position in {"last", "last_prompt"}:
        ends = position == "last" or prompt.n_prompt is None
        n = len(prompt.token_ids) if ends else prompt.n_prompt
        return (n - 1,) if n else ()
    chosen = _region(prompt, position)
    match position:
        case "last_content" | "last_user":
            return chosen[-1:]
        case "first_content" | "first_response":
            return chosen[:1]
        case _:
            return tuple(i for i in chosen if i != ATTENTION_SINK) or chosen


def _region(prompt: Prompt, position: Position) -> tuple[int, ...]:
    """The tokens from which a position chooses."""
    match position:
        case "last_user":
            return prompt.tokens_of([it for it in prompt.content if it.role == "user"][-1:])
        case "first_response" | "response_mean":
            return prompt.response_tokens
        case "think_mean" | "answer_mean":
            part = position.removesuffix("_mean")
            return prompt.tokens_of([it for it in prompt.parts if it.role == part])
        case _:
            return prompt.content_tokens
