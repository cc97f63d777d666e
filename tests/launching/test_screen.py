"""What a launching process says while it runs."""

import sys

import pytest

from olmo_stages.launching import screen
from olmo_stages.launching.screen import Board, keep, labels
from olmo_stages.statuses import Status, log_of
from olmo_stages.types import Measurement


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["data=x,model=a", "data=x,model=b"], ["model=a", "model=b"]),
        (["data=x,model=a"], ["data=x,model=a"]),
        (["model=a", "model=a"], ["model=a"]),
        (["defaults"], ["defaults"]),
        (["a=1,b=2", "a=1"], ["b=2", "a=1"]),
        ([], []),
    ],
)
def test_jobs_are_called_by_what_tells_them_apart(names, said):
    assert [*labels(names).values()] == said


def test_a_line_for_each_job_that_ended(capsys, tmp_path):
    board = Board(3, is_quiet=False)
    headline = {"auroc": Measurement("auroc", 0.5, "a"), "best layer": 3, "p": 0.0012, "note": "x"}
    board.ended("a", Status("a", "ok", seconds=61.2, headline=headline), tmp_path)
    board.ended("b", Status("b", "killed", error="killed: signal 9"), tmp_path)
    board.ended("c", Status("c", "failed", error="KeyError: 'x'"), None)
    assert capsys.readouterr() == (
        "",
        "[1/3] a: ok: auroc 0.500, best layer 3, p 0.001 (61 s)\n"
        f"[2/3] b: killed: signal 9 (0 s); log: {tmp_path}\n"
        "[3/3] c: failed: KeyError: 'x' (0 s)\n",
    )


def test_of_jobs_that_say_everything_themselves_nothing_is_said(capsys):
    board = Board(1, is_quiet=True)
    board.show(["a"], is_stopping=False)
    board.ended("a", Status("a", "ok"), None)
    assert capsys.readouterr() == ("", "")


def test_what_runs_is_shown_on_a_terminal_only_and_taken_back(capsys, monkeypatch):
    Board(2, is_quiet=False).show(["a"], is_stopping=False)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(screen.time, "monotonic", lambda: 0.0)
    board = Board(2, is_quiet=False)
    for _ in range(3):
        board.show(["a", "b" * 100], is_stopping=False)
    board.line("said")
    shown = f"0 of 2 ended, 0:00:00, running: a, {'b' * 99}"[:39]
    assert capsys.readouterr().err == f"{screen._BACK}{shown}{screen._BACK}said\n"


def test_what_was_said_of_a_failed_job_is_kept_beside_that_of_earlier_ones(tmp_path):
    keep(tmp_path, "a", "first")
    keep(tmp_path, "a", "second\n")
    assert log_of(tmp_path, "a").read_text() == "first\nsecond\n"


def test_a_log_that_cannot_be_written_costs_nothing(tmp_path):
    (tmp_path / "logs").write_text("")
    keep(tmp_path, "a", "first")
