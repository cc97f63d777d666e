import json
import os
import subprocess
import sys

import pytest

from olmo_stages.statuses import Status, read_statuses, write_status


def test_a_status_is_read_back(tmp_path):
    status = Status(
        "0",
        "ok",
        folder="out/x",
        seconds=1.5,
        overrides=["model=base"],
        headline={"auroc": 0.5, "best layer": 3},
        about={"stage": "base"},
    )
    write_status(tmp_path, status)
    assert read_statuses(tmp_path) == [status]


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
def test_a_damaged_status_counts_as_missing(tmp_path, text):
    path = write_status(tmp_path, Status("0", "ok"))
    path.write_text(text)
    assert read_statuses(tmp_path, ["0"])[0].state == "missing"
    assert read_statuses(tmp_path) == []


def test_a_status_holds_no_secret_and_its_error_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    status = Status(
        "0", "failed", error="no access\nwith hf_abcdefghijkl", overrides=["tracking.api_key=k123"]
    )
    path = write_status(tmp_path, status)
    assert "hf_abcdefghijkl" not in path.read_text()
    assert "k123" not in path.read_text()
    assert read_statuses(tmp_path)[0].error == "no access with ***"
