"""Rulers: planted directions give planted scores, by hand, and folds see nothing of their own."""

import numpy as np
import pytest

from olmo_stages import estimates
from olmo_stages.vectors.files import TraitVector
from olmo_stages.vectors.scores import (
    Ruler,
    cross_fitted,
    has_units,
    of_vector,
    relabelled_auroc,
)

RESOLUTION = 2e-6


def planted(n_groups=12, per_group=4, d_model=8, *, gap=3.0, noise=0.0, seed=0):
    """Examples whose class 1 lies `gap` further along the first dimension, in groups."""
    rng = np.random.default_rng(seed)
    n = n_groups * per_group
    labels = np.arange(n) % 2
    folds = np.arange(n) // per_group % 3
    values = noise * rng.normal(size=(n, d_model)) + 5.0
    values[:, 0] += gap * labels
    return values.astype(np.float32), labels, folds


def vector(values, midpoint=(), separation=()):
    layers = range(len(values))
    return TraitVector(
        trait="hostile",
        vectors={i: np.array(values[i], dtype=np.float32) for i in layers},
        layer_types=dict.fromkeys(layers, "full_attention"),
        site="resid_post",
        position="mean",
        kind="mean_difference",
        midpoint=dict(enumerate(midpoint)),
        separation=dict(enumerate(separation)),
    )


# A given vector


def test_scores_of_a_given_vector_by_hand():
    # Along (0.6, 0.8): class 0 at 1, class 1 at 5.
    ruler = of_vector(vector([[3, 4]], midpoint=[3.0], separation=[4.0]), 0)
    values = np.array([[1, 0.5], [3, 4], [0, 0]], dtype=np.float32)
    slots = np.zeros(3, dtype=np.int64)
    raw = ruler.raw(values, slots)
    assert raw == pytest.approx([1, 5, 0], abs=1e-6)  # rounding of the float32 vector
    assert ruler.in_units(raw, slots) == pytest.approx([0, 1, -0.25], abs=1e-6)
    assert ruler.midpoint.tolist() == [3]


@pytest.mark.parametrize("known", [((), ()), ([3.0], [-4.0]), ([3.0], [0.0]), ([3.0], ())])
def test_a_vector_that_does_not_know_its_classes_scores_raw(known):
    given = vector([[3, 4]], *known)
    assert not has_units(given)
    ruler = of_vector(given, 0)
    raw = np.array([1.5, -2])
    assert ruler.in_units(raw, np.zeros(2, dtype=np.int64)).tolist() == raw.tolist()
    assert has_units(vector([[3, 4]], [3.0], [4.0]))


def test_the_length_of_a_vector_makes_no_difference():
    values = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    slots = np.zeros(5, dtype=np.int64)
    short, long = (of_vector(vector([v], [3.0], [4.0]), 0) for v in ([3, 4], [30, 40]))
    assert short.raw(values, slots) == pytest.approx(long.raw(values, slots), abs=1e-6)


def test_many_rows_are_scored_as_few():
    rng = np.random.default_rng(0)
    ruler = of_vector(vector([rng.normal(size=6)]), 0)
    values = rng.normal(size=(10_000, 6)).astype(np.float32)
    raw = ruler.raw(values, np.zeros(len(values), dtype=np.int64))
    expected = values.astype(np.float64) @ ruler.directions[0]
    np.testing.assert_allclose(raw, expected, rtol=0, atol=1e-12)


