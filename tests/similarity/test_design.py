"""What is a unit, a group and a batch, and which rows may change places."""

import itertools
from collections import Counter

import numpy as np
import pytest

from olmo_stages.similarity.design import FEWEST, Design, exchangeable_groups, permutations
from olmo_stages.similarity.linear import DebiasedCKA
from olmo_stages.similarity.minibatch import MinibatchCKA
from tests.similarity.literal import biased_cka, debiased_cka, design_of, score

# Rows of examples 0..6, examples of groups: a: 0, 2; b: 1, 4; c: 3; d: 5; e: 6.
OWNERS = np.array([0, 0, 1, 2, 3, 3, 4, 4, 5, 6, 6])
GROUPS = ["a", "b", "a", "c", "b", "d", "e"]


def test_rows_get_the_group_of_their_example():
    design = Design.of(OWNERS, GROUPS)
    assert design.units.tolist() == OWNERS.tolist()
    assert design.groups.tolist() == [0, 0, 1, 0, 2, 2, 1, 1, 3, 4, 4]
    assert design.n_groups == 5
    assert [block.tolist() for block in design.blocks] == [list(range(11))]


def test_examples_without_rows_leave_no_gap():
    design = Design.of(np.array([4, 4, 1, 6]), GROUPS)
    assert design.units.tolist() == [1, 1, 0, 2]
    assert design.groups.tolist() == [0, 0, 0, 1]
    assert design.n_groups == 2


def test_groups_that_can_change_places_by_hand():
    # Shapes: a (2, 1), b (1, 2), c (2), d (1), e (2): a with b, c with e, d alone.
    assert exchangeable_groups(Design.of(OWNERS, GROUPS)) == 4


def test_groups_of_one_shape_all_change_places():
    assert exchangeable_groups(design_of(10)) == 10


def test_no_group_changes_places_if_all_differ():
    assert exchangeable_groups(design_of(6, groups=[0, 1, 1, 2, 2, 2])) == 0


def test_groups_alone_in_their_batch_have_none_to_change_places_with():
    design = Design(np.arange(4), np.arange(4), (np.array([0]), np.array([1, 2, 3])))
    assert exchangeable_groups(design) == 3


def check(design, permutation):
    """Rows of a unit stay together and in order, units of a group too, within the batch."""
    assert sorted(permutation) == list(range(len(permutation)))
    block = np.empty(len(permutation), dtype=int)
    for number, rows in enumerate(design.blocks):
        block[rows] = number
    np.testing.assert_array_equal(block[permutation], block)
    for labels in (design.units, design.groups):
        pairs = set(zip(labels.tolist(), labels[permutation].tolist(), strict=True))
        assert len(pairs) == len(set(labels.tolist()))
    for unit in np.unique(design.units):
        assert (np.diff(permutation[design.units == unit]) > 0).all()


@pytest.mark.parametrize("batch", [None, 30])
def test_permutations_keep_units_groups_and_batches(batch):
    rng = np.random.default_rng(0)
    # Rows of an example need not be neighbours.
    owners = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 4, 60)))
    groups = np.repeat(np.arange(30), 2)
    design = design_of(0, owners=owners, groups=groups, batch=batch)
    found = permutations(design, 50, seed=1)
    assert len(design.blocks) > 1 or batch is None
    assert found.shape == (50, len(owners))
    for permutation in found:
        check(design, permutation)
    assert (found != np.arange(len(owners))).mean() > 0.5


def test_single_rows_take_every_order_equally_often():
    found = permutations(design_of(3), 6000, seed=0)
    counts = Counter(map(tuple, found.tolist()))
    assert set(counts) == set(itertools.permutations(range(3)))
    # 1000 expected of each, standard deviation 29.
    assert max(abs(count - 1000) for count in counts.values()) < 5 * 29


def test_groups_of_examples_take_every_order_equally_often():
    design = design_of(6, groups=[0, 0, 1, 1, 2, 2])
    counts = Counter(map(tuple, permutations(design, 4800, seed=0).tolist()))
    # Three pairs in any order, each in two: 3! * 2^3.
    assert len(counts) == 48
    assert max(abs(count - 100) for count in counts.values()) < 5 * 10


def test_groups_of_other_shapes_stay():
    design = design_of(7, groups=[0, 1, 1, 2, 2, 2, 3])
    found = permutations(design, 200, seed=0)
    assert set(found[:, 0]) == {0, 6}
    assert {frozenset(row) for row in found[:, 1:3].tolist()} == {frozenset((1, 2))}
    assert {frozenset(row) for row in found[:, 3:6].tolist()} == {frozenset((3, 4, 5))}


def test_units_of_other_sizes_stay_apart_within_a_group():
    owners = np.array([0, 1, 1, 2, 3, 3])
    found = permutations(design_of(6, owners=owners, groups=[0, 0, 1, 1]), 100, seed=0)
    assert set(map(tuple, found.tolist())) == {(0, 1, 2, 3, 4, 5), (3, 4, 5, 0, 1, 2)}


def test_permutations_are_the_same_by_seed_only():
    design = design_of(20, groups=np.repeat(np.arange(10), 2))
    first = permutations(design, 5, seed=0)
    np.testing.assert_array_equal(first, permutations(design, 5, seed=0))
    assert (first != permutations(design, 5, seed=1)).any()


SIZES = [[1] * 64, [7] * 9, [23] + [1] * 41, [3, 1, 5, 2] * 8, [40, 40], [5]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_batches_hold_whole_groups_and_enough_rows(sizes, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    design = design_of(len(groups), groups=groups, batch=8, seed=seed)
    rows = np.concatenate(design.blocks)
    assert sorted(rows) == list(range(len(groups)))
    assert min(map(len, design.blocks)) >= min(8, len(groups))
    seen = [set(groups[block]) for block in design.blocks]
    assert sum(map(len, seen)) == len(sizes)
    assert min(map(len, seen)) >= min(FEWEST, len(sizes))


def test_single_rows_fill_batches_exactly_and_the_rest_joins_one():
    sizes = [len(block) for block in design_of(67, batch=8).blocks]
    assert sorted(sizes) == [8] * 7 + [11]


def test_batches_are_random_and_the_same_by_seed():
    one, again, other = (design_of(64, batch=8, seed=seed).blocks[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert one.tolist() != other.tolist()
    assert one.tolist() != list(range(8))


def test_number_of_the_block_of_each_row():
    design = design_of(67, batch=8)
    found = design.block_of_row()
    for number, block in enumerate(design.blocks):
        assert (found[block] == number).all()


def partly_alike(n, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 64)) * np.geomspace(1, 3, 64)
    return x.astype(dtype), (x + 1.2 * rng.normal(size=x.shape)).astype(dtype)


@pytest.mark.parametrize("batch", [8, 32, 100, 512])
def test_minibatches_agree_with_all_rows_at_once(batch):
    # 3003 rows, so that the last batch is not like the others.
    x, y = partly_alike(3003, np.float32)
    full = score(DebiasedCKA(), x, y)
    assert 0.7 < full < 0.9
    design = design_of(3003, batch=batch)
    assert score(MinibatchCKA(batch), x, y, design) == pytest.approx(full, abs=0.01)
    assert score(MinibatchCKA(batch), x, x, design) == 1


def test_a_mean_of_the_batches_biased_cka_would_not_agree():
    x, y = partly_alike(1000)
    blocks = design_of(1000, batch=8).blocks
    mean = np.mean([biased_cka(x[rows], y[rows]) for rows in blocks])
    assert mean > debiased_cka(x, y) + 0.05
