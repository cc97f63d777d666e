"""The lead table for programs: read back by what reads such files."""

import csv
import io
import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from olmo_stages.document import Edge, Grid, Shift
from olmo_stages.report.formats import formatted, to_csv, to_json, to_markdown
from tests.documents import CKA, HOSTILE, PROBE, row, study

UNDEFINED = replace(
    row("auroc_difference", 0.0, "a", "base"), value=math.nan, ci_low=math.nan, ci_high=math.inf
)


def with_cell(cell, why="", name="a"):
    """The study with one stage and one number."""
    edges = (Edge("base", name, (Shift(PROBE, "p", cell, why),)),)
    lead = Grid(("stage", "parent", "probe"), ((name, "base", cell),))
    return replace(study(), edges=edges, lead=lead)


def strict(text):
    """JSON as its standard has it: no NaN."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_json_holds_numbers_whole():
    number = row("auroc_difference", -1 / 3, "a", "base", null=0.0, p=0.02, p_max=0.04)
    (first,) = strict(to_json(with_cell(number)))["lead"]
    assert (first["stage"], first["parent"]) == ("a", "base")
    probe = first["probe"]
    assert (probe["value"], probe["low"], probe["high"]) == (
        number.value,
        number.ci_low,
        number.ci_high,
    )
    assert (probe["null"], probe["p"], probe["p_max"]) == (0.0, 0.02, 0.04)
    assert (probe["n"], probe["n_groups"]) == (80, 16)
    assert probe["holds_unchanged"] is False


def test_json_says_what_stands_beside_the_table():
    found = strict(to_json(study()))
    given = study()
    assert found["title"] == given.title
    assert found["findings"] == list(given.findings)
    assert found["warnings"] == list(given.warnings)
    assert found["commands"] == list(given.commands)
    assert found["problems"][0]["job"] == "model=think_dpo"
    assert found["problems"][0]["command"] == "python run.py -m"
    assert found["columns"]["CKA"]["unchanged"] == CKA.unchanged
    assert found["columns"]["CKA"]["says"] == CKA.says
    assert found["lead"][0]["CKA"]["holds_unchanged"] is True
    assert found["schema"] == 1


def test_json_has_no_nan_and_says_why_a_number_is_missing():
    (undefined,) = strict(to_json(with_cell(UNDEFINED)))["lead"]
    assert (undefined["probe"]["value"], undefined["probe"]["high"]) == (None, None)
    (missing,) = strict(to_json(with_cell(None, "its job failed")))["lead"]
    assert (missing["probe"]["value"], missing["probe"]["why"]) == (None, "its job failed")


def test_csv_is_flat_and_pandas_reads_it_back():
    frame = pd.read_csv(io.StringIO(to_csv(study())))
    given = study().lead.rows
    assert list(frame.columns)[:5] == ["stage", "parent", "probe", "probe_low", "probe_high"]
    assert list(frame["stage"]) == [cells[0] for cells in given]
    assert frame["CKA"][0] == given[0][3].value
    assert frame["CKA_high"][0] == given[0][3].ci_high
    assert frame["probe_n"][0] == 80
    assert math.isnan(frame["probe"][2])


@pytest.mark.parametrize(("value", "held"), [(0.0, "True"), (-1 / 3, "False")])
def test_csv_says_what_must_be_known_of_a_number(value, held):
    number = replace(row("auroc_difference", value, "a", "base"), note="=too few groups")
    (cells,) = csv.DictReader(io.StringIO(to_csv(with_cell(number, "a caveat"))))
    assert cells["probe_note"] == "'=too few groups; a caveat"
    assert cells["probe_holds_unchanged"] == held


def test_csv_says_why_a_number_is_missing():
    (cells,) = csv.DictReader(io.StringIO(to_csv(with_cell(None, "its job failed"))))
    assert (cells["probe_note"], cells["probe_holds_unchanged"]) == ("its job failed", "")


def test_csv_has_as_many_cells_in_each_row_as_heads():
    for given in (study(), with_cell(None), with_cell(UNDEFINED)):
        rows = list(csv.reader(io.StringIO(to_csv(given))))
        assert {len(cells) for cells in rows} == {len(rows[0])}
    assert len(rows[0]) == 2 + 10
    assert set(rows[1][2:5]) == {""}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ('a,"b"', 'a,"b"'),
        ("=1+1", "'=1+1"),
        ("@x", "'@x"),
        ("a\nb", "a b"),
        ("think_sft@step_5", "think_sft@step_5"),
    ],
)
def test_csv_of_a_name_is_a_name(name, written):
    _, cells = csv.reader(io.StringIO(to_csv(with_cell(None, name=name))))
    assert cells[0] == written


@pytest.mark.parametrize("name", ["a|b", "a\nb", "[x](http://y)", "`x`", "<b>", "a\\|b", "*x*"])
def test_a_cell_of_markdown_stays_one_cell_of_text(name):
    line = to_markdown(with_cell(None, name=name)).splitlines()[2]
    cells = [it.strip() for it in line.split("|")]
    assert len(cells) == 5
    for special in "`*<>[]\\":
        assert special not in cells[1]


def test_markdown_has_numbers_with_intervals_and_no_tags():
    text = to_markdown(study())
    assert "| -0.050 [-0.150, 0.050] ~ | 0.970 [0.870, 1.070] ~ |" in text
    assert HOSTILE not in text
    assert "&#60;script&#62;" in text
    assert text.splitlines()[1] == "| --- | --- | ---: | ---: |"


def test_markdown_says_below_what_columns_and_marks_mean():
    given = with_cell(row("auroc_difference", 0.0, "a", "base"), "a *caveat*")
    lead = replace(given.lead, notes={"probe": "differences of <AUROC>"})
    text = to_markdown(replace(given, lead=lead))
    table, _, below = text.partition("\n\n")
    assert table.splitlines()[2].endswith(" ~a |")
    assert below.splitlines() == [
        "- probe&#58; differences of &#60;AUROC&#62;",
        "- &#126; the interval holds what no change would give (probe 0)",
        "- a&#58; a &#42;caveat&#42;",
    ]
    assert " ~" not in to_markdown(with_cell(row("auroc_difference", -1 / 3, "a", "base")))


@pytest.mark.parametrize(("form", "start"), [("json", "{"), ("csv", "stage,"), ("md", "| stage")])
def test_each_format_is_of_its_kind(form, start):
    assert formatted(study(), form).startswith(start)


def test_a_study_without_numbers_is_told_in_every_format():
    given = replace(study(), edges=(), lead=Grid(("stage", "parent"), ()))
    assert strict(to_json(given))["lead"] == []
    assert to_csv(given) == "stage,parent\n"
    assert to_markdown(given) == "| stage | parent |\n| --- | --- |\n"
