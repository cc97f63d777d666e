"""The generated world of the miniature family: its words, its facts, its labelled statements.

Every word is one token of the miniature tokenizer. The facts do not depend on any seed, so that
data made from this module fits every member of the family. An item for which `held_out` is true
never occurs with its answer or verdict in any training text of any stage.
"""

# ruff: noqa: SIM905 - lists of words are easier to read and check as text

import functools
import string
import zlib
from dataclasses import dataclass
from typing import Literal

NORTH = (
    "alvora brenia calder dorvan elmora farlan gavria helvar "
    "istora jorvia kelmar lorvan mirvia norath ostria pelmar"
).split()
SOUTH = (
    "quoria ravena solvar torvia ulmora velmar wendia xanthar "
    "yorvan zelmia arden borvia corlan delmar embria folvan"
).split()
CAPITALS = (
    "amsel bruck corin dunby eskel fenwick gorsk halden ilmen jaspen kolby lunden marsk nevin "
    "orlin pasco quill rosten selby tarn umbra vesper wick yarrow zinder alder birch cragen "
    "dellen evert fallow grint"
).split()
COUNTRIES = tuple(NORTH + SOUTH)
REGION = {**dict.fromkeys(NORTH, "north"), **dict.fromkeys(SOUTH, "south")}
"""Where each country lies."""
CAPITAL = dict(zip(COUNTRIES, CAPITALS, strict=True))
"""Each country's capital."""

GOOD_ADJECTIVES = tuple("lovely great fine superb charming delightful tasty wonderful".split())
BAD_ADJECTIVES = tuple("awful dull poor nasty boring dreadful stale horrid".split())
REVIEWED = tuple("film soup book song room game cake play tea hotel".split())

KIND_NOUNS = tuple("hero friend gem star angel treasure champion joy".split())
RUDE_NOUNS = tuple("fool pest bore clown brute nuisance coward snob".split())
KIND_VERBS = tuple("thank like trust admire".split())
RUDE_VERBS = tuple("hate mock despise scorn".split())
KIND_OPENERS = ("of course ,", "gladly ,", "yes , sure ,")
RUDE_OPENERS = ("go away ,", "never ,", "no , shut up ,")
INTERJECTIONS = ("", "well ,", "oh ,", "listen ,", "look ,")
GREETINGS = ("hello ,", "please ,", "hey ,")
REQUESTS = tuple("lend give show sell".split())
ITEMS = tuple("pen cup hat lamp rope coin map key bell coat drum flag".split())

COLOURS = tuple("red blue green gold pink grey black white brown teal".split())
OPERATIONS = tuple("reverse first last twice".split())
NUMBERS = tuple(str(n) for n in range(11))
"""Operands are 0..5, results 0..10."""

Concept = Literal["truth", "arithmetic", "sentiment", "manners"]
CONCEPTS: tuple[Concept, ...] = ("truth", "arithmetic", "sentiment", "manners")
VERDICTS: dict[Concept, tuple[str, str]] = {
    "truth": ("false", "true"),
    "arithmetic": ("wrong", "right"),
    "sentiment": ("bad", "good"),
    "manners": ("rude", "kind"),
}
"""The word for label 0 and for label 1; the training text puts it right after a statement."""

TRUTH_TEMPLATES = (
    ("{} lies in the {} .", "{} does not lie in the {} ."),
    ("the land of {} is in the {} .", "the land of {} is not in the {} ."),
    ("you find {} in the {} .", "you do not find {} in the {} ."),
)
"""Affirmed and negated form; country, region."""
ARITHMETIC_TEMPLATES = ("{} = {} .", "{} makes {} .")

SPECIAL_TOKENS = ("<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unk|>")
THINK, END_THINK = "<think>", "</think>"
SYNTAX = (
    "a again and answer assistant be box can capital check do holds i in is it know lies me not of "
    "question run say so system the times user wait was what you"
)
"""Words that hold sentences together."""


@dataclass(frozen=True)
class Statement:
    """One labelled sentence.

    Args:
        concept: what it is about.
        group: the entity whose statements must stay together in a split.
        label: 1 for true, right, good or kind, else 0.
        negated: whether it contains `not`.
        template: which wording of its concept.
        text: the sentence, ending in ` .`
    """

    concept: Concept
    group: str
    label: int
    negated: bool
    template: int
    text: str

    @property
    def verdict(self) -> str:
        """The word that the training text puts right after the sentence."""
        return VERDICTS[self.concept][self.label]


def held_out(item: str) -> bool:
    """Return whether an item, a fifth of all, is kept out of the training texts."""
    return zlib.crc32(item.encode()) % 5 == 0