def test_each_row_is_scored_along_its_own_direction():
    ruler = Ruler(np.eye(2), np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    values = np.array([[3, 7], [3, 6], [5, 7]], dtype=np.float32)
    slots = np.array([0, 1, 0])
    raw = ruler.raw(values, slots)
    assert raw.tolist() == [3, 6, 5]
    assert ruler.in_units(raw, slots).tolist() == [2, 1, 4]


# Cross-fitted vectors


def test_a_planted_direction_is_found_and_scores_are_0_and_1():
    values, labels, folds = planted()
    ruler = cross_fitted(values, labels, folds, RESOLUTION)
    expected = np.eye(8)[[0, 0, 0]]
    np.testing.assert_allclose(ruler.directions, expected, atol=1e-7)
    assert ruler.unit == pytest.approx([3, 3, 3])
    assert ruler.zero == pytest.approx([5, 5, 5])
    scores = ruler.in_units(ruler.raw(values, folds), folds)
    np.testing.assert_allclose(scores, labels, atol=1e-6)


def test_units_are_those_of_the_training_data():
    values, labels, folds = planted(noise=1.0)
    ruler = cross_fitted(values, labels, folds, RESOLUTION)
    for fold in range(3):
        train = folds != fold
        scores = (values[train] @ ruler.directions[fold] - ruler.zero[fold]) / ruler.unit[fold]
        assert scores[labels[train] == 0].mean() == pytest.approx(0, abs=1e-6)
        assert scores[labels[train] == 1].mean() == pytest.approx(1, abs=1e-6)


def test_a_fold_sees_nothing_of_its_own_groups():
    values, labels, folds = planted(noise=1.0)
    poisoned = values.copy()
    poisoned[folds == 1] = 1e6 * np.random.default_rng(1).normal(size=values[folds == 1].shape)
    before = cross_fitted(values, labels, folds, RESOLUTION)
    after = cross_fitted(poisoned, labels, folds, RESOLUTION)
    for name in ("directions", "zero", "unit"):
        old, new = getattr(before, name), getattr(after, name)
        assert np.array_equal(old[1], new[1])
        assert not np.allclose(old[0], new[0])  # twin: the others do see it


def test_a_feature_that_is_only_rounding_is_no_direction():
    _, labels, folds = planted()
    rounding = 1e-7 * np.random.default_rng(0).normal(size=(len(labels), 8))
    constant = (100 * (1 + rounding)).astype(np.float32)
    ruler = cross_fitted(constant, labels, folds, RESOLUTION)
    assert not ruler.directions.any()
    raw = ruler.raw(constant, folds)
    assert raw.tolist() == [0] * len(labels)
    assert np.isnan(ruler.in_units(raw, folds)).all()
    finer = cross_fitted(constant, labels, folds, 1e-12)
    assert finer.directions.any()  # twin


def test_rulers_of_several_traits_are_put_together():
    values, labels, folds = planted()
    one = cross_fitted(values, labels, folds, RESOLUTION)
    both = one + of_vector(vector([np.ones(8)]), 0)
    assert both.directions.shape == (4, 8)
    assert both.unit.tolist() == pytest.approx([3, 3, 3, 1])


# Their null


def test_the_null_refits_each_relabelling():
    source, labels, folds = planted(noise=1.0, gap=0.7)
    target = planted(noise=1.0, gap=0.4, seed=1)[0]
    groups = [f"g{i // 4}" for i in range(len(labels))]
    relabelled = np.concatenate([
        labels[None],
        estimates.permuted_labels(labels, groups, 6, seed=0),
    ])
    found = relabelled_auroc(source, target, relabelled, folds, RESOLUTION)
    for given, value in zip(relabelled, found, strict=True):
        ruler = cross_fitted(source, given, folds, RESOLUTION)
        raw = ruler.raw(target, folds)
        expected = estimates.auroc(raw[None], given, folds, np.ones((1, len(given))))
        assert value == pytest.approx(float(expected[0, 0]), abs=1e-12)
    assert len(set(found.tolist())) > 3


def test_a_relabelling_without_a_class_in_training_ranks_nothing():
    values, _, folds = planted(noise=1.0)
    only_in_fold_1 = (folds == 1).astype(np.int64) * (np.arange(len(folds)) % 2)
    found = relabelled_auroc(values, values, only_in_fold_1[None], folds, RESOLUTION)
    assert found.tolist() == [0.5]
