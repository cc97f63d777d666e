"""What a comparison says in hard cases: few groups, copies, nothing that could change places."""

from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.errors import DataError
from olmo_stages.similarity.tables import Comparison
from tests.fakes import BASE
from tests.similarity.analysed import (
    QUICK,
    compare,
    examples_of,
    faults,
    given,
    own,
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
    if metric == "procrustes":  # its folds are other ones
        assert widths(often, metric) > 0.8 * widths(once, metric)
    else:
        for one, many in zip(rows(once, metric), rows(often, metric), strict=True):
            # Rounding of float32.
            assert [many.value, many.ci_low, many.ci_high] == pytest.approx(
                [one.value, one.ci_low, one.ci_high], abs=1e-4
            )
        assert rows(naive, metric)[0].value > rows(once, metric)[0].value + 0.02
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
        assert warned(result, f"{n} groups", "fewer than 5 none is given")
        for metric in (
            "debiased_cka",
            "debiased_cka_map",
            "debiased_cka_mean",
            "rsa",
            "procrustes",
        ):
            mine = [row for row in result.measurements if row.metric == metric]
            assert mine or metric == "procrustes"  # four examples are too few for its folds
            assert {row.ci_low is None for row in mine} <= {n < 5}


@pytest.mark.parametrize(("measure", "n_groups"), [("biased_cka", 1), ("debiased_cka", 4)])
def test_few_groups_have_scores_but_no_intervals(measure, n_groups):
    groups = np.arange(40) % n_groups
    result = compare(related(groups=groups), measure=measure, also=["procrustes"])
    for metric in (f"{measure}_change", f"{measure}_mean", f"{measure}_map", measure):
        assert all(row.ci_low is row.ci_high is None for row in rows(result, metric))
    assert all(row.value > 0.5 for row in rows(result, measure))
    assert warned(result, "procrustes left out") == (n_groups == 1)
    assert not faults(result)
    assert not any("nan" in str(value) for value in result.headline.values())
    assert "largest drop" not in result.headline


@pytest.mark.parametrize(
    ("groups", "why"),
    [([0] * 40, "1 independent"), (np.arange(40) % 3, "3 independent"),
     ([0] * 20 + [*range(1, 21)], "holds 20 of 40 rows")],
)  # fmt: skip
def test_groups_with_nothing_to_compare_are_refused(groups, why):
    with pytest.raises(DataError, match=rf"layer 0 of think_sft, debiased_cka: .*{why}"):
        compare(related(groups=groups), **QUICK)


def clustered(n_groups=32, size=12, d=64):
    """Unrelated stages; half of the variance is what the rows of a group share."""
    groups = np.repeat(np.arange(n_groups), size)

    def make(stage):
        rng = own(stage)
        shared = rng.normal(size=(1, n_groups, d))[:, groups]
        return shared + rng.normal(size=(1, len(groups), d))

    return replace(unrelated(n=len(groups), groups=groups), make=make)


def test_unrelated_stages_with_related_rows_score_about_0():
    source = clustered()
    (row,) = rows(compare(source, n_permutations=99), "debiased_cka")
    # The standard deviation of unrelated scores of 32 groups, 64 dimensions: below 0.02.
    assert abs(row.value) < 0.06
    assert row.ci_low < 0.06
    assert row.p > 0.05
    # The control twin: as rows of their own.
    alone = replace(source, examples=examples_of(range(len(source.examples))))
    (row,) = rows(compare(alone, **QUICK), "debiased_cka")
    assert row.value == pytest.approx(0.31, abs=0.03)


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
    assert "debiased_cka_calibrated" not in {row.metric for row in result.measurements}
    assert warned(result, "8 of 8 groups", "change places")
    alike = replace(related(n=40, groups=range(8)), owners=np.repeat(np.arange(8), 5))
    result = compare(alike, position="tokens")
    assert {row.p for row in rows(result, "debiased_cka")} == {1 / 20}
    assert all(row.value > 0.3 for row in rows(result, "debiased_cka_calibrated"))
    assert not warned(result, "change places")


@pytest.mark.parametrize(
    ("sizes", "calibrated"),
    [([2, 2, 2, 4, 5, 6, 7, 8], False), ([2, 2, 3, 3, 5, 6, 7, 8], True)],
    ids=["3 of 8", "4 of 8"],
)
def test_calibrated_scores_need_half_of_the_groups_to_change_places(sizes, calibrated):
    groups = np.repeat(np.arange(8), sizes)
    result = compare(related(n=len(groups), groups=groups))
    metrics = {row.metric for row in result.measurements}
    assert ("debiased_cka_calibrated" in metrics) is calibrated
    assert all(row.p is not None for row in rows(result, "debiased_cka"))


def test_groups_of_all_sizes_are_shuffled_within_and_it_is_said():
    groups = np.repeat(np.arange(8), np.arange(2, 10))
    result = compare(related(n=44, groups=groups))
    assert {row.p for row in rows(result, "debiased_cka")} == {1 / 20}
    assert warned(result, "8 of 8 groups", "only the examples within")
    unlike = compare(unrelated(n=44, groups=groups), n_permutations=99)
    assert min(row.p_max for row in rows(unlike, "debiased_cka_map")) > 0.05


def test_paraphrases_of_unrelated_stages_are_not_significant_and_score_about_0():
    """Examples of a group are nearly equal in either stage."""
    source = unrelated(n=12, d=16)
    groups = np.repeat(np.arange(12), 3)

    def make(stage):
        whole = source.make(stage)[:, groups]
        return whole + 0.1 * unrelated(n=36, d=16, seed=1).make(stage)

    result = compare(replace(source, examples=examples_of(groups), make=make), n_permutations=99)
    for row in rows(result, "debiased_cka"):
        assert row.p_max > 0.05
        # The standard deviation of unrelated scores of 12 groups: 0.1.
        assert abs(row.value) < 0.3
        assert abs(row.null) < 0.1
    alone = compare(replace(source, examples=examples_of(range(36)), make=make), **QUICK)
    assert all(row.value > 0.3 for row in rows(alone, "debiased_cka"))


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
    assert (result.headline["largest drop"], result.headline["drop at layer"]) == (falls[0], 2)
    steps = compare(given({"base": values, "think_sft": parted}), layers=[2, 0, 1], **QUICK)
    assert [row.layer for row in rows(steps, "debiased_cka")] == [0, 1, 2]
    assert [row.note for row in rows(steps, "debiased_cka_change")] == ["", falls[0].note]


def test_a_fall_that_resampling_does_not_tell_from_none_is_not_claimed():
    result = compare(related(layers=4), **QUICK)
    changes = rows(result, "debiased_cka_change")
    smallest = min(changes, key=lambda row: row.value)
    assert smallest.value < 0 < smallest.ci_high
    assert not any(row.note for row in changes)
    assert "largest drop" not in result.headline


def test_where_scores_only_rise_no_fall_is_claimed():
    values = related(layers=3).make(BASE)
    noise = np.array([2.0, 0.7, 0.1])[:, None, None]
    parted = values + noise * np.random.default_rng(0).normal(size=values.shape)
    result = compare(given({"base": values, "think_sft": parted}), **QUICK)
    assert all(row.ci_low > 0 for row in rows(result, "debiased_cka_change"))
    assert not any(row.note for row in rows(result, "debiased_cka_change"))
    assert "largest drop" not in result.headline


@pytest.mark.parametrize("strength", [0.1, 2.0], ids=["no fall", "fall"])
def test_a_change_over_several_layers_says_from_which(strength):
    values = related(layers=5).make(BASE)
    noise = np.array([0.1, 0.1, 0.1, 0.1, strength])[:, None, None]
    parted = values + noise * np.random.default_rng(0).normal(size=values.shape)
    source = given({"base": values, "think_sft": parted})
    changes = rows(compare(source, layers=[4, 1, 0], **QUICK), "debiased_cka_change")
    assert [row.layer for row in changes] == [1, 4]
    assert not changes[0].note
    assert "from layer 1" in changes[1].note
    assert ("largest fall" in changes[1].note) == (strength > 1)


@pytest.mark.parametrize("variant", ["raw", "standardised"])
def test_a_stage_compared_with_itself_has_no_p_where_it_is_1_by_construction(variant):
    options = {"also": ["rsa", "procrustes"]}
    result = compare(related(), reference=None, **options)
    for metric in ("debiased_cka", "debiased_cka_mean", "rsa", "procrustes"):
        for row in rows(result, metric, variant):
            assert row.value == pytest.approx(1, abs=1e-9)
            assert row.p is row.p_max is row.null is None
    assert "debiased_cka_calibrated" not in {row.metric for row in result.measurements}
    assert "debiased_cka_change" not in {row.metric for row in result.measurements}
    assert all(row.p is not None for row in rows(result, "debiased_cka_map", variant))
    other = compare(related(), **options)
    for metric in ("debiased_cka", "debiased_cka_mean", "rsa", "procrustes"):
        assert all(row.p is not None for row in rows(other, metric, variant))


def test_floor_and_ceiling_say_what_they_are():
    result = compare(related())
    for variant, words in (("floor", "randomly initialised"), ("ceiling", "no upper bound")):
        assert all(words in row.note for row in rows(result, "debiased_cka", f"{variant}:raw"))
    assert not any(row.note for row in rows(result, "debiased_cka"))


@pytest.mark.parametrize("n", [8, 40])
def test_a_measure_that_cannot_be_had_is_named_once(n):
    result = compare(related(n=n), also=["mutual_knn"], neighbours=10, **QUICK)
    said = [warning for warning in result.warnings if warning.startswith("mutual_knn left out: ")]
    assert len(said) == (n == 8)
    assert not warned(result, "standardised")


def test_without_a_dominant_dimension_both_variants_are_one_and_computed_once(monkeypatch):
    calls = []
    null = Comparison.null
    monkeypatch.setattr(
        Comparison, "null", lambda self, *args: calls.append(1) or null(self, *args)
    )
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 40, 16))
    sides = {"think_sft": values, "base": values + rng.normal(size=values.shape)}
    plain = compare(given(sides), also=["rsa"])
    once = len(calls)
    scaled = [replace(row, variant="") for row in plain.measurements if "standard" in row.variant]
    assert scaled == [
        replace(row, variant="") for row in plain.measurements if "raw" in row.variant
    ]
    np.testing.assert_array_equal(plain.tensors["map.raw"], plain.tensors["map.standardised"])
    calls.clear()
    values[..., 3] *= 100
    compare(given(sides), also=["rsa"])
    assert len(calls) == 2 * once
