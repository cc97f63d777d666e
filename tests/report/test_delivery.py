"""Reports of sweeps from the command line: what is shown, what is written, and where."""

import csv
import errno
import io
import json
import shutil
import sys
import webbrowser

import pytest

from olmo_stages import atomic, results
from olmo_stages.cli import main
from olmo_stages.stages import lookup
from olmo_stages.statuses import Status, write_status
from olmo_stages.tracking import reports
from tests.report import swept

NAME = "outputs/sweeps/post_training"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two stages, each against its parent, by one analysis."""
    root = tmp_path_factory.mktemp("made")
    chosen = [lookup(name, "tiny") for name in ("think_sft", "think_dpo")]
    swept.sweep(root / "outputs", chosen=chosen, names=("cka",), hostile=False)
    return root


@pytest.fixture
def place(made, tmp_path):
    """A folder of this test's own that holds the sweep."""
    shutil.copytree(made / "outputs", tmp_path / "outputs")
    return tmp_path


@pytest.fixture
def report(place, monkeypatch, capsys):
    """Runs `olmo-stages report` there; gives exit code, standard output and standard error."""
    monkeypatch.chdir(place)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["olmo-stages", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code or 0, *capsys.readouterr()

    return run


def test_it_leads_with_the_lead_table_and_ends_with_what_was_written(report, place):
    code, out, err = report(NAME)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    (sft,) = [line for line in lines if line.split()[:2] == ["think_sft", "base"]]
    (dpo,) = [line for line in lines if line.split()[:2] == ["think_dpo", "think_sft"]]
    assert "[" in sft
    assert "[" in dpo
    assert lines[-2:] == [
        f"table: {NAME}/report/measurements.parquet",
        f"page: {NAME}/report/index.html",
    ]
    page = (place / NAME / "report/index.html").read_text()
    assert page.lstrip().startswith("<!doctype html>")
    assert results.load(place / NAME / "report/measurements.parquet").equals(results.load(NAME))
    assert "\nall stages together: " not in out


def test_all_shows_the_tables_of_each_analysis_too(report):
    _, out, _ = report(NAME, "--all")
    assert "\nall stages together: " in out
    assert out.index("think_sft") < out.index("\nall stages together: ")


def test_without_a_page_there_is_the_table_only(report, place):
    code, out, _ = report(NAME, "--no-page")
    assert code == 0
    assert "page:" not in out
    assert [it.name for it in (place / NAME / "report").iterdir()] == ["measurements.parquet"]


def test_the_output_may_go_elsewhere(report, place):
    code, out, _ = report(NAME, "-o", "paper/a b")
    assert code == 0
    assert out.splitlines()[-1] == "page: paper/a b/index.html"
    assert (place / "paper/a b/index.html").is_file()
    assert not (place / NAME / "report").exists()


@pytest.mark.parametrize("form", ["json", "csv", "md"])
def test_a_format_for_scripts_has_standard_output_for_itself(report, form):
    code, out, err = report(NAME, "--format", form)
    assert code == 0
    assert err.splitlines() == [
        f"table: {NAME}/report/measurements.parquet",
        f"page: {NAME}/report/index.html",
    ]
    stages = {
        "json": lambda: [it["stage"] for it in json.loads(out)["lead"]],
        "csv": lambda: [it["stage"] for it in csv.DictReader(io.StringIO(out))],
        "md": lambda: [it.split("|")[1].strip() for it in out.splitlines() if it.startswith("|")],
    }[form]()
    assert stages[-2:] == ["think_sft", "think_dpo"]


def test_several_sweeps_are_seen_together_beside_them(report, place):
    shutil.copytree(place / NAME, place / "outputs/sweeps/again")
    code, out, _ = report(NAME, "outputs/sweeps/again")
    assert code == 0
    folder = place / "outputs/reports/post_training+again"
    assert (folder / "index.html").is_file()
    assert out.splitlines()[-1].endswith("outputs/reports/post_training+again/index.html")
    assert out.count("think_dpo  ") == 1


def test_the_same_sweep_twice_is_one(report):
    code, out, _ = report(NAME, f"{NAME}/", f"{NAME}/../post_training")
    assert code == 0
    assert out.splitlines()[-1] == f"page: {NAME}/report/index.html"


def test_a_failed_job_is_told_with_what_redoes_it_and_the_report_is_made(report, place):
    overrides = ["analysis=cka", "model=think_rlvr"]
    failed = Status(",".join(overrides), "failed", error="no [red]disk", overrides=overrides)
    write_status(place / NAME, failed)
    code, out, _ = report(NAME)
    assert code == 0
    assert "no [red]disk" in out
    assert "redo only what is missing: python run.py -m analysis=cka" in out
    (place / NAME / "jobs").joinpath(f"{atomic.safe_name(failed.job)}.json").unlink()
    assert "redo" not in report(NAME)[1]


def test_what_cannot_be_written_is_one_line_that_says_where_else(report, monkeypatch):
    def full(path, _):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(atomic, "_write_durably", full)
    code, out, err = report(NAME)
    assert code == 1
    assert "think_dpo" in out
    (line,) = err.splitlines()
    assert "No space left on device" in line
    assert line.endswith("with -o FOLDER")
    assert not report(NAME, "-o", "there")[2].endswith("with -o FOLDER\n")


def test_a_report_of_read_only_results_goes_elsewhere(report, place):
    (place / NAME / "report").touch()  # root may write anywhere, but not into a file
    code, _, err = report(NAME)
    assert (code, len(err.splitlines())) == (1, 1)
    assert "-o FOLDER" in err
    assert report(NAME, "-o", "there")[0] == 0


@pytest.mark.parametrize("found", [True, False])
def test_the_page_is_opened_where_there_is_a_browser(report, place, monkeypatch, found):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or found)
    code, _, err = report(NAME, "--open")
    assert code == 0
    assert opened == [(place / NAME / "report/index.html").as_uri()]
    assert ("no browser" in err) is not found


def test_nothing_is_opened_unasked(report, monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail(url))
    assert report(NAME)[0] == 0


def test_wandb_is_told_when_asked_and_what_it_says_is_shown(report, place, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, out, err = report(NAME, "--wandb")
    assert (code, err) == (1, "")  # it was asked for and not saved
    assert "WANDB_MODE is offline" in out
    assert (place / NAME / "report/index.html").is_file()
    assert (place / NAME / "report/wandb_report.json").is_file()


def test_what_was_saved_in_wandb_is_a_success(report, monkeypatch):
    saved = reports.Saved(("W&B report: r",), "r", "w")
    monkeypatch.setattr(reports, "save", lambda *_: saved)
    code, out, _ = report(NAME, "--wandb")
    assert code == 0
    assert "W&B report: r" in out


def test_wandb_is_not_told_unasked(report, place, monkeypatch):
    monkeypatch.setattr(reports, "save", lambda *_: pytest.fail("unasked"))
    code, out, _ = report(NAME)
    assert code == 0
    assert "W&B" not in out
    assert not (place / NAME / "report/wandb_report.json").exists()
