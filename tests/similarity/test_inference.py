"""Scores against their null: p, p of the maximum, what is calibrated, and how often by chance."""

import numpy as np
import pytest

from olmo_stages.similarity.design import permutations
from olmo_stages.similarity.inference import Scores, diagonal, ends_of, from_error, from_samples
from olmo_stages.similarity.linear import BiasedCKA, DebiasedCKA
from tests.similarity import literal
from tests.similarity.literal import design_of

DECLARED = DebiasedCKA().declared


def scores(value):
    value = np.asarray(value, dtype=float)
    return Scores(value, value - 0.1, value + 0.1)


def test_p_counts_permutations_at_least_as_large():
    null = np.array([[0.0, 0.5], [0.3, 0.1], [0.2, 0.2]])
    found = scores([0.3, 0.4]).against(null, 1.0)
    assert found.p.tolist() == [2 / 4, 2 / 4]
    assert found.p_max.tolist() == [3 / 4, 2 / 4]
    assert found.null.tolist() == [0.2, 0.2]


def test_a_tie_up_to_rounding_counts():
    null = np.full((9, 1), 0.5 - 1e-7)
    assert scores([0.5]).against(null, 1.0).p == 1
    assert scores([0.5]).against(null - 1e-3, 1.0).p == 1 / 10


def test_p_of_the_maximum_is_over_the_whole_map():
    null = np.zeros((19, 3, 4))
    null[:, 2, 3] = 0.7
    found = scores(np.full((3, 4), 0.5)).against(null, 1.0)
    assert (found.p_max == 1).all()
    assert found.p[0, 0] == 1 / 20
    assert (scores(np.full((3, 4), 0.8)).against(null, 1.0).p_max == 1 / 20).all()


def test_calibrated_scores_are_above_the_quantile_of_null_and_score_together():
    null = np.linspace(0.0, 0.38, 39)[:, None]  # with the score 40: the 38th is 0.37
    found = scores([0.685]).against(null, 1.0)
    assert found.calibrated == pytest.approx((0.685 - 0.37) / (1 - 0.37), abs=1e-12)
    assert found.calibrated_low == pytest.approx((0.585 - 0.37) / 0.63, abs=1e-12)
    assert found.calibrated_high == pytest.approx((0.785 - 0.37) / 0.63, abs=1e-12)
    assert scores([0.2]).against(null, 1.0).calibrated == 0
    assert scores([1.0]).against(null, 1.0).calibrated == 1


def test_too_few_permutations_calibrate_nothing_away_from_zero():
    """With 9 permutations no quantile of 95 % is below the score itself."""
    assert scores([0.9]).against(np.zeros((9, 1)), 1.0).calibrated == 0


def test_without_permutations_nothing_is_said():
    found = scores([0.3]).against(np.empty((0, 1)), 1.0)
    assert found.p is found.p_max is found.null is found.calibrated is None


def test_intervals_end_at_the_range_of_the_measure():
    value, error = np.array([[0.05, 0.9]]), np.array([[0.5, 0.5]])
    found = from_error(value, error, 20, BiasedCKA().declared)
    assert found.low.shape == (1, 2)
    assert found.low[0, 0] == 0.0
    assert found.low[0, 1] < 0.9
    assert found.high.max() == 1.0
    cosine = from_error(value, error, 20, DECLARED)
    assert -1.0 <= cosine.low[0, 0] < 0
    assert from_error(np.array([-0.9]), np.array([0.5]), 20, DECLARED).low == -1.0


@pytest.mark.parametrize("n", [1, 2, 4])
def test_below_five_groups_there_is_no_interval_but_of_what_does_not_vary(n):
    value, error = np.array([0.5, 1.0]), np.array([0.1, 0.0])
    found = from_error(value, error, n, DECLARED)
    assert np.isnan([found.low[0], found.high[0]]).all()
    assert (found.low[1], found.high[1]) == (1, 1)
    spread = np.random.default_rng(0).normal(size=200)
    assert np.isnan(ends_of(spread, n)).all()
    samples = np.stack([0.5 + 0.01 * spread, np.ones(200)], axis=1)
    found = from_samples(value, samples, n, DECLARED)
    assert np.isnan([found.low[0], found.high[0]]).all()


