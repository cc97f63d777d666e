"""analysis=cosine as a whole: what a careful reviewer checks, on stages whose vectors are known."""

from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.analyses import cosine as analysis
from olmo_stages.edges import changes, find
from olmo_stages.errors import ConfigError, PairingError
from olmo_stages.types import Analysis
from tests.fakes import BASE, THINK
from tests.similarity.analysed import faults, rows, warned
from tests.vectors.planted import (
    D_MODEL,
    LAYERS,
    QUICK,
    compare,
    contrast_examples,
    cosine,
    identical,
    planted,
    shuffled,
)

KINDS = ["mean_difference", "pca", "lda", "logistic"]


@pytest.fixture(scope="module")
def found():
    """Stages between which the vector turned by 60 degrees."""
    return compare(planted(60))


@pytest.fixture(scope="module")
def kept():
    """Stages that share their vector."""
    return compare(planted(0))


def mean_difference(values, examples):
    labels = np.array([e.label for e in examples])
    return values[:, labels == 1].mean(1) - values[:, labels == 0].mean(1)


def test_is_an_analysis():
    assert isinstance(cosine(), Analysis)


def test_cosines_are_those_of_the_mean_differences(found):
    source = planted(60)
    x, y = (mean_difference(source.make(stage), source.examples) for stage in (THINK, BASE))
    expected = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    # float32 activations
    assert [row.value for row in rows(found, "cosine")] == pytest.approx(expected, abs=1e-5)
    assert found.tensors["hostile.vector"] == pytest.approx(x, abs=1e-4)
    assert found.tensors["hostile.reference_vector"] == pytest.approx(y, abs=1e-4)


def test_a_turned_vector_is_found_turned_by_its_angle(found):
    for row in rows(found, "corrected_cosine"):
        assert row.ci_low < 0.5 < row.ci_high
    # 60 degrees, which the standard errors, about 0.1, tell from 0 and from 90.
    mean = rows(found, "corrected_cosine_mean", layer_type="")[0]
    assert mean.value == pytest.approx(0.5, abs=0.15)
    assert all(row.ci_low > 0.5 for row in rows(found, "reliability", "stage:raw"))


def test_a_kept_vector_is_found_kept(kept):
    for row in rows(kept, "corrected_cosine"):
        assert row.value == pytest.approx(1, abs=0.03)
        assert row.ci_low < 1 < row.ci_high or row.ci_low > 0.98


def test_a_kept_vector_stands_out_of_its_nulls_and_a_turned_one_does_not(found, kept):
    # Stages share most of what they make of a text, so that any contrast has a high cosine.
    for row in rows(kept, "cosine"):
        assert 0.7 < row.null < row.value
        assert row.p_max <= 0.02
        assert row.note == ""
    for row in rows(kept, "z", "raw:relabelled"):
        assert row.value > 1.5
    for row in rows(found, "cosine"):
        assert row.value < row.null
        assert row.p_max > 0.9
        assert row.note == "turned more than the null; turned more than unrelated contrasts"
    assert all(row.value < -2 for row in rows(found, "z", "raw:relabelled"))


def test_where_the_classes_lie_far_apart_unrelated_contrasts_tell_that_the_vector_turned():
    turned = compare(planted(60, strength=30.0))
    # Relabelled contrasts are then along the trait too, and turn with it.
    assert all(row.p > 0.05 for row in rows(turned, "z", "raw:relabelled"))
    for row in rows(turned, "cosine"):
        assert row.note.endswith("; turned more than unrelated contrasts")
    for row in rows(compare(planted(0, strength=30.0)), "cosine"):
        assert "turned more" not in row.note


@pytest.mark.parametrize("shuffle", [True, False], ids=["shuffled", "true"])
def test_identical_stages_are_never_significant(shuffle):
    examples = shuffled(contrast_examples()) if shuffle else contrast_examples()
    result = compare(identical(planted(examples=examples, strength=0.0 if shuffle else 1.0)))
    for variant in ("raw", "standardised"):
        for row in rows(result, "cosine", variant):
            assert row.value == pytest.approx(1, abs=1e-6)
            assert (row.p, row.p_max, row.q) == (1, 1, 1)
    for row in rows(result, "cosine"):
        assert row.note.startswith("same weights; not distinguishable from the null")
        assert row.note.endswith("reliability not above zero") == shuffle
    assert all(row.p is None or row.p > 0.9 for row in result.measurements if row.metric == "z")
    assert "not distinguishable from the null" in str(result.headline["note"])
    assert warned(result, "think_sft and base", "same weights")


