"""What is found about vectors as measurements."""

import math
from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.vectors.jackknife import Interval
from olmo_stages.vectors.rows import mean_of
from tests.fakes import BASE, THINK
from tests.similarity.analysed import faults, rows
from tests.vectors.planted import LAYERS, compare, contrast_examples, planted

METRICS = {
    "cosine": ["raw", "standardised"],
    "corrected_cosine": ["raw", "standardised"],
    "ceiling": ["raw", "standardised"],
    "reliability": ["stage:raw", "reference:raw", "stage:standardised", "reference:standardised"],
    "z": ["raw:relabelled", "raw:unrelated", "standardised:relabelled", "standardised:unrelated"],
    "null_cosine": ["raw:relabelled", "raw:independent", "raw:unrelated"],
    "norm": ["stage", "reference"],
    "norm_to_spread": ["stage", "reference"],
    "norm_to_residual": ["stage", "reference"],
    "transfer_auroc": [
        "stage->stage",
        "reference->stage",
        "stage->reference",
        "reference->reference",
    ],
    "transfer_balanced_accuracy": ["stage->reference:source", "stage->reference:own"],
    "separation": ["fixed", "own"],
    "shift": ["fixed"],
}


@pytest.fixture(scope="module")
def found():
    return compare(planted(30, layer_types=["sliding_attention"] * 2 + ["full_attention"]))


@pytest.mark.parametrize(
    ("metric", "variant"), [(metric, it) for metric, its in METRICS.items() for it in its]
)
def test_there_is_a_number_a_layer(found, metric, variant):
    own = rows(found, metric, variant)
    assert [row.layer for row in own] == [0, 1, 2]
    assert [row.layer_type for row in own] == ["sliding_attention"] * 2 + ["full_attention"]
    for row in own:
        assert (row.stage, row.reference, row.trait) == ("think_sft", "base", "hostile")
        assert (row.n, row.n_groups, row.seed) == (120, 30, 0)
        assert math.isfinite(row.value)
    assert not faults(found)


def test_what_the_main_table_shows_comes_first(found):
    first = found.measurements[: 3 * LAYERS]
    assert {row.variant for row in first} == {"raw"}
    assert list(dict.fromkeys(row.metric for row in first)) == [
        "cosine",
        "corrected_cosine",
        "ceiling",
    ]


def test_no_two_numbers_are_called_the_same(found):
    both = [*contrast_examples(10), *contrast_examples(10, trait="rude")]
    for result in (found, compare(planted(examples=both), n_permutations=19, n_unrelated=19)):
        names = [
            (row.metric, row.variant, row.trait, row.layer, row.layer_type)
            for row in result.measurements
        ]
        assert len(set(names)) == len(names)


def test_the_null_of_the_cosine_is_that_of_its_own_row(found):
    for row, null in zip(
        rows(found, "cosine"), rows(found, "null_cosine", "raw:relabelled"), strict=True
    ):
        assert row.null == null.value
        assert row.p is not None
        assert row.q >= row.p


def test_other_relabellings_share_nothing(found):
    """The independent null is about 0, and the shared one is not."""
    for row in rows(found, "null_cosine", "raw:independent"):
        assert row.ci_low < 0 < row.ci_high
        assert abs(row.value) < 0.2
    assert all(row.ci_low > 0.2 for row in rows(found, "null_cosine", "raw:relabelled"))


def test_the_size_of_a_vector_is_that_of_its_stage():
    source = planted(0, own=0.0)
    plain = source.make
    source.make = lambda stage: plain(stage) * (3 if stage == THINK else 1)
    result = compare(source, n_permutations=0, n_unrelated=0)
    for layer in range(LAYERS):
        own, other = (rows(result, "norm", name)[layer].value for name in ("stage", "reference"))
        assert own == pytest.approx(3 * other, rel=1e-4)
        # In units of the spread or of the activations themselves it is no longer.
        for metric in ("norm_to_spread", "norm_to_residual"):
            own, other = (rows(result, metric, it)[layer].value for it in ("stage", "reference"))
            assert own == pytest.approx(other, rel=1e-4)
    assert plain(BASE).shape == (LAYERS, 120, 24)


