from itertools import permutations

import numpy as np
import pytest
from scipy.linalg import hadamard, orthogonal_procrustes
from scipy.spatial import procrustes as scipy_procrustes
from scipy.stats import ortho_group

from olmo_stages.errors import ConfigError, DataError, NonFiniteError
from olmo_stages.similarity.measure import Fitted
from olmo_stages.similarity.procrustes import Procrustes, angular_distance

PROCRUSTES = Procrustes(n_components=10, n_folds=5)


def layers(n=60, d=12, noise=0.5, seed=0):
    """Two related layers with a spectrum that falls, and groups of three rows."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** -0.5
    x = rng.normal(size=(n, d)) * scale
    y = (x + noise * rng.normal(size=(n, d)) * scale) @ ortho_group.rvs(d, random_state=seed)
    return x, y, np.arange(n) // 3


def score(x, y, groups, measure=PROCRUSTES):
    return measure.score(measure.prepare(x), measure.prepare(y), groups)


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
def test_exactly_the_declared_transformations_leave_the_score_alone(name, side):
    *pair, groups = layers()
    before = score(*pair, groups)
    pair[side] = transformed(pair[side], name)
    change = abs(score(*pair, groups) - before)
    if name in PROCRUSTES.declared.invariances:
        assert change < 1e-10  # rounding of values near 1000 reaches 1e-12
    else:
        assert change > 0.01


def test_is_a_fitted_measure():
    assert isinstance(PROCRUSTES, Fitted)
    assert PROCRUSTES.declared.name == "procrustes"


def test_four_rows_by_hand():
    # Fold 0 holds rows 0 and 2: training means 2 and 2.5, inner 5, squares 4 and 8.5; so does 1.
    x, y = np.array([[0.0], [1], [2], [3]]), np.array([[0.0], [2], [1], [3]])
    assert Procrustes(1, 2).score(x, y, np.arange(4)) == pytest.approx(10 / np.sqrt(8 * 17))


def test_agrees_with_scipy_fold_by_fold():
    x, y, groups = layers()
    x, y = PROCRUSTES.prepare(x), PROCRUSTES.prepare(y)
    inner = x_square = y_square = 0.0
    for fold in range(5):
        held = groups % 5 == fold
        (a, a_held), (b, b_held) = (
            (side[~held] - side[~held].mean(0), side[held] - side[~held].mean(0)) for side in (x, y)
        )
        rotation, _ = orthogonal_procrustes(a, b)
        inner += np.sum(a_held @ rotation * b_held)
        x_square += np.sum(a_held**2)
        y_square += np.sum(b_held**2)
    expected = inner / np.sqrt(x_square * y_square)
    assert PROCRUSTES.score(x, y, groups) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(60, 12), (40, 300), (8, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_identical_layers_score_one(shape, dtype):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    assert score(x, x, np.arange(len(x)), Procrustes(50, 5)) == pytest.approx(1, abs=1e-12)


def test_identical_layers_score_one_though_one_row_has_a_dimension_of_its_own():
    x = np.random.default_rng(0).normal(size=(40, 6))
    x[:, 0] = 0
    x[7, 0] = 1000
    rotated = x @ ortho_group.rvs(6, random_state=0)
    assert score(x, x, np.arange(40)) == pytest.approx(1, abs=1e-12)
    assert score(x, rotated, np.arange(40)) == pytest.approx(1, abs=1e-8)


def test_noise_lowers_the_score_to_the_cosine_it_leaves():
    # |x|^2 = 1, |noise|^2 = 0.25 of it: the cosine of x and x + noise is 1 / sqrt(1.25).
    assert score(*layers(n=3000)) == pytest.approx(1 / np.sqrt(1.25), abs=0.02)


def test_unrelated_layers_score_about_zero_with_more_dimensions_than_rows():
    rng = np.random.default_rng(0)
    found, in_sample = [], []
    for _ in range(20):
        x, y = rng.normal(size=(2, 60, 512))
        found.append(score(x, y, np.arange(60), Procrustes(50, 5)))
        in_sample.append(np.cos(angular_distance(x, y)))
    # The spread of one score is 0.03; of the mean of twenty, 0.007.
    assert abs(np.mean(found)) < 0.03
    assert max(np.abs(found)) < 0.15
    assert min(in_sample) > 0.8  # the control: fitted and scored on the same rows


def test_what_rows_of_one_group_share_is_not_learned_from():
    rng = np.random.default_rng(0)
    x, y = (
        np.repeat(rng.normal(size=(20, 30)), 6, axis=0) + 0.1 * rng.normal(size=(120, 30))
        for _ in range(2)
    )
    assert abs(score(x, y, np.arange(120) // 6)) < 0.15
    assert score(x, y, np.arange(120)) > 0.5  # the control: groups cut by the folds


def test_the_true_pairing_scores_above_every_shuffled_one():
    x, y, groups = layers()
    x, y = PROCRUSTES.prepare(x), PROCRUSTES.prepare(y)
    rng = np.random.default_rng(0)
    shuffled = [PROCRUSTES.score(x, y[rng.permutation(60)], groups) for _ in range(50)]
    assert max(shuffled) < 0.4 < 0.7 < PROCRUSTES.score(x, y, groups)


def test_the_order_of_rows_does_not_matter_and_their_pairing_does():
    x, y, groups = layers()
    order = np.random.default_rng(0).permutation(60)
    assert score(x[order], y[order], groups[order]) == pytest.approx(score(x, y, groups), abs=1e-12)
    assert abs(score(x, y[order], groups)) < 0.4


def test_leaving_a_group_out_leaves_the_folds_of_the_others():
    x, y, groups = layers()
    kept = groups != 4
    relabelled = groups % 5
    x, y = PROCRUSTES.prepare(x), PROCRUSTES.prepare(y)
    found = PROCRUSTES.score(x[kept], y[kept], groups[kept])
    assert found == PROCRUSTES.score(x[kept], y[kept], relabelled[kept])
    shifted = np.unique(groups[kept], return_inverse=True)[1]
    assert found != PROCRUSTES.score(x[kept], y[kept], shifted)


def test_a_direction_without_counterpart_in_training_is_predicted_as_the_mean():
    one, two, three = hadamard(4).astype(float)[1:]
    x = np.tile([one, two], 2).T
    # The first half pairs `two` with what is orthogonal to it, the second half with itself.
    y = np.array([[*one, *one], [*three, *two]]).T
    groups = np.repeat([0, 1], 4)
    for sign in (1, -1):
        assert Procrustes(2, 2).score(x, y * [1, sign], groups) == pytest.approx(0.5, abs=1e-12)


def test_a_small_direction_counts_as_much_as_it_varies():
    shared, first, second = np.random.default_rng(0).normal(size=(3, 3000))
    x, y = (np.stack([shared, 0.05 * own], axis=1) for own in (first, second))
    # 1 of the 1 + 0.05^2 of either side is shared.
    assert score(x, y, np.arange(3000)) == pytest.approx(1 / 1.0025, abs=3e-4)


def test_layers_of_different_widths_are_compared():
    x, y, groups = layers()
    assert score(x, np.hstack([y, np.zeros((60, 5))]), groups) == pytest.approx(
        score(x, y, groups), abs=1e-10
    )
    narrow = x[:, :3]
    lost = np.sqrt(np.square(narrow).sum() / np.square(x).sum())
    assert score(x, narrow, groups, Procrustes(12, 5)) == pytest.approx(lost, abs=0.03)


def test_no_more_components_than_half_the_training_rows():
    x, y, _ = layers(n=20, d=12, noise=0.1)
    many, eight = (score(x, y, np.arange(20), Procrustes(k, 5)) for k in (12, 8))
    assert many == pytest.approx(eight, abs=1e-12)
    assert score(x, y, np.arange(20), Procrustes(7, 5)) != pytest.approx(eight, abs=1e-6)


def test_bad_input_is_refused_with_the_numbers():
    x, y, groups = layers()
    with pytest.raises(DataError, match="3 rows"):
        PROCRUSTES.prepare(x[:3])
    with pytest.raises(DataError, match="none of 12 dimensions varies over 60 rows"):
        PROCRUSTES.prepare(np.tile(x[0] + 1e6, (60, 1)))
    with pytest.raises(NonFiniteError, match=r"1 of 720 .* row 5"):
        PROCRUSTES.prepare(np.where(np.arange(720).reshape(60, 12) == 62, np.nan, x))
    with pytest.raises(DataError, match="2 groups all fall into one of 5 folds"):
        score(x, y, np.where(groups < 10, 1, 6))


@pytest.mark.parametrize("options", [(0, 5), (10, 1)])
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match="="):
        Procrustes(*options)


def test_angle_by_hand():
    x = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert angular_distance(x, x * [2, 1]) == pytest.approx(np.arccos(3 / np.sqrt(10)))


@pytest.mark.parametrize("shape", [(30, 5), (20, 50)])
def test_angle_agrees_with_scipy_and_with_the_formula(shape):
    x, y = np.random.default_rng(0).normal(size=(2, *shape))
    angle = angular_distance(x, y)
    assert 1 - np.cos(angle) ** 2 == pytest.approx(scipy_procrustes(x, y)[2], abs=1e-10)
    x, y = (side - side.mean(0) for side in (x, y))
    cosine = np.linalg.norm(x.T @ y, "nuc") / (np.linalg.norm(x) * np.linalg.norm(y))
    assert angle == pytest.approx(np.arccos(cosine), abs=1e-10)


def test_angle_is_symmetric_and_zero_only_for_a_rotation():
    x, y, _ = layers()
    y = y[:, :7]
    assert angular_distance(x, y) == pytest.approx(angular_distance(y, x), abs=1e-12)
    rotated = 3 * x @ ortho_group.rvs(12, random_state=0) + 5
    assert angular_distance(x, rotated) < 1e-12
    assert angular_distance(x, x @ np.diag(np.linspace(1, 2, 12))) > 0.01


@pytest.mark.parametrize("width", [3, 40])
def test_angle_keeps_the_triangle_inequality(width):
    rng = np.random.default_rng(0)
    for _ in range(50):
        triple = [rng.normal(size=(10, width)) * rng.gamma(0.5, size=width) for _ in range(2)]
        # The third lies between the others, where the inequality is nearly an equality.
        triple.append(triple[0] / np.linalg.norm(triple[0]) + triple[1] / np.linalg.norm(triple[1]))
        for a, b, c in permutations(triple):
            assert angular_distance(a, c) <= (
                angular_distance(a, b) + angular_distance(b, c) + 1e-12
            )
