import math
import types
from dataclasses import replace

import pytest

from olmo_stages.edges import changes, find, turned
from olmo_stages.errors import ConfigError, PairingError
from olmo_stages.types import Change, Measurement

DIFFERENCE = Change(
    "probe", "says", "difference", "best", "difference_stages", "best", reverse="negated"
)
ALIKE = Change("CKA", "says", "cka_mean", "raw", "cka_stages", "raw", 1.0, reverse="same")


def module(**attributes):
    made = types.ModuleType("mine")
    vars(made).update(attributes)
    return made


def row(metric, value, stage, reference, variant="best", **more):
    given = {"ci_low": value - 0.1, "ci_high": value + 0.3}
    return Measurement(metric, value, stage, reference, variant=variant, **(given | more))


def alike(value, stage, reference, metric="cka_mean", **more):
    return row(metric, value, stage, reference, "raw", **more)


def test_the_job_against_the_parent_answers():
    own = row("difference", 0.5, "sft", "base")
    others = [row("difference", 0.1, "dpo", "base"), row("difference", 0.2, "dpo", "sft")]
    assert find(DIFFERENCE, [others[0], own, others[1]], "sft", "base") == own
    assert find(DIFFERENCE, others, "sft", "base") is None


def test_numbers_of_a_layer_of_a_type_of_another_variant_or_metric_do_not_answer():
    wrong = [
        row("difference", 0.5, "sft", "base", layer=0),
        row("difference", 0.5, "sft", "base", layer_type="full_attention"),
        row("difference", 0.5, "sft", "base", variant="probe"),
        row("differences", 0.5, "sft", "base"),
    ]
    assert find(DIFFERENCE, wrong, "sft", "base") is None


def test_all_stages_together_answer_where_no_job_does():
    together = row("difference_stages", 0.4, "sft", "base")
    assert find(DIFFERENCE, [together], "sft", "base") == together
    own = row("difference", 0.5, "sft", "base")
    assert find(DIFFERENCE, [together, own], "sft", "base") == own


def test_a_difference_measured_the_other_way_changes_its_sign_and_its_ends():
    measured = row("difference", 0.5, "base", "sft", p=0.01, null=0.1, note="rough")
    found = find(replace(DIFFERENCE, null="no change"), [measured], "sft", "base")
    assert (found.stage, found.reference) == ("sft", "base")
    assert (found.value, found.ci_low, found.ci_high) == (-0.5, -0.8, -0.4)
    assert (found.p, found.null) == (None, -0.1)
    assert found.note == "rough; base less sft, turned round"


def test_no_difference_turned_round_is_no_negative_zero():
    found = find(DIFFERENCE, [row("difference", 0.0, "base", "sft")], "sft", "base")
    assert math.copysign(1, found.value) == 1


def test_a_difference_without_an_interval_has_none_turned_round():
    measured = row("difference", 0.5, "base", "sft", ci_low=None, ci_high=None)
    found = find(DIFFERENCE, [measured], "sft", "base")
    assert (found.ci_low, found.ci_high) == (None, None)


def test_a_symmetric_number_is_the_same_either_way():
    measured = alike(0.9, "base", "sft", p=0.01)
    found = find(replace(ALIKE, null="no change"), [measured], "sft", "base")
    assert found == replace(measured, stage="sft", reference="base")


def test_a_number_that_has_no_reverse_is_not_read_in_the_other_direction():
    one_way = replace(ALIKE, reverse="")
    assert find(one_way, [alike(0.9, "base", "sft")], "sft", "base") is None
    assert find(one_way, [alike(0.9, "sft", "base")], "sft", "base") is not None


def test_layers_change_places_with_their_stages():
    measured = alike(0.9, "sft", "base", layer=1, layer_type="s", reference_layer=2)
    back = turned(measured, "same")
    assert (back.layer, back.layer_type, back.reference_layer) == (2, "", 1)
    assert turned(back, "same") == measured


def test_a_stage_is_no_parent_of_itself():
    assert find(ALIKE, [alike(1.0, "sft", "sft")], "sft", "sft") is None


def test_the_same_number_twice_is_one_and_two_different_ones_are_refused():
    undefined = alike(math.nan, "sft", "base", note="not reliable")
    assert find(ALIKE, [undefined, replace(undefined)], "sft", "base").note == "not reliable"
    with pytest.raises(PairingError, match=r"2 numbers 'cka_mean' are about sft and base \(0.9"):
        find(ALIKE, [alike(0.9, "sft", "base"), alike(0.8, "sft", "base")], "sft", "base")


def test_an_undefined_number_says_so():
    assert find(ALIKE, [alike(math.nan, "sft", "base")], "sft", "base").note == "undefined"
    assert find(ALIKE, [alike(0.5, "sft", "base")], "sft", "base").note == ""


def test_each_of_several_traits_has_its_own_number():
    rows = [alike(value, "sft", "base", trait=it) for it, value in (("evil", 0.9), ("kind", 0.8))]
    evil, kind = changes(module(CHANGE=ALIKE), rows)
    assert (evil.name, kind.name) == ("CKA · evil", "CKA · kind")
    assert [find(it, rows, "sft", "base").value for it in (evil, kind)] == [0.9, 0.8]


def test_one_trait_is_not_named():
    rows = [alike(0.9, "sft", "base", trait="evil"), row("other", 0.1, "sft", "base", trait="b")]
    assert changes(module(CHANGE=ALIKE), rows) == (ALIKE,)
    assert find(ALIKE, rows, "sft", "base").value == 0.9


def test_a_module_may_derive_its_change_from_the_rows_or_have_none():
    made = module(change=lambda rows: ALIKE if rows else None)
    assert changes(made, [alike(0.9, "sft", "base")]) == (ALIKE,)
    assert changes(made, []) == ()
    assert changes(module(), []) == ()
    with pytest.raises(ConfigError, match=r"mine says str of its change"):
        changes(module(CHANGE="cka"), [])


def test_a_null_that_is_not_about_change_is_left_out_and_one_that_is_stays():
    measured = alike(0.9, "sft", "base", p=0.001, p_max=0.002, q=0.01, null=0.02)
    found = find(ALIKE, [measured], "sft", "base")
    assert (found.p, found.p_max, found.q, found.null) == (None, None, None, None)
    assert (found.value, found.ci_low) == (measured.value, measured.ci_low)
    about_change = replace(ALIKE, null="relabelled stages")
    assert find(about_change, [measured], "sft", "base") == measured


def test_a_change_says_over_what_the_interval_of_its_own_row_is():
    change = replace(ALIKE, resampled="bootstrap", resampled_across="jackknife")
    direct = find(change, [alike(0.9, "sft", "base")], "sft", "base")
    together = find(change, [alike(0.9, "base", "sft", "cka_stages")], "sft", "base")
    assert change.of(direct).resampled == "bootstrap"
    assert change.of(together).resampled == change.of(together).intervals == "jackknife"
    assert change.intervals == "bootstrap; from all stages together: jackknife"


def test_a_change_with_one_kind_of_interval_says_it_of_all_rows():
    change = replace(ALIKE, resampled="bootstrap")
    assert change.of(alike(0.9, "base", "sft", "cka_stages")) == change
    assert change.intervals == "bootstrap"
