from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.data.splits import folds
from olmo_stages.heldout import Estimate, HeldOut, Where
from olmo_stages.layer_probe import Recipe
from olmo_stages.nested import cross_validate
from tests.fakes import grouped_examples


def held_out(n_groups=20, n_folds=5, seed=0, n_resamples=300):
    examples = grouped_examples(n_groups)
    return HeldOut.of(examples, folds(examples, n_folds), n_resamples, seed)


def test_intervals_cover_chance_on_pure_noise_in_93_percent_of_200_layers():
    covered, uncorrected, n_layers = {"auroc": 0, "balanced_accuracy": 0}, 0, 10
    examples = grouped_examples(24)
    outer = folds(examples, 4)
    recipe = Recipe("logistic", (0.1,), lambda chosen: folds([examples[i] for i in chosen], 2))

    def covering(estimate):
        intervals = [estimate.interval(layer) for layer in range(n_layers)]
        return sum(low <= 0.5 <= high for low, high in intervals)

    for seed in range(20):
        data = HeldOut.of(examples, outer, 200, seed)
        x = np.random.default_rng(seed).normal(size=(n_layers, 96, 8))
        scores = cross_validate(x, data.labels, outer, recipe).score(x)
        for metric in covered:
            covered[metric] += covering(getattr(data, metric)(scores))
        plain = data.auroc(scores)
        narrow = plain.value + (plain.samples - plain.value) / np.sqrt(1 + 4 / 3)
        uncorrected += covering(replace(plain, samples=narrow))
    assert min(covered.values()) >= 186, covered
    # The control twin: without the correction for overlapping training sets they do not.
    assert uncorrected < 186


def test_difference_is_paired():
    data = held_out()
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(1, 80)) + data.labels
    a, b = data.auroc(scores), data.auroc(scores + 0.1 * rng.normal(size=(1, 80)))
    width = np.subtract(*(a - b).interval(0)[::-1])
    assert 0 < width < 0.3 * np.subtract(*a.interval(0)[::-1])
    unpaired = replace(a, samples=a.samples[::-1])
    assert np.subtract(*(unpaired - b).interval(0)[::-1]) > 2 * width


def test_a_difference_that_no_resample_changes_has_no_interval():
    data = held_out()
    perfect = data.auroc((data.labels - 0.5)[None])
    noise = data.auroc(np.random.default_rng(0).normal(size=(1, 80)))
    for one in (perfect, noise):
        difference = one - one
        assert difference.value[0] == 0
        assert np.isnan(difference.interval(0)).all()
        assert difference.saturated == (one is perfect,)
    assert 0.1 < (perfect - perfect).unseen < 0.2  # of 16 groups: 1 - 16 / (16 + 1.96^2)
    assert np.isfinite((perfect - noise).interval(0)).all()


def test_a_perfect_score_is_judged_by_the_groups_of_the_rarer_class():
    labels = np.array([1] * 5 + [0] * 95)
    groups = tuple(map(str, range(100)))
    data = HeldOut(groups, np.zeros(100, dtype=int), np.ones((10, 100)), labels)
    low, high = data.auroc((labels - 0.5)[None]).interval(0)
    assert high == 1.0
    assert low == pytest.approx(0.566, abs=1e-3)  # Wilson, 5 of 5; of 100 it would be 0.963


def test_an_undefined_value_has_no_interval():
    data = held_out()
    undefined = Estimate(np.array([np.nan]), np.full((300, 1), np.nan), 80, 20, 20)
    assert np.isnan((data.auroc(np.zeros((1, 80))) - undefined).interval(0)).all()


def test_balanced_accuracy_of_constant_scores_is_half():
    assert held_out().balanced_accuracy(np.zeros((1, 80))).value[0] == 0.5


def test_examples_that_are_not_scored_do_not_count():
    data = held_out()
    some = replace(data, folds=np.where(np.arange(80) < 40, data.folds, -1))
    scores = np.where(np.arange(80) < 40, data.labels - 0.5, 0.5 - data.labels)[None].astype(float)
    for estimate in (some.auroc(scores), some.balanced_accuracy(scores)):
        assert estimate.value[0] == 1.0
        assert (estimate.n, estimate.n_groups) == (40, 10)


def test_log_loss_of_no_knowledge_is_ln_2():
    assert held_out().log_loss(np.zeros((1, 80))).value[0] == pytest.approx(np.log(2))


def test_rows_carry_interval_counts_and_layer():
    estimate = Estimate(np.array([0.7, 0.8]), np.array([[0.6, 0.7], [0.8, 0.9]]), 80, 20, 20)
    where = Where("think_sft", "base", (3, 4), ("full_attention", "sliding_attention"), seed=5)
    first, second = where.rows("auroc", "probe", estimate, p=[0.1, None])
    assert (first.layer, second.layer) == (3, 4)
    assert (first.p, second.p) == (0.1, None)
    assert (second.value, second.layer_type, second.seed) == (0.8, "sliding_attention", 5)
    assert first.ci_low < 0.7 < first.ci_high
    assert (first.n, first.n_groups, first.stage, first.reference) == (80, 20, "think_sft", "base")
