"""A sweep over revisions or stages as curves, from jobs made by hand."""

import json
import math
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from olmo_stages.types import Finished, Measurement, Result
from olmo_stages.vectors.trajectory import trajectories
from tests.figures.told import behind, captions

STEPS = {"stage1-step0": 0.02, "stage1-step100": 0.2, "stage1-step300": 0.7, "stage2-step200": 0.9}
LAYERS = {0: "sliding_attention", 3: "full_attention"}
RELIABLE = {0: 0.5, 3: 0.9}


def rows(stage, reference, value, *, trait="manners", factor=1.0):
    for layer, kind in LAYERS.items():
        common = {
            "stage": stage,
            "reference": reference,
            "layer": layer,
            "layer_type": kind,
            "trait": trait,
            "n": 96,
            "n_groups": 24,
        }
        at = value - 0.01 * layer
        about = {"ci_low": at - 0.05, "ci_high": at + 0.05, **common}
        if reference:
            p = 0.001 if value > 0.1 else 0.6
            yield Measurement("cosine", at, variant="raw", null=0.1, p=p, p_max=p, **about)
            yield Measurement("cosine", at * factor, variant="standardised", **about)
            yield Measurement("corrected_cosine", at, variant="raw", **about)
            yield Measurement(
                "null_cosine",
                0.1,
                variant="raw:relabelled",
                **common,
                ci_low=-0.2,
                ci_high=0.3,
            )
            yield Measurement("reliability", RELIABLE[layer], variant="reference:raw", **common)
            yield Measurement("separation", 2 * at, variant="fixed", **about)
            yield Measurement("shift", 0.1, variant="fixed", **about)
        yield Measurement("reliability", 0.8, variant="stage:raw", **common)
        yield Measurement("separation", 3.0, variant="own", **about)


def job(stage, reference="base", value=0.5, **changes):
    return Finished(stage, reference, Result(tuple(rows(stage, reference, value, **changes))))


def sweep(steps=STEPS, **changes):
    return [job(f"base@{name}", value=value, **changes) for name, value in steps.items()]


def named(result, metric, **about):
    return [
        row
        for row in result.measurements
        if row.metric == metric and all(getattr(row, key) == it for key, it in about.items())
    ]


def traces(figure, name):
    return [it for it in json.loads(figure)["data"] if it.get("name") == name]


def test_rows_come_in_the_order_of_training_one_line_after_another():
    result = trajectories(sweep()[::-1])
    line = named(result, "cosine_trajectory", variant="raw", layer=3)
    assert [row.stage for row in line] == [f"base@{name}" for name in STEPS]
    assert [row.value for row in line] == pytest.approx([v - 0.03 for v in STEPS.values()])
    assert line[1].note == "base stage1, step 100"
    assert (line[1].ci_low, line[1].p_max) == (pytest.approx(0.12), 0.001)


def test_a_note_of_the_job_is_kept():
    jobs = sweep()
    noted = [replace(row, note="few groups") for row in jobs[0].result.measurements]
    jobs[0] = replace(jobs[0], result=Result(tuple(noted)))
    line = named(trajectories(jobs), "cosine_trajectory", layer=0, variant="raw")
    assert line[0].note == "base stage1, step 0; few groups"
    assert line[1].note == "base stage1, step 100"


def test_the_fixed_vector_and_the_own_are_apart():
    result = trajectories(sweep())
    fixed, own = (named(result, "separation_trajectory", variant=it) for it in ("fixed", "own"))
    assert len(fixed) == len(own) == len(STEPS) * len(LAYERS)
    assert {row.value for row in own} == {3.0}
    assert len({row.value for row in fixed}) > 1
    figure = result.figures["separation"]
    assert traces(figure, "along the vector of base")
    assert traces(figure, "along its own vector")


def test_what_is_about_the_reference_alone_is_no_line():
    result = trajectories(sweep())
    assert {row.variant for row in named(result, "reliability_trajectory")} == {"stage:raw"}
    assert named(result, "null_cosine_trajectory") == []


