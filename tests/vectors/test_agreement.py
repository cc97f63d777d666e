"""Signal without shared noise, reliability, and the jackknife: closed forms against plain loops."""

import numpy as np
import pytest

from olmo_stages.vectors.agreement import Agreement, Size
from olmo_stages.vectors.cells import Cells, Moments, Products
from olmo_stages.vectors.contrast import contrasts
from olmo_stages.vectors.jackknife import jackknifed
from olmo_stages.vectors.layer import Centred
from olmo_stages.vectors.refitted import stepped_up
from olmo_stages.vectors.turns import turn
from tests.vectors import literal

DATA = {
    "paired": literal.paired(12),
    "pure": literal.pure(16),
    "uneven": literal.uneven(24),
}
WHERE = ("stage", "reference")


def centred(values):
    return (values - values.mean(axis=0)).astype(np.float32)


def two_stages(data, d=20, seed=0, strength=1.0):
    rng = np.random.default_rng(seed)
    n = len(data)
    shared = rng.standard_normal((n, d)) + literal.labels_of(data)[:, None] * strength
    return tuple(centred(shared + 0.5 * rng.standard_normal((n, d))) for _ in range(2))


def moments(x, y, data):
    cells = Cells.of(contrasts(data, paired=False)[0])
    sums = [cells.sums(values) for values in (x, y)]
    return [
        Moments.of(Products.of(a, b, cells), cells)
        for a, b in ((sums[0], sums[0]), (sums[1], sums[1]), (sums[0], sums[1]))
    ]


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_values_agree_with_loops_over_pairs_of_examples(data):
    x, y = two_stages(data)
    found = Agreement.of(*moments(x, y, data))
    exact = literal.numbers(
        x.astype(float), y.astype(float), literal.labels_of(data), literal.groups_of(data)
    )
    ours = [found.cosine[0], found.corrected[0], found.stage[0]]
    assert ours == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_values_without_a_group_agree_with_loops_over_the_rest(data):
    x, y = two_stages(data)
    found = Agreement.of(*moments(x, y, data))
    labels, groups = literal.labels_of(data), literal.groups_of(data)
    contrast = contrasts(data, paired=False)[0]
    for group in range(contrast.n_groups):
        keep = contrast.groups != group
        exact = literal.numbers(
            x[keep].astype(float), y[keep].astype(float), labels[keep], groups[keep]
        )
        ours = [its[group + 1] for its in (found.cosine, found.corrected, found.stage)]
        assert ours == pytest.approx(exact, abs=1e-6)


