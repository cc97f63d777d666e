"""What is kept of tables for the matrices of stages."""

import numpy as np
import pytest

from olmo_stages.similarity.linear import BiasedCKA, DebiasedCKA
from olmo_stages.similarity.neighbours import MutualKNN
from olmo_stages.similarity.tables import Comparison, Tables
from tests.similarity.literal import (
    ALL,
    K,
    design_of,
    designed,
    name,
    related,
    structured,
    tables,
)

each = pytest.mark.parametrize("measure", ALL, ids=name)


def repacked(measure, x, y, design):
    sides = [tables(measure, side, design) for side in (x, y)]
    kept = [Tables.unpacked(side.packed(), design, measure.order) for side in sides]
    return Comparison(*sides, design), Comparison(*kept, design)


@pytest.mark.parametrize("structure", ["single rows", "groups of examples"])
@each
def test_packed_tables_give_the_same_scores_and_errors(measure, structure):
    design = designed(measure, 100) if structure == "single rows" else structured(measure)
    x, y = related(len(design.units), layers=2, dtype=np.float32)
    full, kept = repacked(measure, x, y, design)
    # 16-bit numbers are rounded by up to 5e-4, which averages out over some thousand pairs.
    np.testing.assert_allclose(kept.value, full.value, atol=5e-5)
    np.testing.assert_allclose(kept.error, full.error, rtol=2e-3)


def test_packed_tables_of_many_rows_agree_to_a_millionth():
    x, y = related(800, dtype=np.float32, d=20, other=20)
    full, kept = repacked(DebiasedCKA(), x, y, design_of(800))
    assert kept.value == pytest.approx(full.value, abs=2e-6)


@pytest.mark.parametrize("measure", [DebiasedCKA(), BiasedCKA()], ids=name)
def test_packed_tables_keep_what_nearly_identical_sides_differ_in(measure):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 64)).astype(np.float32)
    y = x + (0.012 * rng.normal(size=x.shape)).astype(np.float32)
    full, kept = repacked(measure, [x], [y], design_of(300))
    difference = 1 - full.value[0, 0]
    assert 3e-5 < difference < 3e-4
    assert 1 - kept.value[0, 0] == pytest.approx(difference, rel=0.01)


@each
def test_packed_tables_are_half_as_wide_and_every_pair_is_there_once(measure):
    x, _ = related(40, dtype=np.float32)
    design = designed(measure, 40)
    packed = tables(measure, x, design).packed()
    assert packed.dtype == np.float16
    pairs = [n * (n + 1) // 2 if measure.order == 2 else n * n for n in map(len, design.blocks)]
    assert packed.shape == (1, sum(pairs))


def test_one_pair_that_outweighs_all_others_is_kept():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(500, 500)).astype(np.float32)
    table = table + table.T
    table[0, 1] = table[1, 0] = 1e8
    sides = [Tables((each[None],), 2) for each in (table, table[::-1, ::-1])]
    design = design_of(500)
    kept = [Tables.unpacked(side.packed(), design, 2) for side in sides]
    assert all(np.isfinite(side.blocks[0]).all() for side in kept)
    expected = Comparison(*sides, design).value
    assert Comparison(*kept, design).value == pytest.approx(expected, abs=1e-6)
    assert Comparison(kept[0], sides[0], design).value == pytest.approx(1, abs=1e-6)


def test_identical_packed_tables_are_exactly_one():
    x, _ = related(60, dtype=np.float32)
    _, kept = repacked(DebiasedCKA(), x, [x[0].copy()], design_of(60))
    assert (kept.value[0, 0], kept.error[0, 0]) == (1, 0)


def test_mutual_neighbours_are_kept_exactly():
    x, y = related(60, dtype=np.float32)
    full, kept = repacked(MutualKNN(K), x, y, design_of(60))
    assert kept.value == pytest.approx(full.value, abs=1e-12)