def test_the_figure_begins_at_the_layer_where_the_reference_is_most_reliable():
    result = trajectories(sweep())
    assert result.headline["layer"] == 3
    drawn = json.loads(result.figures["cosine_raw"])
    menu = drawn["layout"]["updatemenus"][0]
    assert [it["label"] for it in menu["buttons"]] == [
        "layer 0 sliding attention",
        "layer 3 full attention",
    ]
    assert menu["active"] == 1
    visible = [it for it in drawn["data"] if it["visible"] and it.get("name") == "cosine"]
    assert visible[0]["y"] == pytest.approx([v - 0.03 for v in STEPS.values()])
    assert menu["buttons"][1]["args"][0]["visible"] == [it["visible"] for it in drawn["data"]]


def test_the_reference_is_at_its_place_and_1():
    figure = trajectories(sweep()).figures["cosine_raw"]
    (star, _) = traces(figure, "base (the reference)")
    assert star["y"] == [1.0]
    assert star["x"][0] > max(traces(figure, "cosine")[0]["x"])
    assert traces(trajectories([job("a"), job("b")]).figures["separation"], star["name"]) == []


def test_the_null_is_a_band():
    figure = trajectories(sweep()).figures["cosine_raw"]
    band = traces(figure, "null: same relabelling in both, 95 %")[0]
    assert band["fill"] == "toself"
    assert {it for it in band["y"] if it is not None} == {-0.2, 0.3}


def test_the_null_of_a_stage_that_is_joined_to_no_other_is_a_bar():
    jobs = [job("think_sft"), job("rl_zero_math")]
    band = traces(trajectories(jobs).figures["cosine_raw"], "null: same relabelling in both, 95 %")
    assert band[0]["x"].count(None) == 2


def test_intervals_are_bands_along_the_line():
    data = json.loads(trajectories(sweep()).figures["cosine_raw"])["data"]
    bands = [it for it in data if it.get("fill") and it["legendgroup"] == "cosine"]
    assert bands[0]["y"][:4] == pytest.approx([-0.03, 0.15, 0.65, 0.85])  # lower ends, ascending
    assert bands[0]["y"][4:8] == pytest.approx([0.95, 0.75, 0.25, 0.07])  # upper ends, back
    assert bands[0]["y"].count(None) == 1


def test_figures_say_which_null_and_which_rows():
    result = trajectories(sweep())
    said = captions(result)
    assert "shuffled labels, the same in both stages" in said["cosine_raw"]
    assert "unrelated" not in said["cosine_raw"]  # these jobs have no such null
    assert "No null" in said["separation"]
    metrics = {row.metric for row in behind(result, "cosine_raw")}
    names = ("cosine", "corrected_cosine", "reliability")
    assert metrics == {f"{name}_trajectory" for name in names}
    assert {row.variant for row in behind(result, "separation")} == {"fixed", "own"}


def test_the_second_scale_is_drawn_only_where_it_differs():
    assert "cosine_standardised" not in trajectories(sweep()).figures
    assert "cosine_standardised" in trajectories(sweep(factor=0.5)).figures


def test_every_trait_is_an_entry_of_the_menu():
    jobs = [
        replace(one, result=Result(one.result.measurements + other.result.measurements))
        for one, other in zip(sweep(), sweep(trait="<truth>"), strict=True)
    ]
    result = trajectories(jobs)
    menu = json.loads(result.figures["cosine_raw"])["layout"]["updatemenus"][0]
    labels = [it["label"] for it in menu["buttons"]]
    assert labels[0] == "manners · layer 0 sliding attention"
    assert labels[2] == "&lt;truth&gt; · layer 0 sliding attention"
    assert {row.trait for row in named(result, "formed_trajectory")} == {"manners", "<truth>"}


def test_an_undefined_value_is_a_gap():
    jobs = sweep()
    gone = [
        replace(row, value=math.nan, ci_low=None, ci_high=None)
        if row.metric == "corrected_cosine"
        else row
        for row in jobs[1].result.measurements
    ]
    jobs[1] = replace(jobs[1], result=Result(tuple(gone)))
    figure = trajectories(jobs).figures["cosine_raw"]
    assert traces(figure, "corrected for sampling noise")[0]["y"][1] is None
    paths = [
        it
        for it in json.loads(figure)["data"]
        if it["mode"] == "lines" and it["legendgroup"] == "corrected for sampling noise"
        and not it.get("fill") and it["line"]["dash"] == "solid"
    ]  # fmt: skip
    assert len(paths[0]["x"]) == 3  # step 300 to stage 2 alone


