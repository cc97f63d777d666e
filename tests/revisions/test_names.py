import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo_stages.errors import ConfigError
from olmo_stages.revisions.names import (
    Revision,
    in_order,
    log_spaced,
    nearest,
    one_line,
    parse,
    spelling,
    spellings_of,
)

BILLION = 10**9


def named(revisions):
    return [it.name for it in revisions]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("main", {}),
        ("stage1-step1000", {"phase": 1, "step": 1000}),
        ("stage3-step11921", {"phase": 3, "step": 11921}),
        ("step43000", {"step": 43000}),
        ("step_0025", {"step": 25}),
        ("step_050", {"step": 50}),
        ("step_1900", {"step": 1900}),
        ("step0", {"step": 0}),
        ("5e-5-step10790", {"lr": "5e-5", "step": 10790}),
        ("step150-tokens1B", {"step": 150, "tokens": BILLION}),
        (
            "stage1-step928646-tokens3896B",
            {"phase": 1, "step": 928646, "tokens": 3896 * BILLION},
        ),
        (
            "stage2-ingredient4-step35773-tokens300B",
            {"phase": 2, "ingredient": 4, "step": 35773, "tokens": 300 * BILLION},
        ),
    ],
)
def test_what_a_name_tells(name, told):
    assert parse(name) == Revision(name, **told)


@pytest.mark.parametrize(
    "name",
    [
        "stage2-step47684-mix-code-from-2T-ckpt",
        "refs/pr/1",
        "a" * 40,
        "step",
        "mainly",
        "step_0025x",
    ],
)
def test_what_is_no_point_of_training(name):
    assert parse(name) is None


def test_training_order_is_by_phase_then_step_as_a_number_and_the_released_one_last():
    names = ["main", "stage3-step2", "stage1-step99000", "stage2-step1", "stage1-step297000"]
    names += ["stage1-step1413814", "stage1-step1000", "stage2-step47684-mix-x-from-2T-ckpt"]
    ordered, others = in_order(names)
    assert named(ordered) == [
        "stage1-step1000",
        "stage1-step99000",
        "stage1-step297000",
        "stage1-step1413814",
        "stage2-step1",
        "stage3-step2",
        "main",
    ]
    assert others == ("stage2-step47684-mix-x-from-2T-ckpt",)


def test_runs_side_by_side_follow_one_another():
    names = ["5e-5-step1000", "1e-4-step1000", "5e-5-step10790", "1e-4-step2000", "main"]
    assert named(in_order(names)[0]) == [
        "5e-5-step1000",
        "5e-5-step10790",
        "1e-4-step1000",
        "1e-4-step2000",
        "main",
    ]


def test_a_branch_of_olmo_2_without_a_phase_is_of_the_first():
    names = ["stage2-ingredient1-step1-tokens1B", "step900-tokens4B", "stage1-step1000-tokens5B"]
    assert named(in_order(names)[0]) == [names[1], names[2], names[0]]


GRID = [f"stage1-step{step}" for step in range(1000, 1_414_000, 1000)]


def test_log_spaced_is_near_even_in_the_logarithm():
    ordered, _ = in_order([*GRID, "main"])
    chosen = log_spaced(ordered, 5)
    # 1000 x 1413 ** (k / 4): 6131, 37590, 230467
    assert named(chosen) == [
        "stage1-step1000",
        "stage1-step6000",
        "stage1-step38000",
        "stage1-step230000",
        "main",
    ]


def test_log_spaced_counts_the_steps_of_earlier_phases():
    names = ["stage1-step10", "stage1-step1000", "stage2-step1", "stage2-step9000", "main"]
    ordered, _ = in_order(names)
    # At 10, 1000, 1001, 10000, 10000: the middle of the logarithm is near 316.
    assert named(log_spaced(ordered, 3)) == ["stage1-step10", "stage1-step1000", "main"]


def test_step_0_is_taken_as_it_is():
    ordered, _ = in_order(["step0", "step50", "step100", "step200", "step400", "main"])
    assert named(log_spaced(ordered, 4)) == ["step0", "step50", "step100", "main"]
    assert named(log_spaced(ordered, 2)) == ["step0", "main"]


@given(
    steps=st.sets(st.integers(0, 10**6), min_size=1, max_size=60),
    count=st.integers(2, 70),
    seed=st.integers(0, 9),
    main=st.booleans(),
)
def test_log_spaced_has_first_and_last_each_once_in_order(steps, count, seed, main):
    names = [f"step_{step:04d}" for step in steps] + ["main"] * main
    ordered, _ = in_order(names)
    shuffled = list(names)
    random.Random(seed).shuffle(shuffled)
    chosen = log_spaced(ordered, count)
    assert len(chosen) == min(count, len(ordered)) == len(set(chosen))
    assert [it for it in ordered if it in chosen] == list(chosen)
    assert (chosen[0], chosen[-1]) == (ordered[0], ordered[-1])
    assert log_spaced(in_order(shuffled)[0], count) == chosen


@pytest.mark.parametrize("count", [1, 0, -3])
def test_fewer_than_two_are_refused(count):
    with pytest.raises(ConfigError, match=f"--log-spaced {count} .*2 or more"):
        log_spaced(in_order(["step1", "main"])[0], count)


