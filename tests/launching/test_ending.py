"""How the end of a job is noted, and how that of a sweep is told."""

import pytest

from olmo_stages.launching.current import Launch
from olmo_stages.launching.ending import finish, leave_word
from olmo_stages.statuses import Status, read_statuses, write_status


def state(sweep):
    return read_statuses(sweep)[0].state


@pytest.mark.parametrize(
    ("noted", "ended", "was_noted", "left"),
    [
        ("running", "failed", True, "failed"),
        ("running", "ok", True, "ok"),
        ("ok", "failed", True, "ok"),  # another launch did it meanwhile
        ("cached", "stopped", True, "cached"),
        ("ok", "failed", False, "failed"),  # it says so of an earlier launch
        ("failed", "ok", True, "ok"),
    ],
)
def test_what_another_launch_did_is_not_forgotten(tmp_path, noted, ended, was_noted, left):
    write_status(tmp_path, Status("a", noted))
    leave_word(tmp_path, Status("a", ended), was_noted=was_noted)
    assert state(tmp_path) == left


@pytest.mark.parametrize(
    ("noted", "seen", "is_done"),
    [
        ("ok", None, True),
        ("running", "ok", True),  # another launch reads it once more
        ("ok", "failed", False),  # a full disk: what the file says is of an earlier launch
        ("stopped", None, False),
        ("failed", None, False),
    ],
)
def test_the_sweep_is_done_as_this_launch_saw_it(tmp_path, capsys, noted, seen, is_done):
    write_status(tmp_path, Status("a", noted))
    write_status(tmp_path, Status("of another launch", "failed"))
    ended = {} if seen is None else {"a": Status("a", seen)}
    launch = Launch(sweep=tmp_path, jobs={"a"}, ended=ended)
    assert finish(launch, together=False) is is_done
    assert (seen or noted) in capsys.readouterr().out


def test_of_a_single_job_there_is_nothing_to_tell(capsys):
    assert finish(Launch(), together=True)
    assert capsys.readouterr() == ("", "")
