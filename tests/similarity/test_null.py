"""Scores of rows in other company, and what they say about the score of the data."""

import numpy as np
import pytest
from scipy import stats

from olmo_stages.similarity.design import permutations
from olmo_stages.similarity.linear import DebiasedCKA
from olmo_stages.similarity.minibatch import MinibatchCKA
from tests.similarity.literal import (
    ALL,
    WHOLE,
    K,
    compare,
    design_of,
    designed,
    name,
    related,
    structured,
)

each = pytest.mark.parametrize("measure", ALL, ids=name)


@pytest.mark.parametrize("structure", ["single rows", "groups of examples"])
@each
def test_the_null_is_the_score_of_permuted_features(measure, structure):
    design = designed(measure, 70) if structure == "single rows" else structured(measure)
    x, y = related(len(design.units), layers=3)
    moved = permutations(design, 4, seed=0)
    assert (moved != np.arange(len(design.units))).any(axis=1).all()
    found = compare(measure, x, y[:2], design).null(moved)
    expected = [compare(measure, x, [v[p] for v in y[:2]], design).value for p in moved]
    assert found.shape == (4, 3, 2)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@each
def test_the_null_of_no_move_is_the_score(measure):
    x, y = related(70, layers=2, dtype=np.float32)
    comparison = compare(measure, x, y)
    found = comparison.null(np.arange(70)[None])[0]
    np.testing.assert_allclose(found, comparison.value, atol=1e-6)


@pytest.mark.parametrize("n", [257, 300])
def test_more_pairs_than_a_chunk_are_all_counted(n):
    x, y = related(n, dtype=np.float32)
    comparison = compare(DebiasedCKA(), x, y)
    found = comparison.null(np.arange(n)[None])[0]
    assert found == pytest.approx(comparison.value, abs=1e-6)


def test_every_permutation_is_announced_once():
    x, y = related(60)
    for measure in (DebiasedCKA(), MinibatchCKA(20)):
        seen = []
        comparison = compare(measure, x, y)
        comparison.null(permutations(comparison.design, 7, 0), lambda: seen.append(1))  # noqa: B023
        assert len(seen) == 7


def test_no_permutation_gives_no_null():
    x, y = related(60)
    comparison = compare(DebiasedCKA(), x, y)
    assert comparison.null(permutations(comparison.design, 0, 0)).shape == (0, 1, 1)


@pytest.mark.parametrize("measure", WHOLE, ids=name)
def test_the_null_is_where_unrelated_features_are(measure):
    x, y = related(60, strength=2.0)
    comparison = compare(measure, x, y)
    found = comparison.null(permutations(comparison.design, 200, 0))[:, 0, 0]
    assert comparison.value[0, 0] > found.max() + 0.1
    chance = {"mutual_knn": K / 59, "biased_cka": None}.get(name(measure), 0.0)
    if chance is not None:
        assert abs(found.mean() - chance) < 4 * found.std() / np.sqrt(200)


def p_values(design, sides, moved):
    comparison = compare(DebiasedCKA(), *sides, design)
    null = np.diagonal(comparison.null(moved), axis1=1, axis2=2)
    return (1 + (null >= np.diag(comparison.value)).sum(axis=0)) / (1 + len(moved))


def independent(design, runs, seed=0):
    """Sides that have nothing in common; rows of a group share most, and so do those of a unit."""
    rng = np.random.default_rng(seed)
    sides = [[], []]
    for side in sides:
        for _ in range(runs):
            rows = rng.normal(size=(len(design.groups), 8))
            rows += rng.normal(size=(design.n_groups, 8))[design.groups]
            rows += rng.normal(size=(design.units.max() + 1, 8))[design.units]
            side.append(rows)
    return sides


@pytest.mark.parametrize(
    ("n", "structure"),
    [
        (24, {}),
        (48, {"groups": np.repeat(np.arange(16), 3)}),
        (48, {"owners": np.repeat(np.arange(24), 2), "groups": np.repeat(np.arange(12), 2)}),
    ],
    ids=["single rows", "groups", "groups of tokens"],
)
def test_p_is_uniform_if_the_sides_are_independent(n, structure):
    design = design_of(n, **structure)
    runs = 150
    p = p_values(design, independent(design, runs), permutations(design, 99, 1))
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert np.mean(p <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_p_is_too_small_if_related_rows_are_permuted_singly():
    design = design_of(48, groups=np.repeat(np.arange(16), 3))
    alone = design_of(48)
    p = p_values(alone, independent(design, 150), permutations(alone, 99, 1))
    assert np.mean(p <= 0.05) > 0.15


def test_p_is_as_small_as_it_can_be_if_the_sides_are_related():
    x, y = related(40, strength=2.0)
    design = design_of(40)
    assert p_values(design, (x, y), permutations(design, 99, 1)) == pytest.approx(0.01)
