"""From a rendered prompt to token ids, and from a position's name to token indices.

Positions are resolved by spans of characters, never by counting back from the end, because
templates and tokenizers differ in how many tokens follow the content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Int

from olmo_stages.data.formats import Rendered, Span
from olmo_stages.errors import DataError, ModelError
from olmo_stages.types import Position, check_choice

POSITIONS: tuple[Position, ...] = get_args(Position)

ATTENTION_SINK = 0
"""Sequence position whose activations are huge whatever the token is (Sun et al. 2402.17762)."""


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a fast Hugging Face tokenizer that is needed here."""

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the tokens that stand for no text."""
        ...

    def __call__(self, text: str, **options: bool) -> Any:  # noqa: ANN401 (a BatchEncoding)
        """Encode one text; the answer holds input_ids, offset_mapping, special_tokens_mask."""
        ...


@dataclass(frozen=True)
class TokenSpan:
    """Content of one turn in tokens: indices `start` to `stop - 1` of the prompt.

    Args:
        start: index of its first token.
        stop: index after its last token.
        role: role of the turn; `text` where there are no turns.
    """

    start: int
    stop: int
    role: str


@dataclass(frozen=True)
class Prompt:
    """One tokenised prompt.

    Args:
        id: id of the example.
        token_ids: after truncation, without padding.
        content: the turns' contents that are left after truncation, in order. A token that
            straddles the border of a content counts as content.
        special: which tokens are special (BOS, turn markers, end of text).
        n_dropped: how many tokens were cut off to fit the context.
    """

    id: str
    token_ids: tuple[int, ...]
    content: tuple[TokenSpan, ...]
    special: tuple[bool, ...]
    n_dropped: int

    @property
    def content_tokens(self) -> tuple[int, ...]:
        """Indices of the content tokens that are not special, ascending; never empty."""
        inside = {i for span in self.content for i in range(span.start, span.stop)}
        return tuple(sorted(i for i in inside if not self.special[i]))


def tokenize(rendered: Rendered, tokenizer: Tokenizer, max_length: int) -> Prompt:
    """Tokenise one prompt, cutting from the left what does not fit.

    `chat_fixed` carries its special tokens in its text, so that none are added; `raw` gets those
    that the tokenizer adds by itself, once. Those stay when a text is cut: what goes is the oldest
    text, not the BOS.

    Args:
        rendered: the prompt's text and spans.
        tokenizer: a fast tokenizer (one that returns offsets).
        max_length: tokens the prompt may have.

    Returns:
        The prompt; `n_dropped` says how many tokens were cut.

    Raises:
        DataError: no content token is left.
        ModelError: the tokenizer returns no offsets.
    """
    encoded = _encode(rendered, tokenizer)
    ids = np.asarray(encoded["input_ids"], dtype=np.int64)
    offsets = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    added = np.asarray(encoded["special_tokens_mask"], dtype=bool)
    special = added | np.isin(ids, _special_ids(tokenizer))
    # Byte-level tokenizers give the several tokens of one character the same offsets, so that
    # overlap, unlike containment, keeps them all; added tokens have empty offsets and never count.
    overlaps = [
        (offsets[:, 0] < span.stop) & (offsets[:, 1] > span.start) & ~added
        for span in rendered.spans
    ]
    kept = _kept(added, max_length)
    prompt = Prompt(
        id=rendered.id,
        token_ids=tuple(ids[kept].tolist()),
        content=_token_spans([overlap[kept] for overlap in overlaps], rendered.spans),
        special=tuple(special[kept].tolist()),
        n_dropped=len(ids) - len(kept),
    )
    if not prompt.content_tokens:
        raise DataError(
            f"example {rendered.id!r}: no content token is left in a context of {max_length} "
            f"tokens ({prompt.n_dropped} of {len(ids)} cut); allow a longer context or leave it out"
        )
    return prompt


def resolve(prompt: Prompt, position: Position) -> tuple[int, ...]:
    """Token indices that are read for a position.

    - `last`: the last token of the prompt, template included: where the answer begins.
    - `last_content`: the last content token that is not special.
    - `first_content`: the first content token that is not special.
    - `mean`: the average of all content tokens that are not special, except the attention sink at
      sequence position 0. Where the sink is the only content token it is read all the same, so
      that no example is lost; `reads_sink` tells.
    - `tokens`: the tokens of `mean`, one row each.

    Args:
        prompt: the tokenised prompt.
        position: name of the position.

    Returns:
        Ascending indices into `prompt.token_ids`; exactly one, except for `mean` and `tokens`.
    """
    check_choice("position", position, POSITIONS)
    content = prompt.content_tokens
    match position:
        case "last":
            return (len(prompt.token_ids) - 1,)
        case "last_content":
            return (content[-1],)
        case "first_content":
            return (content[0],)
        case "mean" | "tokens":
            return tuple(i for i in content if i != ATTENTION_SINK) or content


def left_out(prompt: Prompt, position: Position) -> dict[str, int]:
    """Count the tokens of a prompt that a position for all content leaves out, by reason.

    Each token has one reason, the first of these that holds, so that the counts and the tokens
    that are read add up to the prompt after truncation.

    - `sink`: the token at sequence position 0, whatever it is (content, BOS or turn marker).
    - `special`: a special token (BOS, turn marker, end of text), inside a content or around it.
    - `template`: any other token around the content.

    Args:
        prompt: the tokenised prompt.
        position: name of the position.

    Returns:
        Counts of the three reasons for `mean` and `tokens`; nothing for a position that reads a
        single token by its definition.
    """
    if position not in {"mean", "tokens"}:
        return {}
    counts = {"sink": 0, "special": 0, "template": 0}
    for i in set(range(len(prompt.token_ids))).difference(resolve(prompt, position)):
        special = "special" if prompt.special[i] else "template"
        counts["sink" if i == ATTENTION_SINK else special] += 1
    return counts


def reads_sink(prompt: Prompt, position: Position) -> bool:
    """Whether what is read is the attention sink, the token at sequence position 0, and no other.

    So it is for `mean` and `tokens` only where no other content token is left.
    """
    return resolve(prompt, position) == (ATTENTION_SINK,)


def _encode(rendered: Rendered, tokenizer: Tokenizer) -> Mapping[str, Any]:
    remedy = "use a fast tokenizer (a checkpoint with tokenizer.json)"
    try:
        encoded = tokenizer(
            rendered.text,
            add_special_tokens=rendered.format == "raw",
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
    except NotImplementedError as error:
        raise ModelError(f"the tokenizer cannot return offsets; {remedy}") from error
    if "offset_mapping" not in encoded:
        raise ModelError(f"the tokenizer returned no offsets; {remedy}")
    return encoded


def _special_ids(tokenizer: Tokenizer) -> Int[np.ndarray, " id"]:
    # all_special_ids lacks special tokens without a role, such as the turn markers of a base model.
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    unnamed = [token_id for token_id, token in added.items() if token.special]
    return np.array([*tokenizer.all_special_ids, *unnamed], dtype=np.int64)


def _kept(added: np.ndarray, max_length: int) -> np.ndarray:
    # The special tokens that the tokenizer put in front stay; then come the newest tokens.
    n = len(added)
    if n <= max_length:
        return np.arange(n)
    n_leading = n if added.all() else int(np.argmin(added))
    n_tail = max(max_length - n_leading, 0)
    return np.concatenate([np.arange(n_leading), np.arange(max(n - n_tail, n_leading), n)])


def _token_spans(overlaps: Sequence[np.ndarray], spans: tuple[Span, ...]) -> tuple[TokenSpan, ...]:
    found: list[TokenSpan] = []
    for overlap, span in zip(overlaps, spans, strict=True):
        indices = np.flatnonzero(overlap)
        if len(indices):
            found.append(TokenSpan(int(indices[0]), int(indices[-1]) + 1, span.role))
    return tuple(found)
