"""Colours that can be seen on white and on dark pages, and how every stage is drawn.

A path of the lineage has a hue, a stage on it a shade, a dash and a symbol. All colours have a
contrast of at least 3 against white and against `DARK`, which leaves lightness 42 to 62 of 100; in
it, the hues are as far apart as they can be for anomalous and usual colour vision alike. Shades of
one path are not, so that its stages differ in dash and symbol as well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from olmo_stages.lineage import lineage_order
from olmo_stages.stages import catalogue

DARK = "#15181d"
"""Background of a dark page."""

COLOURS = ("#5490fc", "#a84818", "#007860", "#84549c", "#cc8400", "#789c78", "#9c909c")
"""Of lines that are no stages, told apart with any colour vision."""

DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot")
"""Of lines; dotted ones are nulls."""

SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "x",
    "star",
    "triangle-down",
    "hexagon2",
    "bowtie",
    "hourglass",
)
"""Of markers; as their number and that of the dashes share no factor, pairs repeat late."""

GREY = "#808080"
"""Of what is no finding: nulls, levels, axes."""

DIVERGING = (
    (0.0, "#b35806"),
    (0.25, "#f1a340"),
    (0.5, "#f0f0f0"),
    (0.75, "#998ec3"),
    (1.0, "#542788"),
)
"""Of heat maps around 0, told apart with any colour vision (ColorBrewer PuOr)."""

_OTHERS = "Others"
_PATHS = {
    "base": ("Base", "#9c909c", "#606c78"),
    "think": ("Think", "#5490fc", "#0c60f0"),
    "instruct": ("Instruct", "#a84818", "#cc543c"),
    "rl": ("RL-Zero", "#007860", "#00a878"),
    "olmo2": ("OLMo 2", "#cc8400", "#cc8400"),
    "": (_OTHERS, "#84549c", "#84549c"),
}
"""By the first word of a stage's name: name of the path, and its first and last shade."""

_FIRST, _LAST = "#0c60f0", "#cc8400"


@dataclass(frozen=True)
class Style:
    """How a stage is drawn.

    Args:
        path: name of its path of the lineage.
        colour: of lines and markers.
        dash: of lines, as plotly calls it.
        symbol: of markers, as plotly calls it.
    """

    path: str
    colour: str
    dash: str
    symbol: str


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """How stages are drawn, in the order of the lineage.

    A stage of the catalogue always looks the same. Revisions and checkpoints of the user's own
    follow it in the order of the lineage, so that theirs depends on which others there are: give
    all labels of a report. Where all are of one stage, their shades follow the order of training.

    Args:
        labels: of stages, as `Stage.label` gives them.

    Returns:
        A style for each label; no two are alike unless one path has over 50 stages.
    """
    known = catalogue()
    place = lineage_order()
    ordered = sorted(set(labels), key=place)
    members: dict[str, list[str]] = {path: [] for path in _PATHS}
    for name in sorted(known, key=place):
        members[_path(name, known)].append(name)
    for label in ordered:
        own = members[_path(_name(label), known)]
        if label not in own:
            own.append(label)
    one_stage = len(ordered) > 2 and len({_name(label) for label in ordered}) == 1
    found: dict[str, Style] = {}
    for label in ordered:
        path = _path(_name(label), known)
        title, first, last = _PATHS[path]
        index = members[path].index(label)
        colour = mixed(first, last, _share(index, len(members[path]), path, known))
        if one_stage:
            colour = shade(_part(ordered.index(label), len(ordered)))
        dash, symbol = DASHES[index % len(DASHES)], SYMBOLS[index % len(SYMBOLS)]
        found[label] = Style(title, colour, dash, symbol)
    return found


def shade(depth: float) -> str:
    """Return a colour for a place in an order, 0 = first to 1 = last: from blue to amber."""
    return mixed(_FIRST, _LAST, depth)


def mixed(first: str, last: str, share: float) -> str:
    """Return the colour that lies between two others, 0 = the first to 1 = the last."""
    pairs = zip(_channels(first), _channels(last), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def transparent(colour: str, opacity: float = 0.15) -> str:
    """Return a colour that what lies behind can be seen through."""
    red, green, blue = _channels(colour)
    return f"rgba({red},{green},{blue},{opacity:g})"


def _channels(colour: str) -> Sequence[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def _name(label: str) -> str:
    return label.removesuffix(" (random)").partition("@")[0]


def _path(name: str, known: Iterable[str]) -> str:
    path = name.partition("_")[0]
    return path if name in known and path in _PATHS else ""


def _share(index: int, n: int, path: str, known: Iterable[str]) -> float:
    """Where a stage's shade lies; those of the catalogue keep theirs whatever else is there."""
    n_known = sum(_path(name, known) == path for name in known)
    return _part(index, n_known) if index < n_known else _part(index - n_known, n - n_known)


def _part(index: int, n: int) -> float:
    return index / (n - 1) if n > 1 else 0.0
