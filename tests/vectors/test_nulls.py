"""Nulls: what is drawn, what stays as it is, and that it is balanced."""

import numpy as np
import pytest

from olmo_stages.vectors.contrast import contrasts
from olmo_stages.vectors.nulls import control, draw, halves
from tests.vectors.literal import examples, paired, pure, uneven


def only(data, *, pairs=False):
    return contrasts(data, paired=pairs)[0]


@pytest.mark.parametrize("data", [paired(8), pure(8), uneven(20)])
def test_relabellings_keep_the_number_of_positives(data):
    contrast = only(data)
    drawn = draw(contrast, 50, 0, 0).relabelled.labels
    assert (drawn.sum(1) == contrast.labels.sum()).all()


def test_the_same_seed_draws_the_same_and_another_does_not():
    contrast = only(paired(10))
    first, again, other = (draw(contrast, 20, 20, seed) for seed in (1, 1, 2))
    for name in ("relabelled", "unrelated"):
        assert (getattr(first, name).labels == getattr(again, name).labels).all()
        assert (getattr(first, name).labels != getattr(other, name).labels).any()


def test_the_partner_of_a_relabelling_is_another_one():
    nulls = draw(only(paired(10)), 20, 0, 0)
    assert (nulls.partner != np.arange(20)).all()
    assert sorted(nulls.partner.tolist()) == list(range(20))


def test_groups_that_cannot_exchange_labels_say_so():
    # Groups of one label, each of its own size.
    labels = np.repeat([1, 0, 1, 0, 1, 0], np.arange(1, 7))
    contrast = only(examples(labels, np.repeat(np.arange(6), np.arange(1, 7))))
    assert not draw(contrast, 50, 0, 0).exchangeable
    assert draw(only(pure(6)), 50, 0, 0).exchangeable


def test_relabellings_that_swap_everything_are_one_with_the_labels():
    contrast = only(paired(3))
    # Three groups that swap or not: eight relabellings, which make four vectors up to sign.
    assert draw(contrast, 200, 0, 0).n_distinct == 4


@pytest.mark.parametrize("data", [paired(9), pure(10), uneven(30)])
def test_an_unrelated_contrast_holds_both_labels_alike_on_both_sides(data):
    contrast = only(data)
    drawn = draw(contrast, 0, 30, 0).unrelated.labels
    for side in drawn:
        for label in (0, 1):
            own = side[contrast.labels == label]
            assert np.sum(own == 1) == np.sum(own == 0)
        assert (side >= 0).sum() >= len(side) / 2


def test_an_unrelated_contrast_of_equal_groups_splits_whole_groups():
    contrast = only(paired(10))
    for side in draw(contrast, 0, 20, 0).unrelated.labels:
        assert all(len(set(side[contrast.groups == g].tolist())) == 1 for g in range(10))


def test_pairs_are_drawn_anew_among_examples_of_one_label():
    contrast = only(paired(10), pairs=True)
    drawn = draw(contrast, 20, 0, 0, pairs=True).relabelled
    for labels, pairs in zip(drawn.labels, drawn.pairs, strict=True):
        ends = pairs[(pairs >= 0).all(axis=1)]
        assert len(ends) == 20
        assert len(np.unique(ends)) == ends.size
        assert (contrast.labels[ends[:, 0]] == contrast.labels[ends[:, 1]]).all()
        assert (labels[ends] == [1, 0]).all()


def test_unrelated_pairs_join_the_two_sides_within_a_label():
    contrast = only(paired(10), pairs=True)
    drawn = draw(contrast, 0, 20, 0, pairs=True).unrelated
    for labels, pairs in zip(drawn.labels, drawn.pairs, strict=True):
        ends = pairs[(pairs >= 0).all(axis=1)]
        assert (labels[ends] == [1, 0]).all()
        assert (contrast.labels[ends[:, 0]] == contrast.labels[ends[:, 1]]).all()
        assert (contrast.groups[ends[:, 0]] != contrast.groups[ends[:, 1]]).all()


def test_a_control_tells_high_from_low_within_each_label():
    contrast = only(paired(10))
    values = np.random.default_rng(0).standard_normal(len(contrast.rows)) + 5 * contrast.labels
    (side,) = control(contrast, values, 0).labels
    for label in (0, 1):
        own = contrast.labels == label
        assert values[own & (side == 1)].min() > values[own & (side == 0)].max()
        assert np.sum(side[own] == 1) == np.sum(side[own] == 0)


def test_a_control_of_two_kinds_is_balanced_by_leaving_out():
    contrast = only(paired(10))
    polarity = (np.arange(len(contrast.rows)) % 8 < 3).astype(float)
    (side,) = control(contrast, polarity, 0).labels
    assert set(side.tolist()) == {-1, 0, 1}
    assert (polarity[side >= 0] == side[side >= 0]).all()
    for label in (0, 1):
        own = side[contrast.labels == label]
        assert np.sum(own == 1) == np.sum(own == 0)


def test_a_control_that_does_not_vary_is_none():
    contrast = only(paired(10))
    assert control(contrast, np.full(len(contrast.rows), 7.0), 0) is None


@pytest.mark.parametrize("data", [paired(8), pure(8), uneven(20)])
def test_halves_share_no_group_and_hold_both_classes(data):
    contrast = only(data)
    for mask in halves(contrast, 10, 0):
        assert not set(contrast.groups[mask]) & set(contrast.groups[~mask])
        for half in (mask, ~mask):
            assert len(set(contrast.labels[half].tolist())) == 2