def test_shuffled_labels_of_different_stages_are_significant_as_often_as_p_says():
    hits = 0
    for seed in range(40):
        examples = shuffled(contrast_examples(20), seed)
        result = compare(
            planted(examples=examples, strength=0.0, seed=seed, layers=2), n_unrelated=0
        )
        hits += min(row.p_max for row in rows(result, "cosine")) <= 0.05
    # 2 are expected; 7 or more have a probability of 0.3 %.
    assert hits < 7


def test_identical_stages_transfer_like_themselves_within_1e_6():
    result = compare(identical(planted(strength=0.4)), **QUICK)
    for metric, ending in (
        ("transfer_auroc", ""),
        ("transfer_balanced_accuracy", ":source"),
        ("transfer_balanced_accuracy", ":own"),
    ):
        own = [row.value for row in rows(result, metric, f"stage->stage{ending}")]
        assert min(own) > 0.5
        assert max(own) < 1
        for pair in ("reference->stage", "stage->reference", "reference->reference"):
            moved = [row.value for row in rows(result, metric, pair + ending)]
            assert moved == pytest.approx(own, abs=1e-6)
    assert all(row.value == 0 for row in rows(result, "shift", "fixed"))


def test_the_fixed_vector_is_the_same_for_every_stage():
    results = [compare(planted(angle), **QUICK) for angle in (0, 60)]
    one, other = (it.tensors["hostile.reference_vector"] for it in results)
    assert np.array_equal(one, other)
    own = [it.tensors["hostile.vector"] for it in results]
    assert not np.allclose(*own)
    at_home = [rows(it, "transfer_auroc", "reference->reference") for it in results]
    assert [r.value for r in at_home[0]] == [r.value for r in at_home[1]]
    fixed, native = (
        [rows(it, "separation", kind)[0].value for it in results] for kind in ("fixed", "own")
    )
    assert fixed[1] < 0.7 * fixed[0]
    assert native[1] == pytest.approx(native[0], rel=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_the_angle(kind):
    source = planted(60, own=0.05, shared=0.5, examples=contrast_examples(60))
    result = compare(source, kind=kind, n_permutations=19, n_unrelated=19)
    mean = rows(result, "corrected_cosine_mean", layer_type="")[0]
    assert mean.value == pytest.approx(0.5, abs=0.15)
    for row in rows(result, "transfer_auroc", "stage->stage"):
        assert row.value > 0.9
    assert not faults(result)


@pytest.mark.parametrize("factor", [1e-3, 50.0])
def test_the_scale_of_a_stage_changes_no_cosine_and_no_p(factor, found):
    source = planted(60)
    scaled = replace(
        source, make=lambda s: source.make(s) * (factor if s.name == "think_sft" else 1)
    )
    result = compare(scaled)
    for metric in ("cosine", "corrected_cosine"):
        for one, other in zip(rows(result, metric), rows(found, metric), strict=True):
            assert one.value == pytest.approx(other.value, abs=1e-5)
            assert one.p_max == other.p_max


def test_an_offset_of_a_stage_changes_no_cosine():
    source = planted(60)
    moved = replace(source, make=lambda s: source.make(s) + (9 if s.name == "think_sft" else 0))
    one, other = (rows(compare(it, **QUICK), "cosine") for it in (source, moved))
    assert [r.value for r in one] == pytest.approx([r.value for r in other], abs=1e-5)


def test_a_stage_alone_has_vectors_and_says_what_is_left_out():
    result = compare(planted(), reference=None)
    assert {row.metric for row in result.measurements} == {
        "reliability",
        "norm",
        "norm_to_spread",
        "norm_to_residual",
        "transfer_auroc",
        "transfer_balanced_accuracy",
        "separation",
    }
    assert all(row.reference == "" for row in result.measurements)
    assert sorted(result.tensors) == [
        "hostile.midpoint",
        "hostile.separation",
        "hostile.vector",
        "layers",
    ]
    assert warned(result, "think_sft has no reference", "left out")
    assert result.headline["at layer"] in {0, 1, 2}
    assert result.headline["cosine"] is None
    assert not faults(result)


def test_vectors_are_kept_with_the_classes_along_them(kept):
    source = planted(0)
    values = source.make(THINK)
    labels = np.array([e.label for e in source.examples])
    assert kept.tensors["layers"].tolist() == [0, 1, 2]
    assert kept.tensors["hostile.vector"].shape == (LAYERS, D_MODEL)
    for layer, vector in enumerate(kept.tensors["hostile.vector"]):
        scores = values[layer] @ (vector / np.linalg.norm(vector))
        high, low = scores[labels == 1].mean(), scores[labels == 0].mean()
        assert kept.tensors["hostile.midpoint"][layer] == pytest.approx((high + low) / 2, abs=1e-4)
        assert kept.tensors["hostile.separation"][layer] == pytest.approx(high - low, abs=1e-4)


def test_every_number_is_given_twice(kept):
    for metric in ("cosine", "corrected_cosine", "ceiling"):
        assert len(rows(kept, metric, "raw")) == len(rows(kept, metric, "standardised"))
    for null in ("relabelled", "independent", "unrelated"):
        for variant in ("raw", "standardised"):
            for row in rows(kept, "null_cosine", f"{variant}:{null}"):
                assert row.ci_low <= row.value <= row.ci_high
    assert not faults(kept)


def test_a_massive_dimension_makes_the_raw_cosine_and_is_told_of():
    source = planted(60)
    loud = np.random.default_rng(3).normal(size=len(source.examples))

    def make(stage):
        values = source.make(stage)
        values[..., 9] += 300 * loud + 40 * np.array([e.label for e in source.examples])
        return values

    result = compare(replace(source, make=make), n_permutations=99)
    assert all(row.value > 0.99 for row in rows(result, "cosine"))
    assert all(row.value < 0.8 for row in rows(result, "cosine", "standardised"))
    assert warned(result, "dominant dimensions decide the cosine")
    # The null knows of it: any contrast has that cosine.
    assert all("not distinguishable" in row.note for row in rows(result, "cosine"))
    for row in rows(result, "null_cosine", "raw:independent"):
        assert row.ci_low < -0.9
        assert row.ci_high > 0.9


def test_several_traits_are_told_apart_and_compared():
    one, other = contrast_examples(20), contrast_examples(20, trait="rude")
    source = planted(30, examples=[*one, *other])
    result = compare(source, n_permutations=99, n_unrelated=9)
    for trait in ("hostile", "rude"):
        assert len(rows(result, "cosine", trait=trait)) == LAYERS
        assert f"{trait}.vector" in result.tensors
    across = rows(result, "trait_cosine", "raw:rude", trait="hostile")
    assert all(row.value > 0.7 and row.p_max <= 0.05 and not row.note for row in across)
    assert all(row.reference == "" for row in across)
    assert result.headline["trait"] == "hostile (1 of 2)"


def test_traits_that_have_nothing_in_common_are_not_said_to():
    one, other = contrast_examples(20), contrast_examples(20, trait="rude")
    source = planted(examples=[*one, *other])
    labels = np.array([2 * e.label - 1 for e in other])

    def make(stage):
        values = source.make(stage)
        values[:, len(one) :, 0] -= labels
        values[:, len(one) :, 5] += labels
        return values

    result = compare(replace(source, make=make), n_permutations=99, n_unrelated=9)
    across = rows(result, "trait_cosine", "raw:rude", trait="hostile")
    assert all(abs(row.value) < 0.5 and row.p_max > 0.05 for row in across)
    assert all(row.note == "not distinguishable from the null" for row in across)


def test_examples_keep_their_trait_as_a_name_and_one_without_gets_one():
    examples = contrast_examples(trait="")
    result = compare(planted(examples=examples), **QUICK)
    assert {row.trait for row in result.measurements} == {"trait"}
    assert "trait.vector" in result.tensors


def test_length_and_polarity_are_controls_where_they_vary():
    examples = contrast_examples()
    kinds = ("affirmative", "negated")
    polar = tuple(replace(e, polarity=kinds[i // 2 % 2]) for i, e in enumerate(examples))
    lengths = tuple(tuple(range(4 + i // 2 % 5)) for i in range(len(examples)))
    with_both = compare(planted(examples=polar, token_ids=lengths), **QUICK)
    assert len(rows(with_both, "control_cosine", "raw:length")) == LAYERS
    assert len(rows(with_both, "control_cosine", "standardised:polarity")) == LAYERS
    without = compare(planted(examples=examples), **QUICK)
    assert not [row for row in without.measurements if row.metric == "control_cosine"]


def test_without_permutations_there_is_no_p_and_no_claim():
    result = compare(planted(60), **QUICK)
    assert all(row.p is None and row.p_max is None for row in result.measurements)
    assert all(row.note == "" for row in rows(result, "cosine"))
    assert warned(result, "analysis.n_permutations=0")
    assert result.headline["p (max)"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "ica"}, "analysis.kind 'ica' does not exist; choose from mean_difference, pca"),
        ({"site": "resid"}, "analysis.site 'resid' does not exist"),
        ({"position": "tokens"}, "'tokens' gives a row a token, but one row an example is needed"),
        ({"layers": []}, r"analysis.layers=\[\] leaves no layer"),
        ({"layers": [3, 3]}, r"analysis.layers=\[3, 3\] names a layer twice"),
        ({"n_permutations": -1}, "analysis.n_permutations=-1 is too small; give at least 0"),
        ({"n_unrelated": -1}, "analysis.n_unrelated=-1 is too small"),
        ({"n_folds": 1}, "analysis.n_folds=1 is too small; give at least 2"),
        ({"n_resamples": 10}, "analysis.n_resamples=10 is too small; give at least 100"),
        ({"strength": 0}, "analysis.strength=0"),
        ({"shrinkage": 1.5}, "analysis.shrinkage=1.5"),
    ],
)
def test_options_that_cannot_be_are_refused_with_a_remedy(options, words):
    with pytest.raises(ConfigError, match=words):
        cosine(**options)


def test_stages_of_different_width_are_refused():
    source = planted()
    wide = replace(source, make=lambda s: source.make(s)[..., : D_MODEL - 4 * (s.name == "base")])
    with pytest.raises(PairingError, match="think_sft and base have d_model 24 and 20"):
        compare(wide)


@pytest.mark.parametrize("deeper", ["base", "think_sft"])
def test_stages_of_different_depth_are_refused(deeper):
    source = planted()
    deep = replace(source, make=lambda s: source.make(s)[: LAYERS - (s.name != deeper)])
    with pytest.raises(PairingError, match="other layers, the first is 2"):
        compare(deep, **QUICK)


def test_other_examples_are_refused():
    source = planted(
        change=lambda acts: replace(acts, ids=acts.ids[::-1]) if acts.stage == BASE else acts
    )
    with pytest.raises(PairingError, match="different examples or another order"):
        compare(source)


def test_results_do_not_depend_on_the_number_of_layers_read(found):
    alone = compare(planted(60), layers=[1])
    for metric in ("cosine", "corrected_cosine"):
        assert rows(alone, metric)[0].value == rows(found, metric)[1].value
        assert rows(alone, metric)[0].p == rows(found, metric)[1].p
    assert rows(alone, "cosine")[0].layer == 1


def test_an_edge_carries_the_corrected_mean_whichever_way_it_was_compared(found):
    (change,) = changes(analysis, found.measurements)
    row = find(change, found.measurements, "think_sft", "base")
    assert row == rows(found, "corrected_cosine_mean", layer_type="")[0]
    turned = compare(planted(60), BASE, THINK).measurements
    assert find(change, turned, "think_sft", "base").value == pytest.approx(row.value, abs=1e-6)


def test_an_edge_carries_a_number_for_each_of_several_traits():
    evil = contrast_examples(trait="evil")
    source = planted(60, examples=(*evil, *contrast_examples(trait="kind")))
    rows_of_all = compare(source).measurements
    both = changes(analysis, rows_of_all)
    assert [it.name for it in both] == ["cosine · evil", "cosine · kind"]
    found = [find(it, rows_of_all, "think_sft", "base") for it in both]
    assert [row.trait for row in found] == ["evil", "kind"]


def test_an_edge_of_vectors_that_are_noise_says_why_it_has_no_number():
    source = planted(0)
    noise = replace(source, examples=shuffled(source.examples, seed=3))
    result = compare(noise)
    (change,) = changes(analysis, result.measurements)
    row = find(change, result.measurements, "think_sft", "base")
    assert np.isnan(row.value)
    assert (row.ci_low, row.note) == (None, f"over 0 of {LAYERS} layers: others not reliable")
