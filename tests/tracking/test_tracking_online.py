"""The online path, against a stand-in for W&B's server on the loopback interface."""

import json
import logging
import socket
import threading
import time

import numpy as np
import pytest

from olmo_stages.records import Job, read, write
from olmo_stages.tracking.runs import Wandb
from olmo_stages.types import Measurement, Result, Stage
from tests.tracking.standin import Server

KEY = "0123456789abcdef0123456789abcdef01234567"
SFT = Stage("think_sft", "tiny", "miniature")
CONFIG = {"seed": 0, "hub": {"token": "hf_from_the_config"}}


@pytest.fixture(autouse=True)
def logged_in(_clean, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)


@pytest.fixture
def server(monkeypatch):
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", server.address)
    yield server
    server.shutdown()
    server.server_close()


def finished(tmp_path, seed=0, value=0.75):
    job = Job("probe", SFT, None, "truth", {"seed": seed})
    rows = tuple(
        Measurement("auroc", value + layer / 100, "think_sft", layer=layer, variant="probe")
        for layer in range(3)
    )
    result = Result(rows, {"probe": np.zeros((3, 4), np.float32)}, headline={"auroc": value})
    folder = job.folder(tmp_path)
    write(folder, result, {"job": job.describe()})
    return job, result, folder


def record(tmp_path, job, result, folder, timeout_s=10):
    tracker = Wandb("p", directory=tmp_path, timeout_s=timeout_s)
    return tracker.record(job, result, folder, group="g", config=CONFIG)


def warned(caplog):
    return [
        it.getMessage()
        for it in caplog.records
        if it.levelno >= logging.WARNING and it.name.startswith("olmo_stages")
    ]


def test_a_job_is_recorded_online_where_a_key_is_configured_and_the_server_answers(
    tmp_path, server, caplog
):
    job, result, folder = finished(tmp_path)
    line = record(tmp_path, job, result, folder)
    assert line == f"W&B: {server.address}/me/p/runs/{job.run_id}"
    assert warned(caplog) == []
    run = server.runs[job.run_id]
    assert (run["groupName"], run["jobType"]) == ("g", "probe")
    assert run["displayName"] == "probe think_sft tiny truth"
    lines = [it for it in server.history[job.run_id].values() if "probe/auroc" in it]
    assert [(it["layer"], it["probe/auroc"]) for it in lines] == [(0, 0.75), (1, 0.76), (2, 0.77)]
    summary = json.loads(server.uploads["/upload/wandb-summary.json"])
    assert summary["auroc"] == 0.75
    assert f"probe-{job.run_id}" in server.artifacts
    tensors = (folder / "tensors.safetensors").read_bytes()
    assert server.uploads["/upload/tensors.safetensors"] == tensors


def test_no_key_reaches_a_file_or_the_configuration(tmp_path, server):
    job, result, folder = finished(tmp_path)
    record(tmp_path, job, result, folder)
    assert "hf_from_the_config" not in str(server.runs)
    for path in tmp_path.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert KEY.encode() not in data, path
        assert b"hf_from_the_config" not in data, path


def test_a_repeated_result_continues_its_run_and_doubles_no_layer(tmp_path, server, caplog):
    job, result, folder = finished(tmp_path)
    record(tmp_path, job, result, folder)
    (folder / "tracking.json").unlink()
    record(tmp_path, job, result, folder)
    layers = [it["layer"] for it in server.history[job.run_id].values() if "probe/auroc" in it]
    assert layers == [0, 1, 2]
    assert list(server.runs) == [job.run_id]
    assert warned(caplog) == []


def test_other_numbers_under_the_same_id_warn_about_the_older_curves(tmp_path, server, caplog):
    record(tmp_path, *finished(tmp_path))
    record(tmp_path, *finished(tmp_path, value=0.5))
    assert len(server.runs) == 1
    assert ["stay those of its first recording" in it for it in warned(caplog)] == [True]


def test_a_server_that_fails_is_given_up_with_one_warning(tmp_path, server, caplog):
    server.broken = "UpsertBucket"
    started = time.monotonic()
    line = record(tmp_path, *finished(tmp_path), timeout_s=2)
    assert line.startswith("W&B, offline; to upload: wandb sync ")
    assert len(warned(caplog)) == 1
    # timeout_s is 2; the rest is starting the service twice, with a wide margin.
    assert time.monotonic() - started < 10


def test_after_a_failure_the_other_jobs_do_not_wait_for_the_server(tmp_path, server):
    server.broken = "UpsertBucket"
    record(tmp_path, *finished(tmp_path), timeout_s=2)
    started = time.monotonic()
    line = record(tmp_path, *finished(tmp_path, seed=1))
    assert line.startswith("W&B, offline")
    assert time.monotonic() - started < 3


def unreachable(kind):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    if kind == "silent":
        listener.listen(8)  # connections are accepted by the kernel, nobody ever reads them
    elif kind == "refused":
        listener.close()
    return listener, f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("kind", ["silent", "refused"])
def test_an_unreachable_server_costs_a_warning_and_a_few_seconds(
    tmp_path, monkeypatch, caplog, kind
):
    listener, address = unreachable(kind)
    monkeypatch.setenv("WANDB_BASE_URL", address)
    job, result, folder = finished(tmp_path)
    started = time.monotonic()
    line = record(tmp_path, job, result, folder)
    seconds = time.monotonic() - started
    listener.close()
    assert line.startswith("W&B, offline; to upload: wandb sync ")
    assert warned(caplog) == [f"W&B: {address} does not answer; recording offline"]
    # 2 s of patience and about 1.5 s to start W&B's service, doubled for a busy machine.
    assert seconds < 7
    assert read(folder).result.headline == result.headline