def test_one_of_the_runs_side_by_side_is_left():
    ordered, _ = in_order(["5e-5-step1", "1e-4-step1", "5e-5-step2", "main"])
    kept, runs = one_line(ordered)
    assert named(kept) == ["5e-5-step1", "5e-5-step2", "main"]
    assert runs == ("5e-5", "1e-4")


def test_the_phase_that_all_ingredients_share_stays():
    names = ["stage1-step5-tokens1B", "stage2-ingredient1-step1-tokens1B"]
    names += ["stage2-ingredient2-step1-tokens1B", "main"]
    kept, runs = one_line(in_order(names)[0])
    assert named(kept) == [names[0], names[1], "main"]
    assert runs == ("ingredient1", "ingredient2")


def test_one_run_stays_as_it_is():
    ordered, _ = in_order(["step1", "step2", "main"])
    assert one_line(ordered) == (ordered, ())


@pytest.mark.parametrize(
    ("text", "fitting", "others"),
    [
        (
            "step_NNNN",
            ["step_0025", "step_1375", "step_12345"],
            ["step_25", "step1375", "step_025"],
        ),
        ("step_NNN", ["step_050", "step_750", "step_2300"], ["step_50", "step_0050"]),
        ("step_N", ["step_100", "step_1900", "step_0"], ["step_0100", "step100"]),
        ("stepN", ["step1000"], ["step_1000", "stage1-step1000"]),
        ("5e-5-stepN", ["5e-5-step1000"], ["1e-4-step1000", "step1000"]),
        (
            "stage2-ingredientK-stepN-tokensTB",
            ["stage2-ingredient3-step23852-tokens51B"],
            ["stage2-step23852", "stage2-ingredient3-step23852-tokens51"],
        ),
    ],
)
def test_what_a_spelling_fits(text, fitting, others):
    for name in fitting:
        assert spelling(text).fits(name), name
    for name in others:
        assert not spelling(text).fits(name), name


@pytest.mark.parametrize(
    ("text", "shown", "first", "last"),
    [
        ("stepN 1000..43000", "stepN (1000..43000)", 1000, 43000),
        ("step_NNNN ..2300", "step_NNNN (..2300)", None, 2300),
        ("stage1-stepN", "stage1-stepN", None, None),
    ],
)
def test_the_range_of_a_spelling(text, shown, first, last):
    found = spelling(text)
    assert (str(found), found.first, found.last) == (shown, first, last)


@pytest.mark.parametrize("text", ["", "main", "stepN 5", "stepN 1...5", "stepN 1..5 x"])
def test_what_is_no_spelling(text):
    with pytest.raises(ConfigError, match="spells no revision"):
        spelling(text)


@pytest.mark.parametrize(
    ("text", "name", "spelt"),
    [
        ("step_NNNN", "step_25", "step_0025"),
        ("step_NNNN", "step25", "step_0025"),
        ("stage1-stepN", "step1000", "stage1-step1000"),
        ("stage1-stepN", "stage2-step1000", None),
        ("5e-5-stepN", "step1000", None),
        ("stage1-stepN-tokensTB", "stage1-step1000", None),
    ],
)
def test_the_same_step_in_another_spelling(text, name, spelt):
    assert spelling(text).spell(parse(name)) == spelt


def test_spellings_of_known_names():
    names = ["stage1-step0", "stage1-step50", "stage2-step10", "main"]
    assert [*map(str, spellings_of(names))] == ["stage1-stepN (0..50)", "stage2-stepN (10..10)"]


RL = [f"step_{step:04d}" for step in range(25, 1400, 25)] + ["main"]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ("step_25", ("step_0025", "step_0050", "step_0075")),
        ("step_0030", ("step_0025", "step_0050", "step_0075")),
        ("step_9999", ("step_1375", "step_1350", "step_1325")),
        ("mian", ("main",)),
        ("qwertyuiop", ()),
    ],
)
def test_the_nearest_revisions(wrong, found):
    assert nearest(wrong, RL, [spelling("step_NNNN")]) == found


def test_a_step_without_its_phase_is_looked_for_in_the_first():
    names = ["stage1-step1000", "stage2-step1000", "main"]
    assert nearest("step1000", names, [spelling("stage1-stepN")])[0] == "stage1-step1000"


@pytest.mark.parametrize(
    ("wrong", "spellings", "found"),
    [
        ("step_1000", ["stepN 1000..43000"], ("step1000",)),
        ("step_25", ["step_NNNN 25..1375"], ("step_0025",)),
        ("step9999", ["step_NNNN 25..1375"], ("step_1375",)),
        ("step1", ["step_NNNN 25..1375"], ("step_0025",)),
        (
            "stage2_step1000",
            ["stage1-stepN", "stage2-stepN ..5000"],
            ("stage2-step1000", "stage1-step1000"),
        ),
        ("step1000", ["5e-5-stepN", "1e-4-stepN"], ("5e-5-step1000", "1e-4-step1000")),
        ("stage1-step7", ["stage1-stepN-tokensTB"], ()),
        ("final", ["stepN"], ()),
    ],
)
def test_the_nearest_by_spelling_alone(wrong, spellings, found):
    assert nearest(wrong, None, [spelling(text) for text in spellings]) == found


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("step_0025", True),
        ("step_1375", True),
        ("step_1400", False),
        ("step_0000", False),
        ("step_25", False),
        ("final", False),
    ],
)
def test_whether_a_spelling_holds_a_name(name, held):
    assert spelling("step_NNNN 25..1375").holds(name) is held
