"""Token maps: the right numbers at the right places, texts as they are, borders of parts."""

import json

import numpy as np
import plotly.io
import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.figures.token_map import MOST_TOKENS, token_map
from tests.figures.hovered import cell, texts

TOKENS = [
    (1, " <b>hi</b>", "user"),
    (2, "\n%{x}", "user"),
    (5, "", "think"),
    (6, "a" * 40, "think"),
]
SCORES = np.array([[0.0, 0.5, 1.0, 2.0], [np.nan, -1.0, 0.5, 0.25]])
LAYERS = [(-1, "embedding"), (3, "full_attention")]


def draw(scores=SCORES, tokens=TOKENS, layers=LAYERS, title="x <i>", **options):
    given = {"value_label": "score", "middle": 0.5} | options
    text = token_map(scores, tokens, layers, title=title, **given)
    plotly.io.from_json(text)  # plotly takes it
    return json.loads(text)


def test_scores_stand_at_their_token_and_layer():
    heat, cross = draw()["data"]
    assert heat["z"] == [[0, 0.5, 1, 2], [None, -1, 0.5, 0.25]]
    assert heat["y"] == ["emb", "3 F"]
    assert cell(heat, 1, 3) == (
        f"token 6: {'a' * 40} · think<br>layer %{{y}}<br>score = %{{z:.3f}}<extra></extra>"
    )
    assert (cross["x"], cross["y"]) == ([0], ["3 F"])
    assert "undefined" in texts(cross)[0]
    assert "token 1: ␣" in texts(cross)[0]


def test_text_of_data_is_shown_as_it_is():
    figure = draw()
    ticks = figure["layout"]["xaxis"]["ticktext"]
    assert ticks == ["␣&lt;b&gt;hi&lt;/b&gt;", "⏎%&#123;x}", "…", "a" * 13 + "…"]
    assert figure["layout"]["title"]["text"] == "x &lt;i&gt;"
    assert "1: ␣&lt;b&gt;hi" in cell(figure["data"][0], 0, 0)


def test_parts_are_named_where_they_begin():
    layout = draw()["layout"]
    assert [(it["x"], it["text"]) for it in layout["annotations"]] == [
        (-0.5, "user"),
        (1.5, "think"),
    ]
    assert {it["x0"] for it in layout["shapes"]} == {1.5}


def test_colours_lie_evenly_around_the_middle():
    heat = draw()["data"][0]
    assert heat["zmin"] + heat["zmax"] == pytest.approx(1)
    assert 1 < heat["zmax"] <= 2
    (flat,) = draw(np.full((2, 4), 0.5))["data"]
    assert (flat["zmin"], flat["zmax"]) == (-0.5, 1.5)


def test_one_layer_of_huge_scores_does_not_take_the_colours_of_the_others():
    layers = [(i, "full_attention") for i in range(3)]
    usual = np.random.default_rng(0).standard_normal((3, 4)) + 0.5
    huge = usual * np.array([[100.0], [1.0], [1.0]])
    for scores, most in ((usual, 3.5), (huge, 3.5), (usual * 100, 350.0)):
        (heat,) = draw(scores, TOKENS, layers)["data"]
        assert most / 10 < heat["zmax"] < most


def test_long_examples_are_cut_and_say_so():
    tokens = [(i, "a", "text") for i in range(MOST_TOKENS + 50)]
    figure = draw(np.zeros((2, len(tokens))), tokens)
    assert len(figure["data"][0]["z"][0]) == MOST_TOKENS
    assert "the first 200 of 250 tokens" in figure["layout"]["title"]["text"]
    assert "first" not in draw()["layout"]["title"]["text"]


@pytest.mark.parametrize(("tokens", "layers"), [([], LAYERS), (TOKENS, [])])
def test_nothing_to_draw_is_an_error(tokens, layers):
    with pytest.raises(ConfigError, match="no token or no layer"):
        draw(np.zeros((len(layers), len(tokens))), tokens, layers)


def test_of_many_tokens_some_are_labelled():
    tokens = [(i, f"t{i}", "text") for i in range(200)]
    axis = draw(np.zeros((2, 200)), tokens)["layout"]["xaxis"]
    assert axis["tickvals"] == list(range(0, 200, 3))
    assert axis["ticktext"][:2] == ["t0", "t3"]
