"""Sentences from numbers: none says more than the numbers do."""

import math
from dataclasses import replace

import pytest

from olmo_stages.document import Shift
from olmo_stages.report.findings import SAME, Compared, agreement, extremes, unfinished
from olmo_stages.types import Change, Measurement

DIFFERENCE = Change(
    "probe", "a difference", "m", "raw", resampled="95 % interval over groups", reverse="negated"
)
SIMILARITY = Change("CKA", "a similarity", "m", "raw", unchanged=1.0, reverse="same")


def shift(value, low=None, high=None, why="", change=DIFFERENCE):
    return Shift(change, "s", Measurement("m", value, "a", "b", ci_low=low, ci_high=high), why)


def unknown(why="not measured", change=DIFFERENCE):
    return Shift(change, "s", None, why)


def compared(*shifts, change=DIFFERENCE, **more):
    own = [(f"e{i}", replace(it, change=change)) for i, it in enumerate(shifts)]
    return Compared(change.name, change, own, **more)


def said(*shifts, **more):
    found = compared(*shifts, **more)
    return " ".join([*found.first(), *found.rest()])


def test_the_largest_comes_first_with_its_interval():
    text = said(shift(0.1, 0.05, 0.15), shift(-0.3, -0.4, -0.2), shift(0.0, -0.1, 0.1))
    assert text.startswith(
        "probe: farthest from unchanged (0) on e1, -0.300 [-0.400, -0.200]; then on e0, "
        "0.100 [0.050, 0.150]. "
    )


def test_intervals_that_overlap_are_said_to_and_others_not():
    assert "overlap" in said(shift(0.1, 0.05, 0.3), shift(0.2, 0.15, 0.25))
    assert "overlap" not in said(shift(0.1, 0.05, 0.14), shift(0.2, 0.15, 0.25))


def test_intervals_are_counted_with_how_many_would_by_chance():
    text = said(shift(0.3, 0.2, 0.4), *[shift(0.0, -0.1, 0.1)] * 10)
    assert "1 of 11 intervals leaves out 0, uncorrected for there being 11" in text
    assert "; up to about 0.6 of 11 would by chance if nothing had changed" in text
    assert "Indistinguishable from no change: e1, e2, e3 and 7 more." in text


def test_no_chance_is_named_where_the_level_is_not_known():
    change = Change("probe", "", "m", "raw", reverse="negated")
    text = said(shift(0.3, 0.2, 0.4), shift(0.0, -0.1, 0.1), change=change)
    assert "1 of 2 intervals" in text
    assert "chance" not in text


def test_where_every_interval_holds_the_unchanged_value_nothing_is_claimed():
    text = said(shift(0.3, -0.2, 0.8), shift(0.0, -0.1, 0.1))
    assert "Both intervals hold 0: indistinguishable from no change." in text
    assert compared(shift(0.3, -0.2, 0.8)).farthest() == ""


def test_one_comparison_needs_no_correction():
    assert said(shift(0.3, 0.2, 0.4)) == (
        "probe: 0.300 [0.200, 0.400] on e0 (unchanged: 0). The interval leaves out 0."
    )
    assert said(shift(0.3, -0.2, 0.4)).endswith(
        "The interval holds 0: indistinguishable from no change."
    )


def test_of_a_similarity_it_is_not_counted_which_intervals_leave_out_one():
    shifts = [shift(0.9, 0.8, 0.95), shift(0.99, 0.98, 0.995)]
    text = said(*shifts, change=SIMILARITY)
    assert "farthest from unchanged (1) on e0" in text
    assert "Both intervals leave out 1, which any two models that are not identical tend to" in text
    assert "of 2 intervals" not in text


def test_a_similarity_above_that_of_equal_models_is_not_far_from_them():
    shifts = [shift(1.2, 1.1, 1.3), shift(0.95, 0.9, 0.99)]
    text = said(*shifts, change=SIMILARITY)
    assert "on e1, 0.950 [0.900, 0.990]; then on e0" in text
    assert (
        "The interval of e0 lies above 1, which a correction for noise can do: no sign of change. "
        "The other interval leaves out 1, which any two models" in text
    )


