"""Stages can be told apart by everybody, on white and on dark pages.

Source:
    Machado, Oliveira & Fernandes 2009, A Physiologically-based Model for Simulation of Color Vision
    Deficiency (matrices at severity 1, on linear RGB); Sharma, Wu & Dalal 2005, The CIEDE2000
    Color-Difference Formula (whose table of pairs checks the formula here); WCAG 2.2 (contrast).
"""

from itertools import combinations

import numpy as np
import pytest

from olmo_stages.figures.palette import (
    COLOURS,
    DARK,
    DASHES,
    GREY,
    SYMBOLS,
    mixed,
    shade,
    styles,
    transparent,
)
from olmo_stages.stages import catalogue

VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]),
    "tritanopia": np.array([
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ]),
}
TO_XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
])
POST_TRAINING = [name for name in catalogue() if not name.startswith("olmo2") and name != "soup"]
REVISIONS = [f"base@stage1-step{10**i}" for i in range(10)]


def linear(colour):
    channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    t = TO_XYZ @ np.clip(rgb, 0, 1) / TO_XYZ.sum(1)
    x, y, z = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def difference(one, other):
    """CIEDE2000."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    c = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 1.5 - 0.5 * np.sqrt(c**7 / (c**7 + 25**7))
    c1, c2 = np.hypot(g * a1, b1), np.hypot(g * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, g * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    hue, light, chroma = np.radians((h1 + turn / 2) % 360), (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * np.cos(hue - np.radians(30))
        + 0.24 * np.cos(2 * hue)
        + 0.32 * np.cos(3 * hue + np.radians(6))
        - 0.2 * np.cos(4 * hue - np.radians(63))
    )
    dl = (l2 - l1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2))
    dc = (c2 - c1) / (1 + 0.045 * chroma)
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * t)
    angle = np.radians(60 * np.exp(-(((np.degrees(hue) - 275) / 25) ** 2)))
    rotation = -np.sin(angle) * 2 * np.sqrt(chroma**7 / (chroma**7 + 25**7))
    return float(np.sqrt(dl**2 + dc**2 + dh**2 + rotation * dc * dh))


def seen(one, other):
    """The difference to those who see it least."""
    return min(
        difference(lab(vision @ linear(one)), lab(vision @ linear(other)))
        for vision in VISIONS.values()
    )


def contrast(one, other):
    first, second = (float(TO_XYZ[1] @ linear(it)) + 0.05 for it in (one, other))
    return max(first / second, second / first)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((6.7747, -0.2908, -2.4247), (5.8714, -0.0985, -2.2286), 0.6377),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ],
)
def test_the_formula_of_differences_is_that_of_the_paper(one, other, expected):
    assert difference(one, other) == pytest.approx(expected, abs=1e-4)


def test_red_and_green_of_one_lightness_are_not_enough():
    assert seen("#c05050", "#708040") < 8 < difference(*(lab(linear(it)) for it in COLOURS[:2]))


@pytest.mark.parametrize("labels", [POST_TRAINING, [*catalogue()], REVISIONS, ["mine", "yours"]])
def test_any_two_stages_are_told_apart(labels):
    found = styles(labels)
    for one, other in combinations(found.values(), 2):
        if one.path != other.path:
            assert seen(one.colour, other.colour) > 9
        else:
            assert (one.dash, one.symbol) != (other.dash, other.symbol)


def test_a_path_has_a_hue():
    found = styles(POST_TRAINING)
    think = [style.colour for style in found.values() if style.path == "Think"]
    others = [style.colour for style in found.values() if style.path != "Think"]
    assert len(think) == 4
    within = max(seen(*pair) for pair in combinations(think, 2))
    assert within < min(seen(one, other) for one in think for other in others) + 5


@pytest.mark.parametrize("page", ["#ffffff", DARK])
def test_everything_is_seen_on_the_page(page):
    drawn = [*COLOURS, GREY, *(shade(i / 32) for i in range(33))]
    drawn += [it.colour for it in styles([*catalogue(), *REVISIONS, "mine", "yours"]).values()]
    assert min(contrast(it, page) for it in drawn) >= 3


def test_lines_that_are_no_stages_are_told_apart():
    assert min(seen(*pair) for pair in combinations(COLOURS, 2)) > 12


def test_a_stage_of_the_catalogue_looks_the_same_whatever_else_is_there():
    alone = styles(["think_dpo"])["think_dpo"]
    assert styles([*POST_TRAINING, "mine", "think_dpo@step_5"])["think_dpo"] == alone
    assert styles(["mine"])["mine"].path == "Others"
    assert styles(["think_dpo@step_5"])["think_dpo@step_5"].path == "Think"


def test_styles_come_in_the_order_of_the_lineage():
    labels = ["rl_zero_math", "mine", "think_sft", "base"]
    assert list(styles(labels)) == ["base", "think_sft", "rl_zero_math", "mine"]
    assert styles(labels[::-1]) == styles(labels)


def test_revisions_of_one_stage_shade_in_the_order_of_training():
    found = [style.colour for style in styles(REVISIONS).values()]
    assert found == [shade(i / 9) for i in range(10)]


def test_pairs_of_dash_and_symbol_repeat_late():
    pairs = {(DASHES[i % len(DASHES)], SYMBOLS[i % len(SYMBOLS)]) for i in range(50)}
    assert len(pairs) == 50
    assert "dot" not in DASHES  # nulls are


def test_colours_mix():
    assert mixed("#000000", "#ff8000", 0.5) == "#804000"
    assert transparent("#ff8000", 0.5) == "rgba(255,128,0,0.5)"
