"""All stages of a study in one figure."""

import json
import math

import plotly.graph_objects as go
import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.figures import of_jobs, stage_curves
from olmo_stages.figures.palette import styles
from olmo_stages.types import Measurement
from tests.figures.hovered import texts

STAGES = ["base", "think_sft", "think_dpo", "instruct_sft", "rl_zero_math"]


def kind(layer):
    if layer < 0:
        return "embedding"
    return "full_attention" if layer % 4 == 3 else "sliding_attention"


def row(stage, layer, value, **changes):
    given = {
        "variant": "probe",
        "layer": layer,
        "layer_type": kind(layer),
        "ci_low": value - 0.01,
        "ci_high": value + 0.005,
        "null": 0.5 + layer / 1000,
        "n": 40,
        "n_groups": 10,
        "p": 0.01,
        "p_max": 0.02,
    }
    return Measurement("auroc", value, stage, **{**given, **changes})


def rows(stages=STAGES, layers=range(4), base=0.6, step=0.03, **changes):
    return [
        row(stage, layer, base + step * layer + i / 1000, **changes)
        for i, stage in enumerate(stages)
        for layer in layers
    ]


def draw(measurements, **options):
    given = {"title": "All stages", "y_label": "AUROC"} | options
    text = stage_curves(measurements, "auroc", **given)
    go.Figure(json.loads(text))  # checks every property
    return json.loads(text)


def lines(figure):
    return {it["name"]: it for it in figure["data"] if it["legendgroup"] != "reading"}


def menus(figure):
    found = figure["layout"].get("updatemenus", [])
    return {tuple(it["label"] for it in menu["buttons"]): menu for menu in found}


def test_a_line_a_stage_with_the_values_at_their_layers():
    found = lines(draw(rows()))
    assert list(found) == STAGES
    assert found["think_sft"]["x"] == [0, 1, 2, 3]
    assert found["think_sft"]["y"] == pytest.approx([0.601, 0.631, 0.661, 0.691])


def test_the_order_of_the_rows_does_not_matter():
    assert draw(rows()[::-1]) == draw(rows())


def test_stages_look_as_everywhere_and_the_legend_puts_paths_together():
    found = lines(draw(rows()))
    for label, style in styles(STAGES).items():
        line = found[label]
        looks = (line["line"]["color"], line["line"]["dash"], line["marker"]["symbol"])
        assert looks == (style.colour, style.dash, style.symbol)
        assert line["legendgroup"] == line["legendgrouptitle"]["text"] == style.path
    assert draw(rows())["layout"]["legend"]["groupclick"] == "toggleitem"


def test_other_labels_of_the_report_keep_looks_in_step():
    own = ["mine", "yours"]
    alone = lines(draw(rows(["yours"])))["yours"]["marker"]["symbol"]
    beside = lines(draw(rows(["yours"]), labels=own))["yours"]["marker"]["symbol"]
    assert beside == lines(draw(rows(own)))["yours"]["marker"]["symbol"] != alone


def test_other_metrics_variants_traits_and_pairs_of_layers_are_left_out():
    others = [
        Measurement("log_loss", 9.0, "base", layer=0, variant="probe"),
        row("base", 0, 0.1, variant="control"),
        row("base", 0, 0.1, trait="rude"),
        row("base", 0, 0.1, reference_layer=3),
        Measurement("auroc", 0.1, "base", variant="probe"),
    ]
    assert draw([*others, *rows()], variant="probe", trait="") == draw(rows())


def test_two_rows_of_one_point_are_an_error():
    with pytest.raises(ConfigError, match=r"one variant .*'probe', 'control'"):
        draw([*rows(), row("base", 0, 0.1, variant="control")])


@pytest.mark.parametrize("found", [[], [row("base", 0, math.nan)]])
def test_nothing_to_draw_is_an_error(found):
    with pytest.raises(ConfigError, match="no measurement of 'auroc'"):
        draw(found)


def test_intervals_are_whiskers_that_a_menu_shows():
    figure = draw(rows())
    menu = menus(figure)["intervals: none", "intervals: all"]
    for index, line in enumerate(lines(figure).values()):
        whiskers = line["error_y"]
        assert whiskers["array"] == pytest.approx([0.005] * 4)
        assert whiskers["arrayminus"] == pytest.approx([0.01] * 4)
        assert whiskers["visible"] is False
        assert index in menu["buttons"][1]["args"][1]
    few = draw(rows(["base", "think_sft"]))
    assert lines(few)["base"]["error_y"]["visible"] is True
    assert menus(few)["intervals: none", "intervals: all"]["active"] == 1
    assert not menus(draw(rows(ci_low=None)))


def test_values_near_1_are_shown_by_their_distance_from_it_at_first():
    near = rows(base=0.95, step=0.015)
    figure = draw(near)
    menu = menus(figure)["values", "1 - value, log"]
    base = lines(figure)["base"]
    assert menu["active"] == 1
    assert base["y"] == pytest.approx([0.05, 0.035, 0.02, 0.005])
    # Above the value is below its distance.
    assert base["error_y"]["array"] == pytest.approx([0.01] * 4)
    assert base["error_y"]["arrayminus"] == pytest.approx([0.005] * 4)
    assert figure["layout"]["yaxis"]["type"] == "log"
    assert figure["layout"]["yaxis"]["title"]["text"] == "1 - AUROC"
    values, around = menu["buttons"][0]["args"]
    assert values["y"][0] == [it.value for it in near[:4]]
    assert values["error_y.array"][0] == pytest.approx([0.005] * 4)
    assert around["yaxis.type"] == "linear"
    assert "0.950 [0.940, 0.955]" in texts(base)[0]


