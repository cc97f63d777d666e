"""Which jobs are done is found out in a process of its own."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from olmo_stages.launching.batch import Given
from olmo_stages.launching.slurm.finished import Candidate, done


@dataclass
class Job:
    """A job that says of itself what its words say."""

    says: str
    outputs: str

    def finished(self, device):
        (Path(self.outputs) / "asked").write_text(f"{device} {os.getpid()}")
        if self.says == "raises":
            raise RuntimeError
        if self.says == "dies":
            os._exit(1)
        return {"yes": True, "no": False, "unknown": None}[self.says]


class Loader:
    def load_sweep_config(self, config, words):
        job = {"_target_": f"{__name__}.Job", "says": words[0], "outputs": config.outputs}
        return OmegaConf.create({**job, "hydra": {"runtime": {"config_sources": []}, "job": {}}})


class Context:
    config_loader = Loader()


@pytest.fixture
def given(tmp_path):
    (tmp_path / "norms" / "base.tiny" / "truth").mkdir(parents=True)
    (tmp_path / "norms" / "base.tiny" / "truth" / "result.json").touch()
    return Given(Context(), None, OmegaConf.create({"outputs": str(tmp_path)}))


def candidates(*words):
    return [Candidate(it, [it], [it], i, "cuda") for i, it in enumerate(words)]


def test_those_that_are_done_are_found(given, tmp_path):
    found = done(given, candidates("no", "yes", "unknown", "raises"))
    assert [it.job for it in found] == ["yes"]
    device, pid = (tmp_path / "asked").read_text().split()
    assert device == "cuda"
    assert int(pid) != os.getpid()


def test_a_job_whose_check_kills_the_process_is_not_done(given):
    assert done(given, candidates("yes", "dies")) == []


def test_where_there_is_no_result_nothing_is_looked_at(given, tmp_path):
    (tmp_path / "norms" / "base.tiny" / "truth" / "result.json").unlink()
    assert done(given, candidates("yes")) == []
    assert not (tmp_path / "asked").exists()
