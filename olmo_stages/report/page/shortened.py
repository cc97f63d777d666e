"""Texts cut to the room they have, and still told apart."""

import unicodedata
from collections.abc import Callable, Iterable


def cut(text: str, longest: int) -> str:
    """Cut text to a width in characters, of which wide ones count twice."""
    if width(text) <= longest:
        return text
    return f"{_start(text, longest - 1)}…"


def cut_apart(texts: Iterable[str], longest: int) -> dict[str, str]:
    """Cut texts to a width so that different ones stay different.

    Returns:
        Each text as it is shown: cut at its end; where some would then look the same all are cut in
        the middle, and where that does not help they are numbered.
    """
    given = list(dict.fromkeys(texts))
    ways: tuple[Callable[[str], str], ...] = (
        lambda it: cut(it, longest),
        lambda it: _cut_inside(it, longest),
    )
    for way in ways:
        shown = {text: way(text) for text in given}
        if len(set(shown.values())) == len(given):
            return shown
    room = longest - len(str(len(given))) - 1
    return {text: f"{index} {cut(text, room)}" for index, text in enumerate(given, 1)}


def width(text: str) -> int:
    """Return how many characters of usual width a text is as wide as."""
    return sum(1 + (unicodedata.east_asian_width(it) in {"W", "F"}) for it in text)


def _cut_inside(text: str, longest: int) -> str:
    if width(text) <= longest:
        return text
    end = _start(text[::-1], longest // 2)[::-1]
    return f"{_start(text, longest - 1 - longest // 2)}…{end}"


def _start(text: str, longest: int) -> str:
    kept = ""
    for character in text:
        if width(kept + character) > longest:
            break
        kept += character
    return kept
