import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import hadamard, subspace_angles
from scipy.stats import ortho_group
from statsmodels.multivariate.cancorr import CanCorr

from olmo_stages.errors import ConfigError, DataError, NonFiniteError
from olmo_stages.similarity.canonical import (
    PWCCA,
    SVCCA,
    canonical_correlations,
    few_rows,
    projection_weighted,
)
from olmo_stages.similarity.measure import Fitted

MEASURES = [SVCCA(0.9), SVCCA(1.0), PWCCA(0.9), PWCCA(1.0), PWCCA(None)]
ROWS = 200
NO_GROUPS = np.arange(ROWS)


def layers(n=ROWS, d=12, noise=0.5, seed=0):
    """Two related layers with a spectrum that falls."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** -0.7
    x = rng.normal(size=(n, d)) * scale
    return x, (x + noise * rng.normal(size=(n, d))) @ ortho_group.rvs(d, random_state=seed)


def score(x, y, measure):
    return measure.score(measure.prepare(x), measure.prepare(y), np.arange(len(x)))


def at_angles(first, second):
    """Layers whose canonical correlations are the cosines; neurons of x are 3 and 1 long."""
    h = hadamard(8).astype(float)[:, 1:5]
    x = h[:, :2] * [3, 1]
    y = h[:, :2] * np.cos([first, second]) + h[:, 2:] * np.sin([first, second])
    return x, y


def transformed(values, name):
    d = values.shape[1]
    return {
        "orthogonal": lambda: values @ ortho_group.rvs(d, random_state=1),
        "isotropic_scale": lambda: 1e-3 * values,
        "translation": lambda: values + 1000,
        "permutation": lambda: values[:, np.random.default_rng(1).permutation(d)],
        "invertible_linear": lambda: values @ np.random.default_rng(1).normal(size=(d, d)),
    }[name]()


@pytest.mark.parametrize(
    "name", ["orthogonal", "isotropic_scale", "translation", "permutation", "invertible_linear"]
)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_exactly_the_declared_transformations_leave_the_score_alone(measure, side, name):
    pair = list(layers())
    before = score(*pair, measure)
    pair[side] = transformed(pair[side], name)
    change = abs(score(*pair, measure) - before)
    if name in measure.declared.invariances:
        assert change < 1e-10  # rounding of values near 1000 reaches 1e-12
    else:
        assert change > 1e-3


@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_is_a_fitted_measure_whose_best_score_identical_layers_reach(measure):
    assert isinstance(measure, Fitted)
    x, y = layers()
    assert score(x, x, measure) == pytest.approx(measure.declared.high, abs=1e-12)
    assert score(x, y, measure) < 0.95


@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_symmetric(measure):
    x, y = layers()
    assert score(x, y[:, :7], measure) == pytest.approx(score(y[:, :7], x, measure), abs=1e-12)


def test_correlations_agree_with_scipy_and_statsmodels():
    x, y = layers()
    y = y[:, :7]
    found = canonical_correlations(x, y)
    assert len(found) == 7
    x, y = (side - side.mean(0) for side in (x, y))
    np.testing.assert_allclose(found, np.sort(np.cos(subspace_angles(x, y)))[::-1], atol=1e-10)
    np.testing.assert_allclose(found, CanCorr(y, x).cancorr, atol=1e-10)


def test_one_column_a_side_is_the_correlation():
    x, y = np.array([[0.0], [1], [2], [3]]), np.array([[0.0], [2], [1], [3]])
    assert SVCCA(1.0).score(x, -y, np.arange(4)) == pytest.approx(0.8, abs=1e-12)


def test_angles_by_hand():
    x, y = at_angles(0.3, 1.2)
    first, second = np.cos([0.3, 1.2])
    assert score(x, y, SVCCA(1.0)) == pytest.approx((first + second) / 2, abs=1e-12)
    # Weights 3 : 1 from x, whose neurons are 3 and 1 long; equal ones from y.
    by_x, by_y = (3 * first + second) / 4, (first + second) / 2
    assert projection_weighted(x, y) == pytest.approx((by_x, by_y), abs=1e-12)
    assert score(x, y, PWCCA(None)) == pytest.approx((by_x + by_y) / 2, abs=1e-12)


def test_truncation_keeps_the_share_of_variance_by_hand():
    x, _ = at_angles(0, 0)  # variances 9 and 1
    assert SVCCA(0.85).prepare(x).shape == (8, 1)
    assert SVCCA(0.95).prepare(x).shape == (8, 2)
    _, y = at_angles(0.3, 1.2)
    # Only the first direction of x is left, which has the angle 0.3 to the plane of y.
    assert SVCCA(0.85).score(SVCCA(0.85).prepare(x), y, np.arange(8)) == pytest.approx(np.cos(0.3))


def test_rounding_of_float32_adds_no_components():
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(ROWS, 5)) @ rng.normal(size=(5, 40))).astype(np.float32)
    assert SVCCA(1.0).prepare(values).shape == (ROWS, 5)
    full = values + rng.normal(size=values.shape).astype(np.float32)
    assert SVCCA(1.0).prepare(full).shape == (ROWS, 40)


@pytest.mark.parametrize("measure", [SVCCA(0.9), PWCCA(0.9), PWCCA(None)], ids=repr)
def test_copies_and_constants_among_the_neurons_add_no_correlations(measure):
    x, y = layers()
    constant = np.full((ROWS, 1), 0.1)
    assert score(np.hstack([x, constant]), y, measure) == pytest.approx(
        score(x, y, measure), abs=1e-12
    )
    copied = canonical_correlations(np.hstack([x, x[:, :3], constant]), y)
    np.testing.assert_allclose(copied, canonical_correlations(x, y), atol=1e-10)


def test_nearly_equal_neurons_still_span_two_directions():
    x = np.random.default_rng(0).normal(size=(ROWS, 2))
    mixed = np.stack([x[:, 0], x[:, 0] + 1e-4 * x[:, 1]], axis=1)
    # The condition number 1e4 costs four of sixteen digits.
    np.testing.assert_allclose(canonical_correlations(mixed, x), [1, 1], atol=1e-10)


def test_a_component_that_lives_in_rows_left_out_is_not_counted():
    x, y = layers()
    outlier = np.zeros((ROWS, 1))
    outlier[0] = 1000
    x = np.hstack([x, outlier])
    prepared, other = SVCCA(1.0).prepare(x), SVCCA(1.0).prepare(y)
    kept = slice(1, None)
    assert prepared.shape[1] == 13
    found = SVCCA(1.0).score(prepared[kept], other[kept], NO_GROUPS[kept])
    assert found == pytest.approx(score(x[kept, :12], y[kept], SVCCA(1.0)), abs=1e-8)


@pytest.mark.parametrize("n_components", [50, 200])
def test_unrelated_layers_score_what_wachter_says(n_components):
    n, share = 1000, n_components / 1000
    edge = 4 * share * (1 - share)
    density = lambda r: np.sqrt(edge - r**2) / (np.pi * share * (1 - r**2))  # noqa: E731
    expected = quad(lambda r: r * density(r), 0, np.sqrt(edge))[0]
    x, y = np.random.default_rng(0).normal(size=(2, n, n_components))
    # The mean of k correlations fluctuates by about 1/n; ten times that.
    assert score(x, y, SVCCA(1.0)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("measure", [SVCCA(0.9), PWCCA(0.9)], ids=repr)
def test_the_true_pairing_scores_above_every_shuffled_one(measure):
    x, y = (measure.prepare(side) for side in layers())
    rng = np.random.default_rng(0)
    shuffled = [measure.score(x, y[rng.permutation(ROWS)], NO_GROUPS) for _ in range(50)]
    assert max(shuffled) < 0.4 < measure.score(x, y, NO_GROUPS)


def test_correlations_forced_by_few_rows_are_refused():
    x, y = np.random.default_rng(0).normal(size=(2, 21, 10))
    assert score(x, y, SVCCA(1.0)) < 1
    message = r"10 and 10 components of 20 rows: 1 canonical correlations would be 1"
    with pytest.raises(DataError, match=message):
        score(x[:20], y[:20], SVCCA(1.0))
    with pytest.raises(DataError, match="8 and 8 components of 9 rows: 8 canonical"):
        score(x[:9], y[:9], PWCCA(1.0))


def test_bad_input_is_refused_with_the_numbers():
    x, _ = layers()
    with pytest.raises(DataError, match="none of 12 dimensions varies over 200 rows"):
        PWCCA(None).prepare(np.tile(x[0], (ROWS, 1)))
    outlier = SVCCA(0.9).prepare(np.eye(ROWS, 3)[:, :1])
    with pytest.raises(DataError, match="none of 1 components varies over 199 rows"):
        SVCCA(0.9).score(outlier[1:], x[1:], NO_GROUPS[1:])
    with pytest.raises(DataError, match="3 rows"):
        SVCCA(0.9).prepare(x[:3])
    with pytest.raises(NonFiniteError, match=r"1 of 2400 .* row 0"):
        PWCCA(None).prepare(np.where(x == x[0, 0], np.inf, x))


@pytest.mark.parametrize("variance", [0.0, -1.0, 1.5, float("nan")])
@pytest.mark.parametrize("measure", [SVCCA, PWCCA])
def test_a_share_that_is_none_is_refused(measure, variance):
    with pytest.raises(ConfigError, match=f"variance={variance}"):
        measure(variance)


def test_fewer_than_ten_rows_a_component_are_warned_of():
    assert few_rows(500, 50) == ""
    assert "499 rows for 50 components" in few_rows(499, 50)
