"""Jobs that are waited for, on a clock and a cluster of the test's own."""

import pytest

from olmo_stages.launching.slurm import watching
from olmo_stages.launching.slurm.watching import Waited, Watch
from olmo_stages.statuses import Status, said, write_status

ASKED = "hydra.launcher.memory=8G"
ENDED = "JobID|State|ExitCode|NodeList\n"


class Clock:
    """Time that passes only where the watch sleeps; between two looks a test changes the world."""

    def __init__(self):
        self.now = 0.0
        self.steps = {}

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        before, self.now = self.now, self.now + seconds
        for at in sorted(it for it in self.steps if before < it <= self.now):
            self.steps.pop(at)()
        assert self.now < 1000, "it waits for ever"


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watching, "time", clock)
    return clock


@pytest.fixture
def waits(tmp_path, clock):
    """Waits for jobs that were queued as 12_0, 12_1, ...; what happens when, by seconds."""

    def wait(steps, jobs=("model=a",), poll_s=10.0):
        for i, job in enumerate(jobs):
            write_status(tmp_path, Status(job, "queued", slurm=f"12_{i}"))
        waited = [Waited(job, f"12_{i}", "mine", ASKED, ()) for i, job in enumerate(jobs)]
        clock.steps = dict(steps)
        return Watch(tmp_path, waited, poll_s).run()

    return wait


@pytest.fixture
def says(tmp_path):
    """Makes a job say something of itself."""

    def say(state, job="model=a", slurm="12_0", **facts):
        write_status(tmp_path, Status(job, state, slurm=slurm, **facts))

    return say


def test_no_job_is_waited_for(slurm, tmp_path):
    assert Watch(tmp_path, [], 10.0).run() == {}
    assert not slurm.calls("squeue")


def test_a_job_runs_and_is_done(slurm, waits, says, capfd, clock):
    slurm.queue("12_0|PENDING||mine|Priority|")

    def runs():
        slurm.queue("12_0|RUNNING|n1|mine|None|")
        says("running")

    def ends():
        says("ok", seconds=70.0)
        slurm.queue()

    ended = waits({5: runs, 100: ends})
    assert {it: status.state for it, status in ended.items()} == {"model=a": "ok"}
    shown = capfd.readouterr().err
    assert "in Slurm: 1 waiting (Priority)" in shown
    assert "in Slurm: 1 running" in shown
    assert "[1/1] model=a: ok (70 s)" in shown
    assert clock.now < 112
    assert not slurm.calls("sacct")
    # Not every second: the first minute often, then more and more rarely.
    assert len(slurm.calls("squeue")) < 60


def test_a_job_that_is_done_is_waited_for_until_slurm_lets_it_go(slurm, waits, says, clock):
    slurm.queue("12_0|RUNNING|n1|mine|None|")
    waits({3: lambda: says("ok"), 30: slurm.queue})
    assert 30 <= clock.now < 45


def test_a_job_that_is_done_and_lingers_is_not_waited_for_longer_than_two_minutes(
    slurm, waits, says, clock
):
    slurm.queue("12_0|COMPLETING|n1|mine|None|")
    ended = waits({3: lambda: says("ok")})
    assert ended["model=a"].state == "ok"
    assert 120 < clock.now < 150