def test_an_interval_above_that_of_equal_models_does_not_hold_it():
    assert said(shift(1.02, 1.01, 1.03), change=SIMILARITY) == (
        "CKA: 1.020 [1.010, 1.030] on e0 (unchanged: 1). The interval lies above 1, which a "
        "correction for noise can do: no sign of change."
    )
    held = said(shift(1.02, 0.99, 1.03), change=SIMILARITY)
    assert held.endswith("The interval holds 1: indistinguishable from no change.")
    below = said(shift(0.98, 0.97, 0.99), change=SIMILARITY)
    assert below.endswith("far it is from it is what counts.")
    assert "The interval leaves out 1, which any two" in below


@pytest.mark.parametrize(
    ("low", "high", "change", "unchanged", "above"),
    [
        (1.01, 1.03, SIMILARITY, True, True),
        (0.99, 1.03, SIMILARITY, True, False),
        (0.97, 0.99, SIMILARITY, False, False),
        (1.01, math.inf, SIMILARITY, None, False),
        (None, None, SIMILARITY, None, False),
        (1.01, 1.03, DIFFERENCE, False, False),
        (-0.1, 0.1, DIFFERENCE, True, False),
    ],
)
def test_only_of_a_similarity_is_an_interval_above_no_sign_of_change(
    low, high, change, unchanged, above
):
    found = shift(1.0, low, high, change=change)
    assert (found.holds_unchanged, found.lies_above) == (unchanged, above)


def test_ties_are_said_together():
    held = [shift(0.2, 0.1, 0.3), shift(0.2, 0.1, 0.3)]
    assert "equally far from unchanged (0) on both edges, 0.200 [0.100, 0.300] on e0" in said(*held)
    text = said(*held, shift(0.0, -0.1, 0.1))
    assert "farthest from unchanged (0) on e0 and e1, 0.200 [0.100, 0.300] on e0." in text
    assert compared(*held, shift(0.0, -0.1, 0.1)).farthest() == ""
    zero = [shift(0.0, -0.1, 0.1)] * 2
    assert said(*zero).startswith("probe: exactly 0, unchanged, on both edges.")


def test_equal_weights_are_apart_from_what_was_found():
    same = shift(1.0, 1.0, 1.0, why=SAME, change=SIMILARITY)
    other = shift(0.9, 0.8, 0.95, change=SIMILARITY)
    text = said(same, other, change=SIMILARITY)
    assert text.startswith("CKA: 0.900 [0.800, 0.950] on e1")
    assert "CKA, e0: they have the same weights." in text
    assert "Known of" not in text
    assert said(same, change=SIMILARITY) == "CKA, e0: they have the same weights."


def test_what_is_undefined_or_unknown_is_said_with_its_reason():
    text = said(
        shift(0.1, 0.0, 0.2), shift(math.nan, why="too noisy"), unknown(), unknown("its job failed")
    )
    assert "Known of 1 of 4 edges." in text
    assert "probe, e1: undefined, too noisy." in text
    assert "probe, e2: not measured." in text
    assert "probe, e3: its job failed." in text


def test_where_nothing_is_known_only_the_reasons_are_said():
    assert said(unknown(), unknown()) == "probe, e0 and e1: not measured."
    assert said(*[unknown()] * 9) == "probe, all 9 edges: not measured."
    assert said() == ""


def test_numbers_without_intervals_can_not_be_told_from_no_change():
    text = said(shift(0.1), shift(0.2))
    assert "No interval is given, so that none can be told from no change." in text
    assert "probe has no interval on e1." in said(shift(0.1, 0.0, 0.2), shift(0.05))


def test_only_numbers_with_an_interval_are_counted():
    bare = [shift(0.0)] * 9
    text = said(shift(0.1, -0.1, 0.3), shift(0.05, -0.1, 0.2), *bare)
    assert (
        "Of 11 edges, 9 have no interval. Both intervals hold 0: indistinguishable from no change."
        in text
    )
    text = said(shift(0.3, 0.2, 0.4), shift(0.05, -0.1, 0.2), *bare)
    assert (
        "1 of 2 intervals leaves out 0, uncorrected for there being 2; up to about 0.1 of" in text
    )
    assert "Of 2 edges" not in said(shift(0.1, -0.1, 0.3), shift(0.05, -0.1, 0.2))


