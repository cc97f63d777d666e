"""Cosines of all stages by layer, from jobs made by hand."""

import json
import math
from dataclasses import replace

from olmo_stages.analyses.cosine import across
from olmo_stages.types import Result
from olmo_stages.vectors.by_layer import by_layer
from tests.vectors.test_trajectory import job


def meta(figure):
    return json.loads(figure)["layout"]["meta"]


def without_null(jobs):
    return [
        replace(it, result=Result(tuple(replace(row, null=None) for row in it.result.measurements)))
        for it in jobs
    ]


CHAIN = [job("think_sft", "base", 0.5), job("think_dpo", "think_sft", 0.9)]


def test_every_stage_is_drawn_whatever_its_reference():
    drawn = by_layer(CHAIN)
    assert list(drawn) == ["by_layer"]
    told = meta(drawn["by_layer"])
    assert (told["of"], told["metric"], told["variant"]) == ("jobs", ["cosine"], ["raw"])
    lines = [it for it in json.loads(drawn["by_layer"])["data"] if it.get("y") == [0.5, 0.47]]
    assert lines


def test_its_caption_says_jackknife_and_which_null():
    said = meta(by_layer(CHAIN)["by_layer"])["caption"]
    assert "95 % jackknife intervals over groups" in said
    assert "Dotted: median over relabellings, the same in both stages" in said
    bare = meta(by_layer(without_null(CHAIN))["by_layer"])["caption"]
    assert "No null was run." in bare
    assert "relabel" not in bare


def test_each_trait_has_a_figure():
    jobs = [
        replace(
            it,
            result=Result((*it.result.measurements, *other.result.measurements)),
        )
        for it, other in zip(
            CHAIN,
            [job("think_sft", trait="rude"), job("think_dpo", "think_sft", trait="rude")],
            strict=True,
        )
    ]
    drawn = by_layer(jobs)
    assert list(drawn) == ["by_layer_manners", "by_layer_rude"]
    assert [meta(it)["trait"] for it in drawn.values()] == [["manners"], ["rude"]]


def test_one_job_or_none_that_compares_has_no_figure():
    assert by_layer(CHAIN[:1]) == {}
    assert by_layer([job("base", ""), job("think_sft", "")]) == {}
    undefined = [
        replace(
            it,
            result=Result(tuple(replace(row, value=math.nan) for row in it.result.measurements)),
        )
        for it in CHAIN
    ]
    assert by_layer(undefined) == {}


def test_a_stage_with_two_references_has_a_line_for_each():
    drawn = by_layer([*CHAIN, job("think_dpo", "base", 0.4)])["by_layer"]
    names = {it["name"] for it in json.loads(drawn)["data"] if it.get("name")}
    assert sum("think_dpo" in name for name in names) == 2


def test_a_chain_without_a_trajectory_still_has_the_figure():
    result = across(CHAIN)
    assert (set(result.figures), result.measurements) == ({"by_layer"}, ())
    shared = across([CHAIN[0], job("think_dpo", "base", 0.4)])
    assert {"by_layer", "cosine_raw"} <= set(shared.figures)
    assert shared.measurements
    assert across(CHAIN[:1]) is None
