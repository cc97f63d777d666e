"""Centring, dominant dimensions, and inner products that keep their digits."""

import numpy as np
import pytest

from olmo_stages.errors import DataError, NonFiniteError
from olmo_stages.similarity.features import Features
from olmo_stages.similarity.linear import BiasedCKA, DebiasedCKA
from tests.similarity.literal import RESOLUTION, debiased_cka, score

WHERE = "layer 3 of think_dpo"


def values_of(n=60, d=40, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) + 5 * rng.normal(size=d)).astype(np.float32)


def with_dominant(columns=(7, 30), factor=100.0, **size):
    values = values_of(**size)
    values[:, list(columns)] *= np.float32(factor)
    return values


def of(values, **options):
    return Features.of(values, RESOLUTION, WHERE, **options)


def standardised(values):
    """Centred in float64; dimensions above ten times the median variance scaled down."""
    centred = values.astype(np.float64)
    centred -= centred.mean(axis=0)
    variance = centred.var(axis=0)
    median = np.median(variance[variance > 0])
    far = variance > 10 * median
    target = np.maximum(median, (10 * median) ** 2 / variance[far])
    centred[:, far] *= np.sqrt(target / variance[far])
    return centred


def unit_gram(values):
    gram = values.astype(np.float64) @ values.astype(np.float64).T
    return gram * len(gram) / np.trace(gram)


def test_dominant_dimensions_are_found():
    found = of(with_dominant((7, 30)))
    assert found.dominant.tolist() == [7, 30]
    assert found.top in {7, 30}
    assert found.top_share > 0.4


def test_no_dimension_dominates_if_all_are_alike():
    found = of(values_of())
    assert found.dominant.tolist() == []
    assert found.top_share < 0.1
    grams = found.grams(("raw", "standardised"))
    assert grams["raw"] is grams["standardised"]


def test_share_of_the_top_dimension_is_that_of_its_variance():
    values = with_dominant((7,))
    variance = values.astype(np.float64).var(axis=0)
    found = of(values)
    assert found.top == 7
    assert found.top_share == pytest.approx(variance[7] / variance.sum(), rel=1e-5)


def test_values_are_centred_and_dominant_ones_have_the_median_spread():
    values = with_dominant()
    found = of(values)
    raw, scaled = found.values("raw"), found.values("standardised")
    # 1e-6 of the largest value, the rounding of float32.
    np.testing.assert_allclose(raw, values - values.mean(axis=0, dtype=np.float64), atol=2e-3)
    np.testing.assert_allclose(scaled, standardised(values), atol=2e-5)
    spread = scaled.std(axis=0)
    assert spread[[7, 30]] == pytest.approx(np.median(values.std(axis=0)), rel=1e-4)
    others = np.delete(np.arange(40), [7, 30])
    np.testing.assert_array_equal(raw[:, others], scaled[:, others])


def with_times_the_median(times, columns=(7,), **size):
    """Dimensions whose variance is exactly so many times the median of all."""
    values = values_of(**size).astype(np.float64)
    for _ in range(3):  # until the median no longer moves
        variance = values.var(axis=0)
        values[:, list(columns)] *= np.sqrt(times * np.median(variance) / variance[list(columns)])
    return values.astype(np.float32)


@pytest.mark.parametrize(
    ("times", "expected"),
    [(9.0, 9.0), (9.99, 9.99), (10.01, 9.99), (20, 5), (50, 2), (99, 1.0101), (101, 1), (1e4, 1)],
)
def test_the_farther_a_dimension_dominates_the_less_variance_it_keeps(times, expected):
    values = with_times_the_median(times)
    found = of(values)
    assert found.dominant.tolist() == ([7] if times > 10 else [])
    variance = found.values("standardised").astype(np.float64).var(axis=0)
    # The median of the float32 values themselves, to 1e-5.
    median = np.median(values.astype(np.float64).var(axis=0))
    assert variance[7] / median == pytest.approx(expected, rel=1e-3)
    assert found.norms["standardised"] == pytest.approx(variance.sum(), rel=1e-4)
    np.testing.assert_allclose(found.values("standardised"), standardised(values), atol=1e-4)


