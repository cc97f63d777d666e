import json
import math

import plotly.graph_objects as go
import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.figures import stage_matrix
from olmo_stages.types import Measurement
from tests.figures.hovered import cell

ORDER = ["base", "think_sft", "think_dpo"]
KINDS = {-1: "embedding", 0: "sliding_attention", 3: "full_attention"}
VALUES = {("think_sft", "base"): 0.8, ("think_dpo", "base"): 0.6, ("think_dpo", "think_sft"): 0.9}


def row(stage, reference, value, layer=0, **fields):
    kind = KINDS.get(layer, "")
    return Measurement("cka", value, stage, reference, layer, **({"layer_type": kind} | fields))


def rows(layers=(-1, 0, 3), **fields):
    return [
        row(*pair, value - 0.1 * (layer or 0), layer, **fields)
        for pair, value in VALUES.items()
        for layer in layers
    ]


def draw(measurements, order=ORDER, **options):
    title = options.pop("title", "stages")
    return json.loads(stage_matrix(measurements, "cka", order=order, title=title, **options))


def views(figure):
    return {trace["name"]: trace for trace in figure["data"]}


def test_rows_are_stages_and_columns_are_references_in_the_order_given():
    figure = draw(rows())
    assert views(figure)["layer 0 sliding attention"]["z"] == [
        [None, 0.8, 0.6],
        [0.8, None, 0.9],
        [0.6, 0.9, None],
    ]
    assert figure["layout"]["yaxis"]["ticktext"] == ORDER
    assert figure["layout"]["yaxis"]["range"] == [2.5, -0.5]  # the first on top
    turned = draw(rows(), ORDER[::-1])
    assert views(turned)["layer 0 sliding attention"]["z"][0] == [None, 0.9, 0.6]


def test_a_directed_metric_is_not_mirrored():
    z = views(draw(rows(), symmetric=False))["layer 0 sliding attention"]["z"]
    assert z == [[None, None, None], [0.8, None, None], [0.6, 0.9, None]]


def test_both_directions_are_kept_where_both_are_given():
    z = views(draw([*rows(), row("base", "think_sft", 0.3)]))["layer 0 sliding attention"]["z"]
    assert (z[0][1], z[1][0]) == (0.3, 0.8)


def test_a_pair_of_different_layers_cannot_pass_for_symmetric():
    best = row("think_sft", "base", 0.8, 3, reference_layer=0, reference_layer_type=KINDS[0])
    with pytest.raises(ConfigError, match="symmetric=False"):
        draw([best])
    text = cell(views(draw([best], symmetric=False))["layer 3 full attention"], 1, 0)
    assert "matched by layer 0" in text
    draw([row("think_sft", "base", 0.8, 3, reference_layer=3)])  # the diagonal is


def test_without_numbers_about_all_layers_the_menu_begins_with_the_mean_over_the_blocks():
    figure = draw(rows())
    menu = [it["label"] for it in figure["layout"]["updatemenus"][0]["buttons"]]
    layers = ["embeddings", "layer 0 sliding attention", "layer 3 full attention"]
    assert menu == ["mean over layers", *layers]
    assert views(figure)["mean over layers"]["z"][1][0] == pytest.approx((0.8 + 0.5) / 2)


def test_a_mean_needs_every_layer():
    undefined = [*rows(), row("think_sft", "base", math.nan, 4)]  # and layer 4 of one pair only
    z = views(draw(undefined))["mean over layers"]["z"]
    assert [it for line in z for it in line if it is not None] == []


def test_numbers_about_all_layers_are_taken_as_they_are():
    kinds = ["full_attention", "sliding_attention", ""]
    whole = [row("think_sft", "base", 0.1, None, layer_type=kind) for kind in kinds]
    names = list(views(draw([*rows(), *whole])))
    assert names[:3] == [
        "all layers",
        "all layers, sliding attention",
        "all layers, full attention",
    ]
    assert "mean over layers" not in names


def test_each_menu_entry_shows_its_own_layer():
    figure = draw(rows())
    buttons = figure["layout"]["updatemenus"][0]["buttons"]
    assert [it["visible"] for it in figure["data"]] == [True, False, False, False]
    for index, (button, trace) in enumerate(zip(buttons, figure["data"], strict=True)):
        assert button["label"] == trace["name"]
        assert button["args"][0]["visible"] == [it == index for it in range(4)]


@pytest.mark.parametrize(("n", "written"), [(15, True), (16, False)])
def test_few_stages_have_their_values_written_in_the_cells(n, written):
    order = [f"step{i}" for i in range(n)]
    trace = draw([row("step1", "step0", 0.75)], order)["data"][0]
    assert ("texttemplate" in trace) is written
    if written:
        assert [it for line in trace["text"] for it in line if it] == ["0.750", "0.750"]


def test_hover_tells_what_is_known():
    one = row("think_sft", "base", 0.8, 3, ci_low=0.7, ci_high=0.9, null=0.01, n=9, n_groups=3)
    text = cell(views(draw([one]))["layer 3 full attention"], 1, 0)
    for part in ["%{y} and %{x}", "0.800 [0.700, 0.900]", "null median 0.010", "n = 9"]:
        assert part in text


def test_the_figure_is_valid_plotly():
    go.Figure(draw([*rows(), row("base", "base", math.nan)]))


@pytest.mark.parametrize(
    ("wrong", "options", "words"),
    [
        ([], {}, "no measurement of 'cka'"),
        ([row("think_sft", "mother", 0.5)], {}, "'mother' is not in the order"),
        (rows(), {"order": [*ORDER, "base"]}, "a stage is twice"),
        ([*rows(), rows()[0]], {}, "between think_sft and base"),
        (rows(), {"limits": (1.0, 0.0)}, "do not ascend"),
    ],
)
def test_what_is_no_matrix_is_an_error(wrong, options, words):
    with pytest.raises(ConfigError, match=words):
        draw(wrong, **options)