def test_of_five_groups_there_is_one():
    found = from_error(np.array([0.5]), np.array([0.1]), 5, DECLARED)
    assert found.low < 0.4 < 0.6 < found.high
    spread = np.random.default_rng(0).normal(size=200)
    low, high = ends_of(spread, 5)
    assert low < -1 < 1 < high


def test_a_score_near_1_is_known_to_its_error():
    found = from_error(np.array([1 - 1e-9]), np.array([1e-9]), 20, DECLARED)
    assert 1 - 1e-8 < found.low < 1 - 1e-9 < found.high <= 1


def test_an_unknown_error_is_no_interval():
    found = from_error(np.array([0.5]), np.array([np.nan]), 20, DECLARED)
    assert np.isnan([found.low, found.high]).all()
    assert from_error(np.array([1.0]), np.array([0.0]), 20, DECLARED).high == 1


def test_an_interval_holds_its_score():
    samples = np.linspace(0.6, 0.8, 200)[:, None]
    found = from_samples(np.array([0.55]), samples, 10, DECLARED)
    assert found.low == 0.55
    assert found.high == pytest.approx(0.8, abs=0.01)
    inside = from_samples(np.array([0.7]), samples, 10, DECLARED)
    assert inside.low == pytest.approx(0.6, abs=0.01)
    # Fisher's z ends a hair below 1.
    assert from_error(np.array([1.0]), np.array([1e-17]), 10, DECLARED).high == 1


def test_one_group_is_no_interval():
    found = from_samples(np.array([0.5]), np.full((100, 1), 0.5), 1, DECLARED)
    assert np.isnan([found.low, found.high]).all()


def test_diagonal_is_a_copy():
    x, y = literal.related(20, layers=2)
    comparison = literal.compare(DebiasedCKA(), x, y)
    found = diagonal(comparison)
    assert found.tolist() == [comparison.value[0, 0], comparison.value[1, 1]]
    found[:] = 0
    assert comparison.value[0, 0] != 0


def chance(sizes, design, noise=1.0, n_rounds=8, n_runs=25):
    """Share of unrelated 2 x 2 maps whose largest, and whose first, score is significant at 1/20.

    Examples of a group share a part of their variance. Runs of a round share their permutations.
    """
    groups = np.repeat(np.arange(len(sizes)), sizes)
    largest, first = [], []
    for seed in range(n_rounds):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(2, 2 * n_runs, len(sizes), 6))[:, :, groups]
        x, y = (list(it + noise * rng.normal(size=it.shape)) for it in (x, y))
        comparison = literal.compare(DebiasedCKA(), x, y, design)
        null = comparison.null(permutations(design, 19, seed))
        for run in range(n_runs):
            own = slice(2 * run, 2 * run + 2)
            found = scores(comparison.value[own, own]).against(null[:, own, own], 1.0)
            largest.append(found.p_max.min() <= 0.05)
            first.append(found.p[0, 0] <= 0.05)
    return np.mean(largest), np.mean(first)


@pytest.mark.parametrize(
    "sizes", [[1] * 8, [3] * 8, [1, 1, 1, 1, 2, 2, 2, 2], [2, 3, 4, 5]], ids=str
)
def test_the_largest_score_of_the_map_is_rarely_significant_by_chance(sizes):
    design = design_of(sum(sizes), groups=np.repeat(np.arange(len(sizes)), sizes))
    largest, first = chance(sizes, design)
    # 200 runs: 0.05 within three standard errors of 0.015.
    assert largest <= 0.1
    assert 0.005 <= first <= 0.1


def test_shuffling_examples_of_groups_one_by_one_would_find_too_much():
    """The control twin: a null that breaks groups up."""
    _, first = chance([3] * 8, design_of(24), noise=0.3)
    assert first > 0.4
