"""One cluster for all tests here, and for each a folder and a cache of its own."""

import json
import os

import pytest

from tests.slurm.bench import Bench
from tests.slurm.cluster import Cluster
from tests.slurm.settings import unavailable

STAGES = ("base", "think_sft", "think_dpo", "think_rlvr", "instruct_sft")
N_SHARDS = 12


def pytest_collection_modifyitems(items):
    for item in items:
        if "/tests/slurm/" in item.path.as_posix():
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def cluster():
    """Runs while the tests do. Without it they are skipped, or fail where one must be there."""
    reason = unavailable()
    if reason is not None and os.environ.get("OLMO_STAGES_REQUIRE_SLURM") == "1":
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """A cache in which the stages of the miniature family are there, untrained.

    How jobs get on does not depend on what a model has learnt, and training takes minutes.
    """
    from olmo_stages.miniature.family import RECIPE
    from olmo_stages.miniature.model import new_model, save_checkpoint
    from olmo_stages.miniature.recipe import chats

    cache = tmp_path_factory.mktemp("family")
    for seed, stage in enumerate(STAGES):
        folder = cache / "miniature" / RECIPE.digest(0) / stage / "main"
        folder.mkdir(parents=True)
        save_checkpoint(new_model(RECIPE.architecture, seed), folder, chat=chats(stage))
    return cache


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """Options of a data set of twelve shards."""
    from olmo_stages.activations.store import SHARD_EXAMPLES
    from olmo_stages.miniature.world import vocabulary

    words = [it for it in vocabulary() if it.isalpha()][:100]
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    rows = [
        {"id": f"t{i}", "text": f"{words[i % 100]} {words[i // 100]} {words[i * 7 % 100]}"}
        for i in range(N_SHARDS * SHARD_EXAMPLES)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return ["data=file", f"data.path={path}", "data.unlabelled=true"]


@pytest.fixture(scope="session")
def timed(cluster, family, texts, tmp_path_factory):
    """A launch of one job that needs longer than its time limit, which is a minute at least.

    Slurm looks at time limits twice a minute, and tells half a minute earlier than it was asked to.
    """
    bench = Bench.at(tmp_path_factory.mktemp("timed"), cluster, family)
    bench.pace(5.0)
    yield bench.launch(
        *("model=think_sft", *texts, "hydra.launcher.partition=apart"),
        *("hydra.launcher.time=1m", "hydra.launcher.signal_delay_s=1"),
    )
    bench.close()


@pytest.fixture(scope="session", autouse=True)
def _begin_with_what_takes_longest(request):
    if any("timed" in item.fixturenames for item in request.session.items):
        request.getfixturevalue("timed")


@pytest.fixture(scope="module")
def benches(cluster, family, tmp_path_factory):
    """Makes places by name, for what several tests of a module look at."""
    made = []

    def make(name):
        made.append(Bench.at(tmp_path_factory.mktemp(name), cluster, family))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(cluster, family, tmp_path):
    """A place of a test's own, whose jobs are gone afterwards."""
    made = Bench.at(tmp_path, cluster, family)
    yield made
    made.close()
