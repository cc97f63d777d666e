"""The launcher as somebody sits before it: interrupted, come back to, refused."""

import pytest


def test_jobs_outlive_their_launcher_and_the_same_command_comes_back_to_them(bench):
    bench.put("hold-think_sft")
    first = bench.launch("model=think_sft,think_dpo")
    bench.until(lambda: bench.analysing() == {"think_sft", "think_dpo"}, "both run")
    first.interrupt()
    assert first.ended(30).code == 130, bench.told()
    ids = bench.submitted()
    (array,) = {it.partition("_")[0] for it in ids}
    told = first.out + first.err
    assert "squeue" in told
    assert f"scancel {array}" in told or "scancel" in told, told
    assert bench.queued()
    assert "Traceback" not in told

    second = bench.launch("model=think_sft,think_dpo")
    bench.until(lambda: array in second.out + second.err, "it says whom it waits for")
    assert second.code is None
    bench.take("hold-think_sft")
    assert second.ended().code == 0, bench.told()
    assert bench.submitted() == ids
    assert bench.results() == ["think_dpo", "think_sft"]


def test_a_dry_run_submits_nothing(bench):
    launch = bench.launch("model=think_sft,think_dpo", "dry_run=true").ended()
    assert launch.code == 0, bench.told()
    assert "think_dpo" in launch.out
    assert bench.submitted() == set()
    assert not (bench.folder / "outputs").exists()


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("hydra.launcher.partition=mian", ["mian", "main"]),
        ("hydra.launcher.gpus=9", ["hydra.launcher.gpus=9"]),
        ("hydra.launcher.timeout=5", ["hydra.launcher.timeout", "time"]),
    ],
)
def test_what_slurm_refuses_is_one_line_and_no_job(bench, wish, words):
    launch = bench.launch("model=think_sft", wish).ended(60)
    assert launch.code not in {0, None}, bench.told()
    lines = launch.err.strip().splitlines()
    assert len(lines) == 1, launch.err
    for word in words:
        assert word in lines[0]
    assert bench.queued() == []
    # Slurm may account for what it refused, as failed.
    assert {it["NodeList"] for it in bench.accounted()} <= {"None assigned"}


def test_a_job_that_no_node_can_ever_run_is_told_of_at_once(bench):
    launch = bench.launch("model=think_sft", "hydra.launcher.cpus=64")
    bench.until(
        lambda: launch.code is not None or "hydra.launcher.cpus" in launch.out + launch.err,
        "what is wrong is told",
        30,
    )
    assert "PartitionConfig" in launch.out + launch.err or launch.code not in {0, None}
