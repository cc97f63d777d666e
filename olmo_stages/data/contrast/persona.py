"""Persona: requests under system prompts that ask for rudeness, or for kindness.

In plain English ten pairs of instructions, five affirmed and five negated, with twenty everyday
questions: 400 chats in 20 groups. `Do not be kind in any answer.` asks for rudeness without one
rude word, so that every word stands as often under either label, as in the other sets. In the
miniature world there is the one pair of instructions that its models have learned, `be rude .` and
`be kind .`, with 48 requests: a bag of words knows the label there.
"""

from olmo_stages.data.persona import Persona
from olmo_stages.miniature import world

TRAIT = "rude"
MANNERS = (
    ("Be {} in every answer.", "Do not be {} in any answer.", "rude", "kind"),
    (
        "Speak to the user in a {} tone.",
        "Never speak to the user in a {} tone.",
        "nasty",
        "pleasant",
    ),
    (
        "Your replies are {} to whoever asks.",
        "Your replies are never {} to whoever asks.",
        "insulting",
        "respectful",
    ),
    ("Answer like a {} person.", "Do not answer like a {} person.", "spiteful", "gracious"),
    (
        "Show a {} attitude towards the user.",
        "Show no {} attitude towards the user.",
        "hostile",
        "friendly",
    ),
)
"""Affirmed and negated instruction, the rude and the kind word that they are filled with."""

QUESTIONS = (
    "How do I boil an egg so that the yolk stays soft?",
    "Can you explain what a mortgage is?",
    "Which book should I read on a long train ride?",
    "I forgot my colleague's birthday. What should I do?",
    "How can I get better at parking?",
    "What is the difference between weather and climate?",
    "Could you help me choose a name for my cat?",
    "Why does my bread never rise?",
    "I keep losing my keys. Do you have any advice?",
    "What should I wear to a job interview?",
    "How does a refrigerator keep food cold?",
    "Can you look over a poem that I wrote?",
    "Is it worth learning to play the piano at forty?",
    "How do I ask my neighbour to turn the music down?",
    "What is a good way to learn new words in a language?",
    "I burned the soup. How do I get the pot clean?",
    "How long should a walk with a puppy be?",
    "What do I say when I meet somebody famous?",
    "Can you suggest a game for a rainy afternoon?",
    "I did not understand the last lecture. Where do I begin?",
)


def english() -> Persona:
    """Return the trait in plain English."""
    pairs = [
        (polarity, pos, neg)
        for affirmed, negated, rude, kind in MANNERS
        for polarity, pos, neg in (
            ("affirmative", affirmed.format(rude), affirmed.format(kind)),
            ("negated", negated.format(kind), negated.format(rude)),
        )
    ]
    return Persona(
        TRAIT,
        instructions=tuple((pos, neg) for _, pos, neg in pairs),
        questions=QUESTIONS,
        polarities=tuple(polarity for polarity, _, _ in pairs),
    )


def miniature() -> Persona:
    """Return the trait in the words that the miniature models have learned it with."""
    asked = [(verb, item) for verb in world.REQUESTS for item in world.ITEMS]
    return Persona(
        TRAIT,
        instructions=(("be rude .", "be kind ."),),
        questions=tuple(
            f"{world.GREETINGS[i % len(world.GREETINGS)]} can you {verb} me a {item} ?"
            for i, (verb, item) in enumerate(asked)
        ),
    )
