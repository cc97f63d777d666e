import contextlib
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.figures import layer_curves
from olmo_stages.records import Job, is_finished, read, write
from olmo_stages.tracking import NoTracking, Tracker, filling, reachability
from olmo_stages.tracking.run_layout import history, summary
from olmo_stages.tracking.runs import Wandb
from olmo_stages.types import Measurement, Result, Stage

KEY = "0123456789abcdef0123456789abcdef01234567"
BASE = Stage("base", "tiny", "miniature")
SFT = Stage("think_sft", "tiny", "miniature", parent=BASE)
CONFIG = {"seed": 0, "analysis": {"folds": 5}, "hub": {"token": "hf_from_the_config"}}


def result(value=0.75):
    rows = [
        Measurement("auroc", value + layer / 100, "think_sft", layer=layer, variant=variant)
        for variant in ("probe", "control", "stage->reference:own")
        for layer in (3, 0, 1)
    ]
    rows.append(Measurement("auroc", 0.53, "think_sft", variant="baseline:length"))
    return Result(
        tuple(rows),
        tensors={"probe": np.zeros((3, 4), np.float32)},
        figures={"auroc over layers": layer_curves(rows, "auroc", title="t", y_label="y")},
        headline={"best layer": 3, "auroc": value, "interval": "0.70-0.80", "nothing": None},
    )


def finished(tmp_path, seed=0, value=0.75):
    job = Job("probe", SFT, BASE, "truth", {"seed": seed})
    folder = job.folder(tmp_path / "results")
    write(folder, result(value), {"job": job.describe(), "git": {"commit": "c1"}})
    return job, result(value), folder


def record(tmp_path, *job, **options):
    tracker = Wandb("p", directory=tmp_path / "out", **({"mode": "offline"} | options))
    return tracker.record(*job, group="my sweep", config=CONFIG)


def runs(tmp_path):
    return sorted((tmp_path / "out" / "wandb").glob("offline-run-*"))


def inspect(run, *options):
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# ---- what an offline run holds


def test_an_offline_run_holds_names_configuration_and_headline(tmp_path):
    job, *rest = finished(tmp_path)
    record(tmp_path, job, *rest, tags=["mine", "x" * 80])
    (run,) = runs(tmp_path)
    content = json.loads(inspect(run, "--summary"))
    assert content["run_id"] == job.run_id
    assert content["project"] == "p"
    assert content["state"] == "finished"
    assert content["name"] == "probe think_sft tiny vs base truth"
    assert content["tags"] == ["think_sft", "tiny", "truth", "probe", "mine", "x" * 64]
    assert content["config"]["analysis"] == {"folds": 5}
    assert content["config"]["job"]["digest"] == job.digest
    assert content["config"]["provenance"] == {"git": {"commit": "c1"}}
    summary = content["summary"]
    assert (summary["best_layer"], summary["auroc"]) == (3, 0.75)
    assert summary["interval"] == "0.70-0.80"
    assert summary["probe/baseline_length/auroc"] == 0.53
    assert summary["measurements"]["nrows"] == 10
    assert summary["figures/auroc_over_layers"]["_type"] == "plotly-file"
    assert "probe/auroc" not in summary  # the last layer's would pass for the run's


def test_an_offline_run_holds_a_row_a_layer_with_the_layer_as_the_step(tmp_path):
    record(tmp_path, *finished(tmp_path))
    lines = [json.loads(line) for line in inspect(runs(tmp_path)[0]).splitlines()]
    history = [line["history"]["item"] for line in lines if line["type"] == "history"]
    points = [(it["layer"], it["probe/auroc"]) for it in history if "probe/auroc" in it]
    assert points == [(0, 0.75), (1, 0.76), (3, 0.78)]
    assert history[2]["probe/stage_to_reference_own/auroc"] == 0.78
    metrics = [line["metric"] for line in lines if line["type"] == "metric"]
    assert {"glob_name": "probe/*", "step_metric": "layer"}.items() <= metrics[1].items()
    (run,) = [line["run"] for line in lines if line["type"] == "run"][:1]
    assert "my sweep" in json.dumps(run)
    artifacts = [line["artifact"] for line in lines if line["type"] == "artifact"]
    names = json.dumps(artifacts)
    assert "measurements.parquet" in names
    assert "tensors.safetensors" in names


@pytest.mark.parametrize("small", [True, False])
def test_a_table_is_copied_only_if_it_is_small(tmp_path, monkeypatch, caplog, small):
    job, plain, folder = finished(tmp_path)
    numbers = np.random.default_rng(0).normal(size=2000)
    with_table = replace(plain, tables={"tokens": {"layer_0": numbers}})
    write(folder, with_table, {"job": job.describe(), "git": {"commit": "c1"}})
    if not small:
        monkeypatch.setattr(filling, "_LARGEST_FILE", 15e3)
    record(tmp_path, job, with_table, folder)
    lines = [json.loads(line) for line in inspect(runs(tmp_path)[0]).splitlines()]
    sent = json.dumps([line["artifact"] for line in lines if line["type"] == "artifact"])
    assert "measurements.parquet" in sent
    assert ("tables/tokens.parquet" in sent) is small
    assert ("tables/tokens.parquet" in caplog.text) is not small


