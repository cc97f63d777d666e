"""What was found about vectors, for people: headline and figures."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from plotly.io import from_json
from rich.console import Console

from olmo_stages.records import Job
from olmo_stages.report.terminal import best_layer, comparison_table, job_table
from tests.fakes import BASE, THINK
from tests.figures.told import behind, captions
from tests.similarity.analysed import rows
from tests.vectors.planted import QUICK, compare, contrast_examples, planted, shuffled


def turned_at(layer, **kwargs):
    """Kept everywhere but in one layer."""
    kept, turned = planted(0, **kwargs), planted(70, **kwargs)

    def make(stage):
        values = kept.make(stage)
        values[layer] = turned.make(stage)[layer]
        return values

    return replace(kept, make=make)


@pytest.fixture(scope="module")
def found():
    return compare(turned_at(1, layer_types=["sliding_attention"] * 2 + ["full_attention"]))


def test_the_headline_is_about_the_layer_where_the_vector_turned_most(found):
    head = found.headline
    assert head["at layer"] == best_layer(found) == 1
    row = rows(found, "cosine")[1]
    assert (head["cosine"], head["null"], head["p (max)"]) == (row, row.null, row.p_max)
    assert head["note"] == row.note
    assert str(row.note).startswith("turned more than the null; turned more than unrelated")
    assert head["reliability"] == rows(found, "reliability", "stage:raw")[1]
    assert head["z"] == rows(found, "z", "raw:relabelled")[1]
    mean = rows(found, "corrected_cosine_mean", layer_type="")[0]
    assert head["mean corrected cosine"] == mean
    assert head["of layers"] == "3 of 3"


def test_the_headline_says_that_a_mean_is_of_no_layer():
    noise = compare(planted(examples=shuffled(contrast_examples()), strength=0.0), **QUICK)
    head = noise.headline
    mean = head["mean corrected cosine"]
    assert math.isnan(mean.value) == (str(head["of layers"])[0] == "0")
    assert "not reliable" in mean.note
    assert head["of layers"] != "3 of 3"


def test_the_mean_is_that_of_the_layers(found):
    values = np.array([row.value for row in rows(found, "corrected_cosine")])
    means = {row.layer_type: row.value for row in rows(found, "corrected_cosine_mean")}
    assert all(row.note == "" for row in rows(found, "corrected_cosine_mean"))
    assert means[""] == pytest.approx(values.mean())
    assert means["sliding_attention"] == pytest.approx(values[:2].mean())
    assert means["full_attention"] == pytest.approx(values[2])
    lows = [row.ci_low for row in rows(found, "corrected_cosine")]
    row = rows(found, "corrected_cosine_mean", layer_type="")[0]
    assert row.ci_low == pytest.approx(np.mean(lows))


def test_captions_say_what_was_resampled_and_which_null(found):
    said = captions(found)
    assert "jackknife intervals over groups" in said["cosine_raw"]
    assert "bootstrap intervals over groups, widened" in said["transfer"]
    few = {"n_permutations": 19, "n_unrelated": 7, "n_resamples": 123}
    told = captions(compare(planted(), **QUICK | few))
    assert "19 relabellings" in told["cosine_raw"]
    assert "7 random splits" in told["cosine_raw"]
    assert "123 resamples" in told["transfer"]
    none = captions(compare(planted(), **QUICK | {"n_permutations": 0, "n_unrelated": 0}))
    assert "No null was run" in none["cosine_raw"]
    assert "relabelling" not in none["cosine_raw"]


def test_figures_name_the_rows_behind_them(found):
    metrics = {row.metric for row in behind(found, "cosine_raw")}
    assert metrics == {"cosine", "corrected_cosine", "null_cosine"}
    assert {row.metric for row in behind(found, "distance")} == {"cosine", "null_cosine"}
    assert {row.variant for row in behind(found, "reliability")} == {"stage:raw", "reference:raw"}
    assert len(behind(found, "transfer")) == 12


def test_figures_are_plotly(found):
    assert set(found.figures) == {"cosine_raw", "distance", "reliability", "transfer"}
    for text in found.figures.values():
        assert len(from_json(text).data) > 2
    assert json.loads(found.figures["distance"])["layout"]["yaxis"]["type"] == "log"


def test_the_figure_of_cosines_shows_their_nulls(found):
    names = {trace.name for trace in from_json(found.figures["cosine_raw"]).data}
    for said in ("cosine", "corrected for sampling noise"):
        assert said in names
    assert any(name and name.startswith("null: the same relabelling") for name in names)
    without = from_json(compare(planted(), **QUICK).figures["cosine_raw"])
    assert not any(trace.name and trace.name.startswith("null") for trace in without.data)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_the_corrected_cosine_of_noise_is_not_drawn(strength):
    examples = contrast_examples() if strength else shuffled(contrast_examples())
    figure = compare(planted(examples=examples, strength=strength), **QUICK).figures["cosine_raw"]
    drawn = next(it for it in from_json(figure).data if it.name == "corrected for sampling noise")
    assert [y is not None for y in drawn.y] == [strength > 0] * 3


def test_both_variants_are_drawn_where_they_differ():
    source = planted()
    loud = 20 * np.random.default_rng(3).normal(size=len(source.examples))

    def make(stage):
        values = source.make(stage)
        values[..., 9] += loud
        return values

    assert "cosine_standardised" in compare(replace(source, make=make), **QUICK).figures
    assert "cosine_standardised" not in compare(source, **QUICK).figures


def test_traits_are_drawn_apart_and_against_one_another():
    both = [*contrast_examples(10, trait="<i>"), *contrast_examples(10, trait="rude")]
    result = compare(planted(examples=both), **QUICK)
    for trait in ("<i>", "rude"):
        assert f"cosine_raw_{trait}" in result.figures
    for name in ("cosine_raw_<i>", "traits"):
        figure = json.loads(result.figures[name])  # plotly writes < as a code
        assert "<i>" in figure["layout"].pop("meta")["trait"]
        text = json.dumps(figure)
        assert "&lt;i&gt;" in text
        assert "<i>" not in text
    layout = json.loads(result.figures["traits"])["layout"]
    assert [layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis")] == ["trait", "trait"]
    alone = compare(planted(), **QUICK)
    assert "traits" not in alone.figures


def test_a_stage_alone_is_drawn_alone():
    result = compare(planted(), reference=None, **QUICK)
    assert set(result.figures) == {"reliability", "transfer"}


@pytest.mark.parametrize("reference", [BASE, None])
def test_the_terminal_shows_it(reference, found):
    result = found if reference else compare(planted(), reference=None)
    job = Job("cosine", THINK, reference, "manners", {})
    console = Console(file=io.StringIO(), width=110)
    console.print(job_table(result, job, 110))
    console.print(comparison_table(result, job, 110))
    shown = console.file.getvalue()
    assert "reliability" in shown
    assert ("corrected" in shown) == (reference is not None)
    assert "transfer auroc" in shown
