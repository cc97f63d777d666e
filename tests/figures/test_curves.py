import json
import math
import subprocess
import sys

import plotly.graph_objects as go
import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.figures import layer_curves
from olmo_stages.types import Measurement

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
    assert [it["x"] for it in figure["data"] if it.get("fill")] == [[0, 0], [2, 3, 3, 2]]


def test_the_null_is_a_line_only_where_there_is_one():
    names = [it.get("name") for it in draw(rows(null=0.5))["data"]]
    assert "probe · null" in names
    assert "probe · null" not in [it.get("name") for it in draw(rows())["data"]]


def test_a_number_about_no_layer_is_a_level_line():
    length = Measurement("auroc", 0.55, "think_sft", variant="baseline:length")
    level = next(
        it for it in draw([*rows(), length])["data"] if it.get("name") == "baseline:length"
    )
    assert (level["x"], level["y"]) == ([0, 3], [0.55, 0.55])


def test_hover_tells_value_interval_n_and_p():
    text = curves(draw(rows()))["probe"]["text"][3]
    for part in ["layer 3", "full attention", "0.900 [0.800, 1.000]", "n = 40", "p = 0.01"]:
        assert part in text


def test_text_from_data_is_shown_as_it_is():
    figure = draw(rows(variant="<b>a->b</b> %{x}", note="<i>odd"))
    (name,) = curves(figure)
    assert name == "&lt;b&gt;a-&gt;b&lt;/b&gt; %&#123;x}"
    assert "&lt;i&gt;odd" in curves(figure)[name]["text"][0]
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
