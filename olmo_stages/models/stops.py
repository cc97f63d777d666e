"""Where a response ends. Does not import torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmo_stages.errors import ModelError
from olmo_stages.models import digests

_FILE = "generation_config.json"
_TAGS = frozenset({"<think>", "</think>"})


def stop_tokens(path: Path, tokenizer: Any) -> frozenset[int]:  # noqa: ANN401 (of transformers)
    """Tokens that end a response.

    They are what the checkpoint calls its end of text, and every special token, since none belongs
    to what is said: the end of a turn, the beginning of the next one, padding. Where a tokenizer
    has tokens for the tags of a trace, these do not end it.

    Args:
        path: checkpoint directory.
        tokenizer: its tokenizer.

    Raises:
        ModelError: a config cannot be read.
    """
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    special = {number for number, token in added.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    tags = {number for number, token in added.items() if str(token) in _TAGS}
    return frozenset((special - tags) | set(ends_of_text(path)))


def ends_of_text(path: Path) -> tuple[int, ...]:
    """The tokens that config.json and generation_config.json call end of text, ascending.

    Raises:
        ModelError: one of them cannot be read.
    """
    config = digests.read_config(path)
    found: set[int] = set()
    for content in (config, config.get("text_config", {}), _generation_config(path)):
        ends = content.get("eos_token_id")
        found |= {int(it) for it in (ends if isinstance(ends, list) else [ends]) if it is not None}
    return tuple(sorted(found))


def _generation_config(path: Path) -> dict[str, Any]:
    file = path / _FILE
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{file} cannot be read ({error}); download it again or remove it"
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds no settings but {type(content).__name__}; remove it")
    return content
