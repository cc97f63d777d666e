"""The miniature tokenizer: one token a word of the world, characters for everything else."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from olmo_stages.miniature.world import END_THINK, SPECIAL_TOKENS, THINK, vocabulary

PAD, EOS, START, END, UNK = SPECIAL_TOKENS

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML; line ends cost no token."""

TOKEN_ID = {token: number for number, token in enumerate(vocabulary())}


def encode(text: str) -> list[int]:
    """Return the ids of a text of the world whose tokens are separated by spaces.

    The same ids as the tokenizer's, without its cost.
    """
    return [TOKEN_ID[word] for word in text.split()]


def make_tokenizer(*, chat: bool, max_length: int) -> PreTrainedTokenizerFast:
    """Build the tokenizer.

    Args:
        chat: whether it carries the chat template.
        max_length: longest context of its model.

    Returns:
        A fast tokenizer with right character offsets that has a token for every printable ASCII
        character, and decodes lower-case texts of the world to themselves.
    """
    model = models.WordPiece(
        vocab=TOKEN_ID, unk_token=UNK, continuing_subword_prefix="##", max_input_chars_per_word=4096
    )
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Punctuation("isolated"),
    ])
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    backend.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    # Not special, so that decoding with skip_special_tokens keeps the traces.
    backend.add_tokens([AddedToken(t, normalized=False) for t in (THINK, END_THINK)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        additional_special_tokens=[START, END],
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
        padding_side="right",
    )
    tokenizer.chat_template = CHAT_TEMPLATE if chat else None
    return tokenizer
