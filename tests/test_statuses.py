import json
import os
import subprocess
import sys

import pytest

from olmo_stages.expected import Expected, write_expected
from olmo_stages.statuses import Status, read_statuses, write_status
from olmo_stages.types import Measurement


def test_a_status_is_read_back(tmp_path):
    status = Status(
        "0",
        "ok",
        folder="out/x",
        seconds=1.5,
        overrides=["model=base"],
        headline={"auroc": Measurement("auroc", 0.5, "base", ci_low=0.4), "best layer": 3},
        about={"stage": "base"},
    )
    write_status(tmp_path, status)
    assert read_statuses(tmp_path) == [status]


def test_a_headline_of_no_measurement_is_damage(tmp_path):
    path = write_status(tmp_path, Status("0", "ok"))
    content = json.loads(path.read_text()) | {"headline": {"auroc": {"colour": "red"}}}
    path.write_text(json.dumps(content))
    assert read_statuses(tmp_path)[0].state == "missing"


def test_jobs_come_in_the_order_of_their_numbers(tmp_path):
    for job in ["10", "2", "1"]:
        write_status(tmp_path, Status(job, "ok"))
    assert [status.job for status in read_statuses(tmp_path)] == ["1", "2", "10"]


def test_expected_jobs_come_in_the_order_asked_and_absent_ones_are_missing(tmp_path):
    write_status(tmp_path, Status("b", "ok"))
    write_status(tmp_path, Status("stale", "ok"))
    states = [(it.job, it.state) for it in read_statuses(tmp_path, ["a", "b"])]
    assert states == [("a", "missing"), ("b", "ok")]


def test_an_empty_sweep_has_no_statuses(tmp_path):
    assert read_statuses(tmp_path / "nothing") == []


def test_a_job_name_that_is_no_file_name_is_safe(tmp_path):
    name = "model=base,data=../a b" + "x" * 300
    path = write_status(tmp_path, Status(name, "ok"))
    assert path.parent == tmp_path / "jobs"
    assert read_statuses(tmp_path, [name])[0].state == "ok"


def test_a_running_process_is_running(tmp_path):
    write_status(tmp_path, Status("0", "running"))
    assert read_statuses(tmp_path)[0].state == "running"


def test_whatever_runs_after_the_end_was_killed(tmp_path):
    write_status(tmp_path, Status("0", "running"))
    write_status(tmp_path, Status("1", "ok"))
    assert [it.state for it in read_statuses(tmp_path, ended=True)] == ["killed", "ok"]


def test_a_process_that_is_gone_was_killed(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from olmo_stages.statuses import *;"
        "write_status(Path(sys.argv[1]), Status('0', 'running')); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    status = read_statuses(tmp_path)[0]
    assert (status.state, status.error) == ("killed", "killed before it finished")


def rewrite_writer(path, **changes):
    content = json.loads(path.read_text())
    content["writer"] |= changes
    path.write_text(json.dumps(content))


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs process start times")  # noqa: PTH110
def test_a_later_process_of_the_same_id_is_not_the_job(tmp_path):
    rewrite_writer(write_status(tmp_path, Status("0", "running")), born="1")
    assert read_statuses(tmp_path)[0].state == "killed"


def test_another_machine_gets_the_benefit_of_the_doubt(tmp_path):
    path = write_status(tmp_path, Status("0", "running"))
    rewrite_writer(path, host="elsewhere", pid=2**22 + 1)
    assert read_statuses(tmp_path)[0].state == "running"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"job": "0", "state": "lost", "writer": {}}'])
@pytest.mark.parametrize("expected", [None, ["0"]])
def test_a_damaged_status_counts_as_missing_and_says_so(tmp_path, text, expected):
    path = write_status(tmp_path, Status("0", "ok"))
    path.write_text(text)
    (status,) = read_statuses(tmp_path, expected)
    assert (status.job, status.state) == ("0", "missing")
    assert "damaged" in status.error


