"""`olmo-stages`, as a shell starts it."""

import sys

import pytest
from typer.testing import CliRunner

from olmo_stages import launch
from olmo_stages.cli import app


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "model=a,b", "analysis=probe"],
        ["model=a", "-m"],
        ["--help"],
        ["--cfg", "job", "model=a"],
        ["-sc", "query=bash"],
        [],
    ],
)
def test_run_hands_every_argument_on_in_order(monkeypatch, arguments):
    seen = []
    monkeypatch.setattr(sys, "argv", ["olmo-stages"])
    monkeypatch.setattr(launch, "main", seen.append)
    done = CliRunner().invoke(app, ["run", *arguments])
    assert done.exit_code == 0, done.output
    assert seen == [arguments]


def test_run_composes_a_job(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["olmo-stages"])
    done = CliRunner().invoke(app, ["run", "model=think_sft", "--cfg", "job"])
    assert done.exit_code == 0, done.output
    assert "name: think_sft" in done.output


def test_a_negative_size_limit_is_refused(tmp_path):
    arguments = ["store", "gc", "--cache", str(tmp_path), "--max-gb"]
    assert CliRunner().invoke(app, [*arguments, "-1"]).exit_code == 2
    assert CliRunner().invoke(app, [*arguments, "1"]).exit_code == 0


def test_the_report_of_a_folder_without_a_sweep_is_one_line(tmp_path):
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 1
    assert "holds no sweep" in done.output