def sides_about_the_limit(below, above):
    """A shared dimension, just above the limit on one side and just below on the other."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 41))
    y = x + 0.02 * rng.normal(size=x.shape)
    sides = []
    for side, times in ((x, above), (y, below)):
        for _ in range(3):  # until the median no longer moves
            variance = side.var(axis=0)
            side[:, 3] *= np.sqrt(times * np.median(variance) / variance[3])
        sides.append(side.astype(np.float32))
    return sides


def test_a_dimension_about_the_limit_does_not_part_the_sides():
    x, y = sides_about_the_limit(9.82, 10.17)
    assert of(x).dominant.tolist() == [3]
    assert of(y).dominant.tolist() == []
    raw, scaled = (score(DebiasedCKA(), x, y, variant=it) for it in ("raw", "standardised"))
    assert raw > 0.999
    # The targets, 9.83 and 9.82 times the median, are as near as the variances are: by 4 %.
    assert scaled == pytest.approx(raw, abs=1e-3)


def test_a_limit_from_which_all_is_scaled_to_the_median_would_part_them():
    x, y = (side.astype(np.float64) for side in sides_about_the_limit(9.82, 10.17))
    x[:, 3] /= np.sqrt(10.17)
    assert debiased_cka(x - x.mean(axis=0), y - y.mean(axis=0)) < 0.99


@pytest.mark.parametrize("factor", [5.0, 100.0])
@pytest.mark.parametrize("variant", ["raw", "standardised"])
def test_inner_products_are_those_of_the_explicit_features(variant, factor):
    values = with_dominant(factor=factor)
    found = of(values)
    assert found.dominant.tolist() == [7, 30]
    np.testing.assert_allclose(
        found.gram(variant), unit_gram(found.values(variant)), rtol=0, atol=1e-5
    )


def test_inner_products_of_some_rows_are_a_part_of_all():
    found = of(with_dominant())
    rows = np.array([3, 50, 17, 18])
    part = found.gram("standardised", rows)
    np.testing.assert_allclose(part, found.gram("standardised")[np.ix_(rows, rows)], atol=1e-5)


def test_two_variants_at_once_are_as_one_by_one():
    found = of(with_dominant())
    both = found.grams(("raw", "standardised"))
    for variant, gram in both.items():
        np.testing.assert_array_equal(gram, found.gram(variant))
    assert np.abs(both["raw"] - both["standardised"]).max() > 0.1


@pytest.mark.parametrize("factor", [1e2, 1e4, 1e6])
def test_a_massive_dimension_does_not_drown_the_others(factor):
    values = with_dominant((5,), factor, n=100, d=500)
    exact = unit_gram(standardised(values))
    ours = of(values).gram("standardised")
    assert np.linalg.norm(ours - exact) < 1e-5 * np.linalg.norm(exact)


def test_inner_products_of_all_dimensions_at_once_would_be_drowned():
    values = with_dominant((5,), 1e6, n=100, d=500)
    centred = values - values.mean(axis=0)
    gram = centred @ centred.T
    rest = gram - np.outer(centred[:, 5], centred[:, 5])
    exact = standardised(np.delete(values, 5, axis=1))
    exact = exact @ exact.T
    assert np.linalg.norm(rest - exact) > 0.1 * np.linalg.norm(exact)


def test_input_is_left_alone():
    values = with_dominant()
    before = values.copy()
    of(values)
    np.testing.assert_array_equal(values, before)


def test_input_is_overwritten_if_allowed():
    values = with_dominant()
    found = of(values, overwrite=True)
    assert np.shares_memory(found.others, values)


def test_overwriting_changes_no_number():
    one, other = of(with_dominant()), of(with_dominant(), overwrite=True)
    for variant in ("raw", "standardised"):
        np.testing.assert_array_equal(one.gram(variant), other.gram(variant))


def test_input_that_cannot_be_written_is_copied():
    values = with_dominant()
    values.flags.writeable = False
    found = of(values, overwrite=True)
    assert not np.shares_memory(found.others, values)
    np.testing.assert_array_equal(found.gram("raw"), of(with_dominant()).gram("raw"))


@pytest.mark.parametrize(
    "layout",
    [np.asfortranarray, lambda v: np.repeat(v, 2, axis=1)[:, ::2], lambda v: v[::-1][::-1]],
    ids=["columns first", "every other column", "reversed"],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_layout_in_memory_changes_no_number(layout, overwrite):
    values = layout(with_dominant())
    # Another order of summation.
    np.testing.assert_allclose(
        of(values, overwrite=overwrite).gram("raw"), of(with_dominant()).gram("raw"), atol=1e-5
    )


@pytest.mark.parametrize("d", [511, 512, 513, 1025])
def test_columns_beyond_a_multiple_of_a_chunk_are_centred_too(d):
    values = values_of(n=20, d=d)
    found = of(values).values("raw")
    np.testing.assert_allclose(found, values - values.mean(axis=0, dtype=np.float64), atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6, 1e8])
def test_large_and_small_values_have_the_inner_products_of_ordinary_ones(scale):
    ours = of(with_dominant() * np.float32(scale)).gram("raw")
    np.testing.assert_allclose(ours, of(with_dominant()).gram("raw"), atol=1e-5)


@pytest.mark.parametrize("scale", [1e18, 1e30])
def test_values_whose_squares_overflow_are_refused(scale):
    with pytest.raises(NonFiniteError, match=f"{WHERE}: the squares of 60 rows"):
        of(with_dominant() * np.float32(scale))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_and_placed(bad):
    values = values_of()
    values[[11, 40], [3, 5]] = bad
    with pytest.raises(NonFiniteError, match=f"{WHERE}: .* of 60 rows are not finite, .* row 11"):
        of(values)


@pytest.mark.parametrize("constant", [0.0, 1.0, 3.7, 1e6])
def test_constant_features_are_refused(constant):
    with pytest.raises(DataError, match=f"{WHERE}: constant features: none of 40 .* over 60 rows"):
        of(np.full((60, 40), constant, dtype=np.float32))


def test_features_constant_up_to_rounding_are_refused():
    values = np.full((60, 40), 3.7, dtype=np.float32)
    values[::2] = np.nextafter(values[::2], np.float32(4))
    with pytest.raises(DataError, match="constant features"):
        of(values)


def test_one_dimension_that_varies_is_enough():
    values = np.full((60, 40), 3.7, dtype=np.float32)
    values[:, 9] = values_of()[:, 9]
    found = of(values)
    assert (found.top, found.top_share) == (9, pytest.approx(1))
    np.testing.assert_allclose(
        found.gram("raw"), unit_gram(values[:, [9]] - values[:, 9].mean()), atol=1e-5
    )


def test_a_single_dimension_is_enough():
    values = values_of(d=1)
    np.testing.assert_allclose(
        of(values).gram("raw"), unit_gram(values - values.mean(dtype=np.float64)), atol=1e-5
    )


def test_one_shared_massive_dimension_is_all_that_the_raw_score_sees():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 500, 512))
    shared = rng.normal(size=500)
    x[:, 3], y[:, 100] = 200 * shared, 200 * shared
    x, y = x.astype(np.float32), y.astype(np.float32)
    assert score(DebiasedCKA(), x, y, variant="raw") > 0.999
    assert abs(score(DebiasedCKA(), x, y, variant="standardised")) < 0.01


def test_standardised_keeps_what_the_other_dimensions_share():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 64))
    y = x + rng.normal(size=x.shape)
    expected = debiased_cka(x, y)
    x[:, 3], y[:, 10] = 200 * rng.normal(size=(2, 500))
    x, y = x.astype(np.float32), y.astype(np.float32)
    assert abs(score(DebiasedCKA(), x, y, variant="raw")) < 0.05
    # One of 64 dimensions on either side is now noise.
    assert score(DebiasedCKA(), x, y, variant="standardised") == pytest.approx(expected, abs=0.05)


def test_one_shared_outlying_row_makes_everything_alike_until_it_is_removed():
    x, y = np.random.default_rng(0).normal(size=(2, 500, 64)).astype(np.float32)
    x[0], y[0] = 300 * x[0], 300 * y[0]
    assert score(BiasedCKA(), x, y) > 0.999
    assert abs(score(DebiasedCKA(), x[1:], y[1:])) < 0.02


def test_the_outlying_row_takes_most_of_the_sum_of_squares():
    values = values_of()
    values[4] *= 300
    share = np.diag(of(values).gram("raw")) / len(values)
    assert share.argmax() == 4
    assert share[4] > 0.9
    assert share.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("n_dead", [0, 12, 35])
@pytest.mark.parametrize("factor", [100.0, 1e6])
def test_dead_dimensions_do_not_make_the_living_ones_dominant(n_dead, factor):
    """Of 40 dimensions one is massive and up to 35 vary by rounding only."""
    values = with_dominant((7,), factor)
    dead = [column for column in range(40) if column != 7][:n_dead]
    values[:, dead] *= np.float32(1e-6)
    assert of(values).dominant.tolist() == [7]
