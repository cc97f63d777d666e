import numpy as np
import pytest
import scipy.spatial.distance
from sklearn.linear_model import LogisticRegression

from olmo_stages import descent
from olmo_stages.logistic import (
    ConvergenceError,
    accelerated,
    classes,
    polish,
    principal_axes,
)


def problem(n=80, d=20, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 4 > 0).astype(float)  # three quarters positive
    x = rng.normal(size=(n, d)) + signal * (y[:, None] - 0.5) * rng.normal(size=d)
    return x, y


def exact(x, y, strength):
    model = LogisticRegression(
        C=1 / (len(y) * strength),
        class_weight="balanced",
        solver="newton-cholesky",
        tol=1e-13,
        max_iter=10_000,
    )
    return model.fit(x, y)


def one(axes, y, strength, tolerance=1e-4):
    """Weights and bias of one fit."""
    w, b = accelerated(axes, y[:, None], np.array([strength]), tolerance)
    return w[:, 0], float(b[0])


@pytest.mark.parametrize(("n", "d"), [(80, 20), (40, 100)])
def test_principal_axes_are_a_rotation_of_the_centred_examples(n, d):
    x, _ = problem(n, d)
    axes = principal_axes(x)
    centred = x - x.mean(0)
    assert axes.z @ axes.z.T == pytest.approx(centred @ centred.T)
    assert axes.z.T @ axes.z / n == pytest.approx(np.diag(axes.spectrum), abs=1e-10)


@pytest.mark.parametrize(("n", "d"), [(80, 20), (40, 100)])
def test_projecting_the_examples_themselves_gives_their_coordinates(n, d):
    x, _ = problem(n, d)
    axes = principal_axes(x)
    assert axes.project(x) == pytest.approx(axes.z, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(80, 20), (40, 100)])
