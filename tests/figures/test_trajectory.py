"""Numbers along training: chains, bands and what the pointer shows."""

import json
import math

import plotly.graph_objects as go
import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.figures.axis import Axis
from olmo_stages.figures.trajectory import Height, Line, View, trajectory
from olmo_stages.types import Measurement
from tests.figures.hovered import texts

LABELS = ["base", "sft", "dpo", "other"]
AXIS = Axis(
    at={label: float(i) for i, label in enumerate(LABELS)},
    ticks={label: label for label in LABELS},
    titles=(),
    joins=(("base", "sft"), ("sft", "dpo"), ("base", "other")),
    told={label: f"stage {label}" for label in LABELS},
)


def row(label, value, **changes):
    given = {"ci_low": value - 0.1, "ci_high": value + 0.1, "n": 40, "n_groups": 10, "p": 0.01}
    return Measurement("cosine", value, label, **{**given, **changes})


def line(**values):
    rows = {label: row(label, value) for label, value in values.items()}
    return Line("cosine", rows, "#5490fc")


WHOLE = line(base=0.4, sft=0.5, dpo=0.6, other=0.7)


def draw(views, axis=AXIS, **options):
    given = {"title": "t", "height": Height("cosine")} | options
    figure = json.loads(trajectory(views, axis, **given))
    go.Figure(figure)  # checks every property
    return figure


def path(figure):
    return next(
        it for it in figure["data"] if it["mode"] == "lines" and it["line"].get("width") == 2
    )


def test_lines_follow_the_lineage_and_a_branch_begins_anew():
    found = path(draw([View("v", [WHOLE])]))
    assert found["x"] == [0, 1, 2, None, 0, 3, None]
    assert found["y"] == [0.4, 0.5, 0.6, None, 0.4, 0.7, None]


def test_bands_end_where_an_interval_is_missing():
    rows = dict(WHOLE.rows) | {"sft": row("sft", 0.5, ci_low=None, ci_high=None)}
    (band,) = [
        it for it in draw([View("v", [Line("cosine", rows, "#5490fc")])])["data"] if it.get("fill")
    ]
    assert band["x"] == [0, 3, 3, 0, 0, None]
    assert band["y"] == pytest.approx([0.3, 0.6, 0.8, 0.5, 0.3, None])


def test_hover_tells_all_that_is_known():
    rows = dict(WHOLE.rows) | {"dpo": row("dpo", 0.6, null=0.2, p_max=0.03, note="<b>odd")}
    markers = next(
        it
        for it in draw([View("v", [Line("cosine", rows, "#5490fc")])])["data"]
        if it["mode"] == "markers"
    )
    for part in [
        "stage dpo",
        "0.600 [0.500, 0.700]",
        "null median 0.200",
        "n = 40, groups = 10",
        "p = 0.01",
        "p over layers = 0.03",
        "&lt;b&gt;odd",
    ]:
        assert part in texts(markers)[2]


def test_undefined_values_are_gaps_and_nothing_is_an_error():
    found = path(draw([View("v", [line(base=0.4, sft=math.nan, dpo=0.6, other=0.7)])]))
    assert found["x"] == [0, 3, None]
    with pytest.raises(ConfigError, match="nothing to draw"):
        draw([View("v", [line(base=math.nan)])])


def test_a_menu_where_there_are_several_views():
    figure = draw([View("one", [WHOLE]), View("<b>two", [WHOLE])], first=1)
    (menu,) = figure["layout"]["updatemenus"]
    assert menu["active"] == 1
    assert [it["label"] for it in menu["buttons"]] == ["one", "&lt;b&gt;two"]
    assert "updatemenus" not in draw([View("one", [WHOLE])])["layout"]


