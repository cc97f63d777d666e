import json
import math

import plotly.graph_objects as go
import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.figures import heat_map
from olmo_stages.types import Measurement
from tests.figures.hovered import cell


def kind(layer):
    if layer < 0:
        return "embedding"
    return "full_attention" if layer % 4 == 3 else "sliding_attention"


def value(layer, other):
    return 0.9 - 0.1 * layer + 0.01 * (other or 0)  # no two alike, and not symmetric


def pair(layer, other, **changes):
    fields = {
        "metric": "cka_map",
        "value": value(layer, other),
        "stage": "think_sft",
        "reference": "base",
        "layer": layer,
        "layer_type": kind(layer),
        "reference_layer": other,
        "reference_layer_type": "" if other is None else kind(other),
        "variant": "raw",
    }
    return Measurement(**(fields | changes))


def rows(n_layers=5, n_others=4, **changes):
    return [
        pair(layer, other, **changes)
        for layer in range(-1, n_layers - 1)
        for other in range(-1, n_others - 1)
    ]


def draw(measurements, *, metric="cka_map", variant="raw", limits=(0, 1), **options):
    text = heat_map(
        measurements,
        metric,
        variant=variant,
        limits=limits,
        **({"title": "a map", "value_label": "CKA"} | options),
    )
    return json.loads(text)


def heat(figure):
    (trace,) = [it for it in figure["data"] if it["type"] == "heatmap"]
    return trace


def test_the_stage_goes_up_and_the_reference_to_the_right():
    figure = draw(rows())
    z = heat(figure)["z"]
    assert (len(z), len(z[0])) == (5, 4)
    assert z[4][1] == pytest.approx(value(3, 0))
    assert figure["layout"]["yaxis"]["title"]["text"] == "layer of think_sft"
    assert figure["layout"]["xaxis"]["title"]["text"].startswith("layer of base")
    assert figure["layout"]["yaxis"]["range"] == [-1.5, 3.5]
    assert (heat(figure)["y"], heat(figure)["x"]) == ([-1, 0, 1, 2, 3], [-1, 0, 1, 2])


def test_the_order_of_the_rows_does_not_matter():
    assert draw(rows()[::-1]) == draw(rows())


@pytest.mark.parametrize("shape", [(33, 33), (17, 33), (65, 65), (1, 1)])
def test_any_shape_is_valid_plotly(shape):
    go.Figure(draw(rows(*shape)))  # checks every property


def test_labels_carry_the_layer_type():
    layout = draw(rows())["layout"]
    assert layout["yaxis"]["ticktext"] == ["emb", "0 S", "1 S", "2 S", "<b>3 F</b>"]
    assert layout["xaxis"]["ticktext"] == ["emb", "0 S", "1 S", "2 S"]
    assert "F full attention, S sliding attention" in layout["xaxis"]["title"]["text"]


def test_of_a_deep_model_the_embeddings_and_full_attention_are_labelled():
    axis = draw(rows(33, 33))["layout"]["xaxis"]
    assert axis["ticktext"] == ["emb", *(f"<b>{layer} F</b>" for layer in range(3, 32, 4))]
    assert axis["tickvals"] == [-1, *range(3, 32, 4)]
    assert axis["ticksuffix"] == " S"  # of what the pointer is at, where there is no label
    assert "others sliding attention" in axis["title"]["text"]


def test_layers_that_are_no_run_lie_side_by_side_and_are_all_labelled():
    some = [pair(layer, other) for layer in range(0, 64, 2) for other in range(0, 64, 2)]
    figure = draw(some)
    axis = figure["layout"]["yaxis"]
    assert heat(figure)["y"] == list(range(32))
    assert axis["ticktext"][:3] == ["0 S", "2 S", "4 S"]
    assert len(axis["ticktext"]) == 32


def test_full_attention_is_marked_on_both_axes_and_only_there():
    marks = [it for it in draw(rows(9, 5))["data"] if it.get("name") == "full attention"]
    places = set(zip(marks[0]["x"], marks[0]["y"], strict=True))
    assert places == {(3, -1.5), (-1.5, 3), (-1.5, 7)}
    untyped = draw(rows(layer_type="", reference_layer_type=""))
    assert "full attention" not in {it.get("name") for it in untyped["data"]}


