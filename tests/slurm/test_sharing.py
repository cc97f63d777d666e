"""Jobs that want the same activations compute them once, together, on whatever nodes they are."""

from tests.slurm.conftest import N_SHARDS


def test_jobs_of_two_nodes_compute_what_they_share_once(bench, texts):
    bench.pace(1.0)
    # Two fit on a node, and of each pair that shares, one is on either.
    launch = bench.launch(
        "seed=0,1", "model=think_sft,think_dpo", *texts, "hydra.launcher.cpus=2"
    ).ended()
    assert launch.code == 0, bench.told()
    assert len(bench.result_folders()) == 4
    entries = {it["entry"] for it in bench.done("shard")}
    assert len(entries) == 2
    for entry in entries:
        shards = [it for it in bench.done("shard") if it["entry"] == entry]
        assert sorted(it["part"] for it in shards) == list(range(N_SHARDS)), shards
        assert {it["node"] for it in shards} == {"n1", "n2"}
