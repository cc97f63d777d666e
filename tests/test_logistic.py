import numpy as np
import pytest
import scipy.spatial.distance
import torch
from sklearn.linear_model import LogisticRegression

from olmo_stages.logistic import (
    ConvergenceError,
    accelerated,
    balanced_weights,
    polish,
    principal_axes,
)


def problem(n=80, d=20, heads=2, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 4 > 0).astype(float)  # three quarters positive
    x = rng.normal(size=(heads, n, d)) + signal * (y[:, None] - 0.5) * rng.normal(size=d)
    return torch.from_numpy(x), torch.from_numpy(y)


def exact(x, y, strength):
    model = LogisticRegression(
        C=1 / (len(y) * strength),
        class_weight="balanced",
        solver="newton-cholesky",
        tol=1e-13,
        max_iter=10_000,
    )
    return model.fit(x.numpy(), y.numpy())


@pytest.mark.parametrize(("n", "d"), [(80, 20), (40, 100)])
def test_principal_axes_are_a_rotation_of_the_centred_examples(n, d):
    x, _ = problem(n, d)
    axes = principal_axes(x)
    centred = x - x.mean(1, keepdim=True)
    torch.testing.assert_close(axes.z @ axes.z.mT, centred @ centred.mT)
    gram = axes.z.mT @ axes.z / n
    torch.testing.assert_close(gram, torch.diag_embed(axes.spectrum), atol=1e-10, rtol=0)


def test_projecting_the_examples_themselves_gives_their_coordinates():
    x, _ = problem(40, 100)
    axes = principal_axes(x)
    torch.testing.assert_close(axes.project(x), axes.z)


@pytest.mark.parametrize(("n", "d"), [(80, 20), (40, 100)])
@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
def test_polished_solution_is_sklearns_converged_one(n, d, strength):
    x, y = problem(n, d)
    axes = principal_axes(x)
    strengths = torch.full((2, 1), strength, dtype=torch.float64)
    w, b = accelerated(axes, y[:, None], strengths)
    w, b = polish(axes, y, strengths[:, 0], (w[..., 0], b[:, 0, 0]))
    direction = (axes.rotation @ w[:, :, None])[..., 0]
    for head in range(2):
        theirs = exact(x[head], y, strength).coef_[0]
        cosine = 1 - scipy.spatial.distance.cosine(direction[head].numpy(), theirs)
        assert cosine > 1 - 1e-9
        assert direction[head].numpy() == pytest.approx(theirs, rel=1e-5, abs=1e-8)


def test_accelerated_fits_agree_with_polished_ones_in_their_scores():
    x, y = problem(240, 64)
    axes = principal_axes(
        x / 8
    )  # examples of squared norm about one, as olmo_stages.nested makes them
    for strength, tolerance, measured in (
        (1e-4, 1e-6, 4e-4),
        (1e-4, 1e-4, 5e-2),
        (1e-2, 1e-4, 5e-4),
    ):
        strengths = torch.full((2, 1), strength, dtype=torch.float64)
        w, b = accelerated(axes, y[:, None], strengths, tolerance)
        exact_w, exact_b = polish(axes, y, strengths[:, 0], (w[..., 0], b[:, 0, 0]))
        rough, fine = axes.z @ w + b, axes.z @ exact_w[:, :, None] + exact_b[:, None, None]
        # On logits of up to 13; tenfold margin.
        assert float((rough - fine).abs().max()) < 10 * measured


def test_each_target_is_fitted_as_if_it_were_alone():
    x, y = problem()
    other = 1 - y.flip(0)
    axes = principal_axes(x)
    strengths = torch.tensor([[1e-2, 1e-1]] * 2, dtype=torch.float64)
    both, _ = accelerated(axes, torch.stack([y, other], 1), strengths, 1e-8)
    alone, _ = accelerated(axes, other[:, None], strengths[:, 1:], 1e-8)
    torch.testing.assert_close(both[..., 1:], alone, atol=1e-5, rtol=1e-3)


def test_classes_have_equal_weight_and_a_single_class_has_none():
    y = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    weights = balanced_weights(y)
    assert weights[:, 0].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])
    assert weights[:, 1].tolist() == [0.0] * 4


def test_a_target_of_one_class_gets_the_zero_probe():
    x, y = problem()
    w, b = accelerated(
        principal_axes(x), torch.ones_like(y)[:, None], torch.ones(2, 1, dtype=torch.float64)
    )
    assert not w.any()
    assert not b.any()


def test_constant_features_do_not_crash():
    x = torch.ones(1, 30, 5, dtype=torch.float64)
    y = torch.from_numpy((np.arange(30) % 2).astype(float))
    axes = principal_axes(x)
    strengths = torch.ones(1, 1, dtype=torch.float64)
    w, b = accelerated(axes, y[:, None], strengths)
    w, b = polish(axes, y, strengths[:, 0], (w[..., 0], b[:, 0, 0]))
    assert torch.isfinite(w).all()
    assert float(b) == pytest.approx(0, abs=1e-6)


def test_an_unreachable_tolerance_is_an_error_that_names_the_option():
    x, y = problem()
    axes = principal_axes(x)
    start = (torch.zeros(2, 20, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    with pytest.raises(ConvergenceError, match=r"analysis\.strengths"):
        polish(axes, y, torch.full((2,), 1e-2, dtype=torch.float64), start, max_steps=1)
