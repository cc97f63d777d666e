"""Contrasts: one a trait, pairs found, and what is refused with its numbers."""

from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.errors import DataError
from olmo_stages.vectors.contrast import contrasts
from tests.vectors.literal import examples, paired, pure


def test_traits_come_in_the_order_of_the_data_and_keep_their_rows():
    first, second = paired(4), tuple(replace(e, id="k" + e.id, trait="kind") for e in paired(3))
    named, unnamed = contrasts(second[:2] + first + second[2:], paired=False)
    assert (named.trait, unnamed.trait) == ("kind", "trait")
    assert named.rows.tolist() == [0, 1, *range(18, 28)]
    assert unnamed.rows.tolist() == list(range(2, 18))


def test_groups_are_numbered_without_gaps():
    (contrast,) = contrasts(paired(5), paired=False)
    assert contrast.n_groups == 5
    assert np.bincount(contrast.groups).tolist() == [4] * 5


def test_a_pair_is_the_positive_example_and_its_counterpart():
    data = paired(3)
    (contrast,) = contrasts(data, paired=True)
    for positive, negative in contrast.pairs:
        ends = data[contrast.rows[positive]], data[contrast.rows[negative]]
        assert [e.label for e in ends] == [1, 0]
        assert ends[0].pair == ends[1].pair


def test_an_example_without_counterpart_is_left_out_and_counted():
    data = paired(4)
    (contrast,) = contrasts(data[:-1], paired=True)
    assert contrast.n_left_out == 1
    assert len(contrast.rows) == 14
    assert contrasts(data[:-1], paired=False)[0].n_left_out == 0


def test_no_examples_are_refused():
    with pytest.raises(DataError, match="no examples are left"):
        contrasts((), paired=False)


def test_unpaired_data_say_how_many_have_no_counterpart():
    with pytest.raises(DataError, match=r"12 of 12 examples have no counterpart \(12 name no pair"):
        contrasts(pure(6), paired=True)


def test_pairs_that_filtering_took_apart_are_no_pairs():
    halves = tuple(e for e in paired(4) if e.label == int(e.pair) % 2)
    with pytest.raises(DataError, match=r"8 of 8 examples have no counterpart \(0 name no pair"):
        contrasts(halves, paired=True)


def test_a_pair_of_one_label_is_refused():
    data = paired(4)
    with pytest.raises(DataError, match="pair '0' holds 2 positives and 0 negatives"):
        contrasts((replace(data[0], label=1), *data[1:]), paired=True)


def test_a_pair_across_groups_is_refused():
    data = paired(4)
    with pytest.raises(DataError, match="pair '0' is in two groups, '9' and '0'"):
        contrasts((replace(data[0], group="9"), *data[1:]), paired=True)


def test_one_class_is_refused():
    with pytest.raises(DataError, match="0 of 6 examples are negative, in 0 groups"):
        contrasts(examples([1] * 6, range(6)), paired=False)


def test_a_class_in_two_groups_is_refused_and_in_three_is_not():
    with pytest.raises(DataError, match="2 of 6 examples are positive, in 2 groups"):
        contrasts(examples([1, 1, 0, 0, 0, 0], range(6)), paired=False)
    assert len(contrasts(examples([1, 1, 1, 0, 0, 0], range(6)), paired=False)) == 1


def test_a_subset_keeps_the_pairs_that_are_whole():
    (contrast,) = contrasts(paired(4), paired=True)
    kept = contrast.subset(np.array([4, 5, 6, 12, 13]))
    assert kept.rows.tolist() == [4, 5, 6, 12, 13]
    assert kept.pairs.tolist() == [[1, 0], [4, 3]]
    assert kept.groups.tolist() == [0, 0, 0, 1, 1]


def test_a_subset_without_a_class_is_refused():
    (contrast,) = contrasts(pure(6), paired=False)
    with pytest.raises(DataError, match="2 of 12 examples hold 0 positives, 2 negatives"):
        contrast.subset(np.array([0, 1]))


def test_targets_within_masks_lose_rows_and_pairs():
    (contrast,) = contrasts(paired(3), paired=True)
    mask = contrast.groups != 1
    targets = contrast.targets().within([mask, ~mask])
    assert targets.labels[0].tolist() == np.where(mask, contrast.labels, -1).tolist()
    kept = (targets.pairs >= 0).all(axis=2)
    assert kept.sum(axis=1).tolist() == [4, 2]
    assert mask[targets.pairs[0][kept[0]]].all()
