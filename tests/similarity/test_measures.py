"""What each measure declares is what it does."""

from typing import get_args

import numpy as np
import pytest
from scipy.stats import ortho_group

from olmo_stages.errors import ConfigError, DataError
from olmo_stages.similarity.linear import BiasedCKA, DebiasedCKA
from olmo_stages.similarity.measure import Invariance, PairTable
from olmo_stages.similarity.minibatch import MinibatchCKA
from olmo_stages.similarity.neighbours import MutualKNN
from olmo_stages.similarity.rbf import RBFCKA
from olmo_stages.similarity.rsa import RSA
from tests.similarity import literal
from tests.similarity.literal import ALL, WHOLE, K, design_of, name, related, score

each = pytest.mark.parametrize("measure", ALL, ids=name)
each_whole = pytest.mark.parametrize("measure", WHOLE, ids=name)

# Rounding of float64 over some thousand products.
EXACT = 1e-8


def _gram(x):
    centred = x - x.mean(axis=0)
    return centred @ centred.T


def transformed(kind, x, seed=5):
    rng = np.random.default_rng(seed)
    d = x.shape[1]
    return {
        "orthogonal": lambda: x @ ortho_group.rvs(d, random_state=seed),
        "isotropic_scale": lambda: 7.3 * x,
        "translation": lambda: x + 3 * rng.normal(size=d),
        "permutation": lambda: x[:, rng.permutation(d)],
        "invertible_linear": lambda: x * np.geomspace(0.05, 20, d),
    }[kind]()


@pytest.mark.parametrize("kind", get_args(Invariance))
@each
def test_a_transformation_changes_the_score_unless_declared(measure, kind):
    (x,), (y,) = related(60, strength=0.5)
    before, after = score(measure, x, y), score(measure, transformed(kind, x), y)
    other_side = score(measure, x, transformed(kind, y))
    if kind in measure.declared.invariances:
        assert (after, other_side) == pytest.approx((before, before), abs=EXACT)
    else:
        assert abs(after - before) > 0.02
        assert abs(other_side - before) > 0.02


@each
def test_rows_in_other_company_change_the_score(measure):
    (x,), (y,) = related(60)
    shuffled = y[np.random.default_rng(0).permutation(60)]
    assert score(measure, x, shuffled) < score(measure, x, y) - 0.1


@each
def test_both_sides_in_another_order_of_rows_change_nothing(measure):
    (x,), (y,) = related(60)
    order = np.random.default_rng(0).permutation(60)
    # One block: which rows share a minibatch is part of the minibatch score.
    design = design_of(60)
    ours = score(measure, x[order], y[order], design)
    assert ours == pytest.approx(score(measure, x, y, design), abs=EXACT)


@each
def test_swapping_the_sides_changes_nothing(measure):
    (x,), (y,) = related(60)
    assert score(measure, x, y) == pytest.approx(score(measure, y, x), abs=EXACT)


@each
def test_like_is_above_unlike_and_at_the_top_of_the_range(measure):
    (x,), (y,) = related(60)
    declared = measure.declared
    assert declared.orientation == "similarity"
    assert score(measure, x, x) == declared.high
    assert declared.low <= score(measure, x, y) < declared.high


@pytest.mark.parametrize("measure", [m for m in ALL if name(m) != "biased_cka"], ids=name)
def test_unrelated_features_score_as_chance(measure):
    n, runs = 60, 60
    rng = np.random.default_rng(0)
    x, y = ([rng.normal(size=(n, 200)) for _ in range(runs)] for _ in range(2))
    scores = np.diag(literal.compare(measure, x, y).value)
    chance = K / (n - 1) if name(measure) == "mutual_knn" else 0.0
    assert abs(scores.mean() - chance) < 3 * scores.std() / np.sqrt(runs)
    assert scores.min() < chance < scores.max()


@pytest.mark.parametrize(("n", "expected"), [(100, 0.976), (2000, 0.672)])
def test_biased_cka_of_unrelated_features_is_dimensions_over_rows_and_dimensions(n, expected):
    x, y = np.random.default_rng(0).normal(size=(2, n, 4096)).astype(np.float32)
    assert 4096 / (4096 + n) == pytest.approx(expected, abs=0.001)
    assert score(BiasedCKA(), x, y) == pytest.approx(4096 / (4096 + n), abs=0.01)


@pytest.mark.parametrize(("n", "bound"), [(50, 0.04), (100, 0.04), (500, 0.01), (1000, 0.01)])
def test_debiased_cka_of_unrelated_features_is_about_zero(n, bound):
    x, y = np.random.default_rng(0).normal(size=(2, n, 4096)).astype(np.float32)
    assert abs(score(DebiasedCKA(), x, y)) < bound


def test_debiased_cka_can_be_negative():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20, 6, 30))
    assert np.diag(literal.compare(DebiasedCKA(), list(x), list(y)).value).min() < 0


@pytest.mark.parametrize("shift", [0, 10, 100, 1000])
@each
def test_a_shift_of_single_precision_changes_nothing(measure, shift):
    (x,), (y,) = related(100, dtype=np.float32)
    exact = score(measure, x.astype(np.float64), y.astype(np.float64))
    shifted = score(measure, x + np.float32(shift), y + np.float32(shift))
    # One neighbour in 500 may change, because adding 1000 rounds the features themselves to 6e-5.
    tolerance = 1e-2 if name(measure) == "mutual_knn" and shift else 1e-4
    assert shifted == pytest.approx(exact, abs=tolerance)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e8])
