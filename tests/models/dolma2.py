"""A tokenizer in the format of `allenai/dolma2-tokenizer`.

Its pre-tokenizer, its special tokens, its ids, with fillers for the tokens that the tests do not
need. Checked against the real file by hand.
"""

from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

SIZE = 100278
N_ORDINARY = 100256
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = {100257: "<|endoftext|>", 100264: "<|im_start|>", 100265: "<|im_end|>", 100277: "<|pad|>"}
# Those of the probe texts, with the merges that make them.
MERGED = {
    256: ("Ġ", "Ġ"), 262: ("ĠĠ", "Ġ"), 264: ("Ġ", "a"), 271: ("Ċ", "Ċ"), 333: ("i", "f"),
    401: (";", "ĊĊ"), 423: ("Ġ", "D"), 596: ("'", "s"), 715: ("O", "N"), 717: ("1", "2"),
    865: ("Ġ", "x"), 936: ("c", "a"), 1363: (">", "ĊĊ"), 1774: ("4", "5"), 1897: ("f", "e"),
    2181: ("I", "t"), 4513: ("12", "3"), 5322: (";ĊĊ", "Ċ"), 5996: ("ĠĠĠ", "Ċ"),
    13347: ("H", "i"), 17773: ("'", "T"), 45373: ("ĠD", "ON"), 54939: ("Ì", "ģ"),
}  # fmt: skip
# No text of the tests holds two of these bytes in a row.
_FIRST, _LATER = (
    [letter for letter in "".join(map(chr, codes)) if letter not in "Ìģ"]
    for codes in (range(0xE0, 0x100), range(0xAE, 0xE0))
)


def byte_ids() -> dict[str, int]:
    """The 256 single bytes have the first ids: printable ASCII first, then Latin-1, then others."""
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order += [b for b in range(256) if b not in order]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    others = iter(c for c in letters if ord(c) >= 256)
    return {chr(b) if i < 188 else next(others): i for i, b in enumerate(order)}


def merges() -> list[tuple[str, str]]:
    """In the order of the ids that they make, as in the real one; fillers have one way each."""
    return list(_merges())


@cache
def _merges() -> tuple[tuple[str, str], ...]:
    words = list(_FIRST)
    grown = ((word, letter) for word in words for letter in _LATER)
    found = []
    for i in range(len(byte_ids()), N_ORDINARY):
        pair = MERGED.get(i)
        if pair is None:
            pair = next(grown)
            words.append("".join(pair))
        found.append(pair)
    return tuple(found)


def tokens() -> list[str]:
    """Those that are bytes or made by merges, in the order of their ids."""
    return [*byte_ids(), *map("".join, _merges())]


def make(pairs: list[tuple[str, str]] | None = None) -> Tokenizer:
    """Build it, with other merges where they are given."""
    names = tokens() + [SPECIAL.get(i, f"added {i}") for i in range(N_ORDINARY, SIZE)]
    vocab = {token: i for i, token in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges() if pairs is None else pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL.values()])
    return tokenizer
