"""Cosines between the traits of one stage."""

from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.vectors.contrast import contrasts
from olmo_stages.vectors.inference import two_sided
from olmo_stages.vectors.kinds import KINDS, extractor
from olmo_stages.vectors.nulls import draw
from olmo_stages.vectors.traits import trait_cosines
from olmo_stages.vectors.turns import Plan
from tests.vectors import literal


def traits(directions, kind="mean_difference", seed=0, n_groups=15, d=40, n_permutations=99):
    """Examples of several traits, each along a direction of its own."""
    data, rows = [], []
    rng = np.random.default_rng(seed)
    for number, direction in enumerate(directions):
        own = tuple(
            replace(e, trait=f"t{number}", id=f"{number}{e.id}") for e in literal.paired(n_groups)
        )
        labels = literal.labels_of(own)[:, None]
        rows.append(rng.standard_normal((len(own), d)) + 3 * labels * direction)
        data += own
    extract = extractor(kind)
    plans = []
    for contrast in contrasts(data, paired=extract.needs_pairs):
        nulls = draw(contrast, n_permutations, 0, seed, pairs=extract.needs_pairs)
        plans.append(Plan(contrast, extract, nulls))
    return np.concatenate(rows).astype(np.float32), plans


def judged(its, i, j):
    return two_sided(its.value[[i], j], its.samples[[i], j], its.rounding[[i], j])


def axis(*entries):
    return np.concatenate([entries, np.zeros(40 - len(entries))])


@pytest.mark.parametrize("kind", KINDS)
def test_traits_along_one_direction_are_alike_and_along_two_are_not(kind):
    number = 99 if kind in {"mean_difference", "lda"} else 39
    directions = [axis(1), axis(1), axis(0, 1)]
    values, plans = traits(directions, kind, n_groups=30, n_permutations=number)
    its = trait_cosines(values, plans, 2e-6, "stage")["raw"]
    assert its.value[0, 1] > 0.6
    assert abs(its.value[0, 2]) < 0.3
    assert judged(its, 0, 1).p == [1 / (number + 1)]
    assert judged(its, 0, 2).p[0] > 0.05
    assert (its.value == its.value.T).all()


def test_opposite_traits_are_significant_too():
    values, plans = traits([axis(1), axis(-1)])
    its = trait_cosines(values, plans, 2e-6, "stage")["raw"]
    assert its.value[0, 1] < -0.6
    assert judged(its, 0, 1).p == [0.01]


def test_values_are_cosines_of_the_traits_own_vectors():
    values, plans = traits([axis(1), axis(1, 1)])
    its = trait_cosines(values, plans, 2e-6, "stage")["raw"]
    vectors = [
        literal.mean_difference(values[p.contrast.rows].astype(float), p.contrast.labels)
        for p in plans
    ]
    assert its.value[0, 1] == pytest.approx(literal.cosine(*vectors), abs=1e-6)


def test_a_massive_dimension_is_scaled_down_in_all_traits_alike():
    values, plans = traits([axis(1), axis(1)])
    values[:, 7] *= 60
    its = trait_cosines(values, plans, 2e-6, "stage")
    assert its["standardised"].value[0, 1] > 0.6
    assert its["raw"].samples[0, 1].std() > 2 * its["standardised"].samples[0, 1].std()


def test_traits_that_mean_nothing_are_significant_as_often_as_they_should():
    hits = 0
    for seed in range(100):
        values, plans = traits([axis(0), axis(0)], seed=seed, n_groups=6, n_permutations=39)
        its = trait_cosines(values, plans, 2e-6, "stage")["raw"]
        hits += judged(its, 0, 1).p[0] <= 0.05
    # Binomial(100, 0.05).
    assert hits <= 13
