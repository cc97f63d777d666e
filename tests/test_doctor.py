import io
import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import constants
from rich.console import Console
from typer.testing import CliRunner

from olmo_stages import doctor, environment
from olmo_stages.cli import app
from olmo_stages.doctor import Machine
from olmo_stages.environment import EXTRAS, Extra, Finding

SECRET = "hf_" + "x" * 30


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def machine(tmp_path, **options):
    return Machine(tmp_path / "cache", tmp_path / "outputs", **options)


def by_name(findings):
    return {it.name: it for it in findings}


def test_this_machine_is_fit_enough_for_the_tests(tmp_path):
    found = by_name(doctor.examine(machine(tmp_path)))
    for name in ("python", "torch", "transformers", "tokenizers", "huggingface_hub", "cache"):
        assert found[name].state != "error", found[name]
    assert {"wandb", "outputs", "hub cache", "hub login", "miniature family", "slurm"} <= set(found)
    assert {it.package for it in EXTRAS} <= set(found)


def test_no_network_unless_asked(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("olmo_stages.revisions.hub.branches", lambda *it: asked.append(it) or {})
    assert "hub" not in by_name(doctor.examine(machine(tmp_path)))
    assert asked == []
    assert "hub" in by_name(doctor.examine(machine(tmp_path, online=True)))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("4.57.6", "warning"),
        ("5.0.0", "error"),
        ("5.3.0", "error"),
        ("5.12.1", "error"),
        ("5.13.0", "ok"),
        ("5.23.0", "ok"),
        ("6.0.0", "ok"),
        (None, "error"),
    ],
)
def test_versions_of_transformers(version, state):
    found = environment.transformers_version(version)
    assert found.state == state
    assert (found.remedy == "pip install 'transformers>=5.13'") == (state != "ok")


def test_an_old_python_is_an_error():
    assert environment.python_version((3, 10, 4)).state == "error"
    assert environment.python_version((3, 11, 0)).state == "ok"


def test_every_gpu_has_its_line(monkeypatch):
    import torch

    def memory(index):
        if index == 1:
            raise RuntimeError("CUDA-capable device(s) is/are busy")
        return 60 * 10**9, 80 * 10**9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    _, first, second = environment.torch_devices()
    assert (first.state, first.found) == ("ok", "GPU 0, 80 GB, 60 GB free")
    assert second.state == "warning"
    assert "busy" in second.found


def test_a_package_that_must_be_there():
    found = environment.library("no-such-package", "provider>=1")
    assert (found.state, found.remedy) == ("error", "pip install 'provider>=1'")


@pytest.mark.parametrize("where", ["variable", "file"])
def test_a_login_is_seen_and_its_token_is_not_shown(tmp_path, monkeypatch, where):
    assert by_name(environment.hub())["hub login"].remedy == "hf auth login"
    if where == "variable":
        monkeypatch.setenv("HF_TOKEN", SECRET)
    else:
        (tmp_path / "token").write_text(SECRET)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    findings = doctor.examine(machine(tmp_path))
    assert by_name(findings)["hub login"].found == "logged in"
    assert "logged in" in by_name(findings)["wandb"].found
    out = io.StringIO()
    doctor.show(findings, Console(file=out, width=300))
    assert SECRET not in out.getvalue() + doctor.to_json(findings)


def test_offline_mode_is_a_warning(monkeypatch):
    assert by_name(environment.hub())["hub mode"].state == "warning"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "hub mode" not in by_name(environment.hub())


def test_the_mode_of_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert environment.wandb().found.endswith("WANDB_MODE=offline")


def test_a_key_in_netrc_is_a_login_of_wandb(tmp_path):
    assert "not logged in" in environment.wandb().found
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {SECRET}\n")
    assert "not logged in" not in environment.wandb().found


def test_a_folder_that_will_be_made_is_judged_by_the_one_above_and_not_made(tmp_path):
    path = tmp_path / "a" / "b"
    assert environment.folder("cache", path, 1.0).state == "ok"
    assert not (tmp_path / "a").exists()


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    found = environment.folder("cache", tmp_path / "file" / "cache", 1.0)
    assert found.state == "error"
    assert "OLMO_STAGES_CACHE" in found.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    assert environment.folder("outputs", tmp_path / "outputs", 1.0).state == "error"


def test_a_disk_that_refuses_is_an_error(tmp_path, monkeypatch):
    def refuse(**options):
        assert options == {"dir": tmp_path}
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    found = environment.folder("outputs", tmp_path, 1.0)
    assert (found.state, found.found) == ("error", f"{tmp_path}: Read-only file system")


def test_little_room_is_a_warning(tmp_path):
    assert environment.folder("hub cache", tmp_path, 1e30).state == "warning"


def test_the_miniature_family_is_counted(tmp_path):
    from olmo_stages.miniature.family import RECIPE

    assert environment.miniature(tmp_path).found == "0 of 12 stages"
    (tmp_path / "miniature" / RECIPE.digest(0) / "base").mkdir(parents=True)
    assert environment.miniature(tmp_path).found == "1 of 12 stages"
    (tmp_path / "miniature" / RECIPE.digest(0) / "olmo2_base").mkdir()
    assert environment.miniature(tmp_path).found == "1 of 12 stages, 1 of 4 of OLMo 2"


def test_a_missing_extra_has_its_line_and_is_no_trouble():
    found = environment.extra(Extra("no-such-package", "nothing", "pip install it"))
    assert (found.state, found.remedy) == ("ok", "pip install it")


@pytest.mark.parametrize(
    ("commands", "state"),
    [((), "ok"), (("sbatch",), "warning"), (("sbatch", "srun", "squeue", "scontrol"), "ok")],
)
def test_commands_of_slurm(commands, state, monkeypatch):
    monkeypatch.setattr(environment, "versions", lambda names: dict.fromkeys(names, "1.2"))
    assert environment.slurm(lambda it: it if it in commands else None).state == state


def test_slurm_without_its_launcher_is_a_warning(monkeypatch):
    monkeypatch.setattr(environment, "versions", lambda names: dict.fromkeys(names))
    found = environment.slurm(lambda it: it)
    assert (found.state, found.remedy) == ("warning", "pip install 'olmo-stages[slurm]'")


def test_stages_with_the_same_weights_are_a_warning(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / "outputs" / "probe" / name / "truth"
        folder.mkdir(parents=True)
        job = {"stage": {"label": name, "size": "7b"}, "reference": None}
        record = {"job": job, "model_digests": {name: "d1"}}
        (folder / "provenance.json").write_text(json.dumps(record))
    (found,) = environment.same_weights(tmp_path / "outputs")
    assert found.state == "warning"
    assert "a (7b) and b (7b)" in found.found


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("warning", 0), ("error", 1)])
@pytest.mark.parametrize("format", ["text", "json"])
def test_the_exit_code_tells_of_an_error(monkeypatch, state, code, format):
    monkeypatch.setattr(doctor, "examine", lambda _: (Finding("torch", state, "x", "y"),))
    done = CliRunner().invoke(app, ["doctor", "--format", format])
    assert done.exit_code == code
    if format == "json":
        row = {"name": "torch", "state": state, "found": "x", "remedy": "y"}
        assert json.loads(done.output) == [row]
    else:
        assert "torch" in done.output


def test_importing_the_doctor_does_not_import_torch():
    code = "import sys, olmo_stages.doctor; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
