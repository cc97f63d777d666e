import json
import math
import subprocess
import sys

import plotly.graph_objects as go
import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.figures import layer_curves
from olmo_stages.figures.palette import styles
from olmo_stages.types import Measurement
from tests.figures.hovered import texts

TYPES = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]


def rows(stage="think_sft", variant="probe", shift=0.0, **changes):
    return [
        Measurement(
            **(
                {
                    "metric": "auroc",
                    "value": 0.6 + 0.1 * layer + shift,
                    "stage": stage,
                    "variant": variant,
                    "layer": layer,
                    "layer_type": kind,
                    "ci_low": 0.5 + 0.1 * layer + shift,
                    "ci_high": 0.7 + 0.1 * layer + shift,
                    "n": 40,
                    "n_groups": 10,
                    "p": 0.01,
                }
                | changes
            )
        )
        for layer, kind in enumerate(TYPES)
    ]


def draw(measurements, **options):
    return json.loads(
        layer_curves(measurements, "auroc", title="AUROC", y_label="AUROC", **options)
    )


def curves(figure):
    return {it["name"]: it for it in figure["data"] if it.get("mode") == "lines+markers"}


def test_values_are_drawn_at_their_layers():
    curve = curves(draw(rows()))["probe"]
    assert curve["x"] == [0, 1, 2, 3]
    assert curve["y"] == pytest.approx([0.6, 0.7, 0.8, 0.9])


def test_the_order_of_the_rows_does_not_matter():
    assert draw(rows()[::-1]) == draw(rows())


def test_the_figure_is_valid_plotly():
    text = layer_curves(rows(null=0.5), "auroc", title="t", y_label="y", chance=0.5)
    go.Figure(json.loads(text))  # checks every property


def test_other_metrics_are_left_out():
    other = Measurement("log_loss", 9.0, "think_sft", layer=0, variant="probe")
    assert draw([*rows(), other]) == draw(rows())


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ConfigError, match="no measurement of 'auroc'"):
        draw([Measurement("log_loss", 9.0, "think_sft", layer=0)])


def test_two_rows_of_one_point_are_an_error():
    with pytest.raises(ConfigError, match="layer 0"):
        draw([*rows(), rows()[0]])


def test_lines_are_named_by_what_tells_them_apart():
    stages = draw(rows() + rows("think_dpo"))
    assert set(curves(stages)) == {"think_sft · probe", "think_dpo · probe"}
    variants = draw(rows() + rows(variant="control"))
    assert set(curves(variants)) == {"probe", "control"}


def test_variants_are_chosen_named_and_ordered():
    both = rows() + rows(variant="control") + rows(variant="reference")
    figure = draw(both, variants={"reference": "the parent", "probe": "this stage"})
    assert list(curves(figure)) == ["the parent", "this stage"]


def test_layer_types_have_symbols_that_the_legend_explains():
    figure = draw(rows())
    symbols = curves(figure)["probe"]["marker"]["symbol"]
    assert symbols[0] == symbols[1] != symbols[3]
    legend = {it["name"]: it["marker"]["symbol"] for it in figure["data"] if it["x"] == [None]}
    assert legend == {"sliding attention": symbols[0], "full attention": symbols[3]}


def test_layers_of_full_attention_are_set_off_on_the_axis():
    layout = draw(rows())["layout"]
    assert layout["xaxis"]["ticktext"] == ["0", "1", "2", "<b>3</b>"]
    assert [(it["x0"], it["x1"]) for it in layout["shapes"]] == [(2.5, 3.5)]
    assert "full attention" in layout["xaxis"]["title"]["text"]
    plain = draw(rows(layer_type=""))["layout"]
    assert "shapes" not in plain
    assert plain["xaxis"]["ticktext"][3] == "3"


def test_of_a_deep_model_the_embeddings_and_full_attention_are_labelled():
    deep = [
        Measurement(
            "auroc",
            0.5,
            "base",
            layer=layer,
            layer_type="embedding" if layer < 0 else TYPES[layer % 4],
        )
        for layer in range(-1, 32)
    ]
    labels = draw(deep)["layout"]["xaxis"]["ticktext"]
    assert labels == ["emb", *(f"<b>{layer}</b>" for layer in range(3, 32, 4))]
    untyped = [Measurement("auroc", 0.5, "base", layer=layer) for layer in range(64)]
    assert 10 < len(draw(untyped)["layout"]["xaxis"]["ticktext"]) <= 24


def test_the_band_goes_up_one_side_and_down_the_other():
    band = next(it for it in draw(rows())["data"] if it.get("fill") == "toself")
    assert band["x"] == [0, 1, 2, 3, 3, 2, 1, 0]
    assert band["y"] == pytest.approx([0.7, 0.8, 0.9, 1.0, 0.8, 0.7, 0.6, 0.5])


def test_no_band_without_intervals_and_none_across_a_gap():
    assert not [it for it in draw(rows(ci_low=None))["data"] if it.get("fill")]
    gap = rows()
    gap[1] = Measurement("auroc", math.nan, "think_sft", layer=1, variant="probe")
    figure = draw(gap)
    assert curves(figure)["probe"]["y"][1] is None
    assert [it["x"] for it in figure["data"] if it.get("fill")] == [
        [-0.1, 0.1, 0.1, -0.1],
        [2, 3, 3, 2],
    ]