# ---- what a sweep was asked for

DPO = {"stage": "think_dpo", "reference": "base", "size": "tiny", "analysis": "cka", "data": "d"}


def test_a_job_that_never_started_is_missing_with_all_that_is_known_of_it(tmp_path):
    jobs = [Expected("b", ["model=think_dpo"], DPO), Expected("a")]
    write_expected(tmp_path, jobs)
    write_status(tmp_path, Status("a", "ok"))
    missing, done = read_statuses(tmp_path)
    assert missing == Status(
        "b", "missing", error="not started", overrides=["model=think_dpo"], about=DPO
    )
    assert (done.job, done.state) == ("a", "ok")


def test_what_has_not_started_when_the_sweep_ended_never_did(tmp_path):
    write_expected(tmp_path, [Expected("a")])
    assert read_statuses(tmp_path)[0].error == "not started"
    assert read_statuses(tmp_path, ended=True)[0].error == "never started"


def test_jobs_of_other_launches_follow_those_that_were_asked_for(tmp_path):
    write_expected(tmp_path, [Expected("9"), Expected("2")])
    for job in ["10", "2", "1"]:
        write_status(tmp_path, Status(job, "ok"))
    states = [(it.job, it.state) for it in read_statuses(tmp_path)]
    assert states == [("9", "missing"), ("2", "ok"), ("1", "ok"), ("10", "ok")]


def test_a_job_that_failed_early_is_about_what_it_was_asked_for(tmp_path):
    write_expected(tmp_path, [Expected("a", about=DPO)])
    write_status(tmp_path, Status("a", "failed", error="no"))
    assert read_statuses(tmp_path)[0].about == DPO


def test_without_a_list_it_is_about_what_its_overrides_say(tmp_path):
    write_status(tmp_path, Status("a", "failed", overrides=["analysis=cka", "model=think_dpo"]))
    write_status(tmp_path, Status("b", "failed", overrides=["+experiment=x"]))
    told, unknown = read_statuses(tmp_path)
    assert told.about == {"stage": "think_dpo", "analysis": "cka"}
    assert unknown.about == {}


def test_data_is_called_as_the_finished_jobs_call_it(tmp_path):
    asked = {"stage": "a", "data": "manners"}
    jobs = [Expected("a", about=asked), Expected("b", about=asked), Expected("c", about=asked)]
    other = Expected("d", about={"stage": "a", "data": "truth"})
    write_expected(tmp_path, [*jobs, other])
    write_status(tmp_path, Status("a", "ok", about={"stage": "a", "data": "manners_miniature"}))
    found = [it.about["data"] for it in read_statuses(tmp_path)]
    assert found == ["manners_miniature"] * 3 + ["truth"]
    # Where one word stands for several, none of them is a guess.
    write_status(tmp_path, Status("b", "ok", about={"stage": "a", "data": "manners"}))
    assert read_statuses(tmp_path)[2].about["data"] == "manners"


def test_a_status_holds_no_secret_and_its_error_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    status = Status(
        "0", "failed", error="no access\nwith hf_abcdefghijkl", overrides=["tracking.api_key=k123"]
    )
    path = write_status(tmp_path, status)
    assert "hf_abcdefghijkl" not in path.read_text()
    assert "k123" not in path.read_text()
    assert read_statuses(tmp_path)[0].error == "no access with ***"