def test_caveats_of_numbers_are_said_once():
    text = said(
        shift(0.1, 0.0, 0.2, why="rough"), shift(0.2, 0.0, 0.3, why="rough"), shift(0.0, -1.0, 1.0)
    )
    assert text.count("rough") == 1
    assert "probe, e1 and e0: rough." in text


def test_several_analyses_agree_only_on_what_is_told_from_no_change():
    one = compared(shift(0.3, 0.2, 0.4), shift(0.1, 0.05, 0.15))
    other = compared(
        shift(0.5, 0.4, 0.6, change=SIMILARITY),
        shift(0.9, 0.8, 0.95, change=SIMILARITY),
        change=SIMILARITY,
    )
    held = compared(shift(0.3, -0.2, 0.4), shift(0.1, 0.05, 0.15))
    assert agreement([one, other]) == "e0 is farthest from no change by probe and CKA alike."
    assert agreement([one, held]) == ""
    assert agreement([one]) == ""
    reverse = compared(shift(0.1, 0.05, 0.15), shift(0.3, 0.2, 0.4))
    assert agreement([one, reverse]) == ""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([("a", 0.5), ("b", 0.7)], "x is highest for b: 0.700, and lowest for a: 0.500."),
        ([("a", 0.5), ("b", 0.5)], "x is 0.500 for both."),
        ([("a", 0.5)], "x is 0.500 for a."),
        ([("a", math.nan)], "x is undefined throughout."),
        ([("a", math.nan), ("b", 0.7)], "x is 0.700 for b; undefined for 1."),
        ([], ""),
    ],
)
def test_an_analysis_without_edges_has_its_extremes(values, expected):
    assert extremes("x", values) == expected


def test_extremes_have_intervals_where_they_are_known():
    row = Measurement("x", 0.7, "b", ci_low=0.6, ci_high=0.8)
    assert "0.700 [0.600, 0.800]" in extremes("x", [("a", 0.5), ("b", row)])


def test_jobs_without_a_result_are_counted_by_state():
    assert unfinished(["failed", "missing", "failed"], 9) == (
        "3 of 9 jobs have no result: 2 failed, 1 missing."
    )
    assert unfinished(["failed"], 1) == "1 of 1 job has no result: 1 failed."
    assert unfinished([], 9) == ""


def mean(value, note=""):
    found = shift(value, change=SIMILARITY)
    assert found.row is not None
    return replace(found, row=replace(found.row, note=note))


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        (
            ("over 5 of 8 layers: others not reliable", "over 7 of 8 layers: others not reliable"),
            "5 to 7 of 8 layers, not the same ones",
        ),
        (("over 5 of 8 layers: others not reliable", ""), "5 to 8 of 8 layers, not the same ones"),
        (("over 5 of 8 layers",) * 2, "5 of 8 layers, maybe not the same ones"),
        (("over 5 of 8 layers", "over 5 of 9 layers"), "different layers"),
    ],
)
def test_means_over_other_layers_are_in_a_rough_order(notes, expected):
    text = said(mean(0.98, notes[0]), mean(0.97, notes[1]), change=SIMILARITY)
    assert f"then on e0, 0.980 (means over {expected}, so the order is rough)." in text


def test_means_over_all_layers_are_in_order_and_one_needs_none():
    assert "rough" not in said(mean(0.98), mean(0.97, "rare"), change=SIMILARITY)
    assert "rough" not in said(mean(0.98, "over 5 of 8 layers"), change=SIMILARITY)


def test_extremes_among_means_over_other_layers_are_rough():
    found = (mean(0.9, "over 5 of 8 layers"), mean(0.8))
    rows = [(name, it.row) for name, it in zip("ab", found, strict=True) if it.row is not None]
    assert extremes("x", rows).endswith(
        "0.800 (means over 5 to 8 of 8 layers, not the same ones, so the order is rough)."
    )


def test_agreement_says_whose_order_is_rough():
    one = compared(shift(0.3, 0.2, 0.4), shift(0.1, 0.05, 0.15))
    far = shift(0.5, 0.4, 0.6, change=SIMILARITY)
    rough = compared(far, mean(0.9, "over 5 of 8 layers"), change=SIMILARITY)
    assert agreement([one, rough]).endswith("by probe and CKA (roughly) alike.")
    exact = compared(far, mean(0.9), change=SIMILARITY)
    assert agreement([one, exact]).endswith("by probe and CKA alike.")
