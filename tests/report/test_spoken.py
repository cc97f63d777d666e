"""What an analysis says of itself: from its module, or as it was remembered."""

import json
import sys

import pytest

from olmo_stages.records import read_mark, read_statuses
from olmo_stages.report.across import together
from olmo_stages.report.parts import parts
from olmo_stages.report.pool import pool
from olmo_stages.report.spoken import Spoken, code_of, is_known, of_module, of_record
from olmo_stages.types import Result
from tests.report.jobs import BASE, MOVED, SFT, analysis, finish, moved

OURS = "olmo_stages.analyses.cosine.Cosine"
TARGET = "mine.Mine"


@pytest.fixture
def sweep(tmp_path):
    return tmp_path / "outputs" / "sweeps" / "s"


def only(sweep):
    groups = pool({sweep: read_statuses(sweep)}).groups
    (part,) = parts(together(groups, sweep / "across"))
    return part


def test_what_is_recorded_is_read_back(monkeypatch):
    module = analysis(monkeypatch, CHANGE=MOVED)
    module.__doc__ = "analysis=mine: how far?\n\nMore."
    spoken = of_module(TARGET, [])
    assert (spoken.about, spoken.changes, spoken.wrong) == ("How far?", (MOVED,), "")
    assert vars(of_record(json.loads(json.dumps(spoken.record())))) == vars(spoken)


@pytest.mark.parametrize(
    "kept",
    [
        None,
        "text",
        {"about": "a"},
        {**Spoken().record(), "changes": 3},
        {**Spoken().record(), "changes": [{"name": "a"}]},
        {**Spoken().record(), "changes": [vars(MOVED) | {"unchanged": "none"}]},
        {**Spoken().record(), "changes": [vars(MOVED) | {"new": 1}]},
    ],
)
def test_the_record_of_another_version_is_none(kept):
    assert of_record(kept) is None


def test_what_a_module_says_wrongly_is_told(monkeypatch):
    analysis(monkeypatch, CHANGE=3)
    assert of_module(TARGET, []).changes == ()
    assert "says int of its change" in of_module(TARGET, []).wrong


def test_the_code_of_our_own_analyses_is_found_without_importing_them(monkeypatch):
    monkeypatch.delitem(sys.modules, "olmo_stages.analyses.cosine", raising=False)
    path = code_of(OURS)
    assert path is not None
    assert path.name == "cosine.py"
    assert is_known(OURS)
    assert "olmo_stages.analyses.cosine" not in sys.modules


@pytest.mark.parametrize("target", [TARGET, "os.path.join", "olmo_stages.analyses.none.None", ""])
def test_what_a_record_names_is_not_imported(monkeypatch, target):
    for name in ("mine", "os.path"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert code_of(target) is None
    assert not is_known(target)
    assert vars(of_module(target, [])) == vars(Spoken())


def test_what_was_put_together_remembers_it_for_processes_that_do_not_know_it(sweep, monkeypatch):
    module = analysis(monkeypatch, CHANGE=MOVED, across=lambda _: Result(()))
    module.__doc__ = "How far?"
    finish(sweep, SFT, BASE, [moved(0.9, "think_sft", "base")])
    assert only(sweep).changes == (MOVED,)
    monkeypatch.delitem(sys.modules, "mine")
    part = only(sweep)
    assert (part.spoken.about, part.changes) == ("How far?", (MOVED,))


def test_a_module_that_is_known_and_was_changed_speaks_for_itself(sweep, monkeypatch, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text("one")
    module = analysis(monkeypatch, CHANGE=MOVED, across=lambda _: Result(()), __file__=str(code))
    finish(sweep, SFT, BASE, [moved(0.9, "think_sft", "base")])
    assert only(sweep).changes == (MOVED,)
    vars(module).pop("CHANGE")
    assert only(sweep).changes == (MOVED,)  # the same code, so it is not asked again
    code.write_text("two")
    assert only(sweep).changes == ()
    assert read_mark(sweep / "across" / "mine.truth")["job"]["spoken"]["changes"] == []
