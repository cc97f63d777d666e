"""Scores of all pairs of layers, their errors and resamples, against literal loops."""

import numpy as np
import pytest
from scipy import stats

from olmo_stages.errors import DataError
from olmo_stages.estimates import group_weights, interval
from olmo_stages.similarity.linear import BiasedCKA, DebiasedCKA
from olmo_stages.similarity.minibatch import MinibatchCKA
from olmo_stages.similarity.tables import fisher_interval, standard_error
from tests.similarity.literal import (
    ALL,
    WHOLE,
    compare,
    design_of,
    designed,
    name,
    related,
    structured,
)

each = pytest.mark.parametrize("measure", ALL, ids=name)
each_whole = pytest.mark.parametrize("measure", WHOLE, ids=name)


def blocks_of(comparison, i, j):
    for index, rows in enumerate(comparison.design.blocks):
        yield comparison.x.blocks[index][i], comparison.y.blocks[index][j], rows


def weighted(comparison, i, j, weights):
    """Cosine over all pairs of rows, drawn as often as said; copies of a group never meet."""
    sums = np.zeros(3)
    groups = comparison.design.groups
    for a, b, rows in blocks_of(comparison, i, j):
        for p, row in enumerate(rows):
            for q, column in enumerate(rows):
                times = weights[row]
                if groups[row] != groups[column]:
                    times *= weights[column]
                one, other = float(a[p, q]), float(b[p, q])
                sums += times * one * other, times * one * one, times * other * other
    return sums[0] / np.sqrt(sums[1] * sums[2])


@each
def test_the_map_is_the_pairwise_loop(measure):
    x, y = related(40, layers=3)
    found = compare(measure, x, y[:2])
    loop = [[weighted(found, i, j, np.ones(40)) for j in range(2)] for i in range(3)]
    np.testing.assert_allclose(found.value, loop, atol=1e-12)


@each
def test_single_precision_is_as_double(measure):
    x, y = related(100, layers=3)
    single = compare(measure, *[[v.astype(np.float32) for v in side] for side in (x, y)])
    double = compare(measure, x, y)
    np.testing.assert_allclose(single.value, double.value, atol=1e-5)
    np.testing.assert_allclose(single.error, double.error, atol=1e-5)


@each
def test_identical_layers_are_exactly_one_without_error(measure):
    x, y = related(50, layers=2, dtype=np.float32)
    found = compare(measure, [x[0], x[1]], [x[1].copy(), x[0].copy(), x[1] + y[0][:, :1]])
    assert found.value[0, 1] == found.value[1, 0] == 1
    assert found.error[0, 1] == found.error[1, 0] == 0
    assert (found.value[[0, 1], [0, 2]] < 1).all()
    assert (found.error[[0, 1], [0, 2]] > 0).all()


@each
def test_identical_layers_are_exactly_one_in_every_resample(measure):
    x, y = related(50, layers=2, dtype=np.float32)
    weights = group_weights([f"{i}" for i in range(50)], 20, 0)
    found = compare(measure, x, [x[0].copy(), y[1]]).resampled(weights)
    assert (found[:, 0] == 1).all()
    assert (found[:, 1] < 1).all()
    assert found[:, 1].std() > 0


@pytest.mark.parametrize("structure", ["single rows", "groups of examples"])
@each
def test_resamples_are_a_loop_over_pairs_with_multiplicities(measure, structure):
    design = designed(measure, 30) if structure == "single rows" else structured(measure, 10)
    n = len(design.units)
    x, y = related(n, layers=2)
    found = compare(measure, x, y, design)
    names = [f"{group}" for group in design.groups]
    weights = group_weights(names, 3, 0)
    loop = [[weighted(found, i, i, w) for i in range(2)] for w in weights]
    # Weights and their products with the tables are exact in float32 up to rounding.
    np.testing.assert_allclose(found.resampled(weights), loop, atol=1e-6)


@each
def test_weights_of_one_leave_the_score(measure):
    design = structured(measure)
    x, y = related(len(design.units), layers=2)
    found = compare(measure, x, y, design)
    ones = np.ones((1, len(design.units)))
    np.testing.assert_allclose(found.resampled(ones)[0], np.diag(found.value), atol=1e-6)


