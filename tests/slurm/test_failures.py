"""What becomes of a sweep when jobs fail, are killed or are cancelled: the others are done."""

import os
import signal

import pytest

FAILS, KILLED, CANCELLED, NEVER, GOOD = (
    *("base", "think_sft", "think_dpo", "think_rlvr", "instruct_sft"),
)


@pytest.fixture(scope="module")
def bench(benches):
    return benches("failures")


@pytest.fixture(scope="module")
def swept(bench):
    """A sweep in which one job fails, one is killed, two are cancelled, and one is well."""
    bench.put(f"fail-{FAILS}", f"hold-{KILLED}", f"hold-{CANCELLED}")
    launch = bench.launch(
        f"model={FAILS},{KILLED},{CANCELLED},{NEVER},{GOOD}",
        "hydra.launcher.array_parallelism=2",
    )
    bench.until(lambda: {KILLED, CANCELLED} <= bench.analysing(), "both are held")
    statuses = bench.statuses()
    bench.cluster.ask("scancel", statuses[NEVER].slurm)
    bench.cluster.ask("scancel", statuses[CANCELLED].slurm)
    (pid,) = {it["pid"] for it in bench.done("analysis") if it["stage"] == KILLED}
    os.kill(pid, signal.SIGKILL)
    return launch.ended()


def table(launch):
    """The last table and what stands below it, in one line."""
    return " ".join(launch.out[launch.out.rindex("stage ") :].split())


def times(bench):
    """When each result was written."""
    return {it: (it / "result.json").stat().st_mtime_ns for it in bench.result_folders()}


def test_the_others_are_done_and_the_exit_code_is_1(bench, swept):
    assert swept.code == 1, bench.told()
    assert bench.results() == [GOOD]
    states = {stage: it.state for stage, it in bench.statuses().items()}
    assert states[GOOD] == "ok"
    assert states[FAILS] == "failed"
    assert not {states[it] for it in (KILLED, CANCELLED, NEVER)} & {"ok", "running", "queued"}


def test_the_last_table_says_why_in_a_line_each(bench, swept):
    shown = table(swept)
    assert f"{FAILS} was to fail" in shown, bench.told()
    errors = {stage: it.error for stage, it in bench.statuses().items()}
    assert "signal 9" in errors[KILLED]
    assert "cancelled" in errors[CANCELLED]
    assert "cancelled" in errors[NEVER]
    for stage in (FAILS, KILLED, CANCELLED, NEVER):
        assert errors[stage]
        assert "\n" not in errors[stage]
        assert errors[stage] in shown


def test_the_command_below_it_redoes_just_what_is_missing(bench, swept):
    assert swept.code == 1
    (line,) = [it for it in swept.out.splitlines() if it.startswith("redo")]
    before, done = bench.submitted(), times(bench)
    bench.take(f"fail-{FAILS}", f"hold-{KILLED}", f"hold-{CANCELLED}")
    again = bench.start(line.partition(": ")[2]).ended()
    assert again.code == 0, bench.told()
    assert len(bench.submitted() - before) == 4
    assert bench.results() == sorted([FAILS, KILLED, CANCELLED, NEVER, GOOD])
    assert done.items() <= times(bench).items()
