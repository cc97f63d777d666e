"""What a comparison comes to for people: caveats, figures and headline."""

from dataclasses import replace

import numpy as np
import pytest
from plotly.io import from_json

from tests.fakes import BASE, THINK
from tests.figures.told import behind, captions
from tests.similarity.analysed import (
    DPO,
    QUICK,
    compare,
    given,
    related,
    rows,
    unrelated,
    warned,
)


@pytest.fixture(scope="module")
def found():
    """Related stages."""
    return compare(related())


@pytest.fixture(scope="module")
def alone():
    """A stage without reference."""
    return compare(related(layers=4), reference=None)


def test_one_huge_row_is_warned_about():
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(2, 40, 32)) for name in ("base", "think_sft")}
    values["base"][1, 7] += 100
    result = compare(given(values), **QUICK)
    assert warned(result, "base:", "over half of the squared norm", "in 1 of 2 layers", "layer 1")
    assert not warned(result, "think_sft:", "squared norm")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("n_joined", "in 3 of 40 texts prompt and response were tokenised apart"),
        ("n_at_sink", "3 of 40 texts are read at the attention sink"),
        ("n_truncated", "3 of 40 texts were longer than the context"),
    ],
)
@pytest.mark.parametrize("count", [0, 3])
def test_texts_that_were_read_otherwise_are_counted(field, words, count):
    source = related(change=lambda acts: replace(acts, **{field: count}))
    assert warned(compare(source, **QUICK), words) == (count > 0)


def test_every_warning_is_said_once():
    values = {stage.name: unrelated().make(stage) for stage in (BASE, THINK)}
    values["base"][1, :, 5] *= 100
    result = compare(given(values), also=["svcca", "mutual_knn"], neighbours=50, **QUICK)
    assert len(result.warnings) >= 4
    assert len(set(result.warnings)) == len(result.warnings)
    assert sum("mutual_knn left out" in warning for warning in result.warnings) == 1


def test_figures_can_be_drawn(found):
    assert {"map_raw", "map_standardised", "diagonal"} <= set(found.figures)
    for text in found.figures.values():
        assert from_json(text).data
    curves = {trace.name for trace in from_json(found.figures["diagonal"]).data}
    assert {
        "floor: random initialisation",
        "ceiling: two halves of the stage (no upper bound)",
    } <= curves


def test_captions_say_what_was_resampled_and_which_null(found, alone):
    said = captions(found)
    (n_groups,) = {row.n_groups for row in found.measurements}
    for name in ("map_raw", "diagonal", "distance"):
        assert f"{n_groups} groups" in said[name]
    few = captions(compare(related(), **QUICK | {"n_permutations": 7, "n_resamples": 123}))
    assert "7 permutations of the rows" in few["map_raw"]
    assert "over 7 permutations" in few["diagonal"]
    assert "123 resamples" in few["diagonal"]
    without = captions(compare(related(), **QUICK | {"n_permutations": 0, "n_halves": 0}))
    assert "No null was run" in without["map_raw"]
    assert "Ceiling" in said["diagonal"]
    assert "Ceiling" not in without["diagonal"]
    assert "No null is drawn" in captions(alone)["diagonal"]  # 1 by construction


def test_figures_name_the_rows_behind_them(found):
    assert behind(found, "map_raw") == rows(found, "debiased_cka_map", "raw")
    assert {row.metric for row in behind(found, "diagonal")} == {"debiased_cka"}
    assert {row.variant for row in behind(found, "distance")} <= {"raw", "standardised"}


def test_colours_of_both_maps_are_those_of_all_scores(found):
    for variant in ("raw", "standardised"):
        values = [row.value for row in rows(found, "debiased_cka_map", variant)]
        (trace, *_) = from_json(found.figures[f"map_{variant}"]).data
        assert trace.zmax == 1
        assert trace.zmin == min(values)  # both variants are equal here


def test_the_distance_is_drawn_where_there_is_one(found, alone):
    distance = from_json(found.figures["distance"])
    assert distance.layout.yaxis.type == "log"
    assert "distance" not in alone.figures  # a stage is no distance from itself


def test_a_stage_name_of_html_is_shown_as_it_is():
    odd = replace(DPO, name="<b>odd</b>")
    result = compare(related(), stage=odd, **QUICK)
    for text in result.figures.values():
        assert "<b>odd" not in from_json(text).layout.title.text


def test_the_headline_is_about_the_least_similar_layer(found):
    lowest = min(rows(found, "debiased_cka"), key=lambda row: row.value)
    assert found.headline["lowest at layer"] == lowest.layer
    assert found.headline["debiased cka"] == lowest
    assert found.headline["p (max)"] == lowest.p_max
    (mean,) = rows(found, "debiased_cka_mean", layer_type="")
    assert found.headline["mean"] == mean
    assert mean.ci_low is not None


def test_a_mean_over_layers_has_a_p_of_its_own_and_none_of_a_maximum(found):
    means = rows(found, "debiased_cka_mean")
    assert all(row.p is not None and row.p_max is None for row in means)
    assert all(row.p_max is not None for row in rows(found, "debiased_cka"))


def test_the_largest_drop_is_a_number_with_its_layer(found):
    drops = [row for row in rows(found, "debiased_cka_change") if row.note.startswith("largest")]
    assert found.headline.get("largest drop") == (drops[0] if drops else None)
    assert found.headline.get("drop at layer") == (drops[0].layer if drops else None)


def test_the_headline_of_a_stage_alone_is_about_its_least_similar_layers(alone):
    lowest = min(rows(alone, "debiased_cka_map"), key=lambda row: row.value)
    assert set(alone.headline) == {"least alike", "there"}
    assert alone.headline["there"].value == lowest.value < 1
    assert alone.headline["least alike"] in {
        f"layers {lowest.layer} and {lowest.reference_layer}",
        f"layers {lowest.reference_layer} and {lowest.layer}",
    }


def test_the_headline_without_a_diagonal_is_about_the_most_similar_layers():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(2, 40, 16))
    deeper = np.stack([rng.normal(size=(40, 16)), base[1], rng.normal(size=(40, 16))])
    result = compare(given({"base": base, "think_sft": deeper}), **QUICK)
    assert result.headline["most alike"] == "layers 1 and 1"
    assert result.headline["there"].value == pytest.approx(1, abs=1e-5)


def test_the_headline_carries_the_note_of_its_layer(found):
    noted = compare(unrelated())
    lowest = min(rows(noted, "debiased_cka"), key=lambda row: row.value)
    assert "not above the random initialisation" in lowest.note
    assert noted.headline["note"] == lowest.note
    assert found.headline["note"] == ""
