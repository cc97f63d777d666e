"""Where the tokens that a model wrote lie in their text.

What a model writes is not always what its tokenizer would cut the text into: it may write `>` and
then a line end where the tokenizer has one token for both. The tokens are kept as they were
written, because it is them that the model read while it went on; only their places are found here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from olmo_stages.errors import ModelError


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:  # noqa: ANN401 (of transformers)
    """What tokens say, with every character that they hold."""
    return tokenizer.decode(
        list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def places(
    example_id: str,
    token_ids: Sequence[int],
    text: str,
    tokenizer: Any,  # noqa: ANN401 (of transformers)
) -> Int[np.ndarray, "token 2"]:
    """Find where each token starts and stops in the text of all.

    Args:
        example_id: for error messages.
        token_ids: as the model wrote them.
        text: what they say.
        tokenizer: a fast tokenizer.

    Returns:
        In characters of `text`; tokens that complete a character together share its place.

    Raises:
        ModelError: for this tokenizer the tokens say something else.
    """
    ids = list(token_ids)
    if (found := decode(tokenizer, ids)) != text:
        raise ModelError(
            f"example {example_id!r}: this tokenizer reads the tokens of its response as "
            f"{found!r:.40}, but the stage that wrote them as {text!r:.40}; use data.respond=own, "
            "or stages of one vocabulary"
        )
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = [tuple(it) for it in encoded["offset_mapping"]]
    again: list[int] = list(encoded["input_ids"])
    if again == ids:
        return _array(offsets)
    front = _n_shared(ids, again)
    back = _n_shared(ids[front:][::-1], again[front:][::-1])
    start = offsets[front - 1][1] if front else 0
    stop = offsets[len(again) - back][0] if back else len(text)
    middle = _grown(ids[: len(ids) - back], front, text[:stop], start, tokenizer)
    return _array([*offsets[:front], *middle, *offsets[len(again) - back :]])


def _grown(
    ids: Sequence[int],
    front: int,
    text: str,
    start: int,
    tokenizer: Any,  # noqa: ANN401 (of transformers)
) -> list[tuple[int, int]]:
    """Places of `ids[front:]`, from how far the text grows with each token."""
    found: list[tuple[int, int]] = []
    begin, n_waiting = start, 0
    for n in range(front + 1, len(ids) + 1):
        end = len(text) if n == len(ids) else _reach(decode(tokenizer, ids[:n]), text)
        n_waiting += 1
        # Until the text grows, these tokens are the first bytes of one character.
        if end > begin or n == len(ids):
            found += [(begin, end)] * n_waiting
            begin, n_waiting = end, 0
    return found


def _reach(part: str, text: str) -> int:
    """How far a part that may end within a character goes in the text."""
    return len(part) if text.startswith(part) else _n_shared(part, text)


def _n_shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many elements two sequences share from their beginnings on."""
    for n, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return n
    return min(len(one), len(other))


def _array(found: Sequence[tuple[int, int]]) -> Int[np.ndarray, "token 2"]:
    return np.asarray(found, dtype=np.int64).reshape(-1, 2)
