import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from olmo_stages.data.splits import example_folds, folds
from olmo_stages.errors import DataError
from olmo_stages.types import Example


def examples_of(labels_of_groups):
    """One example per label; groups g0, g1, ..."""
    return [
        Example(f"{g}.{i}", f"g{g}", label, text="x")
        for g, labels in enumerate(labels_of_groups)
        for i, label in enumerate(labels)
    ]


BALANCED = examples_of([(0, 1)] * 20)
PURE = examples_of([(g % 2,) * 3 for g in range(20)])
UNEVEN = examples_of([(0,) * (1 + g % 5) + (1,) * (g % 3) for g in range(40)])
SETS = pytest.mark.parametrize("examples", [BALANCED, PURE, UNEVEN])
SPLITTERS = pytest.mark.parametrize("split", [folds, example_folds])


def as_dict(split, examples, n_folds):
    return dict(zip([e.id for e in examples], split(examples, n_folds).tolist(), strict=True))


@SETS
def test_no_group_is_in_two_folds(examples):
    fold = folds(examples, 5)
    pairs = {(e.group, f) for e, f in zip(examples, fold.tolist(), strict=True)}
    assert len(pairs) == len({e.group for e in examples})


@SETS
def test_every_fold_is_used_and_holds_both_classes(examples):
    labels = np.array([e.label for e in examples])
    fold = folds(examples, 5)
    assert all(set(labels[fold == f]) == {0, 1} for f in range(5))


@SETS
def test_each_class_is_spread_evenly(examples):
    labels = np.array([e.label for e in examples])
    largest = max(Counter((e.group, e.label) for e in examples).values())
    for label in (0, 1):
        counts = np.bincount(folds(examples, 5)[labels == label], minlength=5)
        # No split of whole groups can promise less than one group's worth of difference.
        assert np.ptp(counts) <= largest


@SPLITTERS
@SETS
def test_folds_do_not_depend_on_the_order_of_the_examples(split, examples):
    shuffled = [examples[i] for i in np.random.default_rng(0).permutation(len(examples))]
    assert as_dict(split, shuffled, 5) == as_dict(split, examples, 5)


@SPLITTERS
def test_folds_do_not_depend_on_the_texts_or_on_random_state(split):
    # Methods row 11: another stage may see another prompt; its folds are the same.
    expected = as_dict(split, PURE, 5)
    np.random.seed(7)  # noqa: NPY002 (the global state that must not matter)
    chats = [Example(e.id, e.group, e.label, text="another text") for e in PURE]
    assert as_dict(split, chats, 5) == expected


def test_folds_are_the_same_in_another_process():
    # Python's own hash of strings differs between processes; a known answer tells also when the
    # rule itself is changed, which would make old and new results incomparable.
    code = (
        "from olmo_stages.data.splits import folds, example_folds\n"
        "from olmo_stages.types import Example\n"
        "e = [Example(f'{g}.{i}', f'g{g}', i, text='x') for g in range(6) for i in (0, 1)]\n"
        "print(*folds(e, 3), *example_folds(e, 3))"
    )
    known = "2 2 0 0 2 2 1 1 1 1 0 0 2 1 1 0 2 1 0 2 0 2 1 0\n"
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout == known


def test_a_class_with_fewer_groups_than_folds_is_named():
    examples = examples_of([(0,)] * 9 + [(1,)] * 4)
    with pytest.raises(DataError, match=r"label 1 occurs in 4 groups.*label 0: 9.*at most 4 folds"):
        folds(examples, 5)
    assert set(folds(examples, 4)) == {0, 1, 2, 3}


def test_one_class_only_is_named():
    with pytest.raises(DataError, match="every example has label 1"):
        folds(examples_of([(1,)] * 9), 3)


@SPLITTERS
def test_one_fold_is_refused(split):
    with pytest.raises(DataError, match="at least 2"):
        split(BALANCED, 1)


@SPLITTERS
def test_more_folds_than_examples_are_refused(split):
    with pytest.raises(DataError, match="2 examples cannot fill 3 folds"):
        split(examples_of([(0,), (1,)]), 3)


@SPLITTERS
def test_repeated_ids_are_refused(split):
    with pytest.raises(DataError, match=r"'0\.0' occurs more than once"):
        split([*BALANCED, BALANCED[0]], 5)


def test_example_folds_meet_every_group_in_training():
    fold = example_folds(PURE, 3)
    groups = np.array([e.group for e in PURE])
    for f in range(3):
        assert set(groups[fold == f]) <= set(groups[fold != f])


def test_example_folds_are_of_equal_size():
    assert np.ptp(np.bincount(example_folds(UNEVEN, 7))) <= 1


def test_only_folds_by_group_are_honest_about_leaking_groups():
    # Methods row 10: features tell only the group, and labels are drawn by group, so there is
    # nothing to generalise; a split within groups scores near 1 all the same.
    accuracy = {"group": [], "example": []}
    for seed in range(6):
        rng = np.random.default_rng(seed)
        labels = rng.permutation([0, 1] * 30)
        examples = examples_of([(int(label),) * 6 for label in labels])
        centres = np.repeat(rng.normal(size=(60, 48)), 6, axis=0)
        x = centres + 0.1 * rng.normal(size=centres.shape)
        y = np.array([e.label for e in examples])
        for name, fold in (("group", folds(examples, 5)), ("example", example_folds(examples, 5))):
            scores = [
                LogisticRegression(C=10)
                .fit(x[fold != f], y[fold != f])
                .score(x[fold == f], y[fold == f])
                for f in range(5)
            ]
            accuracy[name].append(np.mean(scores))
    # 360 groups are held out in all: the standard error of a coin is 0.026, and a balanced split
    # pushes below a half, never above.
    assert np.mean(accuracy["group"]) < 0.6
    assert np.mean(accuracy["example"]) > 0.95
