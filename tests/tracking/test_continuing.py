"""A job that is stopped or killed at any point and run again: one run, everything in it once."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from olmo_stages.records import Job, is_finished, write
from olmo_stages.stopping import Stopped
from olmo_stages.tracking.runs import Wandb
from olmo_stages.types import Measurement, Result, Stage
from tests.tracking.standin import Server

KEY = "0123456789abcdef0123456789abcdef01234567"
JOB = Job("probe", Stage("think_sft", "tiny", "miniature"), None, "truth", {"seed": 0})
CONFIG = {"seed": 0, "hub": {"token": "hf_from_the_config"}}
RESULT = Result(
    tuple(
        Measurement("auroc", 0.75 + layer / 100, "think_sft", layer=layer, variant="probe")
        for layer in range(3)
    ),
    {"probe": np.zeros((3, 4), np.float32)},
    headline={"auroc": 0.75},
)


@pytest.fixture
def server(_clean, monkeypatch):
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.address)
    yield server
    server.shutdown()
    server.server_close()


def track(place, work=lambda: None, **options):
    """Run a job as an experiment does."""
    tracker = Wandb("p", directory=place, **options)
    folder = JOB.folder(place)
    if not is_finished(folder):
        with tracker.running(JOB, group="g", config=CONFIG):
            work()
            write(folder, RESULT, {"job": JOB.describe(), "git": {"commit": "c1"}})
    return tracker.record(JOB, RESULT, folder, group="g", config=CONFIG)


def layers(server):
    """The layers that the only run has, one for each number."""
    assert set(server.runs) <= {JOB.run_id}
    lines = server.history.get(JOB.run_id, {}).values()
    return [it["layer"] for it in lines if "probe/auroc" in it]


def raising(error):
    def work():
        raise error

    return work


# ---- while a job is at work


def test_a_job_is_shown_while_it_runs_without_a_number_or_a_secret(tmp_path, server):
    seen = []

    def work():
        seen.append((dict(server.runs[JOB.run_id]), layers(server), dict(server.ends)))

    assert track(tmp_path, work) == f"W&B: {server.address}/me/p/runs/{JOB.run_id}"
    ((run, numbers, ends),) = seen
    assert (run["groupName"], run["displayName"]) == ("g", "probe think_sft tiny truth")
    assert JOB.digest in run["config"]
    assert "hf_from_the_config" not in run["config"]
    assert (numbers, ends) == ([], {})
    assert layers(server) == [0, 1, 2]
    assert server.ends[JOB.run_id] == [{"exitcode": 0}]
    assert '"commit":"c1"' in server.runs[JOB.run_id]["config"]


def test_offline_nothing_is_there_before_the_result(tmp_path):
    seen = []
    track(tmp_path, lambda: seen.extend(tmp_path.glob("wandb/*run-*")), mode="offline")
    assert seen == []
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (Stopped(signal.SIGTERM), [{"preempting": True}, {"exitcode": 143}]),
        pytest.param(KeyboardInterrupt(), [{"exitcode": 255}], marks=pytest.mark.slow),
        pytest.param(ValueError("no"), [{"exitcode": 1}], marks=pytest.mark.slow),
    ],
)
def test_how_a_job_without_a_result_ended_is_shown_and_it_continues(tmp_path, server, error, shown):
    with pytest.raises(type(error)):
        track(tmp_path, raising(error))
    assert server.ends[JOB.run_id] == shown
    assert layers(server) == []
    track(tmp_path)
    assert server.ends[JOB.run_id] == [*shown, {"exitcode": 0}]
    assert layers(server) == [0, 1, 2]


def test_a_server_that_cannot_start_a_run_does_not_keep_a_job_from_running(
    tmp_path, server, caplog
):
    server.broken = "UpsertBucket"
    line = track(tmp_path, timeout_s=1)
    assert line.startswith("W&B, offline; to upload: wandb sync ")
    assert "not shown before there is a result" in caplog.text


# ---- told to stop, or killed, while it is recorded

PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
import wandb
from olmo_stages import stopping
from tests.tracking.test_continuing import track

point, how, place, mode = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
done, log, finish = [], wandb.Run.log, wandb.Run.finish

def hit(name):
    if name == "at work" and point.startswith("service"):
        # As Slurm does, which sends SIGTERM to all processes of a job.
        services = ["pgrep", "-P", str(os.getpid()), "wandb-core"]
        for it in subprocess.run(services, capture_output=True, text=True).stdout.split():
            os.kill(int(it), signal.SIGTERM)
        time.sleep(0.3)
    if name == point or (name, point) == ("at work", "service and job"):
        time.sleep(0.5 if how == signal.SIGKILL else 0)
        os.kill(os.getpid(), how)

def logged(run, values, **options):
    log(run, values, **options)
    done.append(values)
    hit(f"after row {len(done)}")

def finished(run, *args, **options):
    finish(run, *args, **options)
    hit("after the end")

wandb.Run.log, wandb.Run.finish = logged, finished
with stopping.listening():
    track(place, lambda: hit("at work"), mode=mode)
"""


