"""Jobs that want the same activations compute them once, together, on whatever nodes they are."""

from tests.slurm.conftest import N_SHARDS


def test_jobs_of_two_nodes_compute_shared_activations_once(bench, texts):
    bench.pace(1.0)
    # Two fit on a node, so that four are on both.
    launch = bench.launch("model=think_sft", "seed=0,1,2,3", *texts, "hydra.launcher.cpus=2")
    launch.ended()
    assert launch.code == 0, bench.told()
    assert len(bench.result_folders()) == 4
    shards = bench.done("shard")
    assert sorted(it["part"] for it in shards) == list(range(N_SHARDS)), shards
    assert len({it["entry"] for it in shards}) == 1
    assert {it["node"] for it in shards} == {"n1", "n2"}
    assert len({it["job_id"] for it in shards}) > 1


def test_jobs_that_want_different_ones_compute_each_its_own(bench):
    launch = bench.launch("model=think_sft,think_dpo").ended()
    assert launch.code == 0, bench.told()
    shards = bench.shards()
    assert len({entry for entry, _ in shards}) == len(shards) == 2
