"""The chat template of a checkpoint directory, found without loading its tokenizer."""

import json
from pathlib import Path
from typing import Any

from olmo_stages.errors import ModelError


def chat_template(path: Path) -> str | None:
    """Read the Jinja source that transformers would use by default.

    It is `chat_template.jinja`, or else a field of `tokenizer_config.json`, which holds one
    template or a list of named ones.

    Args:
        path: checkpoint directory.

    Returns:
        The source; None if the checkpoint has no default template.

    Raises:
        ModelError: a file cannot be read.
    """
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8") or None
    found = tokenizer_config(path).get("chat_template")
    if isinstance(found, list):
        found = {it["name"]: it["template"] for it in found}
    if isinstance(found, dict):
        found = found.get("default")
    return found or None


def added_tokens(path: Path) -> frozenset[str]:
    """Special tokens that the tokenizer adds to a text by itself, as its files say.

    Args:
        path: checkpoint directory.

    Returns:
        Their texts, e.g. of a BOS; empty for the tokenizers of OLMo.

    Raises:
        ModelError: a file cannot be read.
    """
    config = tokenizer_config(path)
    flags = (("add_bos_token", "bos_token"), ("add_eos_token", "eos_token"))
    named = [config.get(token) for flag, token in flags if config.get(flag)]
    found = {it["content"] if isinstance(it, dict) else it for it in named if it}
    return frozenset(
        found | _of_post_processor(_read(path / "tokenizer.json").get("post_processor"))
    )


def tokenizer_config(path: Path) -> dict[str, Any]:
    """Read `tokenizer_config.json`; empty if there is none.

    Raises:
        ModelError: it cannot be read.
    """
    return _read(path / "tokenizer_config.json")


def _of_post_processor(processor: dict[str, Any] | None) -> set[str]:
    if not processor:
        return set()
    found = {
        str(it) for inner in processor.get("processors", ()) for it in _of_post_processor(inner)
    }
    single = processor.get("single", ())
    found |= {it["SpecialToken"]["id"] for it in single if "SpecialToken" in it}
    # Of BERT and RoBERTa: the token and its id.
    return found | {processor[name][0] for name in ("cls", "sep") if name in processor}


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read ({error}); download it again") from error
