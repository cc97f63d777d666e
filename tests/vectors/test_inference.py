"""Inference over layers: ties, tails, the most extreme layer, and nulls that do not vary."""

import numpy as np
import pytest

from olmo_stages.estimates import max_statistic_p, permutation_p
from olmo_stages.vectors.inference import two_sided, upper


def drawn(n_layers=4, n=199, seed=0):
    return np.random.default_rng(seed).standard_normal((n_layers, n))


def test_p_counts_samples_at_least_as_large():
    samples, value = drawn(), np.array([0.0, 1.0, 2.0, 5.0])
    found = upper(value, samples, np.zeros_like(samples))
    exact = [permutation_p(v, null) for v, null in zip(value, samples, strict=True)]
    assert found.p == pytest.approx(exact)
    assert found.p_max == pytest.approx(max_statistic_p(value, samples.T))
    assert found.p[-1] == 1 / 200


def test_summaries_are_those_of_the_samples():
    samples, value = drawn(), np.full(4, 0.5)
    found = upper(value, samples, np.zeros_like(samples))
    assert found.null == pytest.approx(np.median(samples, axis=1))
    assert found.low == pytest.approx(np.quantile(samples, 0.025, axis=1))
    assert found.high == pytest.approx(np.quantile(samples, 0.975, axis=1))
    assert found.z == pytest.approx((0.5 - samples.mean(1)) / samples.std(1, ddof=1))


def test_what_rounding_may_have_lowered_is_a_tie():
    samples = np.full((1, 99), 0.9) + np.linspace(-1e-4, 1e-4, 99)
    value = np.array([0.9005])
    assert upper(value, samples, np.full_like(samples, 1e-5)).p == [0.01]
    assert upper(value, samples, np.full_like(samples, 1e-3)).p == [1.0]
    assert two_sided(value, samples, np.full_like(samples, 1e-5)).p == [0.01]
    assert two_sided(value, samples, np.full_like(samples, 1e-3)).p == [1.0]


def test_both_tails_count():
    samples = drawn()
    low, high = np.full(4, -4.0), np.full(4, 4.0)
    none = np.zeros_like(samples)
    assert (two_sided(low, samples, none).p == 1 / 200).all()
    assert (two_sided(high, samples, none).p == 1 / 200).all()
    assert (upper(low, samples, none).p == 1).all()


def test_layers_of_different_spread_weigh_alike_in_the_maximum():
    samples = drawn() * np.array([[1.0], [1.0], [1.0], [1000.0]])
    value = np.array([5.0, 0.0, 0.0, 0.0])
    assert two_sided(value, samples, np.zeros_like(samples)).p_max[0] < 0.02


def test_two_sided_p_is_exact():
    hits = 0
    for seed in range(400):
        together = np.random.default_rng(seed).exponential(size=(1, 20))
        found = two_sided(together[:, 0], together[:, 1:], np.zeros((1, 19)))
        hits += found.p[0] <= 0.05
    # Binomial(400, 0.05): 20 expected, a standard error of 4.4.
    assert 7 <= hits <= 34


def test_the_family_wise_p_holds_over_layers():
    hits = 0
    for seed in range(300):
        together = np.random.default_rng(seed).standard_normal((8, 40))
        found = two_sided(together[:, 0], together[:, 1:], np.zeros((8, 39)))
        hits += found.p_max.min() <= 0.05
    assert 3 <= hits <= 29


def test_a_null_that_does_not_vary_has_no_z_and_p_one():
    samples = np.full((1, 99), 0.7)
    found = two_sided(np.array([0.7]), samples, np.full_like(samples, 1e-6))
    assert np.isnan(found.z).all()
    assert (found.p == 1).all()


@pytest.mark.parametrize("test", [upper, two_sided])
def test_a_layer_without_value_has_p_one_and_leaves_the_others_alone(test):
    samples, value = drawn(), np.array([4.0, np.nan, 0.0, 0.0])
    found = test(value, samples, np.zeros_like(samples))
    rest = [0, 2, 3]
    others = test(value[rest], samples[rest], np.zeros((3, 199)))
    assert found.p[1] == found.p_max[1] == 1
    assert found.p[rest] == pytest.approx(others.p)
    assert found.p_max[rest] == pytest.approx(others.p_max)


@pytest.mark.parametrize("test", [upper, two_sided])
def test_without_samples_p_is_one(test):
    found = test(np.array([0.5, 0.6]), np.empty((2, 0)), np.empty((2, 0)))
    assert found.p.tolist() == [1, 1]
    assert np.isnan(found.z).all()
