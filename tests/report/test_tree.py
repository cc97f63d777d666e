"""The lineage of a study: whole, in order, and no two stages under one name."""

import pytest

from olmo_stages.records import read_statuses
from olmo_stages.report.pool import pool
from olmo_stages.report.tree import tree
from olmo_stages.stages import custom, lookup
from olmo_stages.types import Stage
from tests.report.jobs import BASE, DPO, SFT, fail, finish


@pytest.fixture
def sweep(tmp_path):
    return tmp_path / "outputs" / "sweeps" / "s"


def nodes(*sweeps):
    return tree(pool({it: read_statuses(it) for it in sweeps})).nodes()


def parents(*sweeps):
    return {it.label: it.parent for it in nodes(*sweeps)}


def test_ancestors_make_the_tree_whole_and_come_first(sweep):
    finish(sweep, DPO, BASE)
    found = nodes(sweep)
    assert [(it.label, it.parent, it.measured) for it in found] == [
        ("base", "", False),
        ("think_sft", "base", False),
        ("think_dpo", "think_sft", True),
    ]
    assert {it.size for it in found} == {"tiny"}


def test_siblings_are_in_the_order_of_the_lineage(sweep):
    for name in ("rl_zero_math", "instruct_sft", "think_sft", "think_dpo"):
        finish(sweep, lookup(name, "tiny"), BASE)
    assert list(parents(sweep)) == [
        "base",
        "think_sft",
        "think_dpo",
        "instruct_sft",
        "rl_zero_math",
    ]


def test_revisions_are_a_chain_in_the_order_of_training(sweep):
    for revision in ("stage2-step100", "stage1-step200", "stage1-step50"):
        finish(sweep, Stage("base", "tiny", "miniature", revision), BASE)
    finish(sweep, Stage("think_sft", "tiny", "miniature", "step20", parent=BASE), BASE)
    finish(sweep, SFT, None)
    assert parents(sweep) == {
        "base@stage1-step50": "",
        "base@stage1-step200": "base@stage1-step50",
        "base@stage2-step100": "base@stage1-step200",
        "base": "base@stage2-step100",
        "think_sft@step20": "base",
        "think_sft": "think_sft@step20",
    }


def test_a_stage_that_was_compared_with_its_parent_stays_below_it(sweep):
    steps = [Stage("think_sft", "tiny", "miniature", f"step{n}", parent=BASE) for n in (40, 20)]
    for stage in (*steps, SFT):
        finish(sweep, stage, BASE)
    assert parents(sweep) == {
        "base": "",
        "think_sft@step20": "base",
        "think_sft@step40": "think_sft@step20",
        "think_sft": "base",
    }


def test_runs_side_by_side_all_come_from_the_parent_of_their_stage(sweep):
    base = lookup("base", "32b")
    for revision in ("5e-5-step1000", "5e-5-step2000", "1e-4-step1000", "main"):
        finish(sweep, Stage("think_sft", "32b", "hub", revision, parent=base), base)
    assert parents(sweep) == {
        "base": "",
        "think_sft": "base",
        "think_sft@1e-4-step1000": "base",
        "think_sft@5e-5-step1000": "base",
        "think_sft@5e-5-step2000": "think_sft@5e-5-step1000",
    }


def test_one_label_in_two_sizes_is_two_stages(sweep):
    finish(sweep, SFT, BASE)
    large = lookup("think_sft", "7b")
    finish(sweep, large, large.parent)
    assert parents(sweep) == {
        "base (tiny)": "",
        "think_sft (tiny)": "base (tiny)",
        "base (7b)": "",
        "think_sft (7b)": "base (7b)",
    }


def test_two_families_have_a_root_each(sweep):
    other = lookup("olmo2_sft", "tiny")
    finish(sweep, other, other.parent)
    finish(sweep, SFT, BASE)
    found = parents(sweep)
    assert [label for label, parent in found.items() if not parent] == ["base", "olmo2_base"]
    assert found["olmo2_sft"] == "olmo2_base"


def test_a_users_checkpoint_hangs_where_its_configuration_says(sweep):
    own = custom(path="dir", name="mine", parent="think_sft", revision="main", size="tiny")
    model = {"name": "mine", "parent": "think_sft", "size": "tiny"}
    finish(sweep, own, None, config={"model": model})
    assert parents(sweep) == {"base": "", "think_sft": "base", "mine": "think_sft"}


def test_without_a_parent_it_is_a_root(sweep):
    own = custom(path="dir", name="mine", parent=None, revision="main", size="tiny")
    finish(sweep, own, None, config={"model": {"parent": None, "size": "tiny"}})
    (node,) = nodes(sweep)
    assert (node.label, node.parent, node.size) == ("mine", "", "custom")


def test_one_named_like_its_parent_is_no_child_of_its_own(sweep):
    own = custom(path="dir", name="think_sft", parent="think_sft", revision="main", size="tiny")
    finish(sweep, own, None, config={"model": {"parent": "think_sft", "size": "tiny"}})
    assert parents(sweep)["think_sft"] == ""


def test_an_average_hangs_below_what_its_members_share(sweep):
    model = {
        "_target_": "olmo_stages.soups.soup",
        "of": ["think_dpo", "instruct_sft"],
        "weights": None,
        "name": "mix",
        "parent": None,
        "tokenizer": "think_dpo",
        "size": "tiny",
    }
    finish(sweep, Stage("mix", "tiny", "0.5 a + 0.5 b"), SFT, config={"model": model})
    assert parents(sweep)["mix"] == "think_sft"


def test_an_average_of_members_unknown_here_is_a_root(sweep):
    model = {"_target_": "olmo_stages.soups.soup", "of": ["gone"], "parent": None, "size": "tiny"}
    finish(sweep, Stage("mix", "tiny", "gone"), BASE, config={"model": model})
    assert parents(sweep)["mix"] == ""


def test_a_stage_of_a_users_own_yaml_hangs_where_its_job_says(sweep):
    config = {"reference": "parent", "model": {"parent": "think_sft", "size": "tiny"}}
    finish(sweep, Stage("my_dpo", "tiny", "dir"), SFT, config=config)
    assert parents(sweep)["my_dpo"] == "think_sft"


def test_a_random_initialisation_is_no_child(sweep):
    finish(sweep, Stage("think_sft", "tiny", "miniature", random_init=0, parent=BASE), None)
    assert parents(sweep) == {"think_sft (random)": ""}


@pytest.mark.parametrize("state", ["failed", "killed", "missing"])
def test_stages_without_a_result_are_drawn_as_failed(sweep, state):
    finish(sweep, SFT, BASE)
    fail(sweep, "think_dpo", state)
    (found,) = [it for it in nodes(sweep) if it.label == "think_dpo"]
    assert (found.parent, found.measured, found.failed) == ("think_sft", False, True)
    assert not any(it.failed for it in nodes(sweep) if it.label != "think_dpo")


def test_a_stage_may_be_measured_by_one_analysis_and_fail_in_another(sweep):
    finish(sweep, SFT, BASE)
    fail(sweep, "think_sft", name="other")
    (found,) = [it for it in nodes(sweep) if it.label == "think_sft"]
    assert found.measured
    assert not found.failed


def test_a_failed_job_of_no_known_stage_is_in_no_tree(sweep):
    from olmo_stages.records import Status, write_status

    write_status(sweep, Status("x", "failed", overrides=["analysis=mine"]))
    assert nodes(sweep) == ()
