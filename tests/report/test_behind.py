"""The rows behind a figure that says which table of its result they are of."""

import json

import numpy as np
import pytest

from olmo_stages.figures.frame import of_table
from olmo_stages.records import read_statuses
from olmo_stages.report.across import together
from olmo_stages.report.drawn import figures
from olmo_stages.report.parts import parts
from olmo_stages.report.pool import pool
from olmo_stages.types import Measurement, Result
from tests.report.jobs import SFT, damage, finish

TOKENS = {
    "example": ["a", "b", "b", "b"],
    "index": np.arange(4, dtype=np.int32),
    "layer_0": np.array([0.0, 1.0, 2.0, np.nan], dtype=np.float32),
}


@pytest.fixture
def sweep(tmp_path):
    return tmp_path / "outputs" / "sweeps" / "s"


def drawn_of(sweep):
    groups = pool({sweep: read_statuses(sweep)}).groups
    return figures(*parts(together(groups, sweep / "across")))


def drawn(text):
    return json.dumps({"data": [], "layout": {"title": {"text": text}, "meta": {}}})


def test_the_rows_of_a_figure_may_be_those_of_a_table(sweep):
    texts = {
        "of_b": of_table(drawn("b"), "tokens", example="b"),
        "first": of_table(drawn("b"), "tokens", 2, example="b"),
        "all": of_table(drawn("all"), "tokens"),
        "none": of_table(drawn("none"), "others", example="b"),
        "no_column": of_table(drawn("none"), "tokens", text="b"),
    }
    finish(sweep, SFT, result=Result((), figures=texts, tables={"tokens": TOKENS}))
    found, notes = drawn_of(sweep)
    rows = {it.key: it.choices[0].rows for it in found}
    assert notes == ()
    assert list(rows["of_b"].columns) == list(TOKENS)
    assert list(rows["of_b"]["index"]) == [1, 2, 3]
    assert [len(rows[it]) for it in ("first", "all", "none", "no_column")] == [2, 4, 0, 0]
    assert "from a table" in found[0].caption


@pytest.mark.parametrize("broken", ["file", "column"])
def test_a_figure_whose_table_cannot_be_read_is_drawn_with_a_note(sweep, broken):
    where = {"example": "b"} if broken == "file" else {"index": "b"}
    texts = {"map": of_table(drawn("b"), "tokens", **where)}
    folder = finish(sweep, SFT, result=Result((), figures=texts, tables={"tokens": TOKENS}))
    if broken == "file":
        damage(folder / "tables" / "tokens.parquet")
    (figure,), (note,) = drawn_of(sweep)
    assert figure.choices[0].rows.empty
    assert "figure map has no rows" in note


@pytest.mark.parametrize(
    ("told", "references"),
    [({"reference": ["base"]}, ["base"]), ({}, ["base", "think_sft"])],
    ids=["named", "control"],
)
def test_rows_against_a_reference_that_a_figure_does_not_draw_are_not_behind_it(
    sweep, told, references
):
    rows = tuple(
        Measurement("cosine", 0.5, "think_dpo", reference) for reference in ("base", "think_sft")
    )
    meta = {"metric": ["cosine"], "variant": [""], "trait": [""], **told}
    text = json.dumps({"data": [], "layout": {"title": {"text": "x"}, "meta": meta}})
    finish(sweep, SFT, result=Result(rows, figures={"over_steps": text}))
    ((figure,), _) = drawn_of(sweep)
    assert list(figure.choices[0].rows["reference"]) == references


@pytest.mark.parametrize(
    ("told", "stages"),
    [({"stage": ["think_dpo"]}, ["think_dpo"]), ({}, ["base", "think_dpo"])],
    ids=["named", "control"],
)
def test_rows_about_a_stage_that_a_figure_does_not_draw_are_not_behind_it(sweep, told, stages):
    rows = tuple(Measurement("cka", 0.5, stage, "base") for stage in ("base", "think_dpo"))
    text = json.dumps({"data": [], "layout": {"meta": {"metric": ["cka"], **told}}})
    finish(sweep, SFT, result=Result(rows, figures={"diagonals": text}))
    ((figure,), _) = drawn_of(sweep)
    assert list(figure.choices[0].rows["stage"]) == stages
