"""A sweep on Slurm: every result, one array, no more at a time than asked for, nothing twice."""

import pytest

from olmo_stages.records import read

COSINE = [
    *("analysis=cosine", "analysis.n_permutations=19", "analysis.n_unrelated=19"),
    *("analysis.n_folds=2", "analysis.n_resamples=100"),
]
STAGES = ["base", "think_dpo", "think_sft"]


@pytest.fixture(scope="module")
def bench(benches):
    return benches("submission")


@pytest.fixture(scope="module")
def alone(benches):
    """One of its jobs without Slurm."""
    return benches("alone").run("hydra/launcher=basic", "model=think_dpo", *COSINE)


@pytest.fixture(scope="module")
def swept(bench, alone):
    """A sweep of three jobs, two at a time."""
    del alone  # begins at the same time
    launch = bench.launch(
        f"model={','.join(STAGES)}", *COSINE, "hydra.launcher.array_parallelism=2", "report=true"
    )
    return launch.ended()


def test_the_launcher_ends_with_every_result_and_one_table(bench, swept):
    assert swept.code == 0, bench.told()
    assert bench.results() == STAGES
    assert {it.state for it in bench.statuses().values()} == {"ok"}
    last = swept.out[swept.out.rindex("best layer" if "best layer" in swept.out else "stage") :]
    assert all(stage in last for stage in STAGES)
    assert (bench.sweep / "report" / "index.html").exists()


def test_its_jobs_are_one_array(bench, swept):
    assert swept.code == 0
    ids = bench.submitted()
    assert len({it.partition("_")[0] for it in ids}) == 1
    assert {it.partition("_")[2] for it in ids} == {"0", "1", "2"}


def test_no_more_run_at_a_time_than_asked_for(bench, swept):
    assert swept.code == 0
    bench.until(lambda: all(it["End"] != "Unknown" for it in bench.accounted()), "ends")
    first, second, third = sorted(bench.accounted(), key=lambda it: it["Start"])
    assert second["Start"] < first["End"]
    assert third["Start"] >= min(first["End"], second["End"])


def test_the_numbers_are_those_of_a_run_without_slurm(bench, swept, alone):
    assert swept.code == 0
    assert alone.ended().code == 0, alone.bench.told()
    (here,) = alone.bench.result_folders()
    (there,) = [it for it in bench.result_folders() if it.parent.name == here.parent.name]
    assert there.name == here.name
    assert read(there).digest == read(here).digest


def test_the_same_sweep_in_another_order_submits_nothing(bench, swept):
    assert swept.code == 0
    before = bench.submitted()
    again = bench.launch(f"model={','.join(reversed(STAGES))}", *COSINE).ended()
    assert again.code == 0, bench.told()
    assert bench.submitted() == before
    assert {it.state for it in bench.statuses().values()} == {"cached"}
