"""What the pointer shows: nothing lost, nothing said twice."""

import math

from olmo_stages.figures.hover import columns, fields, hover, of_nulls
from olmo_stages.types import Measurement
from tests.figures.hovered import texts


def row(value=0.9, **changes):
    fields = {"ci_low": 0.8, "ci_high": 0.95, "null": 0.5, "n": 40, "n_groups": 10, "p": 0.01}
    return Measurement("auroc", value, "base", **{**fields, **changes})


def shown(rows, over="layers"):
    trace = {"x": rows, **fields("<b>base</b>", columns(rows, over))}
    return [text.removesuffix("<extra></extra>").split("<br>") for text in texts(trace)]


def test_everything_that_is_known_is_told():
    (lines,) = shown([row(p_max=0.02, note="noted")])
    assert lines == [
        "<b>base</b>",
        "0.900 [0.800, 0.950]",
        "null median 0.500",
        "n = 40, groups = 10",
        "p = 0.01",
        "p over layers = 0.02",
        "noted",
    ]


def test_what_is_not_known_takes_no_line():
    bare = {"ci_low": None, "ci_high": None, "null": None, "n": 0, "p": None}
    assert shown([row(**bare)]) == [["<b>base</b>", "0.900"]]
    assert shown([row(math.nan, **bare)]) == [["<b>base</b>", "undefined"]]


def test_points_differ_where_their_numbers_do():
    rows = [row(), row(0.7, p=0.5, note="noise"), row(p=None)]
    first, second, third = shown(rows)
    assert (first[1], second[1]) == ("0.900 [0.800, 0.950]", "0.700 [0.800, 0.950]")
    assert ("p = 0.01" in first, "p = 0.5" in second) == (True, True)
    assert second[-1] == "noise"
    assert not [line for line in third if line.startswith("p =")]


def test_what_points_share_is_said_once():
    template, data = hover("", columns([row(), row(0.7)], "layers"))
    assert data == ["0.900 [0.800, 0.950]", "0.700 [0.800, 0.950]"]
    assert "n = 40" in template
    assert hover("", columns([row(), row()], "layers"))[1] == []


def test_without_a_head_there_is_no_empty_line():
    template, _ = hover("", [("", ["a"]), ("b ", ["c"])])
    assert template == "a<br>b c<extra></extra>"


def test_a_null_tells_itself_first():
    template, _ = hover("", of_nulls([row()], "layers"))
    assert template.startswith("null median 0.500<br>value 0.900 [0.800, 0.950]<br>n = 40")


def test_a_note_of_data_cannot_reach_into_the_template():
    template, _ = hover("", columns([row(note="<b>%{customdata}")], "layers"))
    assert "&lt;b&gt;%&#123;customdata}" in template