def test_everything_stays_under_the_directory(tmp_path):
    record(tmp_path, *finished(tmp_path))
    assert not (tmp_path / "home").exists()
    assert list((tmp_path / "out" / "wandb" / "data").rglob("tmp*"))  # the artifact's files


def test_the_line_is_a_command_that_names_the_run(tmp_path):
    line = record(tmp_path, *finished(tmp_path))
    command = shlex.split(line.partition("to upload: ")[2])
    assert command[:2] == ["wandb", "sync"]
    assert Path(command[2]) == runs(tmp_path)[0]


def test_nothing_is_printed_and_the_environment_is_left_alone(tmp_path, capfd):
    before = dict(os.environ)
    record(tmp_path, *finished(tmp_path))
    assert capfd.readouterr() == ("", "")
    after = {name: it for name, it in os.environ.items() if name != "WANDB_SERVICE"}
    assert after == before


def test_no_key_reaches_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", "hf_from_the_environment")
    monkeypatch.setattr("sys.argv", ["run.py", f"tracking.api_key={KEY}"])
    job, *rest = finished(tmp_path)
    tracker = Wandb("p", directory=tmp_path / "out", mode="offline")
    config = {**CONFIG, "note": f"{KEY} hf_from_the_environment"}
    tracker.record(job, *rest, group="g", config=config)
    assert runs(tmp_path)
    for path in tmp_path.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        for secret in (KEY, "hf_from_the_environment", "hf_from_the_config"):
            assert secret.encode() not in data, path


def pair(metric, layer, other, value=0.5, **fields):
    return Measurement(
        metric, value, "think_sft", "base", layer, reference_layer=other, variant="raw", **fields
    )


def test_pairs_of_different_layers_stay_out_of_the_layer_history():
    diagonal = [pair("cka", layer, layer, 0.9) for layer in (0, 1)]
    others = [pair("best_match", 0, 1), pair("best_match", 1, 1), pair("cka", 7, None, 0.25)]
    of_map = [pair("cka_map", layer, other) for layer in (0, 1, 2) for other in (0, 1, 2)]
    assert history([*of_map, *diagonal, *others, *of_map], "cka") == [
        {"layer": 0, "cka/raw/cka": 0.9},
        {"layer": 1, "cka/raw/cka": 0.9},
        {"layer": 7, "cka/raw/cka": 0.25},
    ]


def test_pairs_of_layers_are_in_the_runs_table(tmp_path):
    rows = [pair("cka_map", layer, other) for layer in (0, 1) for other in (0, 1)]
    job = Job("cka", SFT, BASE, "truth", {})
    folder = job.folder(tmp_path / "results")
    write(folder, Result(tuple(rows)), {"job": job.describe()})
    record(tmp_path, job, Result(tuple(rows)), folder)
    content = json.loads(inspect(runs(tmp_path)[0], "--summary"))
    assert content["summary"]["measurements"]["nrows"] == 4


def test_a_number_about_a_type_of_layers_is_not_overwritten_by_that_of_another():
    values = {"sliding_attention": 0.9, "full_attention": 0.7, "": 0.8}
    rows = [pair("cka", None, None, value, layer_type=kind) for kind, value in values.items()] + [
        pair("best_match", None, 3)
    ]
    assert summary(Result(tuple(rows)), "cka") == {
        "cka/raw/cka": 0.8,
        "cka/raw/cka/full_attention": 0.7,
        "cka/raw/cka/sliding_attention": 0.9,
    }


# ---- one run a job


def test_two_jobs_of_a_process_are_two_runs(tmp_path):
    jobs = [finished(tmp_path, seed=seed) for seed in (0, 1)]
    for job in jobs:
        record(tmp_path, *job)
    ids = {run.name.rpartition("-")[2] for run in runs(tmp_path)}
    assert ids == {job.run_id for job, *_ in jobs}


