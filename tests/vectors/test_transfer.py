"""Cross-fitted vectors of one stage on the held-out groups of another."""

from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.data.splits import folds
from olmo_stages.heldout import HeldOut
from olmo_stages.vectors.transfer import crossed, transfer
from tests.fakes import grouped_examples

EXAMPLES = grouped_examples(30)
FOLDS = folds(EXAMPLES, 5)
HELD_OUT = HeldOut.of(EXAMPLES, FOLDS, 200, 0)
LABELS = HELD_OUT.labels
D_MODEL = 16
SIGN = 2 * LABELS - 1


def mean_difference(values, train):
    found = [
        values[mask & (LABELS == 1)].mean(0) - values[mask & (LABELS == 0)].mean(0)
        for mask in train
    ]
    return np.array(found)


def planted(strength, axis=0, seed=0):
    """Noise of standard deviation 1, and the classes 2 x strength apart along one axis."""
    values = np.random.default_rng(seed).normal(size=(len(LABELS), D_MODEL))
    values[:, axis] += strength * SIGN
    return values


def applied(stage, reference=None):
    sides = {"stage": stage} | ({} if reference is None else {"reference": reference})
    return transfer([crossed(sides, LABELS, FOLDS, mean_difference)], HELD_OUT)


def test_a_stage_of_identical_weights_transfers_like_itself():
    values = planted(0.5)
    found = applied(values, values.copy())
    own = found.auroc["stage->stage"].value[0]
    assert 0.6 < own < 0.95
    assert all(abs(it.value[0] - own) < 1e-6 for it in found.auroc.values())
    accuracies = [it.value[0] for it in found.accuracy.values()]
    assert np.ptp(accuracies) < 1e-6
    assert found.separation["fixed"].value[0] == pytest.approx(found.separation["own"].value[0])
    assert found.shift.value[0] == 0


def test_a_direction_shared_by_two_stages_transfers_both_ways():
    found = applied(planted(2), planted(2, seed=1))
    assert all(it.value[0] > 0.95 for it in found.auroc.values())


def test_a_direction_of_one_stage_alone_does_not():
    found = applied(planted(2), planted(2, axis=1, seed=1))
    assert found.auroc["stage->stage"].value[0] > 0.95
    for name in ("stage->reference", "reference->stage"):
        low, high = found.auroc[name].interval(0)
        assert low < 0.7
        assert found.auroc[name].value[0] < 0.8, (name, high)


def test_on_noise_a_cross_fitted_vector_ranks_nothing():
    values = [applied(planted(0, seed=s)).auroc["stage->stage"].value[0] for s in range(40)]
    # Standard error of one AUROC of 120 examples about 0.053, of the mean of 40 0.008.
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)
    # The control twin: a vector that has seen the examples it ranks.
    values = planted(0)
    leaked = [
        crossed(
            {"stage": values},
            LABELS,
            FOLDS,
            lambda x, train: mean_difference(x, train | (LABELS >= 0)),
        )
    ]
    assert transfer(leaked, HELD_OUT).auroc["stage->stage"].value[0] > 0.65


def test_an_offset_costs_the_sources_threshold_and_not_the_own_one():
    values = planted(2)
    moved = values.copy()
    moved[:, 0] += 7
    found = applied(moved, values)
    assert found.auroc["reference->stage"].value[0] > 0.95
    assert found.accuracy["reference->stage:source"].value[0] < 0.6
    assert found.accuracy["reference->stage:own"].value[0] > 0.9
    assert found.accuracy["stage->stage:source"].value[0] > 0.9
    # Along the planted axis, which the vector is but for noise, the classes are about 4 apart.
    apart = mean_difference(values, [LABELS >= 0])[0, 0]
    assert found.shift.value[0] == pytest.approx(7 / apart, rel=0.02)
    low, high = found.shift.interval(0)
    assert low < 7 / 4 < high


def test_thresholds_of_the_target_never_see_the_held_out_examples():
    values, other = planted(1), planted(1, seed=1)
    before = crossed({"stage": values, "reference": other}, LABELS, FOLDS, mean_difference)
    changed = values.copy()
    held_out = FOLDS == 2
    changed[held_out] += 100
    after = crossed({"stage": changed, "reference": other}, LABELS, FOLDS, mean_difference)
    for name, cell in before.items():
        assert np.array_equal(cell.own[held_out], after[name].own[held_out])
        assert np.array_equal(cell.source[held_out], after[name].source[held_out])
        source = name.partition("->")[0]
        same = np.array_equal(cell.source[~held_out], after[name].source[~held_out])
        assert same == (source == "reference")


def test_separation_is_in_within_class_standard_deviations():
    values = planted(3)
    found = applied(values, planted(3, seed=1)).separation
    for kind in ("own", "fixed"):
        # 6 apart, spread 1; its standard error is about 6 / sqrt(2 x 120) = 0.4.
        assert found[kind].value[0] == pytest.approx(6, abs=1)
    scaled = applied(100 * values + 1000, planted(3, seed=1)).separation
    for kind in ("own", "fixed"):
        assert scaled[kind].value[0] == pytest.approx(found[kind].value[0], rel=1e-9)


def test_separation_on_noise_is_none_and_its_interval_says_so():
    low, high = applied(planted(0)).separation["own"].interval(0)
    assert low < 0 < high


def test_fixed_is_the_references_vector_whatever_the_stage():
    reference = planted(2)
    sides = [{"stage": planted(2, seed=s), "reference": reference} for s in (1, 2)]
    one, other = (crossed(it, LABELS, FOLDS, mean_difference) for it in sides)
    name = "reference->reference"
    assert np.array_equal(one[name].score, other[name].score)
    name = "reference->stage"
    vector = mean_difference(reference, [FOLDS != 0])[0]
    unit = vector / np.linalg.norm(vector)
    assert np.allclose(one[name].score[FOLDS == 0], sides[0]["stage"][FOLDS == 0] @ unit)


def test_a_stage_alone_has_its_own_transfer_and_nothing_else():
    found = applied(planted(1))
    assert list(found.auroc) == ["stage->stage"]
    assert list(found.accuracy) == ["stage->stage:source", "stage->stage:own"]
    assert list(found.separation) == ["own"]
    assert found.shift is None


def test_without_a_direction_nothing_is_ranked():
    constant = np.ones((len(LABELS), D_MODEL))
    found = applied(constant)
    assert found.auroc["stage->stage"].value[0] == 0.5
    assert np.isnan(found.separation["own"].value[0])


def test_intervals_are_over_groups():
    values = planted(0.5)
    found = applied(values).separation["own"]
    doubled = [replace(e, id=e.id + tag) for tag in "ab" for e in EXAMPLES]
    twice = HeldOut.of(doubled, np.tile(FOLDS, 2), 200, 0)
    scores = crossed({"stage": values}, LABELS, FOLDS, mean_difference)["stage->stage"]
    copied = type(scores)(*(np.tile(it, 2) for it in (scores.score, scores.source, scores.own)))
    again = transfer([{"stage->stage": copied}], twice).separation["own"]
    width, other = (np.subtract(*it.interval(0)[::-1]) for it in (found, again))
    # Copies counted as examples of their own would give 0.71; degrees of freedom make 2 %.
    assert other == pytest.approx(width, rel=0.05)