def test_text_from_data_is_shown_as_it_is():
    odd = row("<b>s</b>", "<i>r", 0.5, note="<u>n")
    figure = draw([odd], ["<b>s</b>", "<i>r"], title="<a>t")
    assert figure["layout"].pop("meta")["title"] == "<a>t"
    text = json.dumps(figure)
    for part in ["<b>s", "<i>r", "<u>n", "<a>t"]:
        assert part not in text
    assert "&lt;b&gt;s" in text


@pytest.mark.parametrize(
    ("value", "shown", "hover"),
    [(0.9998, "0.9998", "<br>0.9998<"), (1.0, "1.000", "<br>1.000<")],
)
def test_a_value_below_one_is_not_shown_as_one(value, shown, hover):
    trace = views(draw([row("think_sft", "base", value)]))["layer 0 sliding attention"]
    assert trace["text"][1][0] == shown
    assert hover in cell(trace, 1, 0)


def test_what_is_undefined_has_a_cross_and_what_was_not_measured_has_none():
    some = [row("think_sft", "base", math.nan), row("think_dpo", "think_sft", 0.9)]
    figure = draw(some, symmetric=False)
    heat, cross = figure["data"]
    assert heat["z"] == [[None] * 3, [None] * 3, [None, 0.9, None]]
    assert (cross["x"], cross["y"]) == ([0], [1])
    assert "undefined" in cross["hovertemplate"]
    assert figure["layout"]["updatemenus"][0]["buttons"][0]["args"][0]["visible"] == [True, True]


def test_12_stages_and_32_layers_take_little_room():
    order = [f"s{i}" for i in range(12)]
    cells = [
        row(b, a, 0.9 + 0.012345678901234 * i / (j + 1), layer, ci_low=0.9, ci_high=0.99, n=240)
        for i, a in enumerate(order)
        for j, b in enumerate(order[i + 1 :])
        for layer in range(32)
    ]
    text = stage_matrix(cells, "cka", order=order, title="t")
    assert len(text) < 70 * 33 * 12 * 12


def test_caption_axes_and_rows_can_be_given():
    behind = [Measurement("trait_cosine", 0.5, "base", variant="raw:rude", trait="kind")]
    layout = draw(rows(), caption="Of groups.", axes=("trait", "trait"), behind=behind)["layout"]
    assert layout["meta"]["caption"] == "Of groups."
    assert (layout["meta"]["metric"], layout["meta"]["trait"]) == (["trait_cosine"], ["kind"])
    assert layout["xaxis"]["title"]["text"] == "trait"


def test_a_difference_has_signs_and_colours_that_part_in_the_middle():
    two = [row("think_sft", "base", -0.25, None), row("think_dpo", "base", 0.0, None)]
    options = {"limits": (-0.5, 0.5), "symmetric": False}
    signed = draw(two, signed=True, whole="best layer", **options)["data"][0]
    assert (signed["name"], signed["text"][1][0], signed["text"][2][0]) == (
        "best layer",
        "-0.250",
        "0.000",
    )
    plain = draw(two, **options)["data"][0]
    assert (plain["name"], plain["text"][2][0]) == ("all layers", "0.000")
    middle = dict(signed["colorscale"])[0.5]
    assert middle == "#f0f0f0"
    assert plain["colorscale"] != signed["colorscale"]


def cells(*values):
    pairs = [("think_sft", "base"), ("think_dpo", "base"), ("think_dpo", "think_sft")]
    return [row(*pair, value) for pair, value in zip(pairs, values, strict=True)]


def shown(figure):
    text = views(figure)["layer 0 sliding attention"]["text"]
    return text[1][0], text[2][0], text[2][1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.9946, 0.996, 0.9993), ("0.995", "0.996", "0.999")),
        ((0.9946, 0.996, 0.9996), ("0.9946", "0.9960", "0.9996")),
        ((0.9946, 1.0, 0.99996), ("0.99460", "1.00000", "0.99996")),
        ((0.9946, 0.996, 0.9999999), ("0.99460", "0.99600", ">0.99999")),
    ],
)
def test_numbers_of_a_matrix_have_the_decimals_of_its_closest_pair(values, expected):
    assert shown(draw(cells(*values))) == expected


def test_a_difference_that_is_not_0_is_not_shown_as_0():
    signed = {"signed": True, "symmetric": False}
    assert shown(draw(cells(-0.0004, 0.0, 0.02), **signed)) == ("-0.0004", "0.0000", "+0.0200")
    assert shown(draw(cells(-2e-7, 0.1, 0.02), **signed))[0] == "-2e-07"


def test_colours_are_those_of_all_views_and_the_bar_says_so():
    figure = draw([*cells(0.9946, 0.996, 0.998), row("think_sft", "base", 0.99, 3)])
    for trace in [it for it in figure["data"] if it["type"] == "heatmap"]:
        assert (trace["zmin"], trace["zmax"]) == (0.99, 0.998)
        assert trace["colorbar"]["ticktext"] == ["0.99", "0.992", "0.994", "0.996", "0.998"]
        assert trace["colorbar"]["tickvals"] == pytest.approx([0.99, 0.992, 0.994, 0.996, 0.998])
    (trace, *_) = draw(cells(-0.2, 0.1, 0.05), signed=True, symmetric=False)["data"]
    assert (trace["zmin"], trace["zmax"]) == (-0.2, 0.2)


@pytest.mark.parametrize("value", [1.0, 0.0, math.nan])
def test_equal_values_have_colours_too(value):
    trace = draw(cells(value, value, value))["data"][0]
    assert trace["zmin"] < trace["zmax"]