@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_polished_solution_is_sklearns_converged_one(n, d, strength, seed):
    x, y = problem(n, d, seed)
    axes = principal_axes(x)
    w, _ = polish(axes, y, strength, one(axes, y, strength))
    direction = axes.features(w[:, None])[:, 0]
    theirs = exact(x, y, strength).coef_[0]
    assert scipy.spatial.distance.cosine(direction, theirs) < 1e-9
    assert direction == pytest.approx(theirs, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(
    ("strength", "tolerance", "measured"),
    [(1e-4, 1e-6, 4e-4), (1e-4, 1e-4, 5e-2), (1e-2, 1e-4, 5e-4)],
)
def test_accelerated_fits_agree_with_polished_ones_in_their_scores(strength, tolerance, measured):
    x, y = problem(240, 64)
    # Examples of squared norm about one, as olmo_stages.nested makes them.
    axes = principal_axes(x / 8)
    w, b = one(axes, y, strength, tolerance)
    exact_w, exact_b = polish(axes, y, strength, (w, b))
    # On logits of up to 13; tenfold margin.
    assert np.abs(axes.z @ (w - exact_w) + b - exact_b).max() < 10 * measured
    single, offset = one(axes.single(), y, strength, max(tolerance, 1e-5))
    assert np.abs(axes.z @ (single - exact_w) + offset - exact_b).max() < 10 * max(measured, 5e-3)


def test_each_target_is_fitted_as_if_it_were_alone():
    x, y = problem()
    other = 1 - y[::-1]
    axes = principal_axes(x)
    both, _ = accelerated(axes, np.stack([y, other], 1), np.array([1e-2, 1e-1]), 1e-8)
    alone, _ = one(axes, other, 1e-1, 1e-8)
    assert both[:, 1] == pytest.approx(alone, abs=1e-5, rel=1e-3)


def test_fits_of_several_blocks_are_those_of_one(monkeypatch):
    x, y = problem()
    axes, rng = principal_axes(x), np.random.default_rng(0)
    targets = rng.permuted(np.tile(y[:, None], 10), axis=0)
    strengths = np.geomspace(1e-4, 1.0, 10)
    together = accelerated(axes, targets, strengths, 1e-8)
    monkeypatch.setattr(descent, "BLOCK", 3)
    apart = accelerated(axes, targets, strengths, 1e-8)
    for ours, theirs in zip(together, apart, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-3)


def test_an_example_that_is_left_out_has_no_say():
    x, y = problem()
    kept = np.arange(80) % 4 > 0
    strength = 1e-2
    axes, alone = principal_axes(x), principal_axes(x[kept])
    w, b = polish(alone, y[kept], strength, one(alone, y[kept], strength))
    direction = alone.features(w[:, None])[:, 0]
    masked = np.where(kept, y, -1)
    ours, offset = one(axes, masked, strength, 1e-8)
    assert axes.features(ours[:, None])[:, 0] == pytest.approx(direction, abs=1e-5)
    assert offset - axes.mean @ direction == pytest.approx(b - alone.mean @ direction, abs=1e-5)
    others = np.where(kept, y, 1 - y)
    assert not np.allclose(one(axes, others, strength, 1e-8)[0], ours, atol=1e-2)


def test_fits_that_run_out_of_steps_are_returned_as_they_are():
    x, y = problem()
    axes = principal_axes(x)
    targets, strengths = np.stack([y, y], 1), np.array([1e-4, 1e2])
    short, _ = accelerated(axes, targets, strengths, 1e-8, max_steps=3)
    long, _ = accelerated(axes, targets, strengths, 1e-8)
    assert np.isfinite(short).all()
    assert short[:, 0].any()
    assert not np.allclose(short[:, 0], long[:, 0], atol=1e-2)


def test_examples_far_on_their_side_do_not_overflow():
    x, y = problem(signal=0)
    x[:, 0] = 1e3 * (y - 0.5)
    axes = principal_axes(x).single()
    w, b = one(axes, y, 1e-4)
    assert np.isfinite(w).all()
    assert ((axes.z @ w + b > 0) == (y > 0)).all()


def test_classes_have_equal_weight_and_a_single_class_has_none():
    y = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, -1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    x = np.random.default_rng(0).normal(size=(4, 3))
    axes = principal_axes(x)
    half, means = classes(axes, y)
    assert half * 8 == pytest.approx(  # half of the weight, over 4 examples
        np.array([[2 / 3, 2 / 3, 2 / 3, 2], [0, 0, 0, 0], [1, 0, 1, 2]])
    )
    assert means[1][0] == pytest.approx(axes.z[:3].mean(0))
    assert means[1][2] == pytest.approx(axes.z[[0, 2]].mean(0))
    assert means[0][2] == pytest.approx(axes.z[3])


def test_class_means_are_the_same_whether_or_not_another_target_leaves_examples_out():
    x, y = problem()
    axes = principal_axes(x)
    left_out = np.where(np.arange(80) < 10, -1, y)
    alone, beside = classes(axes, y[:, None]), classes(axes, np.stack([y, left_out], 1))
    for side in (0, 1):
        assert beside.means[side][0] == pytest.approx(alone.means[side][0], abs=1e-12)
        expected = axes.z[left_out == side].mean(0)
        assert beside.means[side][1] == pytest.approx(expected, abs=1e-12)
    assert beside.half[0] == pytest.approx(alone.half[0])


def test_a_target_of_one_class_gets_the_zero_probe():
    x, y = problem()
    w, b = one(principal_axes(x), np.ones_like(y), 1.0)
    assert not w.any()
    assert not b


def test_constant_features_do_not_crash():
    x, y = np.ones((30, 5)), (np.arange(30) % 2).astype(float)
    axes = principal_axes(x)
    w, b = polish(axes, y, 1.0, one(axes, y, 1.0))
    assert np.isfinite(w).all()
    assert b == pytest.approx(0, abs=1e-6)


def test_an_unreachable_tolerance_is_an_error_that_names_the_option():
    x, y = problem()
    axes = principal_axes(x)
    with pytest.raises(ConvergenceError, match=r"analysis\.strengths"):
        polish(axes, y, 1e-2, (np.zeros(20), 0.0), max_steps=1)
