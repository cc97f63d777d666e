"""Jobs in processes of their own: whatever becomes of one, the others run and it is noted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.launching import child, local
from olmo_stages.launching.local import Way
from olmo_stages.statuses import Status, read_statuses, write_status

FLEET = Path(__file__).with_name("fleet.py")
PATIENCE_S = 60


def start(sweep, n_jobs, *names, **environment):
    sweep.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, FLEET, sweep, str(n_jobs), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def run(sweep, n_jobs, *names, **environment):
    sweep.mkdir(exist_ok=True)
    # Files, as a pipe would be waited for until the last process that jobs left behind is gone.
    with (sweep / "out").open("w+") as out, (sweep / "err").open("w+") as err:
        done = subprocess.run(
            [sys.executable, FLEET, sweep, str(n_jobs), *names],
            stdout=out,
            stderr=err,
            check=False,
            timeout=PATIENCE_S,
            env={**os.environ, **environment},
        )
    return done.returncode, (sweep / "out").read_text(), (sweep / "err").read_text()


def states(sweep):
    return {it.job: (it.state, it.error) for it in read_statuses(sweep)}


def log(sweep, job):
    return (sweep / "logs" / f"{job}.log").read_text()


def wait_for(there, program, n=1):
    deadline = time.monotonic() + PATIENCE_S
    while len(found := there()) < n:
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def at_work(sweep):
    return [int(it.suffix[1:]) for it in sweep.glob("at_work.*")]


def runs(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def gone(pids):
    deadline = time.monotonic() + PATIENCE_S
    while any(map(runs, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return True


FATES = {
    "fine": ("ok", ""),
    "raises": ("failed", "KeyError('caption')"),
    "exits": ("failed", "SystemExit: 7"),
    "leaves": ("failed", "its process ended with exit code 7 before it was done"),
    "leaves_well": ("failed", "its process ended with exit code 0 before it was done"),
    "memory": ("failed", "MemoryError()"),
    "killed": ("killed", "killed: signal 9 (out of memory?)"),
    "segfaults": ("killed", "killed: signal 11 (Segmentation fault)"),
    "terminated": ("stopped", child.STOPPED),
    "interrupts": ("failed", "KeyboardInterrupt"),
    "asks": ("failed", "EOFError('EOF when reading a line')"),
    "left": ("ok", ""),
    "forked": ("ok", ""),
    "hangs_at_exit": ("ok", ""),
    "leaves_a_thread": ("ok", ""),
    "unheard-terminated": ("killed", "killed: signal 15 (Terminated)"),
    "fine-again": ("ok", ""),
}


@pytest.fixture(scope="module", params=[1, 3])
def many(request, tmp_path_factory):
    """One job of each fate, so many at a time."""
    sweep = tmp_path_factory.mktemp("sweep")
    started = time.monotonic()
    code, out, err = run(sweep, request.param, *FATES)
    seconds = time.monotonic() - started
    for note in ("left", "forked"):
        os.kill(int((sweep / note).read_text()), signal.SIGKILL)
    return request.param, sweep, code, out, err, seconds


def test_every_job_runs_whatever_becomes_of_the_others(many):
    _, sweep, code, out, _, _ = many
    assert code == 0
    assert sorted((sweep / "ran").read_text().split()) == sorted(FATES)
    assert len([it for it in out.splitlines() if it.startswith("ended ")]) == len(FATES)


@pytest.mark.parametrize("job", FATES)
def test_how_a_job_ends_is_noted(many, job):
    assert states(many[1])[job] == FATES[job]


def test_processes_that_a_job_leaves_behind_are_not_waited_for(many):
    assert many[5] < 50  # those live for 60 s


def test_of_jobs_at_the_same_time_the_terminal_has_a_line_each(many):
    n_jobs, sweep, _, out, err, _ = many
    if n_jobs == 1:
        assert "all is well" in out
        assert "job killed killed: killed: signal 9 (out of memory?)" in err
        assert not (sweep / "logs").exists()
        return
    lines = err.splitlines()
    assert len(lines) == len(FATES), err
    assert "all is well" not in out + err
    assert "all is well" in log(sweep, "fine")
    (line,) = (it for it in lines if "] segfaults:" in it)
    assert line.endswith(f"s); log: {sweep / 'logs' / 'segfaults.log'}")
    (line,) = (it for it in lines if "] fine:" in it)
    assert "log" not in line
    assert sorted(int(it[1:].partition("/")[0]) for it in lines) == [*range(1, len(FATES) + 1)]


def test_as_many_run_at_a_time_as_are_wanted(tmp_path):
    assert run(tmp_path, 2, "met-1", "met-2")[0] == 0
    assert {state for state, _ in states(tmp_path).values()} == {"ok"}


def test_jobs_at_the_same_time_share_threads_and_gpus(tmp_path):
    names = [f"has-{it}" for it in range(4)]
    threads = {"OMP_NUM_THREADS": "", "CUDA_VISIBLE_DEVICES": "3,5"}
    run(tmp_path, 2, *names, **threads)
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    said = [log(tmp_path, it).splitlines()[-1] for it in names]
    assert set(said) == {f"gpus 3 threads {share}", f"gpus 5 threads {share}"}
    assert said[0] != said[1]


def test_a_job_alone_has_all_there_is(tmp_path):
    out = run(tmp_path, 1, "has", CUDA_VISIBLE_DEVICES="3,5", OMP_NUM_THREADS="7")[1]
    assert "gpus 3,5 threads 7\n" in out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)]
)
def test_a_signal_stops_jobs_at_the_end_of_a_shard_and_starts_no_other(tmp_path, number, code):
    with start(tmp_path, 2, "shards-1", "shards-2", "fine") as program:
        pids = wait_for(lambda: at_work(tmp_path), program, 2)
        time.sleep(0.6)
        program.send_signal(number)
        _, err = program.communicate(timeout=PATIENCE_S)
    # Ctrl-C reaches the program as KeyboardInterrupt, by which Python ends as if killed by it.
    assert program.returncode == code, err
    assert gone(pids)
    found = states(tmp_path)
    assert {it: state for it, (state, _) in found.items()} == dict.fromkeys(
        ["shards-1", "shards-2"], "stopped"
    )
    assert f"{number.name}: jobs stop at the end of a shard" in err
    # A shard that was begun is there: as many as half seconds, and not all.
    assert 2 <= len([*tmp_path.glob("shard.*")]) < 20


def test_ctrl_c_again_ends_jobs_that_do_not_listen(tmp_path):
    with start(tmp_path, 1, "deaf") as program:
        pids = wait_for(lambda: at_work(tmp_path), program)
        program.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert program.poll() is None
        assert all(map(runs, pids))
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=PATIENCE_S)
    assert gone(pids)
    assert states(tmp_path)["deaf"] == ("stopped", child.STOPPED)


def test_jobs_do_not_outlive_a_launching_process_that_is_killed(tmp_path):
    with start(tmp_path, 2, "shards-1", "shards-2") as program:
        pids = wait_for(lambda: at_work(tmp_path), program, 2)
        program.kill()
        program.wait()
    assert gone(pids)
    assert {state for state, _ in states(tmp_path).values()} == {"stopped"}
    # And the next launch is not bothered.
    assert run(tmp_path, 2, "fine")[0] == 0
    assert states(tmp_path)["fine"] == ("ok", "")


def test_what_another_launch_is_at_work_on_comes_last(tmp_path):
    write_status(tmp_path, Status("fine-1", "running"))  # by this process, which lives
    run(tmp_path, 1, "fine-1", "fine-2", "fine-3")
    assert (tmp_path / "ran").read_text().split() == ["fine-2", "fine-3", "fine-1"]


def test_what_another_launch_did_meanwhile_is_done(tmp_path):
    """A job that fails in one of two launches, and not in the other."""
    out = run(tmp_path, 1, "overtaken")[1]
    assert states(tmp_path)["overtaken"] == ("ok", "")
    assert "ended overtaken ok" in out


def test_two_launches_of_the_same_jobs_both_end_well(tmp_path):
    names = [f"has-{it}" for it in range(4)]
    with start(tmp_path, 1, *names) as first, start(tmp_path, 1, *names) as second:
        ends = [it.communicate(timeout=PATIENCE_S)[0] for it in (first, second)]
    for out in ends:
        assert {f"ended {it} ok" for it in names} <= set(out.splitlines())


@pytest.mark.parametrize(
    ("options", "word"),
    [({"n_jobs": 0}, "n_jobs=0"), ({"gpus_per_job": -1}, "gpus_per_job=-1")],
)
def test_what_is_no_number_of_jobs_is_refused(options, word):
    with pytest.raises(ConfigError, match=word):
        Way(**options)


def test_a_process_that_has_used_a_gpu_is_not_forked(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "uses_cuda", lambda: True)
    with pytest.raises(ConfigError, match="hydra/launcher=basic"):
        local.run([], tmp_path, Way())
