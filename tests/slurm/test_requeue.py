"""Jobs that lose their node, to others, to the clock or to a fault: queued again, going on."""

import json

import pytest

from tests.slurm.conftest import N_SHARDS


def computed_once(bench):
    """Every shard was computed, and each a single time, whatever happened in between."""
    return sorted(part for _, part in bench.shards()) == list(range(N_SHARDS))


def starts(bench):
    """Which start of the job computed each shard, in their order: 0 for the first."""
    return [int(it["restart_count"] or 0) for it in bench.done("shard")]


@pytest.fixture(scope="module")
def launched(benches, texts):
    """Jobs that are about to lose their node, all at once, since each waits for long."""
    preempted, cut_off, requeued = map(benches, ("preempted", "cut_off", "requeued"))
    preempted.pace(1.0)
    cut_off.put("hold-shard3")
    requeued.put("hold-run")
    return {
        "preempted": preempted.launch(*(
            "model=think_sft",
            *texts,
            "hydra.launcher.partition=low",
            "hydra.launcher.gpus=1",
        )),
        "cut_off": cut_off.launch("model=think_sft", *texts, "hydra.launcher.partition=fragile"),
        "requeued": requeued.launch("model=think_sft", "tracking=wandb"),
    }


@pytest.fixture(scope="module")
def lost_node(launched):
    """The node that was cut off in the middle of a shard; what it did goes on meanwhile."""
    bench = launched["cut_off"].bench
    bench.until(lambda: len(bench.shards()) == 3, "three shards")
    (node,) = {it["node"] for it in bench.done("shard")}
    bench.take("hold-shard3")
    bench.cluster.cut_off(node)
    return node


def test_a_preempted_job_goes_on_from_its_shards(launched):
    bench, launch = launched["preempted"].bench, launched["preempted"]
    bench.until(lambda: len(bench.shards()) >= 3, "three shards")
    rival = bench.cluster.ask(
        *("sbatch", "--parsable", "-p", "main", "-N2", "--gpus-per-node=2", "--mem=100"),
        *("--output=/dev/null", "--wrap", "sleep 1"),
    ).strip()
    bench.until(lambda: {"PREEMPTED"} & {it["State"] for it in bench.accounted()}, "preempted")
    bench.cluster.ask("scancel", rival)
    launch.ended()
    assert launch.code == 0, bench.told()
    assert bench.statuses()["think_sft"].state == "ok"
    assert bench.results() == ["think_sft"]
    assert computed_once(bench), bench.done("shard")
    assert set(starts(bench)) == {0, 1}
    assert len(bench.submitted()) == 1


@pytest.mark.usefixtures("lost_node")
def test_a_requeued_job_goes_on_with_its_run_of_wandb(launched):
    bench, launch = launched["requeued"].bench, launched["requeued"]
    bench.until(lambda: bench.done("run"), "a run of W&B")
    (folder,) = bench.result_folders()
    assert not (folder / "tracking.json").exists()
    bench.cluster.ask("scontrol", "requeue", bench.statuses()["think_sft"].slurm)
    bench.until(lambda: len(bench.done("run")) == 2, "it again")
    bench.take("hold-run")
    launch.ended()
    assert launch.code == 0, bench.told()
    assert [it["restart_count"] for it in bench.done("run")] == [None, "1"]
    (run,) = {it["run"] for it in bench.done("run")}
    assert json.loads((folder / "tracking.json").read_text())["run_id"] == run
    kept = (bench.folder / "outputs" / "wandb").glob("offline-run-*")
    assert [it.name.rpartition("-")[2] for it in kept] == [run]
    # The result was there already.
    assert len(bench.analysing()) == len(bench.done("analysis")) == 1


def test_a_job_of_a_node_that_is_cut_off_goes_on_on_another(launched, lost_node):
    bench, launch = launched["cut_off"].bench, launched["cut_off"].ended()
    assert launch.code == 0, bench.told()
    assert bench.results() == ["think_sft"]
    # The shard that it was at is computed again, and that one alone.
    assert computed_once(bench), bench.done("shard")
    assert starts(bench) == [0] * 3 + [1] * (N_SHARDS - 3)
    assert {it["node"] for it in bench.done("shard")} == {"n3", "n4"}
    assert {it["node"] for it in bench.done("shard")[:3]} == {lost_node}
    assert len(bench.submitted()) == 1


def test_a_job_at_its_time_limit_goes_on_in_a_new_one(timed):
    bench, launch = timed.bench, timed.ended()
    assert launch.code == 0, bench.told()
    assert bench.results() == ["think_sft"]
    assert computed_once(bench), bench.done("shard")
    assert len(set(starts(bench))) > 1
    assert len(bench.submitted()) == 1
    assert "REQUEUED" in {it["State"] for it in bench.accounted()}
