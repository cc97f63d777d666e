"""Sentiment: short judgements with opposite adjectives, affirmed and negated.

384 sentences on 32 pairs of opposites (the groups), so that an adjective is never in training and
test at once; `not bad at all` is positive, `not good at all` negative.
"""

from olmo_stages.data.contrast.crossing import Crossing
from olmo_stages.types import Example

OPPOSITES = (
    ("good", "bad", ("film", "meal", "hotel")),
    ("delicious", "disgusting", ("soup", "dessert", "sauce")),
    ("exciting", "boring", ("match", "lecture", "series")),
    ("friendly", "rude", ("waiter", "receptionist", "guide")),
    ("clean", "dirty", ("room", "kitchen", "bathroom")),
    ("cosy", "cramped", ("flat", "cabin", "lounge")),
    ("brilliant", "terrible", ("actor", "concert", "idea")),
    ("helpful", "useless", ("manual", "assistant", "map")),
    ("fresh", "stale", ("bread", "salad", "cake")),
    ("funny", "tedious", ("comedian", "play", "sketch")),
    ("reliable", "faulty", ("car", "printer", "phone")),
    ("beautiful", "ugly", ("garden", "building", "painting")),
    ("skilful", "clumsy", ("dancer", "pianist", "barber")),
    ("generous", "stingy", ("host", "landlord", "boss")),
    ("tasty", "bland", ("pizza", "curry", "stew")),
    ("clever", "stupid", ("plot", "joke", "question")),
    ("charming", "repulsive", ("village", "singer", "cottage")),
    ("smooth", "bumpy", ("flight", "road", "ride")),
    ("wonderful", "awful", ("holiday", "party", "trip")),
    ("fair", "unjust", ("verdict", "referee", "rule")),
    ("polite", "arrogant", ("clerk", "driver", "doctor")),
    ("sharp", "blurry", ("photo", "screen", "picture")),
    ("sturdy", "flimsy", ("chair", "tent", "ladder")),
    ("impressive", "pathetic", ("speech", "result", "effort")),
    ("enjoyable", "painful", ("evening", "visit", "lesson")),
    ("elegant", "tacky", ("dress", "lobby", "ring")),
    ("prompt", "sluggish", ("service", "delivery", "reply")),
    ("quiet", "noisy", ("street", "neighbour", "engine")),
    ("superb", "dreadful", ("novel", "orchestra", "translation")),
    ("honest", "deceitful", ("salesman", "review", "dealer")),
    ("soothing", "irritating", ("melody", "voice", "colour")),
    ("spotless", "filthy", ("plate", "carpet", "train")),
)
FRAMES = (
    ("The {noun} was {adjective}.", "The {noun} was not {adjective} at all."),
    ("I found the {noun} {adjective}.", "I did not find the {noun} {adjective} at all."),
    ("They said the {noun} was {adjective}.", "They said the {noun} was not {adjective} at all."),
)
"""Affirmed and negated form; the three nouns of a pair of opposites take one frame each."""


def examples() -> tuple[Example, ...]:
    """Return the sentences; label 1 = positive."""
    found: list[Example] = []
    for positive, negative, nouns in OPPOSITES:
        for noun, (affirmed, negated) in zip(nouns, FRAMES, strict=True):
            crossing = Crossing(
                group=f"{positive}/{negative}",
                present=(
                    affirmed.format(noun=noun, adjective=positive),
                    negated.format(noun=noun, adjective=positive),
                ),
                absent=(
                    affirmed.format(noun=noun, adjective=negative),
                    negated.format(noun=noun, adjective=negative),
                ),
            )
            found += crossing.examples("positive")
    return tuple(found)