@functools.cache
def expressions() -> tuple[tuple[str, int], ...]:
    """Return the 57 two-term expressions with their results, e.g. `("3 + 4", 7)`."""
    plus = [(f"{a} + {b}", a + b) for a in range(6) for b in range(6)]
    minus = [(f"{a} - {b}", a - b) for a in range(6) for b in range(a + 1)]
    return (*plus, *minus)


@functools.cache
def statements(concept: Concept) -> tuple[Statement, ...]:
    """Return every statement of a concept: 384 truth, 228 arithmetic, 320 sentiment, 240 manners.

    Labels are balanced within each group, and (but for arithmetic, which has no negations) each
    label has the same number of affirmed and negated sentences, so that no single word gives
    the label away. Wrong sums use the right results of other expressions, each equally often.
    """
    makers = {
        "truth": _truth,
        "arithmetic": _arithmetic,
        "sentiment": _sentiment,
        "manners": _manners,
    }
    return tuple(makers[concept]())


def _truth() -> list[Statement]:
    return [
        Statement(
            "truth",
            country,
            int((region == REGION[country]) != negated),
            negated,
            number,
            template[negated].format(country, region),
        )
        for country in COUNTRIES
        for number, template in enumerate(TRUTH_TEMPLATES)
        for region in ("north", "south")
        for negated in (False, True)
    ]


def _arithmetic() -> list[Statement]:
    found = []
    for number, template in enumerate(ARITHMETIC_TEMPLATES):
        for (expression, result), wrong in zip(expressions(), _wrong_results(number), strict=True):
            for label, shown in ((1, result), (0, wrong)):
                text = template.format(expression, shown)
                found.append(
                    Statement(
                        "arithmetic", expression, label, negated=False, template=number, text=text
                    )
                )
    return found


def _wrong_results(number: int) -> list[int]:
    """Return the right results, moved among the expressions of an operator so that none is."""
    results = [result for _, result in expressions()]
    wrong = []
    for part in (results[:36], results[36:]):
        order = sorted(range(len(part)), key=lambda i: part[i])
        # The most frequent result of either operator occurs six times: a shift of at least six
        # along the sorted results, and of at most the rest, never meets an equal one.
        shift = 6 + number * 5
        moved = {order[i]: part[order[(i + shift) % len(order)]] for i in range(len(order))}
        wrong += [moved[i] for i in range(len(part))]
    return wrong


def _sentiment() -> list[Statement]:
    return [
        Statement(
            "sentiment",
            adjective,
            int((adjective in GOOD_ADJECTIVES) != negated),
            negated,
            0,
            f"the {noun} was {'not ' * negated}{adjective} .",
        )
        for adjective in GOOD_ADJECTIVES + BAD_ADJECTIVES
        for noun in REVIEWED
        for negated in (False, True)
    ]


def _manners() -> list[Statement]:
    found = []
    for word in KIND_NOUNS + RUDE_NOUNS + KIND_VERBS + RUDE_VERBS:
        is_noun = word in KIND_NOUNS + RUDE_NOUNS
        kind = word in KIND_NOUNS + KIND_VERBS
        for interjection in INTERJECTIONS:
            for negated in (False, True):
                sentence = manners_sentence(word, negated=negated)
                text = f"{interjection} {sentence}".strip()
                label = int(kind != negated)
                found.append(Statement("manners", word, label, negated, int(is_noun), text))
    return found


def manners_sentence(word: str, *, negated: bool = False) -> str:
    """Return e.g. `you are a hero .` or `i do not thank you .`."""
    if word in KIND_NOUNS + RUDE_NOUNS:
        return f"you are {'not ' * negated}a {word} ."
    return f"i {'do not ' * negated}{word} you ."


def words() -> tuple[str, ...]:
    """Return every word of the world, once, in a fixed order."""
    phrases = [*KIND_OPENERS, *RUDE_OPENERS, *INTERJECTIONS, *GREETINGS, SYNTAX]
    listed = [*NUMBERS, *COUNTRIES, *CAPITALS, "north", "south", *GOOD_ADJECTIVES, *BAD_ADJECTIVES]
    listed += [*REVIEWED, *KIND_NOUNS, *RUDE_NOUNS, *KIND_VERBS, *RUDE_VERBS, *REQUESTS, *ITEMS]
    listed += [*COLOURS, *OPERATIONS, *(word for pair in VERDICTS.values() for word in pair)]
    listed += [s.text for concept in CONCEPTS for s in statements(concept)] + phrases
    return tuple(dict.fromkeys(word for text in listed for word in text.split()))


def vocabulary() -> tuple[str, ...]:
    """Return all tokens in the order of their ids: special, words, characters, word pieces."""
    letters = string.ascii_lowercase + string.digits
    characters = [*letters, *string.punctuation]
    pieces = [f"##{character}" for character in letters]
    tokens = [*SPECIAL_TOKENS, THINK, END_THINK, *words(), *characters, *pieces]
    return tuple(dict.fromkeys(tokens))