def test_the_mean_is_over_reliable_layers():
    intervals = [Interval(0.5, 0.4, 0.6), Interval(9.0, -9.0, 20.0), Interval(0.7, 0.6, 0.9)]
    everywhere = np.array([True] * 3)
    fit = np.array([True, False, True])
    mean, note = mean_of(intervals, fit, everywhere)
    assert mean.value == pytest.approx(0.6)
    assert note.startswith("over 2 of 3 layers: others not reliable")
    mean, note = mean_of(intervals[::2], fit[::2], everywhere[::2])
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.6, 0.5, 0.75))
    assert not note


@pytest.mark.parametrize("left_out", [True, False])
def test_a_mean_over_layers_chosen_for_what_they_show_has_no_interval_and_no_p(left_out):
    source = planted(30)
    values = {stage: source.make(stage) for stage in (THINK, BASE)}
    if left_out:
        for its in values.values():
            its[1, :, 0] = its[0, :, 2]
    result = compare(replace(source, make=values.__getitem__))
    for metric in ("cosine_mean", "corrected_cosine_mean"):
        row = next(row for row in rows(result, metric, "raw") if not row.layer_type)
        assert math.isfinite(row.value)
        assert (row.ci_low is None) == (row.ci_high is None) == left_out
        assert ("no interval and no p" in row.note) == left_out
        if metric == "cosine_mean":
            assert row.null is not None
            assert (row.p is None) == left_out


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_the_corrected_cosine_of_noise_has_no_interval(strength):
    result = compare(planted(strength=strength))
    for variant in ("raw", "standardised"):
        for row in rows(result, "corrected_cosine", variant):
            assert (row.ci_low is None) == (row.ci_high is None) == (strength == 0)
            assert ("not above zero" in row.note) == (strength == 0)


@pytest.mark.parametrize("kind", ["mean_difference", "pca"])
def test_no_p_is_below_what_so_few_different_draws_allow(kind):
    # Three pairs: three ways to tell two groups apart, and nine to match examples of one label.
    source = planted(examples=contrast_examples(3, 2), strength=4.0, shared=0.1, own=1.0)
    found = compare(source, kind=kind, n_folds=2)
    for null, least in (("unrelated", 1 / 4), ("relabelled", 1 / 10)):
        for row in rows(found, "z", f"raw:{null}"):
            assert min(row.p, row.p_max, row.q) >= least
    assert all(min(row.p, row.p_max, row.q) >= 1 / 10 for row in rows(found, "cosine", "raw"))
    assert all("not distinguishable" in row.note for row in rows(found, "cosine", "raw"))


def test_the_mean_of_noise_is_undefined():
    nothing = np.zeros(1, dtype=bool)
    mean, note = mean_of([Interval(0.5, 0.4, 0.6)], nothing, ~nothing)
    assert math.isnan(mean.value)
    assert note.startswith("over 0 of 1 layers")


def test_an_unknown_end_is_unknown_in_the_mean():
    fit = np.array([True, True])
    mean, _ = mean_of([Interval(0.5, math.nan, math.nan), Interval(0.7, 0.6, 0.8)], fit, fit)
    assert mean.value == pytest.approx(0.6)
    assert math.isnan(mean.low)


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_an_axis_of_noise_has_not_turned(strength):
    """Texts of a pair share what pairs at random differ by, which both stages keep."""
    examples = contrast_examples(30, 2)
    source = planted(90, examples=examples, strength=strength, shared=0.0, own=0.2)
    content = np.random.default_rng(0).normal(size=(30, 24)).repeat(2, axis=0)
    content[:, 2:4] *= 4
    values = {stage: source.make(stage) + content for stage in (THINK, BASE)}
    result = compare(replace(source, make=values.__getitem__), kind="pca", n_permutations=59)
    assert any(row.p_max <= 0.05 for row in rows(result, "z", "raw:relabelled"))
    for row in rows(result, "cosine", "raw"):
        assert ("turned" in row.note) == (strength > 0)


def test_no_p_of_two_traits_is_below_what_so_few_different_draws_allow():
    examples = [e for name in ("hostile", "rude") for e in contrast_examples(3, 2, trait=name)]
    source = planted(examples=examples, strength=9.0, shared=0.1, own=0.1)
    found = compare(source, kind="pca", n_folds=2, n_permutations=499)
    # Nine ways to match examples of one label in either trait, and the data's own pairs.
    for row in rows(found, "trait_cosine", "raw:rude"):
        assert min(row.p, row.p_max, row.q) >= 1 / 100
