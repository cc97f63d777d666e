import math

import pytest

from olmo_stages.types import Measurement
from olmo_stages.vectors.formation import formation

RISING = {"step0": 0.0, "step100": 0.1, "step200": 0.6, "step400": 0.9, "step800": 0.9}


def lines(values, *, width=0.05, p=0.001, stage="base", prefix="stage1-"):
    corrected, cosine = {}, {}
    for revision, value in values.items():
        label = f"{stage}@{prefix}{revision}"
        known = math.isfinite(value)
        ends = {"ci_low": value - width, "ci_high": value + width} if known else {}
        corrected[label] = Measurement("corrected_cosine", value, label, "base", 3, **ends)
        cosine[label] = Measurement("cosine", value, label, "base", 3, p=p, p_max=p)
    return cosine, corrected


def test_the_first_revision_above_half_of_the_last_is_found():
    row = formation(*lines(RISING), "base")
    assert row.metric == "formed_trajectory"
    assert row.stage == "base@stage1-step200"
    assert (row.value, row.ci_low, row.ci_high) == (200.0, 100.0, 200.0)
    assert "above 0.45, half of that of base@stage1-step800" in row.note
    assert row.note.endswith("its interval is not")


def test_the_order_of_the_rows_has_no_part():
    cosine, corrected = lines(RISING)
    turned = dict(reversed(corrected.items()))
    assert formation(cosine, turned, "base") == formation(cosine, corrected, "base")


def test_an_interval_that_holds_the_half_has_not_cleared_it():
    assert formation(*lines(RISING, width=0.2), "base").value == 400.0


def test_a_revision_without_a_reliable_vector_has_not_cleared_it():
    row = formation(*lines(RISING | {"step100": math.nan}), "base")
    assert (row.value, row.ci_low) == (200.0, 100.0)


@pytest.mark.parametrize(
    "values",
    [
        {"step100": 0.8, "step200": 0.9, "step400": 0.9},  # above from the first on
        {"step0": 0.0, "step100": 0.9, "step200": 0.1, "step400": 0.9},  # falls again
        {"step0": 0.0, "step100": 0.0, "step200": 0.03},  # the last may be 0
        {"step0": 0.0, "step100": 0.5, "step200": math.nan},  # no last value
        {"step0": 0.0, "step400": 0.9},  # two points are no curve
    ],
)
def test_what_the_data_do_not_show_is_not_said(values):
    assert formation(*lines(values), "base") is None


def test_where_the_whole_space_turned_it_is_said():
    row = formation(*lines(RISING, p=0.2), "base")
    assert row.note.endswith("; relabelled contrasts are as like there")
    assert row.p_max == 0.2
    assert "relabelled" not in formation(*lines(RISING, p=0.04), "base").note


def test_a_rise_between_phases_has_no_step():
    one = lines({"step100": 0.0, "step300": 0.1})
    two = lines({"step100": 0.9, "step200": 0.9}, prefix="stage2-")
    assert formation(one[0] | two[0], one[1] | two[1], "base") is None
    more = lines({"step100": 0.0, "step300": 0.8})
    assert formation(more[0] | two[0], more[1] | two[1], "base").value == 300.0


def test_the_reference_has_no_part():
    cosine, corrected = lines(RISING)
    assert formation(cosine, corrected, "base@stage1-step800").note.endswith(
        "half of that of base@stage1-step400; at the one before, step 100, its interval is not"
    )


def test_runs_side_by_side_have_no_single_step():
    steps = {"step1000": 0.0, "step4000": 0.6, "step10000": 0.9}
    slow, fast = (lines(steps, stage="think_sft", prefix=it) for it in ("5e-5-", "1e-4-"))
    assert formation(slow[0] | fast[0], slow[1] | fast[1], "base") is None
    assert formation(*slow, "base").value == 4000.0