def test_a_job_that_failed_says_why_itself(slurm, waits, says):
    slurm.queue("12_0|RUNNING|n1|mine|None|")
    slurm.answer("sacct", f"{ENDED}12_0|FAILED|1:0|n1\n")
    ended = waits({3: lambda: (says("failed", error="its own words"), slurm.queue())})
    assert (ended["model=a"].state, ended["model=a"].error) == ("failed", "its own words")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("CANCELLED by 0|0:0", "cancelled in Slurm by root"),
        ("TIMEOUT|0:0", "killed at its time limit"),
        ("OUT_OF_MEMORY|0:125", "out of memory (hydra.launcher.memory=8G)"),
        ("NODE_FAIL|0:0", "its node n1 failed"),
        ("FAILED|9:0|n1\n12_0.0|CANCELLED|0:9", "killed: signal 9"),
        ("COMPLETED|0:0", "ended with exit code 0 without saying how it went"),
    ],
)
def test_of_a_job_that_was_killed_slurm_says_why(slurm, waits, says, tmp_path, line, error, clock):
    slurm.queue("12_0|RUNNING|n1|mine|None|")
    slurm.answer("sacct", f"{ENDED}12_0|{line}|n1\n")
    ended = waits({2: lambda: says("running", seconds=3.0), 5: slurm.queue})
    assert ended["model=a"].state == "killed"
    assert ended["model=a"].error.startswith(error)
    noted = said(tmp_path, "model=a")
    assert (noted.state, noted.error) == ("killed", ended["model=a"].error)
    assert clock.now < 30


def test_a_job_that_was_cancelled_before_it_started(slurm, waits):
    slurm.queue("12_0|PENDING||mine|Priority|")
    slurm.answer("sacct", f"{ENDED}12_[0]|CANCELLED by 0|0:0|None assigned\n")
    ended = waits({3: slurm.queue})
    assert ended["model=a"].state == "killed"
    assert ended["model=a"].error == "cancelled in Slurm by root"


def test_a_job_that_never_began_shows_the_last_words_of_its_log(slurm, waits, tmp_path, capfd):
    log = tmp_path / "slurm" / "12_0" / "12_0_0_log.out"
    log.parent.mkdir(parents=True)
    log.write_text("module: command not found\n")
    slurm.answer("sacct", f"{ENDED}12_0|FAILED|127:0|n1\n")
    slurm.queue()
    ended = waits({})
    assert ended["model=a"].state == "failed"
    assert "before it began: module: command not found" in ended["model=a"].error
    assert f"log: {log}" in capfd.readouterr().err


def test_what_a_job_says_late_counts(slurm, waits, says):
    slurm.queue()
    slurm.answer("sacct", f"{ENDED}12_0|COMPLETED|0:0|n1\n")
    ended = waits({8: lambda: says("ok")})
    assert ended["model=a"].state == "ok"


def test_a_job_that_is_queued_again_is_waited_for(slurm, waits, says, clock):
    slurm.queue("12_0|RUNNING|n1|mine|None|")
    slurm.answer("sacct", f"{ENDED}12_0|PREEMPTED|0:0|n1\n")
    ended = waits({
        5: lambda: (says("stopped"), slurm.queue("12_0|PENDING||mine|BeginTime|")),
        40: lambda: (says("running"), slurm.queue("12_0|RUNNING|n2|mine|None|")),
        60: lambda: (says("ok"), slurm.queue()),
    })  # fmt: skip
    assert ended["model=a"].state == "ok"
    assert clock.now >= 60


def test_a_job_that_failed_and_was_queued_again_is_waited_for(slurm, waits, says):
    slurm.queue("12_0|RUNNING|n1|mine|None|")
    ended = waits({
        5: lambda: (says("failed", error="x"), slurm.queue("12_0|PENDING||mine|BeginTime|")),
        20: lambda: (says("running"), slurm.queue("12_0|RUNNING|n2|mine|None|")),
        60: lambda: (says("ok"), slurm.queue()),
    })  # fmt: skip
    assert ended["model=a"].state == "ok"


def test_a_job_that_stopped_and_is_not_queued_again_stays_stopped(slurm, waits, says):
    slurm.queue("12_0|RUNNING|n1|mine|None|")
    slurm.answer("sacct", f"{ENDED}12_0|FAILED|143:0|n1\n")
    ended = waits({5: lambda: (says("stopped", error="told to stop"), slurm.queue())})
    assert (ended["model=a"].state, ended["model=a"].error) == ("stopped", "told to stop")


