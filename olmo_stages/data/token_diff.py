"""What two stages read where they do not read the same: which tokens, in how many examples."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from olmo_stages.data.spans import Prompt
from olmo_stages.errors import PairingError

_SHOWN = 3
_RUN = 8
_LONGEST = 1000
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Args:
        label: of its stage.
        prompts: in the data set's order.
        decode: text of one token.
    """

    label: str
    prompts: Sequence[Prompt]
    decode: Callable[[int], str]


@dataclass(frozen=True)
class TokenDiff:
    """Prompts that differ.

    Args:
        summary: how many and which tokens, one sentence.
        excerpt: the first example that differs, the two sides aligned; several lines.
        n_differ: how many examples differ.
        n_examples: of how many.
    """

    summary: str
    excerpt: str
    n_differ: int
    n_examples: int


def token_diff(one: Side, other: Side) -> TokenDiff | None:
    """Compare the prompts of two stages, token by token.

    Args:
        one: a stage.
        other: what it is compared with, on the same examples.

    Returns:
        What differs; None if every prompt has the same token ids on both sides.

    Raises:
        PairingError: the examples are not the same.
    """
    if [prompt.id for prompt in one.prompts] != [prompt.id for prompt in other.prompts]:
        raise PairingError(f"{one.label} and {other.label} hold different examples")
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(one.prompts, other.prompts, strict=True)
        if mine.token_ids != theirs.token_ids
    ]
    if not pairs:
        return None
    extra = [
        _extra([(a.token_ids, b.token_ids) for a, b in pairs], one),
        _extra([(b.token_ids, a.token_ids) for a, b in pairs], other),
    ]
    which = "; ".join(it for it in extra if it) or "the same tokens in another order"
    return TokenDiff(
        summary=f"{one.label} and {other.label} see other tokens in {len(pairs)} of "
        f"{len(one.prompts)} examples ({which})",
        excerpt="\n".join([f"example {pairs[0][0].id!r}:", *_aligned(*pairs[0], one, other)]),
        n_differ=len(pairs),
        n_examples=len(one.prompts),
    )


def _extra(pairs: Sequence[tuple[Ids, Ids]], side: Side) -> str:
    """The tokens that most examples have more often on one side."""
    n_examples: Counter[int] = Counter()
    for mine, theirs in pairs:
        n_examples.update((Counter(mine) - Counter(theirs)).keys())
    if not n_examples:
        return ""
    # Ties by first appearance, which is the order of the prompt.
    shown = [side.decode(token) for token, _ in n_examples.most_common(_SHOWN)]
    more = len(n_examples) - len(shown)
    tokens = " ".join(map(repr, shown)) + (f" and {more} more" if more else "")
    return f"only {side.label}: {tokens}"


def _aligned(mine: Prompt, theirs: Prompt, one: Side, other: Side) -> Iterator[str]:
    a, b = mine.token_ids[:_LONGEST], theirs.token_ids[:_LONGEST]
    width = max(len(one.label), len(other.label), len("both"))
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    for kind, a_start, a_stop, b_start, b_stop in matcher.get_opcodes():
        if kind == "equal":
            yield f"  {'both':<{width}}  {_run(a[a_start:a_stop], one.decode)}"
            continue
        if a_stop > a_start:
            yield f"- {one.label:<{width}}  {_run(a[a_start:a_stop], one.decode)}"
        if b_stop > b_start:
            yield f"+ {other.label:<{width}}  {_run(b[b_start:b_stop], other.decode)}"


def _run(ids: Sequence[int], decode: Callable[[int], str]) -> str:
    """A few tokens from either end of a run."""
    if len(ids) <= 2 * _RUN:
        return " ".join(repr(decode(token)) for token in ids)
    first, last = _run(ids[:_RUN], decode), _run(ids[-_RUN:], decode)
    return f"{first} ... {len(ids) - 2 * _RUN} more ... {last}"