def test_the_diagonal_outlines_the_same_layer_not_the_same_place():
    later = [pair(layer, other) for layer in range(4) for other in range(2, 6)]
    outline = next(it for it in draw(later)["data"] if it.get("name") == "same layer")
    corners = [(x, y) for x, y in zip(outline["x"], outline["y"], strict=True) if x is not None]
    centres = {
        tuple(sum(it) / 4 for it in zip(*corners[at : at + 4], strict=True))
        for at in range(0, len(corners), 5)
    }
    assert centres == {(2, 2), (3, 3)}


def test_undefined_and_unmeasured_pairs_are_gaps():
    some = rows()[:-1]
    some[0] = pair(-1, -1, value=math.nan)
    figure = draw(some)
    trace = heat(figure)
    assert trace["z"][0][0] is None
    assert trace["z"][4][3] is None
    assert trace["z"][0][1] is not None
    (cross,) = [it for it in figure["data"] if it.get("name") == "undefined"]
    assert (cross["x"], cross["y"]) == ([-1], [-1])
    assert "undefined" in cross["hovertemplate"]
    assert not [it for it in draw(rows())["data"] if it.get("name") == "undefined"]


def test_the_scale_is_the_callers():
    trace = heat(draw(rows(), limits=(-0.1, 1)))
    assert (trace["zmin"], trace["zmax"]) == (-0.1, 1)
    with pytest.raises(ConfigError, match=r"limits \(1, 1\)"):
        draw(rows(), limits=(1, 1))


def test_hover_tells_both_layers_and_what_is_known_of_the_value():
    known = {"ci_low": 0.5, "ci_high": 0.7, "null": 0.01, "p": 0.002, "p_max": 0.03}
    text = cell(heat(draw(rows(n=40, n_groups=10, **known))), 4, 0)
    for part in [
        "think_sft: layer %{y}",
        "base: layer %{x}",
        f"{value(3, -1):.3f} [0.500, 0.700]",
        "null median 0.010",
        "p = 0.002",
        "p over the map = 0.03",
        "n = 40, groups = 10",
    ]:
        assert part in text
    bare = cell(heat(draw(rows())), 4, 0)
    assert "null" not in bare
    assert "p =" not in bare


def test_other_metrics_and_variants_are_left_out():
    others = [*rows(variant="standardised"), *rows(metric="cka")]
    assert draw([*others, *rows()]) == draw(rows())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([], "no measurement of 'cka_map', variant 'raw'"),
        ([pair(1, 2), pair(1, 2)], "layers 1 and 2"),
        ([pair(1, None)], "not about a pair of layers"),
        ([pair(1, 2), pair(1, 3, reference="think_dpo")], "think_sft vs think_dpo"),
    ],
)
def test_what_is_no_map_is_an_error(wrong, words):
    with pytest.raises(ConfigError, match=words):
        draw(wrong)


def test_text_from_data_is_shown_as_it_is():
    odd = rows(stage="<b>s</b> %{z}", reference="<i>r", note="<u>n")
    figure = draw(odd, title="<a>t", value_label="<q>v")
    assert figure["layout"].pop("meta")["title"] == "<a>t"
    text = json.dumps(figure)
    for part in ["<b>s", "<i>r", "<u>n", "%{z}", "<a>t", "<q>v"]:
        assert part not in text
    assert "&lt;b&gt;s" in text


def test_33_layers_take_little_room():
    known = {"null": 0.0123456, "p": 0.000999, "p_max": 0.000999, "n": 240, "n_groups": 80}
    cells = [
        pair(a, b, ci_low=value(a, b) - 0.1, ci_high=value(a, b) + 0.1, **known)
        for a in range(-1, 32)
        for b in range(-1, 32)
    ]
    text = heat_map(cells, "cka_map", variant="raw", title="t", value_label="v", limits=(0, 1))
    assert len(text) < 70 * len(cells)


def test_the_caption_says_what_the_marks_mean():
    meta = draw(rows(), caption="Of groups.")["layout"]["meta"]
    assert meta["caption"] == (
        "Of groups. Outlined: the same layer, diamonds at the axes: full attention."
    )
    assert (meta["metric"], meta["variant"]) == (["cka_map"], ["raw"])
