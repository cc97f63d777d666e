"""Turns: identical stages, planted rotations, the three nulls, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.errors import NonFiniteError, PairingError
from olmo_stages.vectors.contrast import contrasts
from olmo_stages.vectors.dots import Units
from olmo_stages.vectors.inference import two_sided, upper
from olmo_stages.vectors.kinds import KINDS, coefficients
from olmo_stages.vectors.linear import NullVectors
from olmo_stages.vectors.nulls import control
from olmo_stages.vectors.turns import turn
from tests.vectors import literal

WHERE = ("stage", "reference")
LINEAR = ("mean_difference", "lda")
FLOAT32 = 2e-6
BFLOAT16 = 1e-2


def judged(its, null="relabelled", test=upper):
    return test(np.array([its.cosine.value]), its.samples[null][None], its.rounding[null][None])


def noise(data, d, rng):
    return rng.standard_normal((len(data), d))


def similar(data, d, seed, strength=1.0, apart=0.5):
    """Two stages that share most of what varies, and the direction of the label."""
    rng = np.random.default_rng(seed)
    shared = noise(data, d, rng) + strength * literal.labels_of(data)[:, None]
    return [(shared + apart * noise(data, d, rng)).astype(np.float32) for _ in range(2)]


def shuffled(data, seed):
    labels = np.random.default_rng(seed).permutation(literal.labels_of(data))
    return tuple(replace(e, label=int(k)) for e, k in zip(data, labels, strict=True))


def bfloat16(values):
    """Rounded to 8 bits."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 256) / 256, exponent).astype(np.float32)


