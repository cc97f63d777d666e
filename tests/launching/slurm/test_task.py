"""What a node is told of a job, and what it makes of it: here, in this process."""

import json
import os
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from olmo_stages import launch
from olmo_stages.launching.slurm import task
from olmo_stages.launching.slurm.task import SlurmTask
from olmo_stages.statuses import Status, read_statuses, write_status

JOB = "analysis=cka,model=think_sft,seed=3"


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """What is told of one job of a sweep, as text, and the folder that it was launched in."""
    place = tmp_path_factory.mktemp("launched")
    (place / "mine" / "analysis").mkdir(parents=True)
    found = []

    def note(given, params, job_overrides, first):
        del params
        loader, (words,) = given.context.config_loader, job_overrides
        found.append(task.describe(given.config, loader, JOB, list(words), first))
        raise SystemExit(0)

    words = ["-m", "--config-dir", "mine", "model=think_sft", "analysis=cka", "seed=3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", ["here/run.py"])
        patch.setenv("OLMO_STAGES_CACHE", str(place / "cache"))
        patch.setattr("olmo_stages.launching.slurm.launcher.launch", note)
        with pytest.raises(SystemExit):
            launch.main([*words, "sweep=swept", "outputs=there", "hydra/launcher=slurm"])
    GlobalHydra.instance().clear()
    assert json.loads(json.dumps(found[0])) == found[0]
    return json.dumps(found[0]), str(place)


@pytest.fixture
def told(described, tmp_path, monkeypatch):
    """What is told of one job of a sweep, as if launched in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["here/run.py"])
    monkeypatch.setenv("OLMO_STAGES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine" / "analysis").mkdir(parents=True)
    text, place = described
    yield json.loads(text.replace(place, str(tmp_path)))
    GlobalHydra.instance().clear()


@pytest.fixture
def ran(monkeypatch):
    """What jobs that are run are given."""
    given = []

    def note(cfg, settings):
        given.append((cfg, settings, Path.cwd(), list(sys.argv)))
        write_status(Path(settings.sweep.dir), Status(JOB, "ok"))

    monkeypatch.setattr(task, "Attempt", attempt(note))
    return given


def attempt(work):
    """Runs a job as a test wants it run."""

    class Attempt:
        def __init__(self, settings, program):
            assert program == "here/run.py"
            self.settings = settings

        def run(self, cfg):
            return work(cfg, self.settings)

    return Attempt


def run(told):
    SlurmTask(json.dumps(told))()


def test_a_job_is_composed_again_as_it_was(told, ran, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    run(told)
    ((cfg, settings, folder, argv),) = ran
    assert (cfg.model.name, cfg.analysis._target_.rpartition(".")[2], cfg.seed) == (
        *("think_sft", "CKA", 3),
    )
    assert set(settings.overrides.task) == {
        *("model=think_sft", "analysis=cka", "seed=3", "sweep=swept", "outputs=there"),
    }
    assert settings.mode.name == "MULTIRUN"
    assert settings.sweep.dir == "there/sweeps/swept"
    assert "mine" in [Path(it.path).name for it in settings.runtime.config_sources]
    assert folder == tmp_path
    assert argv[0] == "here/run.py"


@pytest.mark.usefixtures("told")
def test_what_is_passed_on_holds_no_secret(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-of-mine")
    monkeypatch.setenv("HF_TOKEN", "a-secret-of-mine")
    monkeypatch.setenv("HF_HOME", "/models")
    passed = task.passed_on(os.environ)
    assert passed["HF_HOME"] == "/models"
    assert passed["OLMO_STAGES_CACHE"]
    assert "a-secret-of-mine" not in passed.values()
    assert "PATH" not in passed


def test_settings_of_the_launching_shell_arrive_but_those_of_setup_count_more(
    told, ran, monkeypatch
):
    told["environment"] |= {"HF_HUB_OFFLINE": "0", "HF_HOME": "/models"}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    run(told)
    assert len(ran) == 1
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["HF_HOME"]) == ("1", "/models")
    assert "PYTHONSAFEPATH" not in os.environ


def failed(told, tmp_path):
    with pytest.raises(SystemExit) as stop:
        run(told)
    assert stop.value.code == 1
    (status,) = read_statuses(tmp_path / "there" / "sweeps" / "swept", [JOB])
    assert status.state == "failed"
    return status.error


def test_a_configuration_that_changed_meanwhile_is_not_run(told, ran, tmp_path):
    told["identity"]["analysis"] = "of another time"
    assert failed(told, tmp_path) == (
        "the configuration of analysis is not the one that was submitted; give the command again"
    )
    assert ran == []


def test_a_folder_that_the_node_does_not_have(told, ran, tmp_path):
    told["cwd"] = str(tmp_path / "not" / "here")
    assert "is not on this node; launch from a folder that all nodes see" in failed(told, tmp_path)
    assert ran == []


def test_an_older_version_of_what_is_told(told, ran, tmp_path):
    told["format"] = 0
    assert "submit it again" in failed(told, tmp_path)
    assert ran == []


def test_a_job_that_fails_ends_with_an_exit_code(told, tmp_path, monkeypatch):
    def fails(cfg, settings):
        del cfg, settings
        write_status(tmp_path / "there" / "sweeps" / "swept", Status(JOB, "failed", error="why"))

    monkeypatch.setattr(task, "Attempt", attempt(fails))
    assert failed(told, tmp_path) == "why"


def test_a_job_that_reached_its_time_limit_too_often_says_what_to_do(told, tmp_path, monkeypatch):
    def ends(cfg, settings):
        del cfg, settings
        write_status(tmp_path / "there" / "sweeps" / "swept", Status(JOB, "stopped"))
        raise RuntimeError("Job not requeued because: timed-out too many times.")

    monkeypatch.setattr(task, "Attempt", attempt(ends))
    error = failed(told, tmp_path)
    assert "hydra.launcher.max_timeouts" in error
    assert "hydra.launcher.time" in error


def test_queued_again_it_is_the_same(told):
    pytest.importorskip("submitit")
    again = SlurmTask(json.dumps(told)).checkpoint()
    assert json.loads(again.function.text) == told


def test_only_what_can_change_numbers_makes_an_identity():
    from omegaconf import OmegaConf

    config = OmegaConf.create({
        "model": {"name": "a"},
        "seed": 1,
        "outputs": "x",
        "same": "${seed}",
    })
    other = OmegaConf.create({"model": {"name": "a"}, "seed": 2, "outputs": "y"})
    assert task.differing(task.identity(config), task.identity(other)) == ["seed"]
    other.seed = 1
    assert task.differing(task.identity(config), task.identity(other)) == []