def with_a_large_group():
    """A group with half of all examples, nearly all of them of one label, and ten small ones."""
    labels = [1] * 22 + [0] * 2 + [0, 1] * 10
    return literal.examples(labels, [0] * 24 + [1 + i // 2 for i in range(20)])


@pytest.mark.parametrize(
    "data", [*DATA.values(), with_a_large_group()], ids=[*DATA, "one large group"]
)
def test_the_signal_takes_no_note_of_the_origin(data):
    x, y = two_stages(data)
    at_home, moved = moments(x, y, data), moments(x + 3, y - 2, data)
    for its, other in zip(at_home, moved, strict=True):
        # float32 keeps 7 digits of the sums.
        assert other.signal == pytest.approx(its.signal, abs=1e-3)


def test_noise_has_no_signal_beside_a_large_group():
    data = with_a_large_group()
    contrast = contrasts(data, paired=False)[0]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        # Half of an example's noise is its group's.
        x = rng.standard_normal((len(data), 100))
        x += rng.standard_normal((contrast.n_groups, 100))[contrast.groups]
        its = moments(centred(x), centred(x), data)[0]
        found.append([its.signal[0], its.inner[0]])
    signal, inner = np.mean(found, axis=0)
    # The mean of 60 has an error of about 0.02; a signal of 0.3 was found around the mean of all.
    assert abs(signal) < 0.1 * inner


def test_the_closed_reliability_is_that_of_literal_halves_stepped_up():
    data = literal.paired(40)
    x, _ = two_stages(data, d=400, strength=0.25)
    labels, group = literal.labels_of(data), contrasts(data, paired=False)[0].groups
    rng = np.random.default_rng(1)
    within = []
    for _ in range(400):
        half = rng.permutation(40)[:20]
        mask = np.isin(group, half)
        within.append(
            literal.cosine(
                literal.mean_difference(x[mask], labels[mask]),
                literal.mean_difference(x[~mask], labels[~mask]),
            )
        )
    halves = np.mean(within)
    closed = Agreement.of(moments(x, x, data)[0]).stage[0]
    assert 0.4 < closed < 0.8
    # 400 splits leave an error of 0.001; a mean of ratios is no ratio of means, 0.002 here.
    assert 2 * halves / (1 + halves) == pytest.approx(closed, abs=0.01)


def drawn(rng, data, angle, *, shared, strength=1.0, d=200):
    """Stages whose true vectors have the given cosine; noise of two examples a group is alike."""
    labels = literal.labels_of(data)[:, None]
    truth = np.zeros((2, d))
    truth[0, 0], truth[1, :2] = 1, (angle, np.sqrt(1 - angle**2))
    both = rng.standard_normal((len(data), d))
    return [
        (
            shared * both
            + np.sqrt(1 - shared**2) * rng.standard_normal((len(data), d))
            + strength * labels * v
        ).astype(np.float32)
        for v in truth
    ]


@pytest.mark.parametrize(("shared", "low", "high"), [(0.0, 0.25, 0.35), (0.95, 0.7, 0.8)])
def test_the_corrected_cosine_finds_the_true_angle_where_the_raw_one_does_not(shared, low, high):
    data = literal.paired(50)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        # Noise of squared length 200 * 4 / 200 = 4 beside a signal of 4: reliabilities of one half.
        x, y = drawn(rng, data, 0.6, shared=shared, strength=2.0)
        its = Agreement.of(*moments(centred(x), centred(y), data))
        found.append([its.cosine[0], its.corrected[0], its.stage[0]])
    raw, corrected, reliability = np.mean(found, axis=0)
    assert reliability == pytest.approx(0.5, abs=0.03)
    assert low < raw < high
    # The mean of 60 has an error of about 0.012.
    assert corrected == pytest.approx(0.6, abs=0.05)


def test_a_stage_without_signal_has_no_corrected_cosine():
    data = literal.paired(6)
    rng = np.random.default_rng(3)
    for _ in range(20):
        x, y = (centred(rng.standard_normal((len(data), 30))) for _ in range(2))
        its = Agreement.of(*moments(x, y, data))
        if its.stage[0] <= 0:
            assert np.isnan(its.corrected[0])
            assert np.isnan(its.ceiling)
            return
    pytest.fail("noise never had a reliability below 0")


def test_duplicates_within_groups_change_no_value_and_no_interval():
    data = literal.uneven(24)
    x, y = two_stages(data)
    twice = np.repeat(np.arange(len(data)), 3)
    more = literal.examples(literal.labels_of(data)[twice], literal.groups_of(data)[twice])
    once = turn(x, y, literal.plan(data, n_permutations=0), 1e-9, WHERE)
    thrice = turn(x[twice], y[twice], literal.plan(more, n_permutations=0), 1e-9, WHERE)
    for variant, its in once.items():
        for name in ("cosine", "corrected"):
            assert same(getattr(its, name), getattr(thrice[variant], name))
        for name in ("norm", "norm_to_spread", "norm_to_residual"):
            assert same(getattr(its.stage.size, name), getattr(thrice[variant].stage.size, name))
        assert same(its.stage.reliability, thrice[variant].stage.reliability)


def same(one, other):
    ours = (one.value, one.low, one.high)
    return ours == pytest.approx((other.value, other.low, other.high), rel=1e-4, abs=1e-5)


def test_more_groups_make_intervals_narrower():
    widths = []
    for n_groups in (20, 80):
        data = literal.paired(n_groups)
        x, y = two_stages(data)
        its = jackknifed(Agreement.of(*moments(x, y, data)).cosine, "cosine")
        widths.append(its.high - its.low)
    assert widths[1] < 0.7 * widths[0]


def covered(sample, n=200):
    """Share of intervals that hold the mean of all values."""
    found = [sample(np.random.default_rng(seed)) for seed in range(n)]
    target = np.mean([its.value for its in found])
    return np.mean([its.low <= target <= its.high for its in found])


@pytest.mark.parametrize("name", ["cosine", "corrected", "reliability"])
def test_intervals_cover(name):
    data = literal.paired(30)
    labels, group = literal.labels_of(data), np.repeat(np.arange(30), 4)

    def sample(rng):
        x, y = drawn(rng, data, 0.6, shared=0.7, strength=2.5, d=50)
        # What the examples of a group and a label share.
        own = 0.7 * rng.standard_normal((30, 2, 50))[group, labels]
        its = Agreement.of(*moments(centred(x + own), centred(y + own), data))
        if name == "reliability":
            return jackknifed(its.stage, "reliability")
        scale = "cosine" if name == "cosine" else "plain"
        return jackknifed(getattr(its, name), scale)

    # 200 samples at 95 % have a standard error of 1.5 %; the jackknife errs on the wide side.
    assert 0.91 <= covered(sample) <= 0.995


def test_examples_taken_for_groups_would_not_cover():
    data = literal.paired(30, 8)
    labels, group = literal.labels_of(data), np.repeat(np.arange(30), 8)
    alone = literal.examples(labels, np.arange(len(labels)))

    def sample(rng):
        x, _ = drawn(rng, data, 0.6, shared=0.7, strength=1.0, d=5)
        own = 2 * rng.standard_normal((30, 2, 5))[group, labels]
        return jackknifed(
            Agreement.of(moments(centred(x + own), centred(x + own), alone)[0]).stage, "reliability"
        )

    assert covered(sample, 100) < 0.9


def test_the_norm_is_that_of_the_truth_without_noise():
    data = literal.paired(50)
    rng = np.random.default_rng(0)
    cells = Cells.of(contrasts(data, paired=False)[0])
    found, plain = [], []
    for _ in range(40):
        x, _ = drawn(rng, data, 0.6, shared=0.0, strength=2.0)
        its = moments(centred(x), centred(x), data)[0]
        side = Centred.of(x, np.arange(len(x)), 1e-9, "stage")
        size = Size.of(its, side, cells)
        found.append([size.norm.value, size.norm_to_spread.value, size.norm_to_residual.value])
        plain.append(np.sqrt(its.inner[0]))
    norm, to_spread, to_residual = np.mean(found, axis=0)
    assert norm == pytest.approx(2.0, abs=0.1)
    # 200 dimensions of variance one; half of the examples are 2 longer in one of them.
    assert to_spread == pytest.approx(2 / np.sqrt(200), rel=0.05)
    assert to_residual == pytest.approx(2 / np.sqrt(202), rel=0.05)
    assert np.mean(plain) > 2.5


def test_the_norm_of_noise_is_zero_about_half_of_the_time():
    data = literal.paired(20)
    rng = np.random.default_rng(0)
    squares = [
        moments(its, its, data)[0].signal[0]
        for its in (centred(rng.standard_normal((len(data), 30))) for _ in range(100))
    ]
    assert 30 <= np.sum(np.array(squares) <= 0) <= 75


def test_ratios_do_not_change_with_the_scale():
    data = literal.paired(20)
    x, _ = two_stages(data)
    plan = literal.plan(data, n_permutations=0)
    small, large = (turn(x * scale, None, plan, 1e-9, WHERE)["raw"] for scale in (1, 32))
    assert large.stage.size.norm.value == pytest.approx(32 * small.stage.size.norm.value)
    assert same(large.stage.size.norm_to_spread, small.stage.size.norm_to_spread)
    assert same(large.stage.size.norm_to_residual, small.stage.size.norm_to_residual)


def test_few_groups_have_values_but_no_intervals():
    values = np.array([0.5, 0.4, 0.6, 0.5, 0.5])
    its = jackknifed(values, "plain")
    assert its.value == 0.5
    assert np.isnan([its.low, its.high]).all()


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).standard_normal(40)
    left_out = (values.sum() - values) / 39
    its = jackknifed(np.append(values.mean(), left_out), "plain")
    reach = 2.0227 * values.std(ddof=1) / np.sqrt(40)
    assert (its.low, its.high) == pytest.approx(
        (values.mean() - reach, values.mean() + reach), 1e-4
    )


def test_opposed_halves_have_a_reliability_of_minus_one_and_not_without_limit():
    halves = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert stepped_up(halves) == pytest.approx([-1, -2 / 3, 0, 2 / 3, 1])
