"""Jobs that lose their node, to others, to the clock or to a fault: queued again, going on."""

import json

from tests.slurm.conftest import N_SHARDS


def computed_once(bench):
    """Every shard was computed, and each a single time, whatever happened in between."""
    return sorted(part for _, part in bench.shards()) == list(range(N_SHARDS))


def starts(bench):
    """Which start of the job computed each shard, in their order: 0 for the first."""
    return [int(it["restart_count"] or 0) for it in bench.done("shard")]


def test_a_preempted_job_goes_on_from_its_shards(bench, texts):
    bench.pace(0.7)
    launch = bench.launch(
        "model=think_sft", *texts, "hydra.launcher.partition=low", "hydra.launcher.gpus=1"
    )
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


def test_a_job_of_a_node_that_goes_down_goes_on_on_another(bench, texts):
    bench.pace(0.7)
    launch = bench.launch("model=think_sft", *texts)
    bench.until(lambda: len(bench.shards()) >= 3, "three shards")
    (node,) = {it["node"] for it in bench.done("shard")}
    down = ("scontrol", "update", f"nodename={node}")
    bench.cluster.ask(*down, "state=down", "reason=test")
    try:
        launch.ended()
    finally:
        bench.cluster.ask(*down, "state=resume")
    assert launch.code == 0, bench.told()
    assert bench.results() == ["think_sft"]
    shards = bench.done("shard")
    assert {it["node"] for it in shards} == {"n1", "n2"}
    # Its process may be killed in the middle of one.
    assert len(shards) <= N_SHARDS + 1
    assert {it["part"] for it in shards} == set(range(N_SHARDS))


def test_a_job_at_its_time_limit_goes_on_in_a_new_one(timed):
    bench, launch = timed.bench, timed.ended(180)
    assert launch.code == 0, bench.told()
    assert bench.results() == ["think_sft"]
    assert computed_once(bench), bench.done("shard")
    assert set(starts(bench)) == {0, 1}
    assert len(bench.submitted()) == 1


def test_a_requeued_job_goes_on_with_its_run_of_wandb(bench):
    bench.put("hold-run")
    launch = bench.launch("model=think_sft", "tracking=wandb")
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
