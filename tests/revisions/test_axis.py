import math
from itertools import pairwise

import pytest

from olmo_stages.revisions.axis import short, training_axis

GRID = [3000, 5000, 10000, 99000, 1413814]
BASE = [f"base@stage1-step{n}" for n in GRID] + [
    "base@stage2-step47684",
    "base@stage3-step11921",
    "base",
]


def gaps(axis, labels):
    return [axis.at[after] - axis.at[before] for before, after in pairwise(labels)]


def test_steps_are_logarithmic_within_a_phase():
    axis = training_axis(BASE)
    one, other = gaps(axis, BASE[:2])[0], gaps(axis, BASE[2:4])[0]
    assert other / one == pytest.approx(math.log(9.9) / math.log(5 / 3))


def test_later_phases_have_room_of_their_own():
    # 1.41M, then 1.46M and 1.47M steps in all: together on one log axis less than a hair.
    axis = training_axis(BASE)
    assert min(gaps(axis, BASE[4:])) >= 1.0
    assert [title for title, *_ in axis.titles] == ["base stage1", "stage2", "stage3"]


def test_step_0_has_a_place_before_the_first():
    labels = ["base@stage1-step0", "base@stage1-step50", "base@stage1-step300"]
    axis = training_axis(labels[::-1])
    assert list(axis.at) == labels
    assert axis.at[labels[0]] < axis.at[labels[1]]
    assert axis.ticks[labels[0]] == "0"


def test_revisions_of_one_run_are_joined_in_the_order_of_training():
    axis = training_axis(reversed(BASE))
    assert list(axis.at) == BASE
    assert list(axis.joins) == list(pairwise(BASE))


def test_branches_of_the_lineage_are_joined_to_their_parents():
    labels = ["base", "think_sft", "think_dpo", "think_rlvr", "instruct_sft", "rl_zero_math"]
    axis = training_axis(labels)
    assert set(axis.joins) == {
        ("base", "think_sft"),
        ("think_sft", "think_dpo"),
        ("think_dpo", "think_rlvr"),
        ("think_sft", "instruct_sft"),
        ("base", "rl_zero_math"),
    }
    assert len(set(axis.at.values())) == len(labels)
    assert axis.titles == ()
    assert axis.ticks["think_dpo"] == "think_dpo"


def test_an_ancestor_that_is_missing_is_skipped():
    joins = training_axis(["base", "think_rlvr"]).joins
    assert list(joins) == [("base", "think_rlvr")]
    assert list(training_axis(["think_rlvr", "rl_zero_math"]).joins) == []


def test_a_fine_tuning_run_begins_at_the_end_of_its_parent():
    labels = ["base@stage3-step20", "think_sft@step20", "think_sft@step40", "think_sft"]
    assert set(training_axis(labels).joins) == {
        ("base@stage3-step20", "think_sft@step20"),
        ("think_sft@step20", "think_sft@step40"),
        ("think_sft@step40", "think_sft"),
    }


def test_runs_side_by_side_are_branches():
    ingredients = [f"olmo2_base@stage2-ingredient{k}-step11931-tokens50B" for k in (1, 2)]
    first = "olmo2_base@stage1-step928646-tokens3896B"
    joins = set(training_axis([*ingredients, first, "olmo2_base"]).joins)
    assert joins == {(first, it) for it in ingredients} | {(it, "olmo2_base") for it in ingredients}


def test_the_parent_of_the_size_that_is_there_is_taken():
    joins = training_axis(["olmo2_dpo", "olmo2_rlvr1", "olmo2_instruct"]).joins
    assert set(joins) == {("olmo2_dpo", "olmo2_rlvr1"), ("olmo2_rlvr1", "olmo2_instruct")}


@pytest.mark.parametrize(
    "label", ["base (random)", "base@0123456789abcdef", "my-fine-tune", "my@x (random)"]
)
def test_what_is_no_point_of_training_is_joined_to_nothing(label):
    axis = training_axis(["base@stage1-step100", "base", label])
    assert label in axis.at
    assert list(axis.joins) == [("base@stage1-step100", "base")]


def test_ticks_are_not_written_over_one_another():
    labels = [f"think_sft@step{n}" for n in (1000, 40000, 41000, 42000, 43000)]
    ticks = training_axis(labels).ticks
    assert ticks[labels[-1]] == "43k"
    assert ticks[labels[0]] == "1k"
    assert "" in ticks.values()


@pytest.mark.parametrize(
    ("step", "text"), [(0, "0"), (300, "300"), (3000, "3k"), (11931, "11.9k"), (1413814, "1.41M")]
)
def test_steps_are_short(step, text):
    assert short(step) == text
