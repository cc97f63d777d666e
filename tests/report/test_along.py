import io

import pytest
from rich.console import Console

from olmo_stages.report.along import along_tables
from olmo_stages.types import Measurement, Result

ORDER = ["base@step100", "base@step200", "base"]


def row(stage, value, metric="cosine_trajectory", variant="raw", layer=3, **fields):
    given = {"reference": "base", "trait": "manners"} | fields
    return Measurement(metric, value, stage, layer=layer, variant=variant, **given)


ROWS = (
    row("base@step200", 0.6, null=0.1, p_max=0.004, ci_low=0.5, ci_high=0.7),
    row("base@step100", float("nan")),
    row("base@step100", 0.1, layer=0),
    row("base@step200", 0.2, layer=0),
    row("base@step200", 0.55, variant="standardised"),
    row("base@step100", 0.4, variant="standardised"),
    row("base@step100", 1.5, "separation_trajectory", "own", ci_low=1.0, ci_high=2.0),
    row("base@step200", 2.5, "separation_trajectory", "own"),
    row("base@step200", 200.0, "formed_trajectory"),
)
HEADLINE = {"stages": 2, "layer": 3}


def show(rows=ROWS, headline=HEADLINE, width=100):
    text = io.StringIO()
    for table in along_tables(
        Result(tuple(rows), headline=headline), ORDER, "cosine.manners", width
    ):
        Console(file=text, width=width).print(table)
    return text.getvalue()


def test_each_stage_is_a_row_in_the_order_given():
    lines = [line.split() for line in show().splitlines()]
    assert lines[0] == ["cosine.manners", "·", "manners", "·", "layer", "3", "against", "base"]
    assert ["base@step100", "-", "-", "-", "1.500", "[1.000,", "2.000]"] in lines
    assert ["base@step200", "0.600", "[0.500,", "0.700]", "0.100", "0.004", "2.500"] in lines
    places = [line[0] for line in lines if line and line[0].startswith("base@")]
    assert places == ORDER[:2]


def test_the_second_scale_and_what_one_stage_alone_has_are_left_out():
    text = show()
    assert "0.55" not in text
    assert "formed" not in text


def test_another_reference_has_a_table_of_its_own():
    other = [row(stage, 0.9, reference="think_sft") for stage in ORDER[:2]]
    first, second = show([*ROWS, *other]).split("against think_sft")
    assert "0.900" not in first
    assert "0.600" not in second
    assert second.count("0.900") == 2


def test_another_trait_is_left_out():
    assert show([*ROWS, row("base@step100", 0.9, trait="truth")]) == show()


def test_what_does_not_fit_is_left_out_intervals_first():
    assert "1.500 [1.000, 2.000]" in show()
    assert "1.500 [" not in show(width=66)
    assert "1.500" in show(width=66)
    assert "separation" not in show(width=52)
    assert "0.600 [0.500, 0.700]" in show(width=52)


@pytest.mark.parametrize(
    ("rows", "headline"), [(ROWS, {"stages": 2}), ([row("a", 1.0, "cka_stages")], HEADLINE)]
)
def test_other_results_have_no_such_table(rows, headline):
    assert not show(rows, headline)