def test_the_null_is_a_line_only_where_there_is_one():
    names = [it.get("name") for it in draw(rows(null=0.5))["data"]]
    assert {"probe · null", "null (median)"} <= set(names)
    without = [it.get("name") for it in draw(rows())["data"]]
    assert not {"probe · null", "null (median)"} & set(without)


def test_a_number_about_no_layer_is_a_level_line():
    length = Measurement("auroc", 0.55, "think_sft", variant="baseline:length")
    level = next(
        it for it in draw([*rows(), length])["data"] if it.get("name") == "baseline:length"
    )
    assert (level["x"][0], level["x"][-1]) == (-0.5, 3.5)
    assert set(level["y"]) == {0.55}
    assert "0.550" in texts(level)[0]


def test_hover_tells_value_interval_n_and_p():
    text = texts(curves(draw(rows()))["probe"])[3]
    for part in ["layer 3", "full attention", "0.900 [0.800, 1.000]", "n = 40", "p = 0.01"]:
        assert part in text


def test_hover_of_the_null_tells_the_number_it_belongs_to():
    traces = draw(rows(null=0.52))["data"]
    text = texts(next(it for it in traces if it.get("name") == "probe · null"))[3]
    for part in ["null median 0.520", "value 0.900 [0.800, 1.000]", "n = 40", "p = 0.01"]:
        assert part in text


def test_text_from_data_is_shown_as_it_is():
    figure = draw(rows(variant="<b>a->b</b> %{x}", note="<i>odd"))
    (name,) = curves(figure)
    assert name == "&lt;b&gt;a-&gt;b&lt;/b&gt; %&#123;x}"
    assert "&lt;i&gt;odd" in texts(curves(figure)[name])[0]
    assert "<b>a" not in curves(figure)[name]["hovertemplate"]


def test_the_first_seven_lines_differ_in_colour_and_all_in_style():
    many = [row for index in range(12) for row in rows(variant=f"v{index}", shift=index)]
    styles = [(it["line"]["color"], it["line"]["dash"]) for it in curves(draw(many)).values()]
    assert len({colour for colour, _ in styles[:7]}) == 7
    assert len(set(styles)) == 12


def test_plotly_is_imported_only_to_draw():
    code = (
        "import sys, olmo_stages.figures; print(any(m.startswith('plotly') for m in sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_stage_with_two_references_has_a_line_for_each():
    both = rows(reference="base") + rows(reference="mother", shift=0.01)
    assert set(curves(draw(both))) == {"think_sft vs base · probe", "think_sft vs mother · probe"}
    one = rows(reference="base") + rows("think_dpo", reference="think_sft")
    assert set(curves(draw(one))) == {"think_sft · probe", "think_dpo · probe"}


def test_stages_look_the_same_in_every_figure():
    figure = curves(draw(rows() + rows("think_dpo"), variants={"probe": ""}))
    known = styles(["think_sft", "think_dpo"])
    for label, style in known.items():
        line = figure[label]["line"]
        assert (line["color"], line["dash"]) == (style.colour, style.dash)
    both = rows() + rows(variant="reference")
    named = {"probe": "think_sft", "reference": "base"}
    by_variant = curves(draw(both, variants=named, stages=named))
    assert by_variant["base"]["line"]["color"] == styles(["base"])["base"].colour


def test_nulls_are_dotted():
    figure = curves(draw(rows() + rows(variant="relabelled"), nulls=["relabelled"]))
    assert figure["relabelled"]["line"]["dash"] == "dot"
    assert figure["probe"]["line"]["dash"] == "solid"


def test_caption_and_rows_are_with_the_figure():
    meta = draw([*rows(), *rows(variant="control")], caption="Bands: of groups.")["layout"]["meta"]
    assert meta["caption"].startswith("Bands: of groups. ")
    assert "diamonds: full attention" in meta["caption"]
    assert (meta["title"], meta["metric"]) == ("AUROC", ["auroc"])
    assert (meta["variant"], meta["trait"]) == (["probe", "control"], [""])
    chosen = draw([*rows(), *rows(variant="control")], variants={"probe": "p"})["layout"]["meta"]
    assert (chosen["variant"], chosen["caption"]) == (["probe"], "")


def test_rows_that_a_figure_was_made_from_can_be_named():
    behind = [Measurement("cosine", 0.9, "think_sft", variant="raw", trait="manners")]
    meta = draw(rows(), rows=behind)["layout"]["meta"]
    assert (meta["metric"], meta["variant"], meta["trait"]) == (["cosine"], ["raw"], ["manners"])


def test_a_single_layer_is_drawn_with_its_interval():
    figure = draw(rows()[3:])
    (band,) = [it for it in figure["data"] if it.get("fill")]
    assert min(band["x"]) < 3 < max(band["x"])
    assert figure["layout"]["xaxis"]["range"] == [2.5, 3.5]


def test_a_long_title_is_broken_and_kept_whole():
    title = "Probe AUROC by layer of a stage with <b>a very long name</b> indeed, think_dpo"
    text = layer_curves(rows(), "auroc", title=title, y_label="AUROC")
    layout = json.loads(text)["layout"]
    lines = layout["title"]["text"].split("<br>")
    assert len(lines) == 2
    assert "&lt;b&gt;a very" in " ".join(lines)
    assert layout["meta"]["title"] == title
