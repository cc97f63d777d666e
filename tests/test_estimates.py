import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from olmo_stages import estimates


def labelled(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng, rng.integers(0, 2, n)


def test_auroc_of_one_fold_is_sklearns():
    rng, labels = labelled(50)
    scores = rng.normal(size=(3, 50)).round(1)  # rounding makes ties
    ours = estimates.auroc(scores, labels, np.zeros(50, dtype=int), np.ones((1, 50)))
    assert ours[0] == pytest.approx([roc_auc_score(labels, s) for s in scores], abs=1e-12)


def test_auroc_ignores_an_offset_between_folds():
    rng, labels = labelled(60)
    folds = np.arange(60) % 3
    scores = rng.normal(size=(1, 60))
    plain = estimates.auroc(scores, labels, folds, np.ones((1, 60)))
    shifted = estimates.auroc(scores + 100 * folds, labels, folds, np.ones((1, 60)))
    assert plain == pytest.approx(shifted)


def test_auroc_of_constant_scores_is_exactly_half():
    _, labels = labelled(30)
    assert (
        estimates.auroc(np.ones((1, 30)), labels, np.zeros(30, dtype=int), np.ones((1, 30))) == 0.5
    )


def test_weights_count_an_example_as_often_as_it_was_drawn():
    rng, labels = labelled(20)
    scores, weights = rng.normal(size=(1, 20)), rng.integers(0, 3, (1, 20))
    index = np.repeat(np.arange(20), weights[0])
    folds = np.zeros(20, dtype=int)
    ours = estimates.auroc(scores, labels, folds, weights.astype(float))
    assert ours[0, 0] == pytest.approx(roc_auc_score(labels[index], scores[0][index]))
    accuracy = estimates.balanced_accuracy(
        (scores > 0) == (labels == 1), labels, weights.astype(float)
    )
    expected = balanced_accuracy_score(labels[index], scores[0][index] > 0)
    assert accuracy[0, 0] == pytest.approx(expected)


def test_log_loss_of_balanced_classes_is_sklearns():
    rng = np.random.default_rng(0)
    labels, logits = np.arange(40) % 2, rng.normal(size=(1, 40))
    ours = estimates.log_loss(logits, labels, np.ones((1, 40)))
    assert ours[0, 0] == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-logits[0]))))


def test_group_weights_draw_whole_groups_and_are_the_same_by_seed():
    groups = ["a", "a", "b", "c", "c"]
    weights = estimates.group_weights(groups, 100, seed=3)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()
    assert (weights == estimates.group_weights(groups, 100, seed=3)).all()
    assert (weights != estimates.group_weights(groups, 100, seed=4)).any()


def test_duplicating_every_example_leaves_the_interval_unchanged():
    rng, labels = labelled(80)
    scores = rng.normal(size=(1, 80)) + labels
    groups = [str(i // 4) for i in range(80)]
    width = {}
    for times in (1, 5):
        index = np.repeat(np.arange(80), times)
        weights = estimates.group_weights([groups[i] for i in index], 2000, seed=0)
        folds = np.zeros(len(index), dtype=int)
        samples = estimates.auroc(scores[:, index], labels[index], folds, weights)
        low, high = estimates.interval(samples[:, 0], 20)
        width[times] = high - low
    assert width[5] == pytest.approx(width[1], rel=1e-9)


def test_interval_of_a_mean_is_close_to_students():
    rng = np.random.default_rng(0)
    x = rng.normal(size=25)
    weights = estimates.group_weights([str(i) for i in range(25)], 20000, seed=0)
    low, high = estimates.interval(weights @ x / 25, 25)
    t_low, t_high = stats.t.interval(0.95, 24, x.mean(), stats.sem(x))
    # 20000 resamples locate a 2.5 % quantile to about 0.02 standard errors; tenfold margin.
    assert abs(low - t_low) < 0.2 * stats.sem(x)
    assert abs(high - t_high) < 0.2 * stats.sem(x)


def test_interval_at_the_bound_is_not_a_point():
    low, high = estimates.bounded_interval(1.0, np.ones(1000), 80, 50)
    assert low == pytest.approx(0.9287, abs=1e-4)
    assert high == 1.0


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 32, 1001])
@pytest.mark.parametrize("share", [0.6, 0.975, 0.9995])
def test_quantile_of_students_t_is_scipys(freedom, share):
    assert estimates.t_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom))


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (3, 7), (7, 7), (50, 1000)])
def test_wilson_is_scipys(successes, trials):
    theirs = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert estimates.wilson(successes, trials) == pytest.approx((theirs.low, theirs.high))


