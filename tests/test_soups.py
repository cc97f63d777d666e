import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.soups import common_root, is_miniature, soup
from olmo_stages.stages import lookup
from olmo_stages.types import Stage


def make(of, weights=None, *, name=None, parent=None, tokenizer=None, size="7b"):
    return soup(of=of, weights=weights, name=name, parent=parent, tokenizer=tokenizer, size=size)


def shares(stage):
    return {it.stage.label: it.weight for it in stage.members}


def test_weights_are_brought_to_the_sum_one():
    stage = make(["base@stage1-step1000", "base"], [1, 3])
    assert shares(stage) == {"base@stage1-step1000": 0.25, "base": 0.75}
    assert {it.stage for it in stage.members} == {
        lookup("base", "7b"),
        lookup("base@stage1-step1000", "7b"),
    }


def test_without_weights_all_count_the_same():
    assert shares(make(["base", "think_sft"])) == {"base": 0.5, "think_sft": 0.5}


def test_neither_order_nor_scale_makes_another_stage():
    stage = make(["base", "base@stage1-step1000"], [3, 1])
    assert make(["base@stage1-step1000", "base"], [0.5, 1.5]) == stage
    assert make(["base", "base@stage1-step1000"], [3, 2]).name != stage.name


def test_a_member_named_twice_counts_twice():
    assert make(["base", "think_sft", "base"]) == make(["base", "think_sft"], [2, 1])


def test_the_name_is_short_and_the_source_tells_of_the_members():
    stage = make(["base@stage1-step1000", "base"], [1, 3])
    assert len(stage.label) == len("soup-") + 6
    assert stage.source == "0.75 base + 0.25 base@stage1-step1000"
    assert make(["base"], name="mine").label == "mine"


@pytest.mark.parametrize(
    ("members", "parent"),
    [
        (["base", "base@stage1-step1000"], None),
        (["think_sft"], "base"),
        (["think_sft@step1000", "think_sft@step2000"], "base"),
        (["think_sft", "think_rlvr"], "think_sft"),
        (["think_dpo", "instruct_sft"], "think_sft"),
        (["think_dpo", "rl_zero_math"], "base"),
    ],
)
def test_the_parent_is_the_nearest_stage_that_all_come_from(members, parent):
    assert make(members).parent == (None if parent is None else lookup(parent, "7b"))


def test_the_parent_can_be_chosen():
    assert make(["think_sft", "think_rlvr"], parent="base").parent == lookup("base", "7b")


def test_revisions_of_base_have_base_as_their_root():
    stage = make(["base@stage1-step1000", "base@stage1-step2000"])
    assert common_root(stage).name == "base"
    assert common_root(make(["base", "olmo2_base"])).name.startswith("soup-")


def test_a_soup_of_the_miniature_family_reads_its_words():
    assert is_miniature(make(["base", "think_sft"], size="tiny"))
    assert not is_miniature(make(["base", "think_sft"], size="7b"))


def test_directories_and_hub_ids_are_members_too(tmp_path):
    first, second = make([str(tmp_path), "me/mine@step5"]).members
    assert (first.stage.source, first.stage.size) == (str(tmp_path), "custom")
    assert second.stage == Stage("mine", "custom", "me/mine", revision="step5")
    assert make([str(tmp_path)]).size == "custom"
    assert make([str(tmp_path), "base"]).size == "7b"


def test_directories_of_the_same_name_are_told_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "last").mkdir(parents=True)
    names = {make([str(tmp_path / name / "last"), "base"]).name for name in ("a", "b")}
    assert len(names) == 2


def test_task_arithmetic_has_weights_below_zero():
    stage = make(["think_sft", "base", "rl_zero_math"], [1, -1, 1])
    assert shares(stage) == {"base": -1, "rl_zero_math": 1, "think_sft": 1}


@pytest.mark.parametrize(
    ("members", "weights", "said"),
    [
        (None, None, r"model\.of=\[STAGE@REVISION"),
        ([], None, r"model\.of=\[STAGE@REVISION"),
        (["base"], [1, 2], r"\[1, 2\] are 2 for the 1 members"),
        (["base", "think_sft"], [1, 0], "other than 0; leave that member out"),
        (["base", "think_sft"], [1, float("nan")], "other than 0"),
        (["base", "think_sft"], [3, -1], r"sum to 2; .* must sum to 1 as given"),
        (["base", "think_stf"], None, r"'think_stf' does not exist.*did you mean think_sft"),
    ],
)
def test_what_cannot_be_averaged_is_refused(members, weights, said):
    with pytest.raises(ConfigError, match=said):
        make(members, weights)


def test_the_tokenizer_is_that_of_a_member():
    stage = make(["base", "think_sft"], tokenizer="think_sft")
    assert [it.gives_tokenizer for it in stage.members] == [False, True]
    assert stage.name != make(["base", "think_sft"]).name
    with pytest.raises(ConfigError, match="think_dpo is no member"):
        make(["base", "think_sft"], tokenizer="think_dpo")
