import sys

import pytest

from olmo_stages import launch
from olmo_stages.activations.store import default_store
from olmo_stages.activations.upkeep import ls
from olmo_stages.records import read

CKA = [
    "analysis=cka",
    "analysis.n_resamples=100",
    "analysis.n_permutations=19",
    "model=custom",
    "data=manners",
    "data.vocabulary=miniature",
    "reference=none",
    "analysis.random_init=false",
    "tracking=none",
    "report=false",
    "compute.threads=1",
]


@pytest.fixture
def run(tmp_path, monkeypatch, checkpoints):
    """Runs a sweep in this process; returns what its store holds, and the values of each result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py"])

    def go(*words):
        own = [*CKA, f"model.path={checkpoints[0]}", "cache=cache", "hydra/launcher=basic"]
        launch.main(["-m", *own, *words])
        found = [
            [row.value for row in read(path.parent).result.measurements]
            for path in (tmp_path / "outputs").rglob("result.json")
        ]
        return ls(default_store(tmp_path / "cache")), found

    return go


def test_jobs_that_read_one_stage_at_several_sites_share_its_pass(run):
    rows, together = run("analysis.site=resid_mid,attn_out", "sweep=both")
    assert len(rows) == 1
    assert {it.partition("/")[0] for it in rows[0].captures} == {"resid_mid", "attn_out"}
    assert len(together) == 2


def test_they_share_that_of_random_weights_too(run):
    rows, _ = run("analysis.random_init=true", "analysis.site=resid_mid,attn_out", "sweep=both")
    assert len(rows) == 2
    for row in rows:
        assert {it.partition("/")[0] for it in row.captures} == {"resid_mid", "attn_out"}


def test_jobs_that_are_launched_apart_have_a_pass_each(run):
    run("analysis.site=resid_mid", "sweep=one")
    rows, apart = run("analysis.site=attn_out", "sweep=other")
    assert len(rows) == 2
    assert len(apart) == 2