def killed(place, point, how, mode="auto"):
    """Start a job that is killed at some point; how it ended."""
    command = [sys.executable, "-c", PROGRAM, point, str(int(how)), str(place), mode]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("at work", marks=pytest.mark.slow),
        "after row 2",
        pytest.param("after row 4", marks=pytest.mark.slow),
    ],
)
def test_a_killed_job_continues_its_run(tmp_path, server, point):
    assert killed(tmp_path, point, signal.SIGKILL).returncode == -signal.SIGKILL
    track(tmp_path)
    assert layers(server) == [0, 1, 2]
    assert len(server.history[JOB.run_id]) == len([*RESULT.measurements, "table and figures"])


def test_what_is_being_sent_when_told_to_stop_is_sent_whole(tmp_path, server):
    ended = killed(tmp_path, "after row 2", signal.SIGTERM)
    assert (ended.returncode, ended.stderr) == (143, "")
    assert server.ends[JOB.run_id] == [{"exitcode": 0}]
    assert track(tmp_path).endswith("(recorded before)")
    assert layers(server) == [0, 1, 2]


@pytest.mark.slow
def test_a_service_that_died_meanwhile_costs_nothing(tmp_path, server):
    ended = killed(tmp_path, "service", signal.SIGTERM)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert track(tmp_path) == (f"W&B: {server.address}/me/p/runs/{JOB.run_id} (recorded before)")
    assert layers(server) == [0, 1, 2]


def test_a_service_that_died_with_the_job_does_not_keep_it(tmp_path, server):
    started = time.monotonic()
    ended = killed(tmp_path, "service and job", signal.SIGTERM)
    assert (ended.returncode, ended.stderr, server.ends) == (143, "", {})
    assert time.monotonic() - started < 15  # three seconds; the rest is a busy machine
    track(tmp_path)
    assert layers(server) == [0, 1, 2]


@pytest.mark.parametrize(
    ("point", "how"),
    [
        ("after row 2", signal.SIGKILL),
        pytest.param("after row 2", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("at work", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("after the end", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_offline_one_folder_is_left_and_uploads_everything_once(tmp_path, server, point, how):
    assert killed(tmp_path, point, how, "offline").returncode in {143, -signal.SIGKILL}
    track(tmp_path, mode="offline")
    (place,) = tmp_path.glob("wandb/offline-run-*")
    command = [sys.executable, "-m", "wandb", "sync", str(place)]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert layers(server) == [0, 1, 2]


@pytest.mark.slow
def test_recorded_in_part_online_and_then_offline_it_is_whole_after_the_upload(tmp_path, server):
    killed(tmp_path, "after row 2", signal.SIGKILL)
    track(tmp_path, mode="offline")
    (place,) = tmp_path.glob("wandb/offline-run-*")
    command = [sys.executable, "-m", "wandb", "sync", str(place)]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert layers(server) == [0, 1, 2]


def stopped_when(server, name, place):
    """Start a job, and tell it to stop once the server was asked something; how it ended."""
    command = [sys.executable, "-c", PROGRAM, "", "0", str(place), "online"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        while name not in server.asked:
            assert job.poll() is None
            time.sleep(0.05)
        started = time.monotonic()
        job.send_signal(signal.SIGTERM)
        said = job.communicate(timeout=60)
    return job.returncode, said, time.monotonic() - started


@pytest.mark.slow
def test_a_run_that_cannot_be_started_keeps_no_job_that_is_stopped(tmp_path, server):
    server.slow = "UpsertBucket"
    code, said, seconds = stopped_when(server, "UpsertBucket", tmp_path)
    assert (code, said) == (143, (b"", b""))
    assert (
        seconds < 20
    )  # 10 that a run has to start in, and a busy machine; the server hangs for 60


@pytest.mark.slow
def test_a_server_that_hangs_keeps_no_job_that_is_stopped(tmp_path, server):
    server.is_stuck = True
    started = time.monotonic()
    ended = killed(tmp_path, "at work", signal.SIGTERM)
    assert (ended.returncode, ended.stderr) == (143, "")
    assert time.monotonic() - started < 20  # 7; the server hangs for 60