@pytest.mark.parametrize("structure", ["single rows", "groups of examples"])
@each
def test_the_error_is_the_slope_of_the_score_in_the_weights(measure, structure):
    design = designed(measure, 24) if structure == "single rows" else structured(measure, 12)
    n = design.n_groups
    x, y = related(len(design.units), layers=2)
    found = compare(measure, x, y, design)
    step = 1e-4
    for group in (0, 5):
        weights = np.where(design.groups == group, 1 + step, 1.0)
        slope = (smooth(found, 0, weights) - found.value[0, 0]) / step
        assert found.influence[0, 0, group] == pytest.approx(slope, abs=1e-4)
    spread = found.influence[0, 0] - found.influence[0, 0].mean()
    expected = np.sqrt(n / (n - 1) * np.sum(spread**2))
    assert found.error[0, 0] == pytest.approx(expected, rel=1e-10)


def smooth(comparison, layer, weights):
    """`weighted` in arrays."""
    sums = np.zeros(3)
    groups = comparison.design.groups
    for a, b, rows in blocks_of(comparison, layer, layer):
        w = weights[rows]
        inside = groups[rows][:, None] == groups[rows]
        times = np.where(inside, w[:, None], np.outer(w, w))
        sums += [(times * part).sum() for part in (a * b, a * a, b * b)]
    return sums[0] / np.sqrt(sums[1] * sums[2])


# Neighbours of the rows that are left jump when a row is left out: no jackknife for mutual kNN.
@pytest.mark.parametrize("measure", [m for m in WHOLE if name(m) != "mutual_knn"], ids=name)
def test_the_error_is_that_of_leaving_out_one_example_at_a_time(measure):
    n = 100
    x, y = related(n, strength=1.0)
    left = [np.delete(np.arange(n), i) for i in range(n)]
    scores = [compare(measure, [x[0][k]], [y[0][k]]).value[0, 0] for k in left]
    jackknife = np.sqrt((n - 1) * np.var(scores))
    assert compare(measure, x, y).error[0, 0] == pytest.approx(jackknife, rel=0.1)


def test_the_error_is_that_of_leaving_out_one_group_at_a_time():
    design = structured(DebiasedCKA(), 50)
    x, y = by_group(design)
    scores = []
    for group in range(50):
        kept = np.flatnonzero(design.groups != group)
        part = design_of(
            0, owners=np.unique(design.units[kept], return_inverse=True)[1],
            groups=np.repeat(np.arange(49), 2),
        )  # fmt: skip
        scores.append(compare(DebiasedCKA(), [x[0][kept]], [y[0][kept]], part).value[0, 0])
    jackknife = np.sqrt(49 * np.var(scores))
    assert compare(DebiasedCKA(), x, y, design).error[0, 0] == pytest.approx(jackknife, rel=0.1)


def by_group(design, seed=0):
    """Rows that share most with the rows of their group, in both sides."""
    rng = np.random.default_rng(seed)
    n = len(design.groups)
    shared = rng.normal(size=(design.n_groups, 4))[design.groups]
    return [[shared @ rng.normal(size=(4, 30)) + rng.normal(size=(n, 30))] for _ in range(2)]


def test_errors_that_take_related_rows_for_independent_are_too_small():
    design = structured(DebiasedCKA(), 50)
    x, y = by_group(design)
    right = compare(DebiasedCKA(), x, y, design).error[0, 0]
    wrong = compare(DebiasedCKA(), x, y, design_of(len(design.units))).error[0, 0]
    assert wrong < 0.8 * right


@each_whole
def test_the_error_is_the_spread_of_the_resamples(measure):
    n = 150
    x, y = related(n, strength=2.0)
    found = compare(measure, x, y)
    samples = found.resampled(group_weights([f"{i}" for i in range(n)], 1000, 0))
    # Resamples of a list of neighbours spread more: they see the lists only as they are.
    tolerance = 0.3 if name(measure) == "mutual_knn" else 0.15
    assert found.error[0, 0] == pytest.approx(samples.std(), rel=tolerance)


def test_errors_of_batches_are_the_spread_of_resamples():
    (x,), (y,) = related(300, strength=2.0)
    design = design_of(300, batch=40)
    found = compare(MinibatchCKA(40), [x], [y], design)
    samples = found.resampled(group_weights([f"{i}" for i in range(300)], 1000, 0))
    assert found.error[0, 0] == pytest.approx(samples.std(), rel=0.15)