def test_values_with_a_chance_level_are_shown_as_they_are_at_first():
    figure = draw(rows(base=0.95, step=0.015), chance=0.5)
    assert menus(figure)["values", "1 - value, log"]["active"] == 0
    assert lines(figure)["base"]["y"][0] == pytest.approx(0.95)
    (chance,) = [it for it in figure["data"] if it["name"] == "chance"]
    assert chance["y"] == [0.5, 0.5]


@pytest.mark.parametrize("values", [{"base": 0.6}, {"base": 0.98, "step": 0.01}])
def test_far_from_1_and_at_1_there_is_no_distance(values):
    assert ("values", "1 - value, log") not in menus(draw(rows(["base"], **values)))


def test_nulls_are_one_dotted_trace_that_breaks_between_stages():
    figure = draw(rows())
    (null,) = [it for it in figure["data"] if it["name"] == "null (median)"]
    assert null["line"]["dash"] == "dot"
    assert null["x"] == [0, 1, 2, 3, None] * 5
    assert null["y"][:5] == [0.5, 0.501, 0.502, 0.503, None]
    colours = [style.colour for style in styles(STAGES).values()]
    assert null["marker"]["color"][::5] == colours
    for part in ["of think_sft", "null median 0.501", "value 0.631", "n = 40", "p = 0.01"]:
        assert part in texts(null)[6]
    without = draw(rows(null=None))
    assert "null (median)" not in [it["name"] for it in without["data"]]


def test_hover_tells_all_that_is_known():
    text = texts(lines(draw(rows(reference="base", note="noted")))["think_sft"])[3]
    for part in [
        "<b>think_sft</b>",
        "layer 3 full attention",
        "against base",
        "0.691 [0.681, 0.696]",
        "null median 0.503",
        "n = 40, groups = 10",
        "p = 0.01",
        "p over layers = 0.02",
        "noted",
    ]:
        assert part in text


def test_undefined_values_are_gaps():
    found = rows(["base"])
    found[1] = row("base", 1, math.nan, ci_low=None, ci_high=None)
    line = lines(draw(found))["base"]
    assert line["y"][1] is None
    assert line["error_y"]["array"][1] == 0


def test_layers_of_full_attention_are_set_off():
    layout = draw(rows(layers=range(-1, 8)))["layout"]
    assert [it["x0"] for it in layout["shapes"]] == [2.5, 6.5]
    assert layout["xaxis"]["ticktext"][:5] == ["emb", "0", "1", "2", "<b>3</b>"]


def test_a_reference_that_is_no_stage_of_its_own_has_a_line():
    jobs = [
        *rows(["think_sft", "think_dpo"], reference="base"),
        *rows(["think_sft", "think_dpo"], base=0.55, reference="base", variant="reference"),
    ]
    found = lines(draw(jobs, variant="probe", of_reference="reference"))
    assert list(found) == ["base (reference)", "think_sft", "think_dpo"]
    assert found["base (reference)"]["y"][0] == pytest.approx(0.55)
    assert found["base (reference)"]["marker"]["symbol"].endswith("-open")
    also = [*jobs, *rows(["base"])]
    assert "base (reference)" not in lines(draw(also, variant="probe", of_reference="reference"))


def test_references_of_a_stage_are_told_apart():
    both = [
        *rows(["think_dpo"], reference="base"),
        *rows(["think_dpo"], reference="think_sft", base=0.7),
    ]
    found = lines(draw(both))
    assert set(found) == {"think_dpo vs base", "think_dpo vs think_sft"}
    symbols = {it["marker"]["symbol"] for it in found.values()}
    assert len(symbols) == 2


@pytest.mark.parametrize("labels", [["base"], STAGES])
def test_a_single_layer_is_a_figure(labels):
    found = lines(draw(rows(labels, layers=[3])))
    assert [it["x"] for it in found.values()] == [[3]] * len(labels)


def test_text_from_data_is_shown_as_it_is():
    figure = draw(rows(["<b>s</b> %{x}"], note="<u>n", reference="<i>r"), title="<a>t")
    assert figure["layout"].pop("meta")["title"] == "<a>t"
    text = json.dumps(figure)
    for part in ["<b>s", "<u>n", "<i>r", "<a>t", "%{x}"]:
        assert part not in text
    assert "&lt;b&gt;s" in text


def test_caption_and_rows_are_with_the_figure():
    meta = draw(rows(), caption="Of groups.")["layout"]["meta"]
    assert meta["caption"].startswith("Of groups. Colour: path of the lineage;")
    assert "distance from 1" not in meta["caption"]
    near = draw(rows(base=0.95, step=0.015), caption="Of groups.")["layout"]["meta"]
    assert "At first the distance from 1" in near["caption"]
    assert (meta["metric"], meta["variant"]) == (["auroc"], ["probe"])
    assert "of" not in meta
    of_them = of_jobs(stage_curves(rows(), "auroc", title="t", y_label="y"))
    assert json.loads(of_them)["layout"]["meta"]["of"] == "jobs"
