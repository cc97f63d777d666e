"""What estimates of time stand on: rates of machines, and tokens where no tokenizer is asked."""

from olmo_stages.data.dataset import Dataset

FLOPS = {"cuda": 100e12, "cpu": 0.2e12}
"""Operations a second."""

READ_BYTES = 1e9
"""Bytes a second of weights that are read."""

CHARACTERS_PER_TOKEN = 4


def tokens(data: Dataset) -> int:
    """About how many tokens the examples of a data set have together."""
    texts = [
        [it.text] if it.messages is None else [turn.content for turn in it.messages]
        for it in data.examples
    ]
    return sum(-(-len(text) // CHARACTERS_PER_TOKEN) for parts in texts for text in parts if text)
