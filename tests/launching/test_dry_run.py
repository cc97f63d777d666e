"""`dry_run=true` on the command line: nothing is started and nothing is written."""

import json
import os
import subprocess
import sys

import pytest

from olmo_stages import launch
from olmo_stages.launching import local
from olmo_stages.launching.slurm import submitted
from olmo_stages.stages import conf_folder
from olmo_stages.statuses import Status, write_status

SLURM = "hydra/launcher=slurm"


def snapshot(root):
    """Every file and folder, with its size and when it was changed."""
    return {
        str(it.relative_to(root)): (it.lstat().st_size, it.lstat().st_mtime_ns)
        for it in (root, *root.rglob("*"))
    }


@pytest.fixture
def home(tmp_path, tmp_path_factory, monkeypatch):
    """Everything that a launch could write to lies in one folder."""
    for name, folder in {
        "HOME": "home",
        "XDG_CACHE_HOME": "home/.cache",
        "HF_HOME": "home/hf",
        "WANDB_DIR": "home",
        "OLMO_STAGES_CACHE": "cache",
    }.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.chdir(tmp_path)
    # Libraries try out whether they can write there; nothing stays.
    passing = tmp_path_factory.mktemp("passing")
    monkeypatch.setenv("TMPDIR", str(passing))
    yield tmp_path
    assert list(passing.iterdir()) == []


@pytest.fixture
def run(home, monkeypatch, capfd):
    """Gives a command line; returns exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setattr(local, "run", None)  # what would start jobs

    def go(*arguments):
        before = snapshot(home)
        with pytest.raises(SystemExit) as left:
            launch.main(["tracking=none", *arguments])
        assert snapshot(home) == before
        return left.value.code, *capfd.readouterr()

    return go


def as_json(run, *arguments):
    code, out, _ = run(*arguments, "dry_run=json")
    return code, json.loads(out)


def test_a_process_of_its_own_writes_nothing_anywhere(home):
    before = snapshot(home)
    done = subprocess.run(
        [
            sys.executable,
            str(conf_folder().parent / "run.py"),
            "-m",
            "model=think_sft,think_dpo",
            "analysis=cosine",
            "dry_run=true",
        ],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 jobs: 0 done, 2 to run here, 1 at a time" in done.stdout
    assert "to compute: about 3 forward passes (think_sft, base, think_dpo)" in done.stdout
    assert snapshot(home) == before


def test_a_single_job(run):
    code, out, _ = run("model=think_sft", "analysis=cosine", "dry_run=true")
    assert code == 0
    assert "1 job: 0 done, 1 to run here\n" in out
    code, out, _ = run("model=think_sft", "analysis=cosine", "dry_run=true", SLURM)
    assert "1 to run here (hydra/launcher=slurm is for -m)\n" in out


def test_a_study_is_told_whole(run):
    code, found = as_json(run, "-m", "+experiment=think_path")
    assert code == 0
    assert [it["about"]["stage"] for it in found["jobs"]] == [
        "think_sft",
        "think_dpo",
        "think_rlvr",
    ]


def test_a_job_that_is_asked_for_twice_is_one(run):
    _, found = as_json(run, "-m", "model=think_sft,think_sft", "analysis=cosine")
    assert len(found["jobs"]) == 1


def test_a_job_that_cannot_run_is_told_and_the_others_are_shown(run):
    words = ("-m", "model=rl_zero_math,thnk_sft", "size=7b,32b", "analysis=cosine")
    code, found = as_json(run, *words)
    assert code == 2
    states = {(it["about"]["stage"], it["about"]["size"]): it for it in found["jobs"]}
    assert states["rl_zero_math", "7b"]["state"] == "missing"
    assert "does not exist in size=32b" in states["rl_zero_math", "32b"]["error"]
    assert "did you mean think_sft?" in states["thnk_sft", "7b"]["error"]
    assert found["n"]["error"] == 3
    assert as_json(run, *words[:1], "model=rl_zero_math", "size=7b", words[-1])[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dry_run=perhaps",), "dry_run=perhaps: it is for all jobs; choose one of true, json"),
        (("-m", "model=base", "dry_run=true,false"), "dry_run=true,false: it is for all jobs"),
        (("-m", "dry_run=true", SLURM, "hydra.launcher.gpu=1"), "hydra.launcher.gpu"),
    ],
)
def test_what_cannot_be_a_dry_run_is_one_line(run, words, said):
    code, out, err = run(*words)
    assert code == 2
    assert said in err
    assert (out, len(err.splitlines())) == ("", 1)


def test_how_an_earlier_launch_left_a_job_is_shown(run, home):
    words = ("-m", "model=think_sft,think_dpo", "analysis=cosine", "sweep=mine")
    _, found = as_json(run, *words)
    job = found["jobs"][1]["job"]
    write_status(home / "outputs/sweeps/mine", Status(job, "failed", error="no room"))
    _, found = as_json(run, *words)
    assert [it["before"] for it in found["jobs"]] == ["", "failed before"]


# Slurm


def test_arrays_are_told_with_what_they_ask_for(run):
    words = ("-m", "model=think_sft,think_dpo", "size=tiny,7b", "analysis=cosine", SLURM)
    _, found = as_json(run, *words, "hydra.launcher.partition=gpu", "hydra.launcher.cpus=3")
    by_size = {it["size"]: it for it in found["submitted"]}
    assert {size: len(it["jobs"]) for size, it in by_size.items()} == {"tiny": 2, "7b": 2}
    assert "gpus=1" in by_size["7b"]["asks"]
    assert "gpus" not in by_size["tiny"]["asks"]
    assert all("cpus=3" in it["asks"] for it in by_size.values())
    assert "--partition=gpu" in by_size["7b"]["script"]
    devices = {it["size"]: it["device"] for it in found["steps"]}
    assert devices == {"tiny": "cpu", "7b": "cuda"}
    assert found["gpu_hours"] > 0
    assert found["cpu_hours"] > 0


def test_scripts_are_printed_on_request(run):
    words = ("-m", "model=think_sft,think_dpo", "analysis=cosine", SLURM)
    script = run(*words, "dry_run=script")[1]
    assert "#SBATCH --array=0-1" in script
    assert "#SBATCH" not in run(*words, "dry_run=true")[1]


def test_what_is_in_the_queue_is_not_submitted_again(run, home, monkeypatch):
    words = ("-m", "model=think_sft,think_dpo", "analysis=cosine", "sweep=mine", SLURM)
    _, found = as_json(run, *words)
    jobs = [it["job"] for it in found["jobs"]]
    sweep = home / "outputs/sweeps/mine"
    submitted.note(sweep, submitted.new(jobs, {}, "time=1h", "mine"), "12")
    squeue = home / "bin/squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho '12_1|PENDING||mine|Priority'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    _, found = as_json(run, *words)
    assert [it["before"] for it in found["jobs"]] == ["", "in Slurm: 12_1"]
    assert [it["jobs"] for it in found["submitted"]] == [jobs[:1]]
