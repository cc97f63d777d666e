"""From a rendered prompt to token ids, with the contents of its turns found again among them.

Contents are found by spans of characters, never by counting back from the end, because templates
and tokenizers differ in how many tokens follow the content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from olmo_stages.data.generated import places
from olmo_stages.data.prompts import Rendered, Span
from olmo_stages.errors import DataError, ModelError


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a fast Hugging Face tokenizer that is needed here."""

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the tokens that stand for no text."""
        ...

    def convert_ids_to_tokens(self, ids: int) -> Any:  # noqa: ANN401 (a str)
        """How the vocabulary spells a token."""
        ...

    def __call__(self, text: str, **options: bool) -> Any:  # noqa: ANN401 (a BatchEncoding)
        """Encode one text; the answer holds input_ids, offset_mapping, special_tokens_mask."""
        ...


@dataclass(frozen=True)
class TokenSpan:
    """Content of one turn, or a part of it, in tokens: `start` to `stop - 1` of the prompt.

    Args:
        start: index of its first token.
        stop: index after its last token.
        role: role of the turn, `text` where there are no turns; `think` or `answer` for a part.
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
        n_prompt: how many tokens come before the response, if the last turn is the assistant's.
        parts: reasoning (`think`) and `answer` within the response, where it has them.
        joined: whether prompt and response were tokenised apart.
    """

    id: str
    token_ids: tuple[int, ...]
    content: tuple[TokenSpan, ...]
    special: tuple[bool, ...]
    n_dropped: int
    n_prompt: int | None = None
    parts: tuple[TokenSpan, ...] = ()
    joined: bool = False

    @property
    def content_tokens(self) -> tuple[int, ...]:
        """Indices of the content tokens that are not special, ascending; never empty."""
        return self.tokens_of(self.content)

    @property
    def response_tokens(self) -> tuple[int, ...]:
        """The same of the response alone; empty unless the last turn is the assistant's."""
        if self.n_prompt is None:
            return ()
        return tuple(i for i in self.tokens_of(self.content[-1:]) if i >= self.n_prompt)

    def tokens_of(self, spans: Sequence[TokenSpan]) -> tuple[int, ...]:
        """Indices of the tokens of these spans that are not special, ascending."""
        inside = {i for span in spans for i in range(span.start, span.stop)}
        return tuple(sorted(i for i in inside if not self.special[i]))


@dataclass(frozen=True, eq=False)
class _Encoded:
    """Tokens of a text, and which of them the tokenizer added by itself."""

    ids: Int[np.ndarray, " token"]
    offsets: Int[np.ndarray, "token 2"]
    added: Bool[np.ndarray, " token"]

    def __getitem__(self, chosen: slice) -> "_Encoded":
        return _Encoded(self.ids[chosen], self.offsets[chosen], self.added[chosen])

    def __add__(self, other: "_Encoded") -> "_Encoded":
        return _Encoded(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.offsets, other.offsets]),
            np.concatenate([self.added, other.added]),
        )

    @property
    def border(self) -> tuple[int, int]:
        """Where the text's own tokens start and stop."""
        own = np.flatnonzero(~self.added)
        return (int(own[0]), int(own[-1]) + 1) if len(own) else (len(self.ids), len(self.ids))