def test_caption_and_rows_are_with_the_figure():
    meta = draw([View("v", [WHOLE])], caption="Of groups.")["layout"]["meta"]
    assert (meta["caption"], meta["metric"]) == ("Of groups.", ["cosine"])
    named = Axis(AXIS.at, AXIS.ticks, (("base stage1", 0.0, 2.0),), AXIS.joins, AXIS.told)
    stretched = draw([View("v", [WHOLE])], named, caption="Of groups.", rows=[row("base", 1.0)])
    assert "logarithm of the step" in stretched["layout"]["meta"]["caption"]


def test_the_reference_is_with_the_figure_where_all_rows_share_one():
    def meta(*rows):
        return draw([View("v", [WHOLE])], rows=rows)["layout"]["meta"]

    against = row("sft", 0.5, reference="base")
    shared = meta(against, row("dpo", 0.4, reference="base"))
    assert (shared["stage"], shared["reference"]) == (["sft", "dpo"], ["base"])
    assert "reference" not in meta(against, row("dpo", 0.4, reference="sft"))


def vertical(figure, view=0):
    menus = figure["layout"].get("updatemenus", [])
    buttons = [it["args"][1]["yaxis.range"] for menu in menus for it in menu["buttons"]]
    return (buttons or [figure["layout"]["yaxis"]["range"]])[view]


def near_one(*, half=0.001):
    values = {"base": 0.985, "sft": 0.99, "dpo": 0.995}
    rows = {
        it: row(it, value, ci_low=value - half, ci_high=value + half)
        for it, value in values.items()
    }
    return Line("cosine", rows, "#5490fc", defined={"other": 1.0})


def test_the_axis_is_that_of_the_data_where_the_level_would_flatten_them():
    low, high = vertical(draw([View("v", [near_one()])], height=Height("cosine", 0.0)))
    assert 0.98 < low < 0.984
    assert 1.0 < high < 1.002
    low, high = vertical(draw([View("v", [line(base=0.3, sft=0.9)])], height=Height("cosine", 0.0)))
    assert low < 0.0 < 1.0 < high


def test_the_axis_reaches_over_intervals_and_nulls_but_not_beyond_the_limits():
    null = Line("null", {"sft": row("sft", 0.5, ci_low=0.2, ci_high=0.9)}, "#808080")
    low, _ = vertical(draw([View("v", [near_one()], [null])]))
    assert 0.1 < low < 0.2
    wide = Height("cosine", None, (-1.0, 1.0))
    low, high = vertical(draw([View("v", [near_one(half=40.0)])], height=wide))
    assert (low, high) == pytest.approx((-1.1, 1.1))


def test_each_view_has_its_own_range():
    figure = draw([View("near", [near_one()]), View("far", [line(base=0.1, sft=0.9)])], first=1)
    assert vertical(figure, 0) != vertical(figure, 1) == figure["layout"]["yaxis"]["range"]


def test_equal_values_have_an_axis_too():
    rows = {it: row(it, 1.0, ci_low=None, ci_high=None) for it in ("base", "sft")}
    low, high = vertical(draw([View("v", [Line("cosine", rows, "#5490fc")])]))
    assert low < 1.0 < high


def test_lines_lie_beside_each_other_where_nothing_is_joined():
    lone = Axis(AXIS.at, AXIS.ticks, (), (), AXIS.told)
    two = [Line(name, WHOLE.rows, "#5490fc", defined={"base": 1.0}) for name in ("a", "b")]
    one, other = (it["x"] for it in draw([View("v", two)], lone)["data"] if it["mode"] == "markers"
                  and it["marker"]["size"] == 7)  # fmt: skip
    assert one[0] == other[0] == 0.0  # what is so by definition stays in its place
    assert one[1:] == pytest.approx([0.95, 1.95, 2.95])
    assert other[1:] == pytest.approx([1.05, 2.05, 3.05])
    (joined,) = (it for it in draw([View("v", [WHOLE])])["data"] if it["mode"] == "markers")
    assert joined["x"] == [0.0, 1.0, 2.0, 3.0]