def test_a_job_that_fails_while_recording_does_not_mix_with_the_next(tmp_path, monkeypatch):
    first, second = finished(tmp_path, seed=0, value=0.25), finished(tmp_path, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(filling, "history", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # a mistake of ours is not hidden
            record(tmp_path, *first)
    record(tmp_path, *second)
    (run,) = (tmp_path / "out" / "wandb").glob(f"offline-run-*-{second[0].run_id}")
    content = json.loads(inspect(run, "--summary"))
    assert content["summary"]["auroc"] == 0.75
    assert content["config"]["job"]["identity"] == {"seed": 1}


def test_a_recorded_result_is_not_recorded_again(tmp_path):
    job = finished(tmp_path)
    first = record(tmp_path, *job)
    assert record(tmp_path, *job) == f"{first} (recorded before)"
    assert len(runs(tmp_path)) == 1


def test_another_project_is_another_record(tmp_path):
    job = finished(tmp_path)
    record(tmp_path, *job)
    again = Wandb("other", directory=tmp_path / "other", mode="offline")
    assert "recorded before" not in again.record(*job, group="g", config={})


def test_a_redone_job_replaces_its_offline_run(tmp_path):
    record(tmp_path, *finished(tmp_path))
    record(tmp_path, *finished(tmp_path, value=0.5))
    (run,) = runs(tmp_path)
    assert json.loads(inspect(run, "--summary"))["summary"]["auroc"] == 0.5


def test_a_redone_job_leaves_an_uploaded_run_alone(tmp_path):
    record(tmp_path, *finished(tmp_path))
    (run,) = runs(tmp_path)
    (run / f"{run.name}.wandb.synced").touch()
    record(tmp_path, *finished(tmp_path, value=0.5))
    assert run in runs(tmp_path)


# ---- where it is recorded


def test_auto_is_offline_without_a_key(tmp_path, caplog):
    assert record(tmp_path, *finished(tmp_path), mode="auto").startswith("W&B, offline")
    assert [it for it in caplog.records if it.name.startswith("olmo_stages")] == []


def test_auto_obeys_wandbs_own_switches(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert record(tmp_path, *finished(tmp_path), mode="auto") is None
    assert runs(tmp_path) == []


@pytest.mark.parametrize("host", ["127.0.0.1:9", "elsewhere:1"])
def test_a_key_in_netrc_counts_for_its_own_host(tmp_path, monkeypatch, host):
    path = tmp_path / "netrc"
    path.write_text(f"machine {host} login user password {KEY}\n")
    monkeypatch.setenv("NETRC", str(path))
    assert reachability.netrc_has("http://127.0.0.1:9") is (host == "127.0.0.1:9")


def test_a_damaged_netrc_counts_as_none(tmp_path, monkeypatch):
    path = tmp_path / "netrc"
    path.write_text("machine")
    monkeypatch.setenv("NETRC", str(path))
    assert not reachability.netrc_has("http://127.0.0.1:9")


# ---- W&B never costs a result


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    (tmp_path / "out").write_text("a file where the folder should be")
    job, expected, folder = finished(tmp_path)
    assert record(tmp_path, job, expected, folder) is None
    warned = [it.getMessage() for it in caplog.records if it.name.startswith("olmo_stages")]
    assert len(warned) == 1
    assert warned[0].startswith("W&B: not recorded")
    assert is_finished(folder)


def test_an_error_inside_wandb_is_one_warning_and_the_next_call_tries_again(
    tmp_path, monkeypatch, caplog
):
    job, expected, folder = finished(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(filling, "_figure", lambda _: object())  # which wandb refuses to log
        record(tmp_path, job, expected, folder)
    warned = [it.getMessage() for it in caplog.records if it.name.startswith("olmo_stages")]
    assert ["not whole" in it for it in warned] == [True]
    assert read(folder).result.headline == expected.headline
    assert "recorded before" not in record(tmp_path, job, expected, folder)
    assert len(runs(tmp_path)) == 1


def test_a_folder_without_a_result_is_refused(tmp_path):
    job, expected, folder = finished(tmp_path)
    (folder / "result.json").unlink()
    with pytest.raises(StoreError):
        record(tmp_path, job, expected, folder)


# ---- options


@pytest.mark.parametrize("options", [{"mode": "sometimes"}, {"tags": "a"}, {"timeout_s": 0}])
def test_wrong_options_are_one_line(options):
    with pytest.raises(ConfigError):
        Wandb("p", **options)


@pytest.mark.parametrize("project", ["", "a/b", "a#b"])
def test_a_project_that_wandb_would_refuse_is_one_line(project):
    with pytest.raises(ConfigError, match="project"):
        Wandb(project)


def test_none_writes_nothing(tmp_path):
    job = finished(tmp_path)
    before = set(tmp_path.rglob("*"))
    with contextlib.chdir(tmp_path):
        assert NoTracking().record(*job, group="g", config=CONFIG) is None
    assert set(tmp_path.rglob("*")) == before


def test_both_trackers_are_trackers():
    assert isinstance(NoTracking(), Tracker)
    assert isinstance(Wandb("p"), Tracker)


def test_wandb_is_imported_only_to_record():
    code = "import sys, olmo_stages.tracking.runs; print('wandb' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