def tokenize(rendered: Rendered, tokenizer: Tokenizer, max_length: int) -> Prompt:
    """Tokenise one prompt, cutting from the left what does not fit.

    Special tokens stand in a prompt once:

    - `raw` has those that the tokenizer adds by itself (BOS, EOS);
    - `scaffold` and `chat_fixed` have those that it adds in front, so that a model that wants a BOS
      gets one, and none at the end, where the answer is to begin;
    - `chat_native` has those that the template writes, and no other;
    - where a text carries itself what the tokenizer would add, its own copy gives way.

    Those that the tokenizer added stay when a text is cut: what goes is the oldest text, not the
    BOS. The tokens before a response are those of the prompt alone, as when the model generates:
    where a token would straddle the two, they are tokenised apart and joined. A response that a
    model wrote has the very tokens that it wrote.

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
    encoded, n_prompt, joined = _whole(rendered, tokenizer)
    special = encoded.added | np.isin(encoded.ids, _special_ids(tokenizer))
    kept = _kept(encoded.added, max_length)
    prompt = Prompt(
        id=rendered.id,
        token_ids=tuple(encoded.ids[kept].tolist()),
        content=_token_spans(encoded, kept, rendered.spans),
        special=tuple(special[kept].tolist()),
        n_dropped=len(encoded.ids) - len(kept),
        n_prompt=None if n_prompt is None else int((kept < n_prompt).sum()),
        parts=_token_spans(encoded, kept, rendered.parts),
        joined=joined,
    )
    if not prompt.content_tokens:
        n = len(encoded.ids)
        raise DataError(
            f"example {rendered.id!r}: no content token is left in a context of {max_length} "
            f"tokens ({prompt.n_dropped} of {n} cut); allow a longer context or leave it out"
        )
    return prompt


def token_texts(rendered: Rendered, tokenizer: Tokenizer, max_length: int) -> tuple[str, ...]:
    """What each token of a prompt says: the part of the rendered text that it adds.

    Written one after another they are the prompt, but for what no token holds (white space at its
    end, characters that the tokenizer drops). White space that no token holds (WordPiece has none,
    byte-level tokenizers may leave it out of their offsets) stands before the token behind it. A
    character that is cut into several tokens stands with the first of them, and the others, which
    only continue it, are empty; where the first was cut off with what does not fit, so is the
    character. A special token that the tokenizer added is written as the tokenizer spells it.

    Args:
        rendered: the prompt's text and spans.
        tokenizer: a fast tokenizer.
        max_length: tokens the prompt may have.

    Returns:
        One text a token, in the order of `tokenize(...).token_ids`.

    Raises:
        ModelError: the tokenizer returns no offsets.
    """
    encoded, _, _ = _whole(rendered, tokenizer)
    found: list[str] = []
    end = 0
    for token_id, (start, stop), added in zip(
        encoded.ids.tolist(), encoded.offsets.tolist(), encoded.added.tolist(), strict=True
    ):
        if added:
            found.append(str(tokenizer.convert_ids_to_tokens(token_id)))
            continue
        gap = rendered.text[end:start]
        found.append(gap[len(gap.rstrip()) :] + rendered.text[max(start, end) : stop])
        end = max(end, stop)
    return tuple(found[i] for i in _kept(encoded.added, max_length))


def _whole(rendered: Rendered, tokenizer: Tokenizer) -> tuple[_Encoded, int | None, bool]:
    """All tokens, how many of them come before the response, and whether the two were joined."""
    whole = _encode(rendered, rendered.text, tokenizer)
    if rendered.response is None:
        return whole, None, False
    prompt = _encode(rendered, rendered.text[: rendered.response], tokenizer)
    n_prompt = len(prompt.ids)
    if rendered.generated is not None:
        return prompt + _generated(rendered, rendered.generated, tokenizer), n_prompt, False
    if np.array_equal(whole.ids[:n_prompt], prompt.ids):
        return whole, n_prompt, False
    response = _call(rendered.text[rendered.response :], tokenizer, add=False)
    moved = _Encoded(response.ids, response.offsets + rendered.response, response.added)
    return prompt + moved, n_prompt, True


def _generated(rendered: Rendered, token_ids: tuple[int, ...], tokenizer: Tokenizer) -> _Encoded:
    """The tokens of a response as a model wrote them, and those behind it."""
    start, stop = rendered.response or 0, rendered.spans[-1].stop
    offsets = places(rendered.id, token_ids, rendered.text[start:stop], tokenizer) + start
    ids = np.asarray(token_ids, dtype=np.int64)
    written = _Encoded(ids, offsets, np.zeros(len(ids), dtype=bool))
    end = _call(rendered.text[stop:], tokenizer, add=False)
    return written + _Encoded(end.ids, end.offsets + stop, end.added)


def _encode(rendered: Rendered, text: str, tokenizer: Tokenizer) -> _Encoded:
    encoded = _call(text, tokenizer, add=rendered.format != "chat_native")
    start, stop = encoded.border
    front, own, back = encoded[:start], encoded[start:stop], encoded[stop:]
    if rendered.format != "raw":
        back = back[:0]
    if len(front.ids) and np.array_equal(own.ids[: len(front.ids)], front.ids):
        own = own[len(front.ids) :]
    if len(back.ids) and np.array_equal(own.ids[-len(back.ids) :], back.ids):
        own = own[: -len(back.ids)]
    return front + own + back


def _call(text: str, tokenizer: Tokenizer, *, add: bool) -> _Encoded:
    remedy = "use a fast tokenizer (a checkpoint with tokenizer.json)"
    try:
        encoded: Mapping[str, Any] = tokenizer(
            text,
            add_special_tokens=add,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
    except NotImplementedError as error:
        raise ModelError(f"the tokenizer cannot return offsets; {remedy}") from error
    if "offset_mapping" not in encoded:
        raise ModelError(f"the tokenizer returned no offsets; {remedy}")
    return _Encoded(
        np.asarray(encoded["input_ids"], dtype=np.int64),
        np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2),
        np.asarray(encoded["special_tokens_mask"], dtype=bool),
    )


def _special_ids(tokenizer: Tokenizer) -> Int[np.ndarray, " id"]:
    # all_special_ids lacks special tokens without a role, such as the turn markers of a base model.
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    unnamed = [token_id for token_id, token in added.items() if token.special]
    return np.array([*tokenizer.all_special_ids, *unnamed], dtype=np.int64)


def _kept(added: np.ndarray, max_length: int) -> Int[np.ndarray, " kept"]:
    # The special tokens that the tokenizer put in front stay; then come the newest tokens.
    n = len(added)
    if n <= max_length:
        return np.arange(n)
    n_leading = n if added.all() else int(np.argmin(added))
    n_tail = max(max_length - n_leading, 0)
    return np.concatenate([np.arange(n_leading), np.arange(max(n - n_tail, n_leading), n)])


def _token_spans(
    encoded: _Encoded, kept: Int[np.ndarray, " kept"], spans: Sequence[Span]
) -> tuple[TokenSpan, ...]:
    found: list[TokenSpan] = []
    offsets, added = encoded.offsets[kept], encoded.added[kept]
    for span in spans:
        # Byte-level tokenizers give the several tokens of one character the same offsets, so that
        # overlap, unlike containment, keeps them all; added tokens have empty offsets and never
        # count.
        overlaps = (offsets[:, 0] < span.stop) & (offsets[:, 1] > span.start) & ~added
        indices = np.flatnonzero(overlaps)
        if len(indices):
            found.append(TokenSpan(int(indices[0]), int(indices[-1]) + 1, span.role))
    return tuple(found)