# Shuffled labels leave no pairs, which is all that `pca` reads.
@pytest.mark.parametrize("kind", [it for it in KINDS if it != "pca"])
def test_identical_stages_are_never_significant_whatever_the_labels(kind):
    data = literal.paired(8)
    for seed in range(100 if kind == "mean_difference" else 3):
        x = noise(data, 16, np.random.default_rng(seed)).astype(np.float32)
        its = turn(x, x.copy(), literal.plan(shuffled(data, seed), kind), FLOAT32, WHERE)
        for found in its.values():
            assert found.cosine.value == pytest.approx(1, abs=1e-6)
            assert judged(found).p == [1.0]
            assert judged(found).p_max == [1.0]
            assert judged(found, test=two_sided).p == [1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_compared_with_itself_has_cosine_one_and_no_p(kind):
    data = literal.paired(8)
    x, _ = similar(data, 16, 0)
    its = turn(x, x, literal.plan(data, kind, n_permutations=19, n_unrelated=9), FLOAT32, WHERE)
    for found in its.values():
        assert (found.cosine.low, found.cosine.value, found.cosine.high) == pytest.approx((1, 1, 1))
        assert judged(found).p == [1.0]
        assert judged(found, "unrelated", two_sided).p == [1.0]
        assert found.corrected.value == pytest.approx(1)


@pytest.mark.parametrize("kind", LINEAR)
def test_two_passes_that_differ_by_rounding_are_ties(kind):
    data = literal.paired(10)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        exact = noise(data, 32, rng) + 10 * rng.standard_normal(32)
        exact += literal.labels_of(data)[:, None] * (seed % 2)
        x, y = (bfloat16(exact * (1 + noise(data, 32, rng) / 512)) for _ in range(2))
        its = turn(x, y, literal.plan(data, kind), BFLOAT16, WHERE)["raw"]
        assert its.cosine.value < 1
        assert judged(its).p == [1.0]
        assert judged(its, test=two_sided).p == [1.0]


def test_what_float32_can_tell_apart_is_no_tie():
    data = literal.paired(10)
    x, y = similar(data, 32, 0, strength=2.0)
    its = turn(x, y, literal.plan(data), FLOAT32, WHERE)["raw"]
    assert judged(its).p == [0.01]


@pytest.mark.parametrize("data", [literal.paired(10), literal.pure(14), literal.uneven(20)])
@pytest.mark.parametrize("kind", LINEAR)
def test_nulls_agree_with_loops(data, kind):
    x, y = similar(data, 24, 0)
    plan = literal.plan(data, kind, n_permutations=30, n_unrelated=20, shrinkage=0.2)
    side = control(plan.contrast, np.arange(len(data)) % 7.0, 0)
    plan = replace(plan, controls={"length": side})
    its = turn(x, y, plan, FLOAT32, WHERE)["raw"]

    def features(values):
        own = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
        if kind == "mean_difference":
            return own
        covariance = own.T @ own / len(own)
        size = np.trace(covariance) / len(covariance)
        return own @ np.linalg.inv(0.8 * covariance + 0.2 * size * np.eye(len(covariance)))

    own, other = features(x), features(y)

    def vector(values, labels):
        return literal.mean_difference(values[labels >= 0], labels[labels >= 0])

    def vectors(targets):
        return [(vector(own, labels), vector(other, labels)) for labels in targets.labels]

    relabelled = vectors(plan.nulls.relabelled)
    partners = plan.nulls.partner.tolist()
    exact = {
        "relabelled": [literal.cosine(*pair) for pair in relabelled],
        "independent": [
            literal.cosine(pair[0], relabelled[j][1])
            for pair, j in zip(relabelled, partners, strict=True)
        ],
        "unrelated": [literal.cosine(*pair) for pair in vectors(plan.nulls.unrelated)],
    }
    for name, samples in exact.items():
        assert its.samples[name] == pytest.approx(samples, abs=1e-6)
    assert its.controls["length"] == pytest.approx(literal.cosine(*vectors(side)[0]), abs=1e-6)
    (pair,) = vectors(plan.contrast.targets())
    assert its.cosine.value == pytest.approx(literal.cosine(*pair), abs=1e-6)


def test_rows_that_relabellings_move_together_are_summed_once():
    groups_that_swap = literal.plan(literal.paired(10), n_permutations=50)
    assert len(groups_that_swap.units.starts) == 10
    single = literal.plan(literal.examples([0, 1] * 8, range(16)), n_permutations=50)
    assert len(single.units.starts) == 16


def test_sums_of_units_give_the_vectors_of_all_relabellings():
    plan = literal.plan(literal.uneven(20), n_permutations=40)
    labels = plan.nulls.relabelled.labels
    x = noise(labels.T, 7, np.random.default_rng(0)).astype(np.float32)
    x -= x.mean(axis=0)
    units = Units.of(labels)
    ours, exact = units.signs @ units.sums(x), coefficients(labels) @ x
    scale = np.abs(exact).sum(1, keepdims=True) / np.abs(ours).sum(1, keepdims=True)
    assert ours * scale == pytest.approx(exact, abs=1e-5)


def massive(data, d, rng):
    x = noise(data, d, rng)
    x[:, 0] *= 40
    return x.astype(np.float32)


def predicted(x, y):
    covariances = [np.cov(values.T, bias=True) for values in (x, y)]
    traces = [np.trace(c) for c in covariances]
    return np.sqrt(np.trace(covariances[0] @ covariances[1]) / np.prod(traces))


@pytest.mark.parametrize("make", [noise, massive])
def test_independent_inner_products_are_as_wide_as_the_covariances_say(make):
    data = literal.pure(60, 1)
    rng = np.random.default_rng(0)
    x, y = (make(data, 512, rng).astype(np.float32) for _ in range(2))
    plan = literal.plan(data, n_permutations=4000)
    own = [values - values.mean(axis=0) for values in (x, y)]
    dots = NullVectors(*own, plan, np.arange(0)).dots(np.ones(0, np.float32)).relabelled
    spread = np.sqrt(np.square(dots.other).mean() / (dots.stage.mean() * dots.reference.mean()))
    # 4000 heavy-tailed products: an error of about 2 %; relabellings of 60 rows draw without
    # replacement, which takes 1 %.
    assert spread == pytest.approx(predicted(x, y), rel=0.08)
    assert (spread > 10 / np.sqrt(512)) == (make is massive)


def test_the_independent_null_has_the_predicted_width_where_no_dimension_rules():
    data = literal.pure(60, 1)
    rng = np.random.default_rng(0)
    x, y = (noise(data, 512, rng).astype(np.float32) for _ in range(2))
    its = turn(x, y, literal.plan(data, n_permutations=4000), FLOAT32, WHERE)["raw"]
    assert its.samples["independent"].std() == pytest.approx(predicted(x, y), rel=0.05)


def test_the_independent_null_is_wide_where_one_dimension_rules_unless_it_is_scaled_down():
    data = literal.pure(60, 1)
    rng = np.random.default_rng(0)
    its = turn(*(massive(data, 512, rng) for _ in range(2)), literal.plan(data), FLOAT32, WHERE)
    assert its["raw"].samples["independent"].std() > 10 / np.sqrt(512)
    assert its["standardised"].samples["independent"].std() < 2 / np.sqrt(512)


def test_the_independent_null_is_that_of_vectors_drawn_at_random():
    data = literal.pure(60, 1)
    rng = np.random.default_rng(0)
    x, y = massive(data, 200, rng), massive(data, 200, rng)
    its = turn(x, y, literal.plan(data, n_permutations=4000), FLOAT32, WHERE)["raw"]
    labels = literal.labels_of(data)
    drawn = [
        literal.cosine(
            literal.mean_difference(x, rng.permutation(labels)),
            literal.mean_difference(y, rng.permutation(labels)),
        )
        for _ in range(4000)
    ]
    quantiles = [0.1, 0.25, 0.5, 0.75, 0.9]
    # Quantiles of 4000 values have errors of about 0.02 where one dimension rules.
    assert np.quantile(its.samples["independent"], quantiles) == pytest.approx(
        np.quantile(drawn, quantiles), abs=0.1
    )
    assert its.samples["independent"].std() == pytest.approx(np.std(drawn), rel=0.05)


def test_standardising_shows_a_turn_that_a_massive_dimension_hides():
    data = literal.paired(30)
    rng = np.random.default_rng(0)
    labels = literal.labels_of(data)[:, None]
    x, y = (massive(data, 64, rng) + 3 * labels * np.eye(64)[i] for i in (1, 2))
    its = turn(x.astype(np.float32), y.astype(np.float32), literal.plan(data), FLOAT32, WHERE)
    assert its["raw"].dominant == 1
    assert abs(its["standardised"].cosine.value) < 0.3
    assert its["standardised"].stage.reliability.value > 0.5
    assert its["raw"].stage.reliability.value < 0.5


def test_without_a_dominant_dimension_both_variants_are_one():
    data = literal.paired(10)
    its = turn(*similar(data, 24, 0), literal.plan(data), FLOAT32, WHERE)
    assert its["raw"] is its["standardised"]


def alike(one, other, kind):
    tolerance = 2e-3 if kind == "logistic" else 1e-4
    for name in ("cosine", "corrected"):
        ours, theirs = getattr(one, name).value, getattr(other, name).value
        assert ours == pytest.approx(theirs, abs=tolerance, nan_ok=True)
    assert one.samples["relabelled"] == pytest.approx(other.samples["relabelled"], abs=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_scale_and_shift_of_a_stage_change_nothing(kind):
    data = literal.paired(10)
    x, y = similar(data, 24, 0, strength=2.0)
    x[:, 3] *= 30
    y[:, 3] *= 30
    plan = literal.plan(data, kind, n_permutations=9, n_unrelated=9)
    shift = np.random.default_rng(1).standard_normal(24).astype(np.float32)
    plain = turn(x, y, plan, FLOAT32, WHERE)
    moved = turn(8 * x + shift, y, plan, FLOAT32, WHERE)
    for variant, its in plain.items():
        assert moved[variant].dominant == its.dominant == 1
        alike(its, moved[variant], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rotation_common_to_both_stages_changes_nothing(kind):
    data = literal.paired(10)
    sides = similar(data, 24, 0, strength=2.0)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((24, 24)))[0]
    plan = literal.plan(data, kind, n_permutations=9, n_unrelated=9)
    turned = [(values @ rotation).astype(np.float32) for values in sides]
    plain, moved = (turn(*both, plan, FLOAT32, WHERE)["raw"] for both in (sides, turned))
    alike(plain, moved, kind)


def test_a_rotation_of_one_stage_is_seen():
    data = literal.paired(10)
    x, y = similar(data, 24, 0, strength=2.0)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((24, 24)))[0]
    its = turn((x @ rotation).astype(np.float32), y, literal.plan(data), FLOAT32, WHERE)["raw"]
    assert abs(its.cosine.value) < 0.7


def turned_trait(angle, seed=0, n_groups=40, d=30):
    """A stage that turns the direction of the trait and leaves everything else alone."""
    data = literal.paired(n_groups)
    rng = np.random.default_rng(seed)
    shared, labels = noise(data, d, rng), literal.labels_of(data)[:, None]
    own = [shared + 0.3 * noise(data, d, rng) for _ in range(2)]
    direction = np.eye(d)[0], np.cos(angle) * np.eye(d)[0] + np.sin(angle) * np.eye(d)[1]
    sides = ((x + 3 * labels * v).astype(np.float32) for x, v in zip(own, direction, strict=True))
    return data, *sides


@pytest.mark.parametrize("kind", KINDS)
def test_a_trait_that_turned_alone_turned_more_than_unrelated_contrasts(kind):
    data, x, y = turned_trait(np.pi / 3)
    # Unrelated pairs have a main axis only where what they are about stands out.
    content = np.random.default_rng(9).standard_normal(len(data) // 2)
    for values in (x, y):
        values[:, 2] += 3 * np.repeat(content, 2).astype(np.float32)
    number = 199 if kind in LINEAR else 39
    plan = literal.plan(data, kind, n_permutations=9, n_unrelated=number)
    its = turn(x, y, plan, FLOAT32, WHERE)["raw"]
    found = judged(its, "unrelated", two_sided)
    assert found.z[0] < -3
    assert found.p == [1 / (number + 1)]
    assert its.corrected.value == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("kind", LINEAR)
def test_a_trait_that_did_not_turn_did_not_turn_more_than_unrelated_contrasts(kind):
    data, x, y = turned_trait(0.0)
    its = turn(x, y, literal.plan(data, kind, n_unrelated=199), FLOAT32, WHERE)["raw"]
    assert judged(its, "unrelated").z[0] > 0
    assert its.corrected.value == pytest.approx(1, abs=0.05)


def test_labels_that_say_nothing_are_significant_as_often_as_they_should():
    data = literal.paired(10)
    plan = literal.plan(data, n_permutations=39)
    hits = np.zeros(2)
    for seed in range(300):
        x, y = similar(data, 12, seed, strength=0.0)
        its = turn(x, y, plan, FLOAT32, WHERE)["raw"]
        hits += [judged(its, test=test).p[0] <= 0.05 for test in (upper, two_sided)]
    # Binomial(300, 0.05): 15 expected, a standard error of 3.8.
    assert (hits >= 4).all()
    assert (hits <= 27).all()


def test_labels_that_say_something_are_significant():
    data = literal.paired(10)
    plan = literal.plan(data, n_permutations=39)
    for seed in range(20):
        x, y = similar(data, 12, seed, strength=2.0)
        assert judged(turn(x, y, plan, FLOAT32, WHERE)["raw"]).p[0] <= 0.05


@pytest.mark.parametrize("kind", ["lda", "pca", "logistic"])
def test_refitted_kinds_find_the_true_angle_in_halves(kind):
    found = [
        turn(x, y, literal.plan(data, kind, n_permutations=0), FLOAT32, WHERE)["raw"]
        for data, x, y in (turned_trait(np.pi / 3, seed, 20) for seed in range(4))
    ]
    # Four draws of 20 groups: an error of about 0.03.
    assert np.mean([its.corrected.value for its in found]) == pytest.approx(0.5, abs=0.15)
    for its in found:
        assert its.cosine.low < its.cosine.value < its.cosine.high
        assert 0 < its.stage.reliability.value < 1


def test_null_axes_count_without_sign_where_the_labels_give_that_of_the_data():
    data, x, y = turned_trait(0.3, n_groups=20)
    plan = literal.plan(data, "pca", n_permutations=39)
    assert turn(x, y, plan, FLOAT32, WHERE)["raw"].samples["relabelled"].min() > 0
    rng = np.random.default_rng(0)
    blank = [noise(data, 30, rng).astype(np.float32) for _ in range(2)]
    assert turn(*blank, plan, FLOAT32, WHERE)["raw"].samples["relabelled"].min() < 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_alone_has_its_own_numbers(kind):
    data = literal.paired(10)
    x, y = similar(data, 24, 0)
    plan = literal.plan(data, kind, n_permutations=3)
    alone, both = (turn(x, its, plan, FLOAT32, WHERE)["raw"] for its in (None, y))
    assert alone.reference is None
    assert np.isnan(alone.cosine.value)
    assert not alone.samples
    assert alone.stage.vector == pytest.approx(both.stage.vector)
    assert alone.stage.reliability == both.stage.reliability
    assert alone.stage.size == both.stage.size


def test_midpoint_and_separation_are_scores_along_the_unit_vector():
    data = literal.paired(10)
    x, y = (values + 7 for values in similar(data, 24, 0))
    side = turn(x, y, literal.plan(data), FLOAT32, WHERE)["raw"].reference
    unit = literal.mean_difference(y.astype(np.float64), literal.labels_of(data))
    unit /= np.linalg.norm(unit)
    means = [(y[literal.labels_of(data) == k] @ unit).mean() for k in (0, 1)]
    assert side.midpoint == pytest.approx(np.mean(means), rel=1e-5)
    assert side.separation == pytest.approx(means[1] - means[0], rel=1e-5)


def test_rows_are_those_of_the_contrast():
    first = literal.paired(10)
    second = tuple(replace(e, id="k" + e.id, trait="kind") for e in literal.paired(8))
    x, y = similar(first + second, 24, 0)
    plan = literal.plan(first)
    both = contrasts(second + first, paired=False)[1]
    moved = np.concatenate([np.arange(40, 72), np.arange(40)])
    ours = turn(x, y, plan, FLOAT32, WHERE)["raw"]
    theirs = turn(x[moved], y[moved], replace(plan, contrast=both), FLOAT32, WHERE)["raw"]
    assert ours.cosine == theirs.cosine


def test_another_width_is_refused_with_both():
    data = literal.paired(10)
    x, _ = similar(data, 24, 0)
    with pytest.raises(PairingError, match=r"stage has d_model 24 .* reference has d_model 20"):
        turn(x, x[:, :20], literal.plan(data), FLOAT32, WHERE)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(side, value):
    data = literal.paired(10)
    sides = similar(data, 24, 0)
    sides[side][3, 5] = value
    with pytest.raises(NonFiniteError, match=f"{WHERE[side]}: 1 of 40 rows are not finite"):
        turn(*sides, literal.plan(data), FLOAT32, WHERE)


def test_activations_are_not_changed():
    data = literal.paired(10)
    x, y = similar(data, 24, 0)
    before = x.copy(), y.copy()
    turn(x, y, literal.plan(data), FLOAT32, WHERE)
    assert (x == before[0]).all()
    assert (y == before[1]).all()
