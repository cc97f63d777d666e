"""Truth: cities and their countries, animals and their classes; true or false.

320 statements about 80 entities (the groups). Each entity is affirmed and denied its own class and
one wrong class, and each class is the wrong one as often as it is the right one.
"""

from olmo_stages.data.contrast.crossing import Crossing
from olmo_stages.types import Example

CITIES = {
    "France": ("Lyon", "Marseille", "Bordeaux", "Toulouse"),
    "Japan": ("Osaka", "Kyoto", "Nagoya", "Sapporo"),
    "Italy": ("Milan", "Naples", "Turin", "Bologna"),
    "Germany": ("Munich", "Hamburg", "Cologne", "Dresden"),
    "Spain": ("Seville", "Madrid", "Bilbao", "Barcelona"),
    "Brazil": ("Manaus", "Recife", "Fortaleza", "Curitiba"),
    "India": ("Mumbai", "Chennai", "Jaipur", "Kolkata"),
    "Egypt": ("Cairo", "Luxor", "Aswan", "Giza"),
    "Canada": ("Toronto", "Winnipeg", "Montreal", "Calgary"),
    "Poland": ("Krakow", "Gdansk", "Warsaw", "Poznan"),
}
ANIMALS = {
    "mammal": ("dog", "horse", "dolphin", "rabbit", "wolf", "tiger", "cow", "squirrel"),
    "bird": ("sparrow", "eagle", "penguin", "owl", "duck", "crow", "pigeon", "parrot"),
    "fish": ("salmon", "trout", "tuna", "herring", "carp", "cod", "shark", "sardine"),
    "insect": ("ant", "bee", "beetle", "moth", "mosquito", "grasshopper", "wasp", "butterfly"),
    "reptile": ("lizard", "snake", "crocodile", "turtle", "gecko", "iguana", "alligator", "cobra"),
}


def examples() -> tuple[Example, ...]:
    """Return the statements; label 1 = true."""
    crossings = [
        _crossing(city, "{} is a city in {}.", "{} is not a city in {}.", own, other)
        for city, own, other in _with_wrong_class(CITIES)
    ]
    crossings += [
        _crossing(
            animal,
            f"{_article(animal).capitalize()} {{}} is a kind of {{}}.",
            f"{_article(animal).capitalize()} {{}} is not a kind of {{}}.",
            own,
            other,
        )
        for animal, own, other in _with_wrong_class(ANIMALS)
    ]
    return tuple(example for crossing in crossings for example in crossing.examples("true"))


def _crossing(entity: str, affirmed: str, negated: str, own: str, other: str) -> Crossing:
    return Crossing(
        group=entity,
        present=(affirmed.format(entity, own), negated.format(entity, own)),
        absent=(affirmed.format(entity, other), negated.format(entity, other)),
    )


def _with_wrong_class(members: dict[str, tuple[str, ...]]) -> list[tuple[str, str, str]]:
    """Give each entity a wrong class, so that each class is the wrong one equally often.

    Returns:
        Entity, its own class, a wrong class.
    """
    classes = list(members)
    n = len(classes)
    return [
        (entity, own, classes[(c + 1 + i % (n - 1)) % n])
        for c, (own, entities) in enumerate(members.items())
        for i, entity in enumerate(entities)
    ]


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
