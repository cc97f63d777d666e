"""What a report says first in the terminal, from what was asked to what is missing."""

from dataclasses import replace

import pytest

from olmo_stages.document import Problem
from olmo_stages.report.overview import show_study
from tests.documents import HOSTILE, study


def shown(found, capsys, **options):
    show_study(found, **options)
    return " ".join(capsys.readouterr().out.split())


def test_a_study_is_shown_from_what_was_asked_to_what_is_missing(capsys):
    text = shown(study(), capsys)
    parts = ["2 of 3 stages", "question: What", "prediction: Little", "- think_sft moves most"]
    parts += ["no result of model=think_dpo: failed, no disk", "redo only what is missing: python"]
    parts += ["note: two stages have the same weights", f"note: probe on truth {HOSTILE}: note"]
    places = [text.index(it) for it in parts]
    assert places == sorted(places)


def test_at_a_sweeps_end_what_its_tables_have_told_is_not_told_again(capsys):
    text = shown(study(), capsys, ended=True)
    assert "- think_sft moves most" in text
    assert "redo" not in text
    assert "note:" not in text


def test_an_analysis_without_a_number_in_the_lead_table_is_shown_with_its_headlines(capsys):
    whole = study()
    assert "stage best layer" not in shown(whole, capsys)
    edges = tuple(replace(it, shifts=it.shifts[1:]) for it in whole.edges)
    assert "stage best layer" in shown(replace(whole, edges=edges), capsys)
    none = tuple(replace(it, shifts=()) for it in whole.edges)  # then the lead table has them
    assert "stage best layer" not in shown(replace(whole, edges=none), capsys)


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "\x1b]0;title\x07", "a\u202eb"])
def test_what_comes_from_data_is_shown_and_does_nothing(capsys, text):
    found = replace(
        study(),
        title=text,
        asked=text,
        findings=(text,),
        problems=(Problem(text, "failed", text, "s", text),),
        warnings=(text,),
    )
    out = shown(found, capsys)
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    if text.startswith("["):
        assert out.count(text) == 7
