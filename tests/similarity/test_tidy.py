"""Scores as measurements."""

import math

import numpy as np
import pytest

from olmo_stages.similarity.inference import Scores
from olmo_stages.similarity.tidy import SMALLEST, Labels, at, colour_limits, distances

LABELS = Labels(
    stage="think_sft",
    reference="base",
    layers=(3, 7),
    kinds=("sliding_attention", "full_attention"),
    others=(1, 2, 5),
    other_kinds=("a", "b", "c"),
    n=40,
    n_groups=10,
    seed=4,
)
MAP = np.arange(6.0).reshape(2, 3) / 10
SCORES = Scores(MAP, MAP - 0.1, MAP + 0.1, null=MAP * 0)


def test_a_map_has_a_row_for_each_pair_of_layers():
    found = LABELS.map("m", "raw", SCORES)
    cells = [(row.layer, row.reference_layer, row.value) for row in found]
    assert cells == [
        (3, 1, 0.0), (3, 2, 0.1), (3, 5, 0.2), (7, 1, 0.3), (7, 2, 0.4), (7, 5, 0.5)
    ]  # fmt: skip
    assert [row.layer_type for row in found][::3] == ["sliding_attention", "full_attention"]
    assert [row.reference_layer_type for row in found] == ["a", "b", "c"] * 2
    assert {(row.stage, row.reference, row.n, row.n_groups, row.seed) for row in found} == {
        ("think_sft", "base", 40, 10, 4)
    }


def test_a_diagonal_has_a_row_a_layer():
    value = np.array([0.1, 0.2])
    found = LABELS.diagonal("m", "raw", Scores(value, value, value), ["", "hm"])
    assert [(row.layer, row.reference_layer, row.note) for row in found] == [
        (3, 1, ""),
        (7, 2, "hm"),
    ]


def test_turned_it_is_about_the_other_side():
    turned = LABELS.turned()
    assert (turned.stage, turned.reference) == ("base", "think_sft")
    assert (turned.layers, turned.kinds) == (LABELS.others, LABELS.other_kinds)
    assert turned.turned() == LABELS


def curve(value, **ends):
    return LABELS.row("m", "raw", value=value, p=0.1, p_max=0.2, null=0.3, **ends)


@pytest.mark.parametrize(
    ("values", "lowest"),
    [
        ([0.93, 0.99], 0.93),
        ([-0.02, 0.5, math.nan], -0.02),
        ([0.9999, 1.0], 0.999),
        ([math.nan], 0),
    ],
)
def test_colours_go_from_the_lowest_value_to_1(values, lowest):
    assert colour_limits([curve(it) for it in values]) == (pytest.approx(lowest), 1.0)


def test_a_distance_has_the_interval_turned_and_no_p():
    (row,) = distances([curve(0.75, ci_low=0.5, ci_high=1.0), curve(1.0)], 1.0)
    assert (row.value, row.ci_low, row.ci_high) == (0.25, SMALLEST, 0.5)
    assert row.p is row.p_max is row.null is None
    (row,) = distances([curve(0.75)], 1.0)
    assert row.ci_low is row.ci_high is None


def test_what_is_unknown_is_none():
    scores = Scores(MAP, MAP * np.nan, MAP + 0.1)
    found = at(scores, (1, 2))
    assert found == {
        "value": 0.5, "ci_low": None, "ci_high": 0.6, "null": None, "p": None, "p_max": None
    }  # fmt: skip
    assert all(type(it) in {float, type(None)} for it in found.values())