def test_resamples_of_single_examples_and_of_groups_agree_with_counting_each_pair():
    rng, labels = labelled(40)
    scores, folds = rng.normal(size=(2, 40)).round(1), np.arange(40) % 2
    for groups in ([str(i) for i in range(40)], [str(i // 5) for i in range(40)]):
        weights = estimates.group_weights(groups, 20, seed=0)
        ours = estimates.auroc(scores, labels, folds, weights)
        for resample, head in np.ndindex(ours.shape):
            s, w, won, pairs = scores[head], weights[resample], 0.0, 0.0
            for i in np.flatnonzero(labels == 1):
                for j in np.flatnonzero((labels == 0) & (folds == folds[i])):
                    pairs += w[i] * w[j]
                    won += w[i] * w[j] * ((s[i] > s[j]) + (s[i] == s[j]) / 2)
            assert ours[resample, head] == pytest.approx(won / pairs)


def test_permutation_auroc_shares_ranks_between_equal_scores():
    rng, labels = labelled(30)
    scores, relabelled = rng.integers(0, 4, (5, 30)).astype(float), np.stack([labels] * 5)
    ours = estimates.permutation_auroc(scores, relabelled, np.zeros(30, dtype=int))
    assert ours == pytest.approx([roc_auc_score(labels, row) for row in scores])


def test_undefined_interval_is_nan():
    assert np.isnan(estimates.interval(np.ones(10), 1)).all()


def test_a_balanced_group_keeps_its_labels_or_swaps_them_all():
    labels = np.array([0, 1, 1, 0, 0, 1])
    groups = ["a", "a", "b", "b", "b", "b"]
    relabelled = estimates.permuted_labels(labels, groups, 200, seed=0)
    for members in ([0, 1], [2, 3, 4, 5]):
        own = relabelled[:, members] == labels[members]
        assert set(own.all(1) | (~own).all(1)) == {True}
        assert 0.3 < own.all(1).mean() < 0.7
    assert (relabelled.sum(1) == 3).all()


def test_an_unequal_group_is_permuted_within_itself_and_counted():
    labels = np.array([0, 1, 1, 1, 0, 1])
    groups = ["a", "a", "a", "a", "b", "b"]
    relabelled = estimates.permuted_labels(labels, groups, 200, seed=0)
    assert (relabelled[:, :4].sum(1) == 3).all()
    assert len({tuple(row) for row in relabelled[:, :4]}) == 4
    assert estimates.unequal_groups(labels, groups) == 1


def test_groups_of_one_label_exchange_it_with_groups_of_their_size():
    labels = np.array([0, 0, 1, 1, 1, 0, 1, 1, 1])
    groups = ["a", "a", "b", "b", "c", "d", "e", "e", "e"]
    relabelled = estimates.permuted_labels(labels, groups, 200, seed=0)
    for pair in ([0, 1], [2, 3], [6, 7], [7, 8]):
        assert (relabelled[:, pair[0]] == relabelled[:, pair[1]]).all()
    assert (relabelled[:, [0, 2]].sum(1) == 1).all()
    assert (relabelled[:, [4, 5]].sum(1) == 1).all()
    assert (relabelled[:, 6] == 1).all()  # nobody else has three examples
    assert (relabelled.sum(1) == labels.sum()).all()


def test_where_nothing_can_be_exchanged_the_labels_stay():
    labels, groups = np.array([0, 1, 1]), ["a", "b", "b"]
    assert (estimates.permuted_labels(labels, groups, 50, seed=0) == labels).all()


def test_paraphrases_are_no_evidence_of_their_own():
    """Duplicating every example changes neither the statistic nor its null."""
    rng = np.random.default_rng(0)
    labels, groups = np.arange(40) % 2, [str(i // 4) for i in range(40)]
    scores, folds = rng.normal(size=40), np.zeros(40, dtype=int)
    p = {}
    for times in (1, 4):
        index = np.repeat(np.arange(40), times)
        y = labels[index]
        relabelled = estimates.permuted_labels(y, [groups[i] for i in index], 500, seed=0)
        null = estimates.permutation_auroc(
            np.tile(scores[index], (500, 1)), relabelled, folds[index]
        )
        observed = estimates.permutation_auroc(scores[None, index], y[None], folds[index])
        p[times] = estimates.permutation_p(float(observed[0]), null)
    assert p[4] == pytest.approx(p[1])


def test_permutation_auroc_of_one_labelling_is_auroc():
    rng, labels = labelled(60)
    folds = np.arange(60) % 4
    scores = rng.normal(size=(1, 60)).round(1)
    ours = estimates.permutation_auroc(scores, labels[None], folds)
    assert ours[0] == pytest.approx(estimates.auroc(scores, labels, folds, np.ones((1, 60)))[0, 0])


def test_permutation_p_is_never_zero_and_counts_ties():
    null = np.array([0.1, 0.5, 0.9])
    assert estimates.permutation_p(2.0, null) == 1 / 4
    assert estimates.permutation_p(0.5, null) == 3 / 4


def test_max_statistic_p_is_at_least_the_layers_own():
    rng = np.random.default_rng(0)
    null = rng.normal(size=(500, 32))
    observed = rng.normal(size=32)
    family = estimates.max_statistic_p(observed, null)
    own = [estimates.permutation_p(o, null[:, i]) for i, o in enumerate(observed)]
    assert (family >= own).all()


def test_max_statistic_rejects_noise_in_at_most_five_percent_of_runs():
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(400):
        draws = rng.normal(size=(100, 32))
        rejected += estimates.max_statistic_p(draws[0], draws[1:]).min() <= 0.05
    # Binomial(400, 0.05): mean 20, standard deviation 4.4; three of them above.
    assert rejected <= 33
    # The control twin: the smallest uncorrected p is almost always "significant".
    draws = rng.normal(size=(200, 100, 32))
    own = (1 + (draws[:, 1:] >= draws[:, :1]).sum(1)) / 100
    assert (own.min(1) <= 0.05).mean() > 0.6


def test_false_discovery_rate_of_a_hand_computed_case():
    assert estimates.false_discovery_rate(np.array([0.01, 0.04, 0.03])) == pytest.approx([
        0.03,
        0.04,
        0.04,
    ])


def test_false_discovery_rate_is_scipys():
    p = np.random.default_rng(0).uniform(size=50).round(2)
    assert estimates.false_discovery_rate(p) == pytest.approx(stats.false_discovery_control(p))