def test_a_job_that_stopped_because_it_was_cancelled_was_cancelled(slurm, waits, says):
    slurm.queue("12_0|RUNNING|n1|mine|None|")
    slurm.answer("sacct", f"{ENDED}12_0|CANCELLED by 0|0:15|n1\n")
    ended = waits({5: lambda: (says("stopped"), slurm.queue())})
    assert ended["model=a"].error == "cancelled in Slurm by root"


def test_one_job_takes_no_other_with_it(slurm, waits, says):
    slurm.queue("12_0|RUNNING|n1|mine|None|", "12_1|RUNNING|n1|mine|None|")
    slurm.answer("sacct", f"{ENDED}12_0|NODE_FAIL|0:0|n1\n")
    ended = waits(
        {
            5: lambda: slurm.queue("12_1|RUNNING|n1|mine|None|"),
            50: lambda: (says("ok", "model=b", "12_1"), slurm.queue()),
        },
        jobs=("model=a", "model=b"),
    )
    assert {it: status.state for it, status in ended.items()} == {
        "model=a": "killed",
        "model=b": "ok",
    }


def test_a_job_of_somebody_else_under_a_number_that_is_used_again(slurm, waits):
    slurm.queue("12_0|RUNNING|n1|other|None|")
    slurm.answer("sacct", f"{ENDED}12_0|CANCELLED by 0|0:0|n1\n")
    assert waits({})["model=a"].state == "killed"


def test_slurm_that_does_not_answer_ends_no_job(slurm, waits, says, clock, capfd):
    slurm.answer("squeue", err="Unable to contact slurm controller", rc=1)

    def answers():
        says("ok")
        slurm.answer("squeue")

    ended = waits({300: answers})
    assert ended["model=a"].state == "ok"
    assert capfd.readouterr().err.count("Slurm does not answer") == 1
    assert clock.now >= 300


def test_without_accounting_a_job_that_is_gone_is_not_waited_for_for_ever(
    slurm, waits, says, clock
):
    slurm.queue("12_0|RUNNING|n1|mine|None|")
    slurm.answer("sacct", err="disabled", rc=1)
    slurm.answer("scontrol", err="Invalid job id specified", rc=1)
    ended = waits({2: lambda: says("running"), 5: slurm.queue})
    assert ended["model=a"].state == "killed"
    assert "Slurm no longer says how" in ended["model=a"].error
    assert clock.now < 100


def test_a_job_that_can_never_start_is_told_of_once_with_the_remedy(slurm, waits, capfd):
    slurm.queue("12_0|PENDING||mine|PartitionConfig|", "12_1|PENDING||mine|PartitionConfig|")
    slurm.answer("sacct", f"{ENDED}12_[0-1]|CANCELLED by 0|0:0|\n")
    waits({200: slurm.queue}, jobs=("model=a", "model=b"))
    (line,) = [it for it in capfd.readouterr().err.splitlines() if "will not start" in it]
    assert "(PartitionConfig)" in line
    assert "hydra.launcher.memory=8G" in line
    assert "scancel 12_0 12_1" in line


def test_news_come_at_most_once_a_minute(slurm, waits, says, capfd):
    steps = {
        at: lambda at=at: slurm.queue(
            f"12_0|PENDING||mine|{'Priority' if at % 2 else 'Resources'}|"
        )
        for at in range(1, 120)
    }
    slurm.queue("12_0|PENDING||mine|None|")
    waits({**steps, 120: lambda: (says("ok"), slurm.queue())}, poll_s=1.0)
    lines = [it for it in capfd.readouterr().err.splitlines() if it.startswith("in Slurm")]
    assert 1 <= len(lines) <= 3


def test_a_job_that_accounting_knows_as_alive_is_waited_for(slurm, waits, says, clock):
    slurm.queue()
    slurm.answer("sacct", f"{ENDED}12_0|RUNNING|0:0|n1\n")
    slurm.answer("scontrol", err="Invalid job id specified", rc=1)
    ended = waits({2: lambda: says("running"), 300: lambda: says("ok")})
    assert ended["model=a"].state == "ok"
    assert clock.now >= 300
