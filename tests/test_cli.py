"""`olmo-stages`, as a shell starts it."""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from olmo_stages import cli, launch
from olmo_stages.activations import cleaning, files
from olmo_stages.activations.entry import FORMAT_VERSION, publish
from olmo_stages.activations.store import default_store
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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 30 * 86400),
        ("12h", 43200),
        ("90 min", 5400),
        ("2W", 1209600),
        ("1", 86400),
        ("0", 0),
    ],
)
def test_ages(text, seconds):
    assert cli.parse_age(text) == seconds


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("200GB", 2e11), ("1.5TB", 1.5e12), ("500 mb", 5e8), ("3", 3e9), (".5", 5e8)],
)
def test_sizes(text, n_bytes):
    assert cli.parse_size(text) == n_bytes


@pytest.mark.parametrize("option", ["--older-than", "--max-size"])
@pytest.mark.parametrize("text", ["-1", "much", "3 months", "1e3", ""])
def test_what_is_no_limit_is_refused(tmp_path, option, text):
    arguments = ["store", "gc", "--cache", str(tmp_path), option, text]
    assert CliRunner().invoke(app, arguments).exit_code == 2


def an_entry(cache):
    folder = cache / "activations" / "pa" / "pass" / "entry"
    shard = files.write_digested(folder, "part-00000", b"x" * 4_000_000, files.LINES)
    manifest = {"format_version": FORMAT_VERSION, "stage": {"label": "think_sft"}}
    publish(folder, manifest | {"captures": [], "layers": [], "ids": []}, [shard])
    return folder


def test_gc_says_what_it_would_remove_and_then_removes_it(shell, tmp_path):
    folder = an_entry(tmp_path)
    limits = ["--max-size", "1MB", "--cache", str(tmp_path)]
    code, out, _ = shell("store", "gc", "--dry-run", *limits)
    assert (code, folder.exists()) == (0, True)
    assert "would free 4.0 MB" in out
    code, out, _ = shell("store", "gc", *limits)
    assert (code, folder.exists()) == (0, False)
    assert "freed 4.0 MB" in out
    assert "think_sft" in out
    _, out, _ = shell("store", "gc", *limits)
    assert "nothing to remove" in out


def test_gc_says_what_it_keeps_and_why(shell, tmp_path, monkeypatch):
    folder = an_entry(tmp_path)
    monkeypatch.setattr(cleaning.time, "sleep", lambda _: None)
    with default_store(tmp_path).user(folder).use():
        code, out, err = shell("store", "gc", "--older-than", "0", "--cache", str(tmp_path))
    assert (code, folder.exists()) == (0, True)
    kept = f"kept, in use by a running job: think_sft responses, 4.0 MB, {folder}"
    assert kept in out.splitlines()
    assert err.startswith("one entry is held; ")


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
