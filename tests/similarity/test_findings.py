"""What a comparison says in hard cases: few groups, copies, nothing that could change places."""

from dataclasses import replace

import numpy as np
import pytest

from tests.fakes import BASE
from tests.similarity.analysed import (
    QUICK,
    compare,
    examples_of,
    faults,
    given,
    related,
    rows,
    unrelated,
    warned,
)


def widths(result, metric="debiased_cka"):
    return np.mean([row.ci_high - row.ci_low for row in rows(result, metric)])


def copied(source, copies, *, own_groups=False):
    """Every example several times, in its group or, wrongly, as groups of their own."""
    n = len(source.examples)
    index = np.repeat(np.arange(n), copies)
    groups = np.arange(n * copies) if own_groups else index
    return replace(
        source,
        examples=examples_of(groups),
        make=lambda stage: source.make(stage)[:, index],
    )


@pytest.mark.parametrize("metric", ["debiased_cka", "debiased_cka_mean", "rsa", "procrustes"])
def test_copies_of_examples_in_their_groups_do_not_narrow_intervals(metric):
    source = related(n=20, strength=0.6)
    once, often, naive = (
        compare(it, also=["rsa", "procrustes"], n_permutations_also=0, **QUICK)
        for it in (source, copied(source, 4), copied(source, 4, own_groups=True))
    )
    assert rows(often, metric)[0].n == 80
    assert rows(often, metric)[0].n_groups == 20
    # Copies of an example resemble one another in both stages, which lifts the score itself.
    lift = 1 if metric == "procrustes" else 0.7
    assert widths(often, metric) > 0.8 * lift * widths(once, metric)
    assert widths(naive, metric) < 0.75 * widths(often, metric)


def test_groups_are_counted():
    result = compare(related(groups=np.repeat(np.arange(8), 5)), **QUICK)
    assert {(row.n, row.n_groups) for row in result.measurements} == {(40, 8)}
    assert warned(result, "8 groups", "rough")
    assert not warned(compare(related(), **QUICK), "rough")


@pytest.mark.parametrize("n", [4, 5, 6, 8])
@pytest.mark.parametrize("layers", [1, 2])
def test_few_examples(n, layers):
    for seed in range(2):
        source = related(n=n, layers=layers, seed=seed)
        result = compare(source, also=["procrustes", "rsa"], n_permutations_also=0, **QUICK)
        assert not faults(result)
        assert warned(result, f"{n} groups")


def test_one_group_has_scores_but_no_intervals():
    result = compare(related(groups=[0] * 40), also=["procrustes", "rsa"])
    assert all(row.ci_low is row.ci_high is None for row in rows(result, "debiased_cka_change"))
    assert all(row.ci_low is None and row.value > 0.5 for row in rows(result, "debiased_cka"))
    assert warned(result, "procrustes", "left out")
    assert not faults(result)
    assert not any("nan" in str(value) for value in result.headline.values())


def test_groups_of_two_rows():
    result = compare(related(groups=np.repeat(np.arange(20), 2)), also=["procrustes"])
    assert all(row.p_max == 1 / 20 for row in rows(result, "debiased_cka"))
    assert not faults(result)


def test_where_nothing_can_change_places_no_p_is_small():
    """Documents of one example each, all of another length: no permutation but the identity."""
    owners = np.repeat(np.arange(8), np.arange(2, 10))
    source = replace(related(n=len(owners), groups=range(8)), owners=owners)
    result = compare(source, position="tokens", also=["procrustes"])
    assert {row.p for row in rows(result, "debiased_cka_map")} == {1}
    assert {row.p_max for row in rows(result, "debiased_cka")} == {1}
    assert {row.p for row in rows(result, "procrustes")} == {1}
    assert all(row.value < 1e-6 for row in rows(result, "debiased_cka_calibrated"))
    assert warned(result, "8 of 8 groups", "change places")
    alike = replace(related(n=40, groups=range(8)), owners=np.repeat(np.arange(8), 5))
    result = compare(alike, position="tokens")
    assert {row.p for row in rows(result, "debiased_cka")} == {1 / 20}
    assert not warned(result, "change places")


def test_groups_of_all_sizes_are_shuffled_within_and_it_is_said():
    groups = np.repeat(np.arange(8), np.arange(2, 10))
    result = compare(related(n=44, groups=groups))
    assert {row.p for row in rows(result, "debiased_cka")} == {1 / 20}
    assert warned(result, "8 of 8 groups", "only the examples within")
    unlike = compare(unrelated(n=44, groups=groups), n_permutations=99)
    assert min(row.p_max for row in rows(unlike, "debiased_cka_map")) > 0.05


def test_paraphrases_of_unrelated_stages_are_not_significant():
    """Examples of a group are nearly equal in either stage, so that the score itself is not 0."""
    source = unrelated(n=12, d=16)
    groups = np.repeat(np.arange(12), 3)

    def make(stage):
        whole = source.make(stage)[:, groups]
        return whole + 0.1 * unrelated(n=36, d=16, seed=1).make(stage)

    result = compare(replace(source, examples=examples_of(groups), make=make), n_permutations=99)
    for row in rows(result, "debiased_cka"):
        assert row.p_max > 0.05
        assert abs(row.value - row.null) < 0.2
    assert rows(result, "debiased_cka")[0].null > 0.05


def test_a_stage_no_better_than_its_floor_is_noted():
    result = compare(unrelated())
    notes = [row.note for row in rows(result, "debiased_cka")]
    assert any("not above the random initialisation" in note for note in notes)
    assert not any(row.note for row in rows(compare(related()), "debiased_cka"))


def test_the_largest_fall_is_found():
    values = related(layers=4).make(BASE)
    rng = np.random.default_rng(0)
    noise = np.array([0.1, 0.1, 2.0, 2.0])[:, None, None]
    parted = values + noise * rng.normal(size=values.shape)
    result = compare(given({"base": values, "think_sft": parted}), **QUICK)
    falls = [row for row in rows(result, "debiased_cka_change") if "largest fall" in row.note]
    assert [(row.layer, row.note) for row in falls] == [
        (2, "largest fall, in 100% of resamples too")
    ]
    assert falls[0].value < falls[0].ci_high < -0.1
    assert "at layer 2" in result.headline["largest drop"]