@pytest.mark.parametrize(("value", "highest"), [(0.9, 1.1), (7.0, 1.6)])
def test_an_unreliable_value_does_not_flatten_the_others(value, highest):
    figure = trajectories(sweep(STEPS | {"stage1-step50": value})).figures["cosine_layers"]
    low, high = json.loads(figure)["layout"]["yaxis"]["range"]
    assert -0.1 < low < 0.0
    assert highest - 0.1 < high < highest


def test_stages_are_joined_as_their_lineage_is():
    stages = ("think_sft", "think_dpo", "instruct_sft", "rl_zero_math")
    values = dict(zip(stages, (0.5, 0.4, 0.6, 0.9), strict=True))
    result = trajectories([job(stage, value=value) for stage, value in values.items()])
    (farthest,) = named(result, "corrected_cosine_trajectory", stage="think_dpo", layer=3)
    assert farthest.value == pytest.approx(0.37)
    assert result.headline == {
        "stages": 4,
        "reference": "base",
        "layer": 3,
        "farthest": "think_dpo",
        "its corrected cosine": farthest,
    }
    figure = json.loads(result.figures["cosine_raw"])
    shown = figure["layout"]["xaxis"]
    at = dict(zip(shown["ticktext"], shown["tickvals"], strict=True))
    assert set(at) == {"base", *stages}
    paths = [it["x"] for it in figure["data"] if it["mode"] == "lines" and not it.get("fill")]
    pairs = {(x[i], x[i + 1]) for x in paths for i in range(0, len(x), 3)}
    assert (at["think_sft"], at["instruct_sft"]) in pairs
    assert (at["base"], at["rl_zero_math"]) in pairs
    assert (at["think_dpo"], at["instruct_sft"]) not in pairs


def test_references_are_kept_apart():
    jobs = [*sweep(), job("think_dpo", "think_sft", 0.8), job("instruct_sft", "think_sft", 0.3)]
    result = trajectories(jobs)
    assert {"cosine_raw_vs_base", "cosine_raw_vs_think_sft"} <= set(result.figures)
    line = named(result, "cosine_trajectory", variant="raw", layer=0, reference="think_sft")
    assert {row.stage for row in line} == {"think_dpo", "instruct_sft"}


def test_a_job_whose_reference_no_other_shares_is_named():
    result = trajectories([*sweep(), job("think_dpo", "think_sft")])
    assert result.warnings == (
        "no trajectory of think_dpo: a fixed reference is needed that several stages share, e.g. "
        "reference=base",
    )
    assert named(result, "cosine_trajectory", stage="think_dpo") == []
    assert trajectories(sweep()).warnings == ()


def test_one_stage_is_no_trajectory():
    assert trajectories([job("think_sft")]) is None
    assert trajectories([job("think_sft"), job("think_dpo", "think_sft")]) is None
    assert trajectories([]) is None


def test_the_reference_own_job_gives_the_separation_at_its_place():
    result = trajectories([*sweep(), job("base", "")])
    at_base = named(result, "separation_trajectory", stage="base", layer=3)
    assert [(row.variant, row.value) for row in at_base] == [("fixed", 3.0), ("own", 3.0)]
    assert result.warnings == ()
    assert named(result, "reliability_trajectory", stage="base") == []


def test_without_a_reference_the_own_vectors_alone_are_shown():
    result = trajectories([job("base", ""), job("think_sft", "")])
    assert set(result.figures) == {"separation"}
    assert "reference" not in result.headline


def test_figures_are_readable_by_plotly():
    for figure in trajectories(sweep()).figures.values():
        go.Figure(json.loads(figure))


def test_the_step_by_which_the_vector_formed_is_in_the_headline():
    result = trajectories(sweep())
    assert result.headline["half of it by"] == "base@stage1-step300"
    assert (result.headline["null there"], result.headline["p (max)"]) == (0.1, 0.001)
    assert result.headline["last"] == "base@stage2-step200"
    formed = named(result, "formed_trajectory", layer=3)[0]
    assert (formed.value, formed.ci_low, formed.ci_high) == (300.0, 100.0, 300.0)
