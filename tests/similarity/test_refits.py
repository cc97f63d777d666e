"""Errors and nulls of fitted measures."""

import numpy as np
import pytest

from olmo_stages.similarity import refits
from olmo_stages.similarity.canonical import PWCCA, SVCCA
from olmo_stages.similarity.design import permutations
from olmo_stages.similarity.procrustes import Procrustes
from tests.similarity.literal import design_of, related

MEASURE = Procrustes(8, n_folds=5)


def prepared(n=60, seed=0, measure=MEASURE, **kwargs):
    sides = related(n, layers=2, seed=seed, **kwargs)
    return [[measure.prepare(layer) for layer in side] for side in sides]


def test_scores_are_those_of_each_layer():
    x, y = prepared()
    groups = np.arange(60)
    expected = [MEASURE.score(a, b, groups) for a, b in zip(x, y, strict=True)]
    assert refits.scores(MEASURE, x, y, groups).tolist() == expected


@pytest.mark.parametrize("measure", [MEASURE, SVCCA(0.5), PWCCA(0.5)])
def test_the_same_numbers_on_both_sides_are_exactly_1(measure):
    x, y = prepared(measure=measure)
    assert refits.scores(measure, x, [layer.copy() for layer in x], np.arange(60)).tolist() == [
        1,
        1,
    ]
    found = refits.scores(measure, x, [x[0], y[1]], np.arange(60))
    assert found[0] == 1
    assert found[1] < 0.99


def test_the_jackknife_leaves_each_part_of_the_groups_out():
    x, y = prepared(24)
    groups = np.repeat(np.arange(6), 4)
    errors, n_parts = refits.jackknife_errors(MEASURE, x, y, groups)
    assert n_parts == 6
    left = np.array([
        [MEASURE.score(a[groups != g], b[groups != g], groups[groups != g]) for g in range(6)]
        for a, b in zip(x, y, strict=True)
    ])
    expected = np.sqrt(5 / 6 * ((left - left.mean(1, keepdims=True)) ** 2).sum(1))
    assert errors == pytest.approx(expected, abs=1e-12)


def test_many_groups_are_left_out_in_twenty_parts():
    x, y = prepared()
    assert refits.jackknife_errors(MEASURE, x, y, np.arange(60))[1] == 20


def test_the_error_is_about_that_over_samples():
    values, errors = [], []
    for seed in range(20):
        x, y = prepared(seed=seed)
        values.append(refits.scores(MEASURE, x, y, np.arange(60))[0])
        errors.append(refits.jackknife_errors(MEASURE, x, y, np.arange(60))[0][0])
    # Samples also differ in their random directions, so that the error is below their spread;
    # a standard deviation of 20 values is uncertain by a sixth.
    assert 0.3 < np.mean(errors) / np.std(values) < 1.5


def test_copies_of_examples_within_their_group_do_not_narrow_the_interval():
    x, y = prepared()
    copies = np.repeat(np.arange(60), 3)
    once = refits.jackknife_errors(MEASURE, x, y, np.arange(60))[0]
    sides = [[layer[copies] for layer in side] for side in (x, y)]
    assert refits.jackknife_errors(MEASURE, *sides, copies)[0] == pytest.approx(once, rel=0.05)


def test_the_null_permutes_the_second_side():
    x, y = prepared()
    groups = np.arange(60)
    moved = permutations(design_of(60), 3, 0)
    found = refits.null(MEASURE, x, y, groups, moved)
    assert found.shape == (3, 2)
    assert found[1, 0] == MEASURE.score(x[0], y[0][moved[1]], groups)
    assert (np.abs(found) < refits.scores(MEASURE, x, y, groups)).all()


@pytest.mark.parametrize("measure", [MEASURE, SVCCA(0.5)])
def test_no_permutation_is_an_empty_null(measure):
    x, y = prepared(measure=measure)
    found = refits.null(measure, x, y, np.arange(60), np.empty((0, 60), dtype=np.int64))
    assert found.shape == (0, 2)
