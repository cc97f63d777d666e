"""The prompts of a stage: what identifies them, and how they are made."""

from pathlib import Path
from typing import Any

from olmo_stages.activations.identity import digest
from olmo_stages.data import native
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.formats import render, resolve_format
from olmo_stages.data.prompts import Rendered
from olmo_stages.data.readings import reading
from olmo_stages.data.responses import complete
from olmo_stages.data.spans import Prompt, tokenize
from olmo_stages.errors import ConfigError
from olmo_stages.models.checkpoints import Checkpoint
from olmo_stages.models.templates import added_tokens, chat_template
from olmo_stages.types import Example, Reading, Stage

PROMPTS_VERSION = 2
"""Raise it when the same data give other prompts; `identify` says which requests that concerns.

2: prompt and response are tokenised apart where they would merge; a tokenizer that adds a BOS adds
it to chats too, and not twice to a text that carries one.
"""


def identify(stage: Stage, dataset: Dataset, path: Path) -> str:
    """What identifies the format of a stage's prompts, beside the tokenizer and the data.

    Args:
        stage: the stage.
        dataset: the examples.
        path: its checkpoint directory.

    Returns:
        The name of the format; with the digest of the chat template for `chat_native`, so that
        jobs of different templates are told apart; with the version where it made a difference.

    Raises:
        ConfigError: `auto` would put chats into a template on a root that has none.
        ModelError: `chat_native` on a checkpoint without a usable template.
    """
    format = dataset.format
    if format == "chat_native":
        where = f"stage {stage.label} ({path})"
        template = native.check_template(chat_template(path), where)
        return f"{format}:{digest(template)[:12]}"
    if format == "scaffold":
        return format
    chats = [it for it in dataset.examples if resolve_format(it, format) == "chat_fixed"]
    if chats and format == "auto":
        _check_choice_of_chat(stage, path)
    added = added_tokens(path)
    changed = (
        any(_is_answered(example) for example in chats)
        or (added and chats)
        or any(_carries(example, added) for example in dataset.examples)
    )
    return f"{format}/{PROMPTS_VERSION}" if changed else format


def has_strange_template(stage: Stage, dataset: Dataset, path: Path) -> bool:
    """Whether a root that has no chat template, as a base model, is read in one by choice."""
    chats = any(resolve_format(it, dataset.format) == "chat_fixed" for it in dataset.examples)
    return chats and _is_untemplated_root(stage, path)


def make(dataset: Dataset, checkpoint: Checkpoint, max_length: int) -> list[Prompt]:
    """Render and tokenise every example of a data set.

    Args:
        dataset: the examples and their format.
        checkpoint: whose tokenizer and chat template.
        max_length: tokens after which a prompt is cut.

    Returns:
        One prompt an example, in the data set's order.

    Raises:
        DataError: an example that cannot be rendered or is cut to nothing.
        ModelError: the tokenizer or its template cannot be used.
    """
    from olmo_stages.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(checkpoint)
    return [
        tokenize(rendered(example, dataset, tokenizer), tokenizer, max_length)
        for example in dataset.examples
    ]


def read(dataset: Dataset, checkpoint: Checkpoint, max_length: int) -> tuple[Reading, ...]:
    """The tokens of every example as `make` cuts them, with their texts and parts.

    Raises:
        DataError: an example that cannot be rendered or is cut to nothing.
        ModelError: the tokenizer or its template cannot be used.
    """
    from olmo_stages.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(checkpoint)
    return tuple(
        reading(rendered(example, dataset, tokenizer), tokenizer, max_length)
        for example in dataset.examples
    )


def rendered(
    example: Example,
    dataset: Dataset,
    tokenizer: Any,  # noqa: ANN401 (transformers types it loosely)
) -> Rendered:
    """Render one example of a data set, with its response where there is one.

    Raises:
        DataError: it cannot be rendered.
        ModelError: the tokenizer's template cannot be used.
    """
    if dataset.responses is None:
        return render(example, dataset.format, tokenizer)
    return complete(example, dataset.responses[example.id], dataset.format, tokenizer)


def _check_choice_of_chat(stage: Stage, path: Path) -> None:
    if _is_untemplated_root(stage, path):
        raise ConfigError(
            f"stage {stage.label} has no chat template and was trained on none, and data.format="
            "auto would put chats into one; choose data.format=scaffold, or chat_fixed to do so "
            "all the same"
        )


def _is_untemplated_root(stage: Stage, path: Path) -> bool:
    # A released post-trained stage that lacks its template was trained on one all the same.
    return stage.parent is None and chat_template(path) is None


def _is_answered(example: Example) -> bool:
    return example.messages is not None and example.messages[-1].role == "assistant"


def _carries(example: Example, added: frozenset[str]) -> bool:
    text = (example.text or "").strip()
    return any(text.startswith(token) or text.endswith(token) for token in added)
