"""Whether both sides of a comparison are given the same prompts, before any model loads."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from olmo_stages.activations import prompts
from olmo_stages.activations.request import Work
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.token_diff import Side, TokenDiff, token_diff
from olmo_stages.errors import ConfigError


@dataclass(frozen=True)
class Formats:
    """What a reader must know of the prompts of a comparison.

    Args:
        warnings: one sentence each.
        diff: where the two sides read other tokens, by the user's choice; None if they do not.
    """

    warnings: tuple[str, ...] = ()
    diff: TokenDiff | None = None


def check(dataset: Dataset, work: Work, reference: Work | None) -> Formats:
    """Refuse to compare stages that are given different prompts, unless that is asked for.

    The owned formats give every stage the same text. With `chat_native` the prompts are those of
    each checkpoint's template, so that a difference between stages is partly one of prompts.

    Args:
        dataset: the examples, their format, and whether prompts may differ.
        work: of the stage.
        reference: of the other side; None where there is none.

    Returns:
        What is to be said of the prompts.

    Raises:
        ConfigError: the templates give other tokens and `data.mix_formats` is not set.
        DataError: an example that a template cannot render.
        ModelError: a stage without a usable chat template.
    """
    sides = [it for it in (work, reference) if it is not None]
    strange = [
        f"{it.stage.label} has no chat template and was trained on none; its prompts are in "
        "chat_fixed by choice"
        for it in sides
        if prompts.has_strange_template(it.stage, dataset, it.checkpoint.path)
    ]
    if dataset.format != "chat_native" or reference is None:
        return Formats(tuple(strange))
    # Of one tokenizer and template every prompt is the same; only the context may differ.
    if work.identity.tokenizer == reference.identity.tokenizer:
        return Formats()
    diff = token_diff(_side(dataset, work), _side(dataset, reference))
    if diff is None:
        return Formats()
    if not dataset.mix_formats:
        raise ConfigError(
            f"data.format=chat_native: {diff.summary}; use data.format=chat_fixed, the same for "
            "both, or compare them all the same with data.mix_formats=true"
        )
    return Formats((f"prompts are mixed by choice: {diff.summary}",), diff)


def _side(dataset: Dataset, work: Work) -> Side:
    from olmo_stages.models.tokenizer import load_tokenizer

    made = prompts.make(dataset, work.checkpoint, work.identity.max_length)
    tokenizer = load_tokenizer(work.checkpoint)
    return Side(work.stage.label, made, partial(_decode, tokenizer))


def _decode(tokenizer: Any, token_id: int) -> str:  # noqa: ANN401 (transformers types it loosely)
    return tokenizer.decode([token_id])
