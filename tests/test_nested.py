import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from olmo_stages import estimates
from olmo_stages.data.splits import folds
from olmo_stages.layer_probe import Recipe
from olmo_stages.nested import cross_validate, fit, permutation_scores
from tests.fakes import grouped_examples

GRID = (1e-3, 1e-2, 1e-1, 1.0)


def simulated(n_groups=30, d=12, heads=3, signal=1.0, seed=0):
    rng = np.random.default_rng(seed)
    examples = grouped_examples(n_groups)
    labels = np.array([e.label for e in examples])
    direction = rng.normal(size=d)
    x = rng.normal(size=(heads, len(labels), d))
    x += signal * np.linspace(0, 1, heads)[:, None, None] * (labels[:, None] - 0.5) * direction
    return examples, labels, x.astype(np.float32)


def recipe(examples, kind="logistic", grid=GRID):
    return Recipe(kind, grid, lambda chosen: folds([examples[i] for i in chosen], 3))


def plain(labels):
    return np.ones((1, len(labels)))


def test_out_of_fold_scores_are_those_of_the_same_scikit_learn_pipeline():
    examples, labels, x = simulated()
    outer = folds(examples, 5)
    probes = cross_validate(x, labels, outer, recipe(examples))
    scores = probes.score(x)
    for fold in range(5):
        train = outer != fold
        for head in range(3):
            strength = probes.strengths[fold, head]
            model = make_pipeline(
                StandardScaler(),
                LogisticRegression(
                    C=1 / (train.sum() * strength * x.shape[2]),  # ours divides by sqrt(d_model)
                    class_weight="balanced",
                    solver="newton-cholesky",
                    tol=1e-13,
                    max_iter=10_000,
                ),
            ).fit(x[head][train].astype(float), labels[train])
            theirs = model.decision_function(x[head][~train].astype(float))
            assert scores[head][~train] == pytest.approx(theirs, abs=1e-5)


def test_strength_is_the_one_with_the_least_inner_log_loss():
    examples, labels, x = simulated(heads=1)
    train = folds(examples, 5) != 0
    ours = fit(x, labels, train, recipe(examples))
    inner = folds([e for e, t in zip(examples, train, strict=True) if t], 3)
    z = x[0][train].astype(float)
    z = (z - z.mean(0)) / z.std(0) / z.shape[1] ** 0.5
    y, losses = labels[train], {}
    for strength in GRID:
        loss = 0.0
        for k in range(3):
            model = LogisticRegression(
                C=1 / ((inner != k).sum() * strength),
                class_weight="balanced",
                solver="newton-cholesky",
                tol=1e-12,
            ).fit(z[inner != k], y[inner != k])
            logits = model.decision_function(z[inner == k])[None]
            out = plain(y[inner == k])
            loss += estimates.log_loss(logits, y[inner == k], out)[0, 0] * (inner == k).mean()
        losses[strength] = loss
    assert ours.strength[0] == min(losses, key=losses.get)
    assert ours.validation[0] == pytest.approx(min(losses.values()), abs=1e-4)


def test_a_planted_direction_is_found():
    rng = np.random.default_rng(0)
    examples = grouped_examples(500)
    labels = np.array([e.label for e in examples])
    direction = np.zeros(12)
    direction[3] = 1.0
    x = (rng.normal(size=(1, 2000, 12)) + 2 * (labels[:, None] - 0.5) * direction).astype(
        np.float32
    )
    for kind in ("logistic", "lda", "mean_difference"):
        everyone = np.ones(2000, dtype=bool)
        found = fit(x, labels, everyone, recipe(examples, kind)).direction[0]
        # Sampling turns it by sqrt(12 / 2000), 0.08: cosine 0.997.
        assert found @ direction / np.linalg.norm(found) > 0.97, kind
        other = rng.permutation(labels)
        control = fit(x, other, everyone, recipe(examples, kind)).direction[0]
        assert abs(control @ direction / np.linalg.norm(control)) < 0.9, kind


@pytest.mark.parametrize("kind", ["logistic", "lda"])
def test_scores_do_not_depend_on_scale_or_offset_of_a_feature(kind):
    examples, labels, x = simulated()
    outer = folds(examples, 5)
    scale = np.array([1e-3, 1e3] * 6)
    moved = x.astype(np.float64) * scale + scale
    ours = cross_validate(x.astype(np.float64), labels, outer, recipe(examples, kind))
    theirs = cross_validate(moved, labels, outer, recipe(examples, kind))
    assert ours.score(x) == pytest.approx(theirs.score(moved), abs=1e-5)


def test_mean_difference_is_the_difference_of_the_class_means():
    examples, labels, x = simulated()
    everyone = np.ones(len(labels), dtype=bool)
    found = fit(x, labels, everyone, recipe(examples, "mean_difference"))
    expected = x[:, labels == 1].mean(1) - x[:, labels == 0].mean(1)
    assert found.direction == pytest.approx(expected, abs=1e-5)
    middle = (x[:, labels == 1].mean(1) + x[:, labels == 0].mean(1)) / 2
    assert (middle * found.direction).sum(1) + found.bias == pytest.approx(0, abs=1e-5)


