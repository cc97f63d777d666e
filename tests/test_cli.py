"""`olmo-stages`, as a shell starts it."""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from olmo_stages import launch
from olmo_stages.cli import app, main
from olmo_stages.report import show
from olmo_stages.statuses import Status, write_status


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
    arguments = ["store", "gc", "--cache", str(tmp_path), "--max-size"]
    assert CliRunner().invoke(app, [*arguments, "-1"]).exit_code == 2
    assert CliRunner().invoke(app, [*arguments, "1"]).exit_code == 0


@pytest.fixture
def shell(monkeypatch, capsys):
    """Run a command line as a shell does; gives its exit code and both streams."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["olmo-stages", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        streams = capsys.readouterr()
        return left.value.code or 0, streams.out, streams.err

    return run


def test_the_stages_of_a_size_fit_a_hundred_columns(shell, monkeypatch):
    monkeypatch.setattr(show, "new_console", lambda: Console(width=100))
    code, out, _ = shell("stages", "--size", "7b")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    assert "olmo3 7b: 32 layers (24 sliding + 8 full attention), context 65,536 tokens" in out
    assert "olmo2 7b: 32 layers (32 full attention), context 4,096 tokens" in out
    (row,) = [line for line in lines if "think_rlvr" in line]
    assert row.split() == ["think_rlvr", "Olmo-3-7B-Think", "chat_fixed", "step_NNNN"]
    assert "stage2-ingredientK-stepN-tokensTB" in out  # not broken into two lines
    assert "allenai/Olmo-3-32B" not in out


def test_a_stage_stands_below_its_parent(shell):
    _, out, _ = shell("stages", "--size", "7b")
    names = [line.split()[0] for line in out.splitlines() if line.startswith(" ")]
    assert names.index("think_rlvr") == names.index("think_dpo") + 1
    assert names.index("instruct_sft") > names.index("think_sft")


def test_the_revisions_of_the_miniature_family(shell):
    code, out, _ = shell("revisions", "think_rlvr", "--size", "tiny")
    assert code == 0
    line = "python run.py -m model=think_rlvr size=tiny model.revision=step_5,step_10,step_15,main"
    assert line in out.splitlines()


def test_revisions_as_json(shell):
    code, out, _ = shell(
        "revisions", "base", "--size", "tiny", "--log-spaced", "3", "--format", "json"
    )
    names = [it["name"] for it in json.loads(out)["revisions"]]
    assert (code, len(names), names[0], names[-1]) == (0, 3, "stage1-step0", "main")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["revisions", "think_slt", "--size", "7b"], "did you mean think_sft?"),
        (["revisions", "base", "--size", "7B"], "did you mean 7b?"),
        (["revisions", "rl_zero_math", "--size", "32b"], "its sizes: tiny, 7b"),
        (["revisions", "base", "--size", "tiny", "--log-spaced", "1"], "give 2 or more"),
        (["stages", "--size", "70b"], "choose from tiny, 7b, 32b"),
    ],
)
def test_a_wrong_stage_or_size_is_one_line(shell, arguments, said):
    code, out, err = shell(*arguments)
    assert (code, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of one job that failed, and a job's folder that is not of it."""
    monkeypatch.chdir(tmp_path)
    folder = Path("outputs/sweeps/s")
    write_status(folder, Status("model=base", "failed", error="no disk"))
    job = Path("outputs/probe/base.tiny/truth.0123")
    job.mkdir(parents=True)
    (job / "result.json").write_text("{}")
    return folder, job


def of_sweep(job, name):
    (job / "provenance.json").write_text(json.dumps({"config": {"sweep": name}}))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", "nowhere does not exist; give the folder of a sweep, OUTPUTS/sweeps/NAME"),
        ("file", "file is a file; give the folder of a sweep"),
        ("empty", "empty holds no sweep; give OUTPUTS/sweeps/NAME"),
        ("outputs", "outputs is no sweep; give one or more of: outputs/sweeps/s"),
        ("outputs/sweeps", "outputs/sweeps is no sweep; give one or more of: outputs/sweeps/s"),
    ],
)
def test_a_report_of_what_is_no_sweep_is_one_line(shell, sweep, place, said):
    Path("file").touch()
    Path("empty").mkdir()
    code, out, err = shell("report", str(sweep[0]), place)
    assert (code, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_report_of_a_job_names_its_sweep(shell, sweep):
    folder, job = sweep
    of_sweep(job, "s")
    code, _, err = shell("report", str(job))
    assert code == 1
    assert f"is the result of one job; give its sweep: {folder.resolve()}" in err


@pytest.mark.parametrize("name", ["gone", "../../..", 3])
def test_a_report_of_a_job_whose_sweep_is_gone_names_none(shell, sweep, name):
    of_sweep(sweep[1], name)
    code, _, err = shell("report", str(sweep[1]))
    assert code == 1
    assert "is the result of one job; give the folder of its sweep" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "options", [["--open", "--no-page"], ["--all", "--format", "csv"], ["--format", "xml"]]
)
def test_options_of_a_report_that_do_not_go_together(shell, sweep, options):
    code, out, err = shell("report", str(sweep[0]), *options)
    assert (code, out) == (2, "")
    assert options[0] in err
    assert not (sweep[0] / "report").exists()
