"""The tokenizer of a checkpoint, and whether it cuts texts as it did in training."""

from pathlib import Path
from typing import Any

from olmo_stages.errors import ModelError
from olmo_stages.models import digests, families, vocabulary
from olmo_stages.models.checkpoints import Checkpoint

PROBE = "It's 12345;\n\n\nif a>\n\nHi"
"""A text that a tokenizer with another pre-tokenizer cuts elsewhere: digits, punctuation before
line ends, several line ends."""

DOLMA2_IDS = (2181, 596, 220, 4513, 1774, 5322, 333, 264, 1363, 13347)
"""Its ids in OLMo 2 and OLMo 3 (`allenai/dolma2-tokenizer`)."""

RARER = " DON'T  x   \n\tcafe\u0301"
"""A second text, for OLMo's alone: capitals after an apostrophe, runs of spaces, an accent that
other tokenizers join to its letter."""

RARER_IDS = (45373, 17773, 220, 865, 5996, 197, 936, 1897, 54939)
"""Its ids."""

# Of the released checkpoints; OLMo 2 pads its embeddings.
_OLMO_VOCABULARIES = {100278, 100352}
_FILE = "tokenizer.json"
_REMEDY = (
    "take tokenizer.json and tokenizer_config.json of the stage it was trained from, with "
    '"tokenizer_class": "PreTrainedTokenizerFast"'
)


def load_tokenizer(checkpoint: Checkpoint) -> Any:  # noqa: ANN401 (transformers types it loosely)
    """Load the tokenizer of a checkpoint.

    Returns:
        A tokenizer that cuts a probe text as its own `tokenizer.json` does (some classes of
        transformers replace its pre-tokenizer), as OLMo's training data were cut where the
        checkpoint is an OLMo 2 or 3, and whose tokens the checkpoint has embeddings for. More
        embeddings than tokens are padding.

    Raises:
        ModelError: it has none, one that needs code of its own, or one that fails a check.
    """
    path = checkpoint.path
    config = digests.read_config(path)
    tokenizer = _load(path, config)
    ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    name = f"tokenizer of {path} ({type(tokenizer).__name__})"
    _check_file(name, path, ids)
    olmo = config.get("model_type") in families.OLMO
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        vocabulary.check_no_dropout(name, backend)
    if olmo and (config.get("vocab_size") in _OLMO_VOCABULARIES or _is_dolma2(tokenizer)):
        _check_stored(name, tokenizer)
        vocabulary.check_dolma2(name, backend)
    else:
        _check_round_trip(name, tokenizer, ids)
    _check_width(name, tokenizer, config)
    return tokenizer


def _load(path: Path, config: dict[str, Any]) -> Any:  # noqa: ANN401
    from transformers import AutoTokenizer

    # Without a config that it knows, AutoTokenizer takes GPT2Tokenizer, which cuts differently.
    known = families.native_config(path) if config.get("model_type") == families.RETROFIT else None
    try:
        return AutoTokenizer.from_pretrained(
            path, config=known, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        # AttributeError: for an unknown model_type it reads fields of a config that has none. A
        # plain Exception is what the Rust library raises of a file that it cannot read.
        known_kinds = (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError)
        if not isinstance(error, known_kinds) and type(error) is not Exception:
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"tokenizer of {path} cannot be loaded: {reason}; put one beside the "
            "weights with tokenizer.save_pretrained, usually that of the stage it was trained from"
        ) from error


def _check_file(name: str, path: Path, ids: list[int]) -> None:
    if not (path / _FILE).is_file():
        return
    from tokenizers import Tokenizer

    # The untyped error of the Rust library is left out: transformers has just read the same file.
    alone = Tokenizer.from_file(str(path / _FILE))
    # As the last call before it was saved left them; transformers sets them anew at every call.
    alone.no_truncation()
    alone.no_padding()
    wanted = alone.encode(PROBE, add_special_tokens=False).ids
    if ids != wanted:
        raise ModelError(
            f"{name} cuts {PROBE!r} into {len(ids)} tokens and its {_FILE} into {len(wanted)}, "
            f"differently; {_REMEDY}"
        )


def _is_dolma2(tokenizer: Any) -> bool:  # noqa: ANN401
    """Whether the stored ids mean the probe here: OLMo's vocabulary, perhaps with tokens added."""
    if len(tokenizer) <= max(DOLMA2_IDS):
        return False
    return tokenizer.decode(list(DOLMA2_IDS), clean_up_tokenization_spaces=False) == PROBE


def _check_stored(name: str, tokenizer: Any) -> None:  # noqa: ANN401
    for text, wanted in ((PROBE, DOLMA2_IDS), (RARER, RARER_IDS)):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tuple(ids) != wanted:
            raise ModelError(
                f"{name} cuts {text!r} into {ids}, not as OLMo's training data were cut; {_REMEDY}"
            )


def _check_round_trip(name: str, tokenizer: Any, ids: list[int]) -> None:  # noqa: ANN401
    """A tokenizer may lose case and spaces, but no character.

    One of a closed vocabulary says so by its unknown token, and is left alone.

    Raises:
        ModelError: shows what is read back.
    """
    if tokenizer.unk_token_id in ids:
        return
    found = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if "".join(found.split()).casefold() != "".join(PROBE.split()).casefold():
        raise ModelError(f"{name} reads {PROBE!r} back as {found!r}; {_REMEDY}")


def _check_width(name: str, tokenizer: Any, config: dict[str, Any]) -> None:  # noqa: ANN401
    """Added tokens beyond the embeddings may never occur; a prompt that holds one is refused.

    Raises:
        ModelError: an ordinary token has no embedding.
    """
    n_embeddings = config.get("text_config", config).get("vocab_size")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    base = None if backend is None else backend.get_vocab(with_added_tokens=False)
    widest = max(base.values()) if base else tokenizer.vocab_size - 1
    if n_embeddings is not None and widest >= n_embeddings:
        raise ModelError(
            f"{name} has ids up to {widest}, but the model has {n_embeddings} embeddings; "
            "resize_token_embeddings, or take the tokenizer of the stage it was trained from"
        )
