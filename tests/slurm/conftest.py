"""One cluster for all tests here, and for each a folder and a cache of its own."""

import os

import pytest

from tests.slurm.bench import Bench
from tests.slurm.cluster import Cluster
from tests.slurm.settings import unavailable

STAGES = ("base", "think_sft", "think_dpo", "think_rlvr", "instruct_sft")


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


@pytest.fixture
def bench(cluster, family, tmp_path):
    """A place of a test's own, whose jobs are gone afterwards."""
    made = Bench.at(tmp_path, cluster, family)
    yield made
    made.close()
