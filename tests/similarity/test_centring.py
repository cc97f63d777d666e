"""Projection on tables without row sums and without pairs within a unit."""

import numpy as np
import pytest

from olmo_stages.errors import DataError
from olmo_stages.similarity.centring import doubly_centred, unit_centred
from olmo_stages.similarity.linear import DebiasedCKA
from olmo_stages.similarity.minibatch import MinibatchCKA
from tests.similarity import literal
from tests.similarity.literal import compare, design_of, related

UNITS = np.repeat(np.arange(9), [1, 5, 2, 3, 3, 1, 4, 2, 3])


def symmetric(n, seed=0):
    table = np.random.default_rng(seed).normal(size=(n, n))
    return table + table.T


def test_rows_sum_to_zero_and_pairs_within_a_unit_are_zero():
    table = unit_centred(symmetric(len(UNITS)), UNITS)
    assert np.abs(table.sum(axis=1)).max() < 1e-12
    assert not table[UNITS[:, None] == UNITS].any()
    np.testing.assert_allclose(table, table.T, atol=1e-14)


def test_single_precision_keeps_the_row_sums_at_rounding():
    table = unit_centred(symmetric(len(UNITS)).astype(np.float32) + 100, UNITS)
    # 24 float32 numbers of about 100, each rounded by 4e-6.
    assert np.abs(table.sum(axis=1)).max() < 1e-3


def test_one_row_a_unit_is_the_u_centring():
    n = 12
    table = symmetric(n)
    np.fill_diagonal(table, 0)
    rows = table.sum(axis=1)
    expected = table - rows[:, None] / (n - 2) - rows / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(unit_centred(table, np.arange(n)), expected, atol=1e-13)


def test_products_are_the_unbiased_hsic():
    n = 30
    k, other = symmetric(n, 1), symmetric(n, 2)
    product = (unit_centred(k, np.arange(n)) * unit_centred(other, np.arange(n))).sum()
    assert product / (n * (n - 3)) == pytest.approx(literal.hsic(k, other), abs=1e-12)


def test_it_is_an_orthogonal_projection():
    k, other = symmetric(len(UNITS), 1), symmetric(len(UNITS), 2)
    one, two = unit_centred(k, UNITS), unit_centred(other, UNITS)
    np.testing.assert_allclose(unit_centred(one, UNITS), one, atol=1e-13)
    assert (one * other).sum() == pytest.approx((one * two).sum(), rel=1e-10)


def test_sums_of_a_row_and_a_column_effect_are_removed():
    effect = np.random.default_rng(0).normal(size=len(UNITS))
    assert np.abs(unit_centred(effect[:, None] + effect, UNITS)).max() < 1e-12


def test_what_happens_within_units_does_not_matter():
    table = symmetric(len(UNITS))
    other = np.where(UNITS[:, None] == UNITS, 1e3, table)
    np.testing.assert_allclose(unit_centred(other, UNITS), unit_centred(table, UNITS), atol=1e-12)


def test_double_centring_is_h_k_h():
    table = symmetric(10)
    h = np.eye(10) - 0.1
    np.testing.assert_allclose(doubly_centred(table), h @ table @ h, atol=1e-13)


def test_names_of_units_do_not_matter():
    table = symmetric(len(UNITS))
    np.testing.assert_array_equal(unit_centred(table, 7 * UNITS + 3), unit_centred(table, UNITS))


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_the_rows_of_a_unit_change_neither_score_nor_error_nor_resamples(copies):
    x, y = related(30, strength=0.5)
    rows = np.repeat(np.arange(30), copies)
    design = design_of(len(rows), owners=rows)
    once = compare(DebiasedCKA(), x, y)
    often = compare(DebiasedCKA(), [x[0][rows]], [y[0][rows]], design)
    weights = np.random.default_rng(0).multinomial(30, [1 / 30] * 30, size=50).astype(float)
    assert often.value == pytest.approx(once.value, abs=1e-10)
    assert often.error == pytest.approx(once.error, abs=1e-10)
    assert often.resampled(weights[:, rows]) == pytest.approx(once.resampled(weights), abs=1e-10)


def test_copies_change_everything_if_they_count_as_examples():
    x, y = related(30, strength=0.5)
    rows = np.repeat(np.arange(30), 5)
    once = compare(DebiasedCKA(), x, y)
    often = compare(DebiasedCKA(), [x[0][rows]], [y[0][rows]])
    assert often.value > once.value + 0.02
    assert often.error < 0.7 * once.error


def test_copies_change_no_minibatch_score():
    x, y = related(40, strength=0.5)
    rows = np.repeat(np.arange(40), 3)
    once, often = design_of(40, batch=12), design_of(120, owners=rows, batch=36)
    assert [len(block) for block in often.blocks] == [3 * len(block) for block in once.blocks]
    expected = compare(MinibatchCKA(12), x, y, once)
    found = compare(MinibatchCKA(36), [x[0][rows]], [y[0][rows]], often)
    assert found.value == pytest.approx(expected.value, abs=1e-10)
    assert found.error == pytest.approx(expected.error, abs=1e-10)


def correlated_within_units(rng, n_units, size, d):
    shared = np.repeat(rng.normal(size=(n_units, d)), size, axis=0)
    return shared + 0.5 * rng.normal(size=shared.shape)


def mean_and_error_of_hsic(units_of):
    rng = np.random.default_rng(0)
    n_units, size = 10, 4
    units = units_of(np.repeat(np.arange(n_units), size))
    found = []
    for _ in range(400):
        x, y = (correlated_within_units(rng, n_units, size, 6) for _ in range(2))
        found.append((unit_centred(x @ x.T, units) * unit_centred(y @ y.T, units)).mean())
    return np.mean(found), np.std(found) / np.sqrt(len(found))


def test_independent_sides_with_correlated_rows_have_no_hsic_on_average():
    mean, error = mean_and_error_of_hsic(lambda units: units)
    assert abs(mean) < 3 * error


def test_independent_sides_have_some_if_correlated_rows_count_as_independent():
    mean, error = mean_and_error_of_hsic(lambda units: np.arange(len(units)))
    assert mean > 20 * error


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_than_four_examples_are_refused(n):
    with pytest.raises(DataError, match=rf"{n} independent groups \({n} rows\)"):
        unit_centred(np.eye(n), np.arange(n))


def test_many_rows_of_three_examples_are_refused():
    with pytest.raises(DataError, match=r"3 independent groups \(30 rows\)"):
        unit_centred(np.eye(30), np.repeat(np.arange(3), 10))


def test_four_examples_are_enough():
    assert np.abs(unit_centred(symmetric(4), np.arange(4))).max() > 0.01


def test_an_example_with_half_of_the_rows_is_refused():
    with pytest.raises(DataError, match="one group holds 5 of 10 rows"):
        unit_centred(np.eye(10), np.repeat(np.arange(6), [5, 1, 1, 1, 1, 1]))


def test_an_example_with_less_than_half_of_the_rows_is_not():
    units = np.repeat(np.arange(7), [5, 1, 1, 1, 1, 1, 1])
    assert np.abs(unit_centred(symmetric(11), units).sum(axis=1)).max() < 1e-12