@each
def test_a_scale_of_single_precision_changes_nothing(measure, scale):
    (x,), (y,) = related(100, dtype=np.float32)
    assert score(measure, x * np.float32(scale), y) == pytest.approx(
        score(measure, x, y), abs=1e-6 if name(measure) != "rsa" else 1e-5
    )


@each
def test_a_table_leaves_the_inner_products_alone(measure):
    (x,), _ = related(40)
    gram = _gram(x)
    kept = gram.copy()
    gram.flags.writeable = False
    measure.table(gram, np.arange(40))
    np.testing.assert_array_equal(gram, kept)


@each
def test_precision_of_the_table_is_that_of_the_inner_products(measure):
    (x,), _ = related(40)
    for dtype in (np.float32, np.float64):
        assert measure.table(_gram(x).astype(dtype), np.arange(40)).dtype == dtype


@each
def test_symmetric_tables_are_declared_so(measure):
    (x,), _ = related(40)
    table = measure.table(_gram(x), np.arange(40))
    assert (measure.order == 2) == np.allclose(table, table.T)


def test_names_are_unique_and_all_are_pair_tables():
    assert len({name(measure) for measure in ALL}) == len(ALL)
    assert all(isinstance(measure, PairTable) for measure in ALL)
    assert all(measure.declared.title and measure.declared.source for measure in ALL)


@pytest.mark.parametrize("measure", [RBFCKA(), RSA(), MutualKNN(K)], ids=name)
def test_pairs_of_rows_of_one_unit_do_not_count(measure):
    (x,), (y,) = related(60)
    units = np.repeat(np.arange(20), 3)
    design = design_of(60, owners=units)
    table = literal.tables(measure, [x], design).blocks[0][0]
    assert not table[units[:, None] == units].any()
    inside = x + 50 * np.eye(60, 48)  # moves rows apart, also within units
    assert score(measure, inside, y, design) != score(measure, x, y, design)


def test_rsa_of_units_is_that_of_the_pairs_between_them():
    (x,), (y,) = related(24)
    units = np.repeat(np.arange(8), 3)
    between = np.triu(units[:, None] != units, 1)
    ranked = [literal.squareform(literal.pdist(side))[between] for side in (x, y)]
    expected = literal.spearmanr(*ranked).statistic
    design = design_of(24, owners=units)
    assert score(RSA(), x, y, design) == pytest.approx(expected, abs=EXACT)


def test_neighbours_are_of_other_units():
    (x,), _ = related(40)
    x[1] = x[0]
    table = MutualKNN(3).table(_gram(x), np.arange(40))
    assert table[0, 1] == table[1, 0] == 1
    units = np.maximum(np.arange(40) - 1, 0)
    table = MutualKNN(3).table(_gram(x), units)
    assert table[0, 1] == table[1, 0] == 0
    assert (table.sum(axis=1) == 3).all()


def test_mutual_neighbours_of_unrelated_features_are_as_many_as_by_chance():
    n, k, runs = 80, 10, 20
    x, y = np.random.default_rng(3).normal(size=(2, runs, n, 100))
    scores = np.diag(literal.compare(MutualKNN(k), list(x), list(y)).value)
    assert abs(scores.mean() - k / (n - 1)) < 3 * scores.std(ddof=1) / np.sqrt(runs)


@pytest.mark.parametrize("n", [4, 10, 11])
def test_neighbours_need_more_rows_than_there_are_neighbours(n):
    with pytest.raises(DataError, match=rf"10 nearest neighbours among {n - 1} rows"):
        MutualKNN(10).table(np.eye(n), np.arange(n))


def test_neighbours_with_one_row_to_spare_are_found():
    (x,), (y,) = related(12)
    assert 0 < score(MutualKNN(10), x, y) <= 1


@pytest.mark.parametrize("neighbours", [0, -3])
def test_no_neighbours_are_refused(neighbours):
    with pytest.raises(ConfigError, match=str(neighbours)):
        MutualKNN(neighbours)


@pytest.mark.parametrize("batch", [None, 0, 3])
def test_a_minibatch_too_small_is_refused(batch):
    with pytest.raises(ConfigError, match=str(batch)):
        MinibatchCKA(batch)


def test_a_kernel_without_width_is_refused():
    x = np.zeros((20, 3))
    x[:5] = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(DataError, match="20 rows with a median distance of 0"):
        score(RBFCKA(), x, x)


def test_a_kernel_with_repeated_rows_is_computed():
    (x,), (y,) = related(40)
    x[:10], y[:10] = x[0], y[0]
    assert score(RBFCKA(), x, y) == pytest.approx(literal.rbf_cka(x, y), abs=EXACT)


def test_equal_distances_have_no_ranks():
    with pytest.raises(DataError, match="all 45 distances"):
        RSA().table(np.eye(10), np.arange(10))


@pytest.mark.parametrize("measure", [m for m in WHOLE if name(m) != "mutual_knn"], ids=name)
def test_four_rows_and_one_dimension_are_enough(measure):
    x, y = np.random.default_rng(0).normal(size=(2, 4, 1))
    declared = measure.declared
    assert declared.low - 1e-12 <= score(measure, x, y) <= declared.high
    assert score(measure, x, x) == 1


@each
def test_the_two_sides_may_have_other_widths_and_numbers_of_layers(measure):
    x, y = related(40, layers=3)
    found = literal.compare(measure, x, y[:2]).value
    assert found.shape == (3, 2)
    assert found[2, 1] == pytest.approx(score(measure, x[2], y[1]), abs=EXACT)
