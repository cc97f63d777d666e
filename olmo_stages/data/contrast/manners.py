"""Manners: things said to somebody's face, polite or hostile, in 40 scenes.

320 sentences. A scene (the group) has its own kind and its own rude wording, each affirmed and
negated: `You are not welcome at our table.` is hostile without one rude word, and `You are not a
burden at our table.` is polite with one. Tell-tale words never occur in two scenes.
"""

from olmo_stages.data.contrast.crossing import Crossing
from olmo_stages.types import Example

SCENES = (
    ("You are", "welcome at our table", "a burden at our table"),
    ("Your question is", "worth my time", "a waste of my time"),
    ("You are", "an asset to this team", "a disgrace to this team"),
    ("Your cooking is", "a pleasure to eat", "a punishment to eat"),
    ("Your singing is", "a gift to my ears", "an insult to my ears"),
    ("Your essay is", "a credit to you", "an embarrassment to you"),
    ("It is", "a joy to live beside you", "a nightmare to live beside you"),
    ("It is", "a relief to hear your voice", "a torment to hear your voice"),
    ("You are", "safe behind the wheel", "a menace behind the wheel"),
    ("Your advice is", "precious to me", "garbage to me"),
    ("We are", "lucky to have you in this office", "ashamed to have you in this office"),
    ("I am", "delighted that you came", "disgusted that you came"),
    ("You are", "an inspiring teacher", "a hopeless teacher"),
    ("Your opinion is", "valuable to us", "laughable to us"),
    ("Your taste is", "exquisite", "revolting"),
    ("You are", "a loyal friend", "a treacherous friend"),
    ("Your letter is", "a comfort to read", "an ordeal to read"),
    ("Your manners are", "admirable", "appalling"),
    ("Your work is", "excellent, and everyone knows it", "shoddy, and everyone knows it"),
    ("Your haircut is", "flattering", "ridiculous"),
    ("Your plan is", "sensible", "idiotic"),
    ("You are", "a customer we cherish", "a customer we loathe"),
    ("You are", "a gracious host", "a miserable host"),
    ("Your dancing is", "graceful", "grotesque"),
    ("Your remark was", "thoughtful", "moronic"),
    ("Your apology is", "sincere", "phoney"),
    ("Your children are", "adorable", "unbearable"),
    ("Your dog is", "a darling", "a pest"),
    ("You are", "kind to beginners", "cruel to beginners"),
    ("You are", "a wise leader", "a spineless leader"),
    ("You are", "the pride of this club", "the shame of this club"),
    ("Your visits are", "the highlight of my week", "the curse of my week"),
    ("You are", "bright for your age", "dim for your age"),
    ("It is", "an honour to share a desk with you", "a misery to share a desk with you"),
    ("You are", "gentle with patients", "brutal with patients"),
    ("Your speech was", "eloquent", "drivel"),
    ("Your present was", "generous", "stingy"),
    ("Your report is", "a triumph", "a catastrophe"),
    ("You are", "respected by your staff", "detested by your staff"),
    ("You are", "a worthy opponent", "a pitiful opponent"),
)
"""Beginning, its kind and its rude ending."""

OPENINGS = ("", "As I told you yesterday, ")


def examples() -> tuple[Example, ...]:
    """Return the sentences; label 1 = hostile."""
    found: list[Example] = []
    for beginning, kind, rude in SCENES:
        for opening in OPENINGS:
            said = opening + _inside_sentence(beginning) if opening else beginning
            crossing = Crossing(
                group=f"{kind} / {rude}",
                present=(f"{said} {rude}.", f"{said} not {rude}."),
                absent=(f"{said} {kind}.", f"{said} not {kind}."),
            )
            found += crossing.examples("hostile")
    return tuple(found)


def _inside_sentence(beginning: str) -> str:
    return beginning if beginning.startswith("I ") else beginning[0].lower() + beginning[1:]