def test_lda_without_penalty_is_fishers_direction():
    examples, labels, x = simulated()
    everyone = np.ones(len(labels), dtype=bool)
    found = fit(x, labels, everyone, recipe(examples, "lda", (1e-12,))).direction
    for head, layer in enumerate(x.astype(np.float64)):
        sides = [layer[labels == c] for c in (0, 1)]
        within = sum(np.cov(s.T, bias=True) for s in sides)
        fisher = np.linalg.solve(within, sides[1].mean(0) - sides[0].mean(0))
        cosine = found[head] @ fisher / np.linalg.norm(found[head]) / np.linalg.norm(fisher)
        assert cosine > 1 - 1e-8


def test_wide_features_give_the_same_scores_as_their_rotation():
    examples, labels, _ = simulated(n_groups=20)
    rng = np.random.default_rng(1)
    wide = rng.normal(size=(1, 80, 200)) + 0.2 * (labels[:, None] - 0.5)
    rotation = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    outer = folds(examples, 5)
    # mean_difference takes features in raw units, so a rotation must change nothing at all.
    ours = cross_validate(wide, labels, outer, recipe(examples, "mean_difference"))
    theirs = cross_validate(wide @ rotation, labels, outer, recipe(examples, "mean_difference"))
    assert ours.score(wide) == pytest.approx(theirs.score(wide @ rotation), abs=1e-9)


def test_moving_the_target_moves_the_scores_unless_they_are_centred_on_it():
    examples, labels, x = simulated()
    outer = folds(examples, 5)
    probes = cross_validate(x, labels, outer, recipe(examples))
    moved = x + 3.0
    assert np.abs(probes.score(moved) - probes.score(x)).max() > 0.1
    centred = probes.score(moved, centre_on_target=True)
    assert centred == pytest.approx(probes.score(x, centre_on_target=True), abs=1e-4)
    assert probes.score(x, centre_on_target=True) == pytest.approx(probes.score(x), abs=1e-4)


def test_constant_features_score_exactly_half():
    examples, labels, _ = simulated()
    outer = folds(examples, 5)
    x = np.full((2, len(labels), 7), 3.7, dtype=np.float32)
    for kind in ("logistic", "lda", "mean_difference"):
        probes = cross_validate(x, labels, outer, recipe(examples, kind))
        assert (estimates.auroc(probes.score(x), labels, outer, plain(labels)) == 0.5).all(), kind


def test_permutation_scores_of_the_true_labels_are_the_probes_own():
    examples, labels, x = simulated()
    outer = folds(examples, 5)
    for kind in ("logistic", "lda", "mean_difference"):
        probes = cross_validate(x, labels, outer, recipe(examples, kind))
        again = permutation_scores(
            x, labels[None], outer, probes.strengths, recipe(examples, kind)
        )[:, 0]
        # Refits stop at a rough tolerance, which moves a logit by about 0.005 at this penalty.
        assert again == pytest.approx(probes.score(x), abs=5e-2), kind


def test_permutation_p_of_noise_is_calibrated():
    small = 0
    n_runs = 200
    for seed in range(n_runs):
        examples, labels, x = simulated(n_groups=12, heads=1, signal=0, seed=seed)
        outer = folds(examples, 4)
        probes = cross_validate(x, labels, outer, recipe(examples))
        relabelled = np.concatenate([
            labels[None],
            estimates.permuted_labels(labels, [e.group for e in examples], 39, seed),
        ])
        scores = permutation_scores(x, relabelled, outer, probes.strengths, recipe(examples))[0]
        statistic = estimates.permutation_auroc(scores, relabelled, outer)
        small += estimates.permutation_p(statistic[0], statistic[1:]) <= 0.1
    # Binomial(200, 0.1): mean 20, standard deviation 4.2; four of them on both sides.
    assert 3 <= small <= 37


def test_permutation_p_of_a_signal_is_small():
    examples, labels, x = simulated(heads=1, signal=0)
    x[0] += 2 * (labels[:, None] - 0.5)
    outer = folds(examples, 5)
    probes = cross_validate(x, labels, outer, recipe(examples))
    relabelled = np.concatenate([
        labels[None],
        estimates.permuted_labels(labels, [e.group for e in examples], 99, 0),
    ])
    scores = permutation_scores(x, relabelled, outer, probes.strengths, recipe(examples))[0]
    statistic = estimates.permutation_auroc(scores, relabelled, outer)
    assert estimates.permutation_p(statistic[0], statistic[1:]) == 0.01


def test_train_and_test_subsets_are_respected():
    examples, labels, x = simulated()
    outer = folds(examples, 5)
    train = np.arange(len(labels)) % 4 < 2
    probes = cross_validate(x, labels, outer, recipe(examples), train=train, test=~train)
    assert (probes.folds[train] == -1).all()
    assert (probes.score(x)[:, train] == 0).all()
    changed = x.copy()
    changed[:, ~train] += 100
    again = cross_validate(changed, labels, outer, recipe(examples), train=train, test=~train)
    for ours, theirs in zip(probes.fits, again.fits, strict=True):
        assert ours.direction == pytest.approx(theirs.direction)


def test_words_that_are_balanced_between_the_classes_rank_nothing():
    """Counts whose class means are equal leave only rounding, which must not become a score."""
    examples = grouped_examples(30)
    labels = np.array([e.label for e in examples])
    rng = np.random.default_rng(0)
    counts = np.repeat(rng.integers(0, 3, (60, 40)), 2, axis=0)[None].astype(np.float32) / 3
    outer = folds(examples, 5)
    for kind in ("logistic", "lda", "mean_difference"):
        probes = cross_validate(counts, labels, outer, recipe(examples, kind))
        assert estimates.auroc(probes.score(counts), labels, outer, plain(labels))[0, 0] == 0.5, (
            kind
        )
