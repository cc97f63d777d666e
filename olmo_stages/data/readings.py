"""What a stage reads of an example, token by token: for tables and figures of single tokens."""

from olmo_stages.data.prompts import Rendered
from olmo_stages.data.spans import Prompt, Tokenizer, token_texts, tokenize
from olmo_stages.types import Reading

SPECIAL, TEMPLATE, RESPONSE = "special", "template", "response"


def reading(rendered: Rendered, tokenizer: Tokenizer, max_length: int) -> Reading:
    """The tokens of a prompt with their texts and parts, as `Activations` index them.

    Args:
        rendered: the prompt's text and spans.
        tokenizer: a fast tokenizer.
        max_length: tokens the prompt may have; more are cut from the left.

    Returns:
        One text and one part a token; `olmo_stages.data.spans.token_texts` says what the texts are.

    Raises:
        DataError: no content token is left.
        ModelError: the tokenizer returns no offsets.
    """
    prompt = tokenize(rendered, tokenizer, max_length)
    texts = token_texts(rendered, tokenizer, max_length)
    return Reading(prompt.id, prompt.token_ids, texts, parts_of(prompt))


def parts_of(prompt: Prompt) -> tuple[str, ...]:
    """What each token of a prompt is a part of; see `olmo_stages.types.Reading`.

    The borders are those of the positions: the tokens of `think` that are not special are what
    `think_mean` averages, those of `answer` what `answer_mean` does, and `think`, `answer` and
    `response` together are those of `response_mean` (but for the attention sink).
    """
    found = [TEMPLATE] * len(prompt.token_ids)
    # What the template opened the response with (a `<think>`) stands in its turn, but the model was
    # prompted with it.
    turns = prompt.content if prompt.n_prompt is None else prompt.content[:-1]
    for span in turns:
        found[span.start : span.stop] = [span.role] * (span.stop - span.start)
    for i in prompt.response_tokens:
        found[i] = RESPONSE
    for span in prompt.parts:
        found[span.start : span.stop] = [span.role] * (span.stop - span.start)
    return tuple(
        SPECIAL if special else part for part, special in zip(found, prompt.special, strict=True)
    )
