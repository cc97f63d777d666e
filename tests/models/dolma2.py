"""A tokenizer in the format of `allenai/dolma2-tokenizer`.

Its pre-tokenizer, its special tokens, its ids, with fillers for the tokens that the tests do not
need. Checked against the real file by hand.
"""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

SIZE = 100278
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = {100257: "<|endoftext|>", 100264: "<|im_start|>", 100265: "<|im_end|>", 100277: "<|pad|>"}
MERGED = {
    "ĊĊ": 271, "if": 333, "Ġa": 264, "'s": 596, "12": 717, "123": 4513, "45": 1774, "It": 2181,
    "Hi": 13347, "ĊĊĊ": 1432, ">ĊĊ": 1363, ";ĊĊĊ": 5322,
}  # fmt: skip


def byte_ids() -> dict[str, int]:
    """The 256 single bytes have the first ids: printable ASCII first, then Latin-1, then others."""
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order += [b for b in range(256) if b not in order]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    others = iter(c for c in letters if ord(c) >= 256)
    return {chr(b) if i < 188 else next(others): i for i, b in enumerate(order)}


def make() -> Tokenizer:
    """Build it."""
    vocab = byte_ids() | MERGED | {text: i for i, text in SPECIAL.items()}
    taken = set(vocab.values())
    vocab |= {f"filler {i}": i for i in range(SIZE) if i not in taken}
    merges = [(t[:-1], t[-1]) for t in MERGED if t[0] not in ";>"] + [(">", "ĊĊ"), (";", "ĊĊĊ")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL.values()])
    return tokenizer
