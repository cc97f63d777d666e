import re

import pytest

from olmo_stages.launching.slurm.cluster import NO_TRACE, End
from olmo_stages.launching.slurm.ends import last_words, waits_for_ever, words_for

ASKED = "hydra.launcher.memory=8G"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.out"
    path.write_text("starting\nsh: line 7: module: command not found\nsrun: error: exit code 1\n")
    return path


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (End("CANCELLED", "ada"), "cancelled in Slurm by ada"),
        (End("TIMEOUT"), "time limit.*hydra.launcher.time"),
        (End("OUT_OF_MEMORY"), "out of memory.*memory=8G.*hydra.launcher.memory"),
        (End("NODE_FAIL", node="n2"), "its node n2 failed"),
        (End("PREEMPTED"), "preempted, and Slurm did not queue it again"),
        (End("FAILED", signal=9), "signal 9.*out of memory"),
        (End("FAILED", signal=11), "signal 11$"),
        (End("FAILED", code=3), "ended with exit code 3 without saying how it went"),
        (End(NO_TRACE), "Slurm no longer says how"),
        (None, "Slurm no longer says how"),
    ],
)
def test_what_killed_a_job_that_ran(end, said, log):
    word = words_for(end, ASKED, log, started=True)
    assert word.state == "killed"
    assert re.search(said, word.reason), word.reason


def test_a_job_that_never_began_failed_with_the_last_words_of_its_log(log):
    word = words_for(End("FAILED", code=127), ASKED, log, started=False)
    assert word.state == "failed"
    assert word.reason == (
        "ended with exit code 127 before it began: sh: line 7: module: command not found"
    )


def test_an_element_that_was_struck_off_its_array_was_cancelled(tmp_path):
    word = words_for(End(NO_TRACE), ASKED, tmp_path / "none.out", started=False)
    assert (word.state, word.reason) == ("killed", "cancelled in Slurm before it started")


def test_a_job_that_left_no_log_points_to_the_folder(tmp_path):
    word = words_for(End("FAILED", code=1), ASKED, tmp_path / "none.out", started=False)
    assert f"no log at {tmp_path}: do all nodes see that folder?" in word.reason


def test_the_last_words_are_those_about_an_error(tmp_path):
    log = tmp_path / "log"
    log.write_text("a\nValueError: wrong\nb\n")
    assert last_words(log) == "ValueError: wrong"
    log.write_text("a\nb\n\n")
    assert last_words(log) == "b"
    log.write_bytes(b"x" * 20_000 + b"\nerror: \xff\n")
    assert last_words(log) == "error: �"
    assert last_words(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("PartitionConfig", "memory=8G"),
        ("(PartitionTimeLimit)", "hydra.launcher.time"),
        ("QOSMaxGRESPerJob", "hydra.launcher.qos"),
        ("AssocMaxWallDurationPerJobLimit", "memory=8G"),
        ("JobHeldUser", "scontrol release"),
        ("launch failed requeued held", "scontrol release"),
        ("BadConstraints", "hydra.launcher.constraint"),
    ],
)
def test_a_job_that_will_not_start_by_itself_has_a_remedy(reason, said):
    remedy = waits_for_ever(reason, ASKED)
    assert remedy is not None
    assert said in remedy
    assert "{" not in remedy


@pytest.mark.parametrize(
    "reason", ["Resources", "Priority", "JobArrayTaskLimit", "BeginTime", "None", "QOSGrpGRES"]
)
def test_a_job_that_waits_for_its_turn_is_left_alone(reason):
    assert waits_for_ever(reason, ASKED) is None
