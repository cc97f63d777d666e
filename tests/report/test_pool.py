"""Jobs of several sweeps as one: each once, done if done anywhere."""

import pytest

from olmo_stages.records import Status, read_statuses, write_status
from olmo_stages.report.pool import pool
from tests.report.jobs import BASE, DPO, SFT, damage, fail, finish


@pytest.fixture
def sweeps(tmp_path):
    return [tmp_path / "outputs" / "sweeps" / name for name in "ab"]


def pooled(sweeps):
    return pool({it: read_statuses(it) for it in sweeps})


def test_a_job_of_two_sweeps_counts_once(sweeps):
    for sweep in sweeps:
        finish(sweep, SFT, BASE)
    finish(sweeps[1], DPO, BASE)
    assert sorted(it.stage for it in pooled(sweeps).done) == ["think_dpo", "think_sft"]


def test_what_failed_in_one_sweep_and_is_done_in_another_is_done(sweeps):
    one, other = sweeps
    fail(one, "think_sft")
    finish(other, SFT, BASE, overrides=["model=think_sft", "analysis=mine", "size=tiny"])
    assert pooled(sweeps).undone == ()
    assert [it.status.state for it in pooled([one]).undone] == ["failed"]


@pytest.mark.parametrize(
    "overrides",
    [["model=think_sft", "analysis=other", "size=tiny"], ["model=think_sft", "analysis=mine"], []],
)
def test_other_settings_are_another_job(sweeps, overrides):
    one, other = sweeps
    fail(one, "think_sft")
    finish(other, SFT, BASE, overrides=overrides)
    assert len(pooled(sweeps).undone) == 1


def test_where_and_how_a_job_runs_does_not_tell_it_apart(sweeps):
    one, other = sweeps
    fail(one, "think_sft")
    own = ["size=tiny", "model=think_sft", "analysis=mine", "outputs=x", "compute.device=cpu"]
    finish(other, SFT, BASE, overrides=own)
    assert pooled(sweeps).undone == ()


def test_a_failed_job_that_says_another_stage_is_another_job(sweeps):
    one, other = sweeps
    about = {"stage": "think_sft", "size": "7b", "data": "manners"}
    write_status(one, Status("x", "failed", overrides=["model=think_sft"], about=about))
    finish(other, SFT, BASE, overrides=["model=think_sft"])
    assert len(pooled(sweeps).undone) == 1


def test_a_damaged_result_is_no_result(sweeps):
    folder = finish(sweeps[0], SFT, BASE)
    damage(folder / "measurements.parquet")
    (found,) = pooled(sweeps[:1]).undone
    assert "measurements.parquet is damaged" in found.damaged


def test_a_missing_tensor_file_is_damage_too(sweeps):
    folder = finish(sweeps[0], SFT, BASE)
    (folder / "tensors.safetensors").unlink()
    (found,) = pooled(sweeps[:1]).undone
    assert "is damaged" in found.damaged


def test_rows_come_back_as_they_were_written(sweeps):
    from olmo_stages.records import read
    from tests.report.jobs import layers, moved

    folder = finish(sweeps[0], rows=[*layers("think_sft", "base"), moved(0.1, "think_sft")])
    (found,) = pooled(sweeps[:1]).done
    assert found.rows == read(folder).result.measurements
