"""The lead table in the terminal: whole numbers, what is indistinguishable, what is not known."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from olmo_stages.document import Edge, Grid, Shift
from olmo_stages.report.lead import grid_table, lead_notes, lead_tables, placed
from tests.documents import CKA, PROBE, row, study


def of_edges(*edges):
    """The study with a lead table of these edges alone."""
    rows = tuple((it.stage, it.parent, *(shift.row for shift in it.shifts)) for it in edges)
    lead = Grid(("stage", "parent", "probe", "CKA"), rows, {"probe": PROBE.says})
    return replace(study(), edges=edges, lead=lead)


def edge(stage, probe, cka, *, parent="base", why=""):
    return Edge(parent, stage, (Shift(PROBE, "p", probe, why), Shift(CKA, "c", cka)))


def printed(tables, width=110, **options):
    out = io.StringIO()
    console = Console(file=out, width=width, **options)
    for table in tables:
        console.print(table, crop=False)
    return out.getvalue()


def line_of(text, stage):
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [stage]]
    return line


MOVED = row("auroc_difference", -0.3, "a", "base")  # [-0.4, -0.2]
STILL = row("auroc_difference", -0.05, "a", "base")  # [-0.15, 0.05]
SAME = row("debiased_cka_mean", 0.97, "a", "base")  # [0.87, 1.07]


def test_a_row_has_stage_parent_and_numbers_with_their_intervals():
    line = line_of(printed(lead_tables(of_edges(edge("a", MOVED, SAME)))), "a")
    assert line.split()[:2] == ["a", "base"]
    assert "-0.300 [-0.400, -0.200]" in line
    assert "0.970 [0.870, 1.070]" in line


def test_only_an_interval_that_holds_the_unchanged_value_is_marked():
    text = printed(lead_tables(of_edges(edge("a", MOVED, SAME), edge("b", STILL, SAME))))
    assert "-0.200]  " in line_of(text, "a")
    assert "0.050] ~" in line_of(text, "b")
    # 1 is what two equal models have in CKA, 0 in a difference.
    assert "1.070] ~" in line_of(text, "a")


def test_what_is_marked_is_also_dim():
    text = printed(
        lead_tables(of_edges(edge("a", MOVED, None), edge("b", STILL, None))),
        force_terminal=True,
        color_system="standard",
    )
    assert ["\x1b[2m" in it for it in text.splitlines() if "auroc" in it or "[-0." in it] == [
        False,
        True,
    ]


def test_a_number_without_an_interval_is_not_called_indistinguishable():
    bare = replace(STILL, value=0.0, ci_low=None, ci_high=None)
    line = line_of(printed(lead_tables(of_edges(edge("a", bare, SAME)))), "a")
    assert " 0.000 " in line
    assert "0.000 ~" not in line


def test_a_missing_number_says_why():
    given = of_edges(edge("a", None, SAME, why="its job failed"), edge("b", MOVED, SAME))
    assert line_of(printed(lead_tables(given)), "a").split()[2:4] == ["-", "a"]
    assert "a: its job failed" in lead_notes(given)
    assert not any("failed" in it for it in lead_notes(of_edges(edge("b", MOVED, SAME))))


def test_a_caveat_of_a_number_stands_beside_it():
    given = of_edges(edge("s", MOVED, SAME, why="of the lowest layer"))
    assert "-0.200] a" in line_of(printed(lead_tables(given)), "s")
    assert "a: of the lowest layer" in lead_notes(given)


def test_an_undefined_number_is_a_dash():
    undefined = replace(MOVED, value=math.nan, ci_low=math.nan, ci_high=math.nan)
    line = line_of(printed(lead_tables(of_edges(edge("a", undefined, SAME)))), "a")
    assert line.split()[2] == "-"
    assert "nan" not in line


def test_what_is_not_quite_1_is_not_shown_as_1():
    near = replace(SAME, value=0.99964, ci_low=0.9995, ci_high=0.9998)
    assert "0.9996 [0.9995, 0.9998]" in printed(lead_tables(of_edges(edge("a", MOVED, near))))


@pytest.mark.parametrize(("width", "count"), [(110, 1), (50, 2), (20, 2)])
def test_what_is_too_wide_goes_into_tables_of_their_own_with_the_stage(width, count):
    tables = lead_tables(of_edges(edge("a", MOVED, SAME)), width)
    assert len(tables) == count
    text = printed(tables, width)
    assert [it.split()[0] for it in text.splitlines() if it.endswith(("] ", "~ "))] == ["a"] * count
    assert "-0.300 [-0.400, -0.200]" in text
    assert "0.970 [0.870, 1.070] ~" in text
    assert text.count("base") == 1
    if width > 20:
        assert max(len(it.rstrip()) for it in text.splitlines()) <= width


def test_a_column_that_is_told_like_another_is_told_in_its_terms():
    lead = replace(study().lead, notes={"CKA": "similarity", "CKA against x": "similarity. Of x"})
    notes = lead_notes(replace(study(), lead=lead))
    assert notes[:2] == ["CKA: similarity", "CKA against x: as CKA. Of x"]


def test_the_marks_are_explained_only_where_they_are():
    (note,) = [it for it in lead_notes(of_edges(edge("b", STILL, MOVED))) if it.startswith("~")]
    assert "probe 0" in note
    assert "CKA 1" not in note
    assert not [it for it in lead_notes(of_edges(edge("a", MOVED, None))) if it.startswith("~")]


def test_what_a_column_is_stands_below():
    assert f"probe: {PROBE.says}" in lead_notes(study())


@pytest.mark.parametrize(
    "name", ["[bold red]x[/]", "\x1b[31mred", "a\x1b]0;title\x07b", "a\u202eb"]
)
def test_names_neither_steer_the_terminal_nor_are_read_as_markup(name):
    text = printed(lead_tables(of_edges(edge(name, MOVED, SAME, why=f"why {name}"))))
    assert "\x1b" not in text
    assert "\u202e" not in text
    if name.startswith("[bold"):
        assert name in text
    assert "\x1b" not in "".join(lead_notes(of_edges(edge(name, None, SAME, why=f"why {name}"))))


def test_a_long_name_is_folded_and_numbers_are_not():
    text = printed(lead_tables(of_edges(edge("x" * 80, MOVED, SAME)), 100), 100)
    assert text.count("x") == 80
    assert "-0.300 [-0.400, -0.200]" in text


def test_a_number_that_is_about_no_edge_is_shown_without_marks():
    given = of_edges(edge("a", STILL, SAME))
    lead = replace(given.lead, rows=(("root", "", STILL, None), *given.lead.rows))
    found = replace(given, lead=lead)
    assert {key[0] for key in placed(found)} == {1}
    assert "~" not in line_of(printed(lead_tables(found)), "root")


def test_a_study_without_numbers_has_stages_only():
    lead = Grid(("stage", "parent"), (("a", "base"),))
    given = replace(study(), edges=(), lead=lead)
    assert line_of(printed(lead_tables(given)), "a").split() == ["a", "base"]
    assert lead_notes(given) == []


def test_an_empty_lead_table_is_its_heads():
    given = replace(study(), edges=(), lead=Grid(("stage", "parent", "probe"), ()))
    assert "probe" in printed(lead_tables(given))


def test_another_grid_is_shown_with_its_numbers():
    grid = Grid(("stage", "layer", "auroc", "note"), (("a", 3, MOVED, "[red]"), ("b", 2, None, "")))
    text = printed([grid_table(grid, "probe on [blue]")])
    assert "probe on [blue]" in text
    assert line_of(text, "a").split(None, 2)[2].startswith("-0.300 [-0.400, -0.200]")
    assert line_of(text, "b").split() == ["b", "2", "-"]


def test_a_number_against_another_stage_is_judged_like_those_on_edges():
    given = of_edges(edge("a", MOVED, None), edge("b", STILL, None))
    far = [
        row("auroc_difference", value, stage, "root", variant=PROBE.variant, note=note)
        for stage, value, note in (("a", -0.3, ""), ("b", -0.05, "few groups"))
    ]
    rows = tuple((*cells[:3], it, "done") for cells, it in zip(given.lead.rows, far, strict=True))
    heads = ("stage", "parent", "probe", "probe against root", "state")
    text = printed(lead_tables(replace(given, lead=Grid(heads, rows))))
    assert line_of(text, "a").split()[-4:] == ["-0.300", "[-0.400,", "-0.200]", "done"]
    assert line_of(text, "b").split()[-3:] == ["0.050]", "~a", "done"]


def test_states_stand_to_the_left():
    lead = Grid(("stage", "parent", "state"), (("a", "base", "done"), ("b", "base", "x" * 9)))
    text = printed(lead_tables(replace(study(), edges=(), lead=lead)))
    assert line_of(text, "a").index("done") == line_of(text, "b").index("xxx")


def test_an_interval_above_that_of_equal_models_is_marked_and_said_to_lie_there():
    change = replace(CKA, reverse="same")
    told = {}
    for low in (1.01, 0.99, 0.9):
        number = replace(SAME, value=1.02, ci_low=low, ci_high=1.03)
        shifts = (Shift(PROBE, "p", MOVED), Shift(change, "c", number))
        told[low] = [it for it in lead_notes(of_edges(Edge("base", "a", shifts))) if "holds" in it]
    assert "or lies above it, which a correction for noise can do" in told[1.01][0]
    assert "lies above" not in told[0.99][0]
    assert "the interval holds what no change would give" in told[0.9][0]