def population(n, runs, strength, seed=0):
    """Samples of one population, one a layer, so that a single comparison scores them all."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(2, 8, 32))
    sides = [[], []]
    for _ in range(runs):
        shared = strength * rng.normal(size=(n, 8))
        for side, mix in zip(sides, maps, strict=True):
            side.append(shared @ mix + 3 * rng.normal(size=(n, 32)))
    return sides


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
@each_whole
def test_intervals_cover_what_repeated_samples_are_centred_on(measure, strength):
    n, runs = 60, 200
    found = compare(measure, *population(n, runs, strength))
    value, error = np.diag(found.value), np.diag(found.error)
    samples = found.resampled(group_weights([f"{i}" for i in range(n)], 300, 1))
    symmetric = [fisher_interval(*pair, n) for pair in zip(value, error, strict=True)]
    percentile = [interval(samples[:, run], n) for run in range(runs)]
    truth = value.mean()
    for ends in (symmetric, percentile):
        low, high = np.array(ends).T
        covered = np.mean((low <= truth) & (truth <= high))
        # 95 % nominal, standard error 1.5 % over 200 runs.
        assert covered >= 0.9
    assert 0.9 < error.mean() / value.std() < 1.7


def test_intervals_of_half_the_error_do_not_cover():
    found = compare(DebiasedCKA(), *population(60, 200, 3.0))
    value, error = np.diag(found.value), np.diag(found.error) / 2
    low, high = np.array([fisher_interval(*v, 60) for v in zip(value, error, strict=True)]).T
    assert np.mean((low <= value.mean()) & (value.mean() <= high)) < 0.85


def test_the_interval_is_a_t_interval_of_fishers_z():
    low, high = fisher_interval(0.8, 0.05, 20)
    middle, half = (
        (np.arctanh(high) + np.arctanh(low)) / 2,
        (np.arctanh(high) - np.arctanh(low)) / 2,
    )
    assert middle == pytest.approx(np.arctanh(0.8))
    assert half == pytest.approx(stats.t.ppf(0.975, 19) * 0.05 / (1 - 0.8**2))


@pytest.mark.parametrize("value", [1.0, 0.3, -1.0])
def test_no_error_is_no_interval(value):
    assert fisher_interval(value, 0.0, 20) == (value, value)


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_interval_near_the_end_is_as_short_as_its_error(distance, sign):
    """Not [-1, 1]: there z is so steep that an error would span it all."""
    value = sign * (1 - distance)
    for error in (0.1 * distance, distance, 10 * distance):
        low, high = fisher_interval(value, error, 20)
        half = stats.t.ppf(0.975, 19) * error
        assert low <= value <= high
        # Where z is used, near the end one side is longer by up to e, the other shorter.
        assert half < high - low < 3 * half


@pytest.mark.parametrize("value", [1 - 1e-15, 1.0, -1.0, 0.999999, 0.2])
def test_an_error_larger_than_the_distance_from_the_end_is_taken_as_it_is(value):
    """The ends may lie beyond the range of a cosine; who knows the range of the measure clips."""
    half = stats.t.ppf(0.975, 19) * 0.5
    assert fisher_interval(value, 0.5, 20) == pytest.approx((value - half, value + half))


@pytest.mark.parametrize("value", [0.999999, 0.9, 0.0, -0.9])
def test_an_interval_of_a_small_error_stays_in_range(value):
    low, high = fisher_interval(value, 0.4 * (1 - abs(value)), 20)
    assert -1 < low < value < high < 1


def test_one_group_has_no_error():
    x, y = related(30)
    # Of the debiased measures one group is refused.
    found = compare(BiasedCKA(), x, y, design_of(30, groups=[0] * 30))
    assert np.isfinite(found.value).all()
    assert np.isnan(found.error).all()
    assert np.isnan(fisher_interval(0.5, float(found.error[0, 0]), 1)).all()


@pytest.mark.parametrize(
    ("groups", "why"),
    [([0] * 30, "1 independent"), ([0] * 15 + [*range(1, 16)], "holds 15 of 30 rows")],
)
def test_debiased_measures_refuse_groups_with_nothing_to_compare(groups, why):
    x, y = related(30)
    with pytest.raises(DataError, match=why):
        compare(DebiasedCKA(), x, y, design_of(30, groups=groups))


def test_standard_error_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(size=(3, 50))
    # The mean changes by (value - mean)/n for a unit of weight.
    influence = (values - values.mean(axis=1, keepdims=True)) / 50
    np.testing.assert_allclose(standard_error(influence), stats.sem(values, axis=1))