# ---- jobs of Slurm


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stands for Slurm: a function that sets what `squeue` says."""
    place = tmp_path / "bin"
    place.mkdir()
    program = place / "squeue"

    def says(text, code=0, error=""):
        log = place / "asked"
        program.write_text(
            f"#!/bin/sh\necho \"$@\" >> {log}\nprintf '{text}'\nprintf '{error}' >&2\nexit {code}\n"
        )
        program.chmod(0o755)
        return log

    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return says


def elsewhere(path):
    """Make a status one that a process of another machine wrote."""
    rewrite_writer(path, host="elsewhere", pid=2**22 + 1)


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}, "12_3"),
    ],
)
def test_a_status_names_the_slurm_job_that_wrote_it(tmp_path, monkeypatch, environment, job):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    write_status(tmp_path, Status("0", "ok"))
    assert read_statuses(tmp_path)[0].slurm == job


@pytest.mark.parametrize(
    ("state", "has", "becomes"),
    [
        ("running", "12_3 RUNNING", "running"),
        ("running", "12_4 RUNNING", "killed"),
        ("running", "", "killed"),
        ("running", "12_3 PENDING", "stopped"),  # killed without a word; Slurm runs it again
        ("queued", "12_3 PENDING", "queued"),
        ("queued", "12_3 RUNNING", "queued"),
        ("queued", "", "missing"),
        ("stopped", "12_3 PENDING", "stopped"),
        ("stopped", "", "stopped"),
        ("ok", "", "ok"),
        ("failed", "", "failed"),
    ],
)
@pytest.mark.parametrize("ended", [False, True])
def test_what_a_job_of_slurm_is_by_what_slurm_has(tmp_path, slurm, state, has, becomes, ended):
    slurm(has + "\\n")
    elsewhere(write_status(tmp_path, Status("0", state, slurm="12_3")))
    (status,) = read_statuses(tmp_path, ended=ended)
    assert status.state == becomes
    goes_on = "12_3" in has and state in {"running", "queued", "stopped"}
    assert status.goes_on is goes_on


def test_a_process_that_is_gone_while_slurm_has_its_job_was_stopped(tmp_path, slurm):
    slurm("12 COMPLETING\\n")
    rewrite_writer(write_status(tmp_path, Status("0", "running", slurm="12")), born="1")
    (status,) = read_statuses(tmp_path)
    assert (status.state, status.goes_on) == ("stopped", True)
    assert status.error == "killed; Slurm still has its job 12 (COMPLETING)"


def test_the_only_job_that_slurm_forgot_is_an_error_of_squeue_and_means_none(tmp_path, slurm):
    error = "slurm_load_jobs error: Invalid job id specified"
    slurm("", code=1, error=error)
    elsewhere(write_status(tmp_path, Status("0", "running", slurm="12")))
    (status,) = read_statuses(tmp_path)
    assert (status.state, status.error) == ("killed", "killed before it finished (Slurm job 12)")


def test_a_slurm_that_does_not_answer_tells_nothing(tmp_path, slurm):
    slurm("", code=1, error="Unable to contact slurm controller")
    elsewhere(write_status(tmp_path, Status("0", "running", slurm="12")))
    write_status(tmp_path, Status("1", "queued", slurm="13"))
    assert [it.state for it in read_statuses(tmp_path)] == ["running", "queued"]


def test_slurm_is_asked_once_and_only_about_what_it_may_have(tmp_path, slurm):
    log = slurm("12_1 RUNNING\\n")
    for job, state, number in [("0", "ok", "9"), ("1", "running", "12_1"), ("2", "queued", "12_2")]:
        write_status(tmp_path, Status(job, state, slurm=number))
    assert [it.state for it in read_statuses(tmp_path)] == ["ok", "running", "missing"]
    assert [line.split("--jobs=")[1] for line in log.read_text().splitlines()] == ["12"]
    write_status(tmp_path, Status("1", "ok", slurm="12_1"))
    write_status(tmp_path, Status("2", "failed", slurm="12_2"))
    log.unlink()
    read_statuses(tmp_path)
    assert not log.exists()


def test_what_ended_between_its_word_and_slurms_is_read_again(tmp_path, monkeypatch):
    from olmo_stages import statuses

    elsewhere(write_status(tmp_path, Status("0", "running", slurm="12")))

    def ends_meanwhile(_):
        write_status(tmp_path, Status("0", "ok", slurm="12"))
        return {}

    monkeypatch.setattr(statuses, "still_there", ends_meanwhile)
    assert read_statuses(tmp_path)[0].state == "ok"
