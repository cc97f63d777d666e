"""analysis=cka as a whole: what a careful reviewer checks, on stages whose similarity is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ortho_group

from olmo_stages.analyses import cka as analysis
from olmo_stages.edges import changes, find
from olmo_stages.errors import ConfigError
from olmo_stages.similarity.choice import FITTED, TABLES
from olmo_stages.types import Analysis, Finished
from tests.fakes import BASE, THINK
from tests.similarity.analysed import (
    QUICK,
    cka,
    compare,
    faults,
    given,
    own,
    related,
    rows,
    unrelated,
    warned,
)
from tests.similarity.literal import LITERAL

TYPES = ["sliding_attention", "sliding_attention", "full_attention"]
SINGLE = 1e-5  # what float32 inner products leave, see test_formulas


@pytest.fixture(scope="module")
def found():
    """Related stages, compared with everything that takes little time."""
    return compare(related(layer_types=TYPES), also=["procrustes", "mutual_knn"], n_halves=2)


def test_is_an_analysis():
    assert isinstance(cka(), Analysis)


def test_scores_are_those_of_the_formula(found):
    source = related()
    x, y = source.make(THINK), source.make(BASE)
    for row in rows(found, "debiased_cka_map"):
        expected = LITERAL["debiased_cka"](x[row.layer], y[row.reference_layer])
        assert row.value == pytest.approx(expected, abs=SINGLE)
    for row in rows(found, "debiased_cka"):
        assert row.layer == row.reference_layer
        expected = LITERAL["debiased_cka"](x[row.layer], y[row.layer])
        assert row.value == pytest.approx(expected, abs=SINGLE)


def test_related_stages_stand_out_of_their_null(found):
    for row in rows(found, "debiased_cka"):
        assert row.value > 0.7
        assert (row.p, row.p_max) == (1 / 20, 1 / 20)
        assert abs(row.null) < 0.1
        assert 0.5 < row.ci_low < row.value < row.ci_high < 1
    for row in rows(found, "debiased_cka_calibrated"):
        assert row.value > 0.6
    for name in ("procrustes", "mutual_knn"):
        assert all(row.p == 1 / 10 for row in rows(found, name))


def test_unrelated_stages_do_not():
    result = compare(unrelated(), n_permutations=99, n_halves=0)
    for row in rows(result, "debiased_cka_map"):
        # Standard error of unrelated CKA here: about sqrt(2) / n * n / d = 0.04.
        assert abs(row.value) < 0.2
        assert row.p_max > 0.05
    assert all(row.ci_low < 0 < row.ci_high for row in rows(result, "debiased_cka_mean"))
    calibrated = rows(result, "debiased_cka_calibrated")
    assert [row.value for row in calibrated] == [0, 0, 0]
    assert "not above the random initialisation" in rows(result, "debiased_cka")[0].note


def test_identical_stages_are_exactly_1_and_say_so():
    values = unrelated().make(BASE)
    source = given({"base": values, "think_sft": values})
    source.change = lambda acts: replace(acts, model_digest="the same")
    result = compare(source, also=["mutual_knn", "procrustes", "svcca", "pwcca"])
    for variant in ("raw", "standardised"):
        for row in rows(result, "debiased_cka", variant):
            assert (row.value, row.ci_low, row.ci_high) == (1, 1, 1)
            assert row.note == "identical: exactly 1"
    assert warned(result, "think_sft and base", "same weights", "exactly 1")
    for name in ("procrustes", "svcca", "pwcca", "mutual_knn"):
        assert all(row.value == 1 for row in rows(result, name))
    assert not faults(result)


def test_nearly_identical_stages_do_not_say_so():
    values = unrelated().make(BASE)
    nearly = values + 1e-3 * own(THINK).normal(size=values.shape)
    result = compare(given({"base": values, "think_sft": nearly}), **QUICK)
    assert all(0.99999 < row.value < 1 and not row.note for row in rows(result, "debiased_cka"))
    assert not warned(result, "same weights")


TURN = ortho_group.rvs(32, random_state=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x @ TURN,
        lambda x: 7.3 * x,
        lambda x: x + 10,
        lambda x: x[..., ::-1],
        lambda x: np.concatenate([x, x], axis=2),  # twice as wide
    ],
    ids=["turned", "scaled", "shifted", "reordered", "doubled"],
)
def test_what_is_no_difference_gives_1_but_is_not_called_identical(change):
    values = unrelated().make(BASE)
    source = given({"base": values, "think_sft": change(values)})
    result = compare(source, **QUICK, also=["procrustes"])
    for row in [*rows(result, "debiased_cka"), *rows(result, "procrustes")]:
        assert row.value == pytest.approx(1, abs=1e-5)
        assert not row.note
    assert not faults(result)


def test_without_reference_a_stage_is_compared_with_itself():
    source = related()
    result = compare(source, reference=None)
    assert {row.reference for row in rows(result, "debiased_cka_map")} == {"think_sft"}
    assert all(row.value == 1 for row in rows(result, "debiased_cka"))
    values = {(r.layer, r.reference_layer): r.value for r in rows(result, "debiased_cka_map")}
    assert all(values[i, j] == pytest.approx(values[j, i], abs=1e-9) for i, j in values)
    assert values[0, 1] < 1
    assert warned(result, "think_sft has no reference", "compared with one another")
    assert set(source.asked) == {"think_sft", "think_sft (random)"}
    assert not faults(result)


def test_types_of_layers_stand_in_every_row_and_have_means_of_their_own(found):
    for row in found.measurements:
        if row.layer is not None:
            assert row.layer_type == TYPES[row.layer]
        if row.reference_layer is not None:
            assert row.reference_layer_type == TYPES[row.reference_layer]
    value = [row.value for row in rows(found, "debiased_cka")]
    means = {row.layer_type: row for row in rows(found, "debiased_cka_mean")}
    assert means[""].value == pytest.approx(np.mean(value), abs=1e-12)
    assert means["sliding_attention"].value == pytest.approx(np.mean(value[:2]), abs=1e-12)
    assert means["full_attention"].value == pytest.approx(value[2], abs=1e-12)
    assert means["full_attention"].ci_low == rows(found, "debiased_cka")[2].ci_low
    assert all(row.layer is None for row in means.values())


def test_the_floor_is_the_random_initialisation(found):
    source = related()
    x, floor = source.make(THINK), source.make(replace(THINK, random_init=0))
    for row in rows(found, "debiased_cka", "floor:raw"):
        assert row.reference == "think_sft (random)"
        expected = LITERAL["debiased_cka"](x[row.layer], floor[row.layer])
        assert row.value == pytest.approx(expected, abs=SINGLE)
        assert row.ci_low < row.value < row.ci_high
    without = compare(related(), **QUICK)
    assert not [row for row in without.measurements if row.variant.startswith("floor")]
    assert warned(without, "floor", "left out on request")


def test_the_ceiling_is_two_halves_of_the_stage(found):
    x = related().make(THINK)
    rng = np.random.default_rng(0)
    halves = [np.split(rng.permutation(32), 2) for _ in range(2)]
    for row in rows(found, "debiased_cka", "ceiling:raw"):
        assert row.reference == "think_sft"
        drawn = [LITERAL["debiased_cka"](x[row.layer][:, a], x[row.layer][:, b]) for a, b in halves]
        assert row.value == pytest.approx(np.mean(drawn), abs=SINGLE)
        assert row.ci_low < row.value < row.ci_high


def test_chosen_layers_only():
    result = compare(related(layers=4), layers=[1, 3], **QUICK)
    assert [row.layer for row in rows(result, "debiased_cka")] == [1, 3]
    whole = compare(related(layers=4), **QUICK)
    both = [[row.value for row in rows(it, "debiased_cka", layer=3)] for it in (result, whole)]
    assert both[0] == pytest.approx(both[1], abs=SINGLE)


def test_stages_of_other_depth_and_width_have_a_map_but_no_diagonal():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(3, 40, 16))
    deeper = np.concatenate([rng.normal(size=(1, 40, 16)), base])
    wider = np.concatenate([deeper, np.zeros((4, 40, 5))], axis=2) + 3
    result = compare(given({"base": base, "think_sft": wider}), also=["procrustes"])
    assert len(rows(result, "debiased_cka_map")) == 12
    best = {row.layer: row.reference_layer for row in rows(result, "best_match")}
    assert [best[i] for i in (1, 2, 3)] == [0, 1, 2]
    metrics = {row.metric for row in result.measurements}
    assert metrics == {"debiased_cka_map", "best_match"}
    assert warned(result, "0-3 (4)", "0-2 (3)", "no diagonal")
    assert result.headline["there"].value == pytest.approx(1, abs=SINGLE)
    assert set(result.figures) == {"map_raw", "map_standardised"}
    assert not faults(result)


def test_best_matches_are_the_largest_of_their_rows(found):
    cells = rows(found, "debiased_cka_map")
    for row in rows(found, "best_match"):
        best = max((it for it in cells if it.layer == row.layer), key=lambda it: it.value)
        assert (row.value, row.reference_layer) == (best.value, best.reference_layer)
        assert (row.p_max, row.ci_low, row.ci_high) == (best.p_max, best.ci_low, best.ci_high)
        # The best of several is no single test.
        assert row.p is None
        assert best.p is not None


def test_changes_from_layer_to_layer(found):
    value = [row.value for row in rows(found, "debiased_cka")]
    changes = rows(found, "debiased_cka_change")
    assert [row.layer for row in changes] == [1, 2]
    assert [row.value for row in changes] == pytest.approx(np.diff(value).tolist(), abs=1e-12)
    assert all(row.ci_low < row.value < row.ci_high for row in changes)


def massive(*, shared):
    """Unrelated stages, but that dimension 5 of layer 1 is a hundred times the others."""
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(3, 60, 32)) for name in ("base", "think_sft")}
    same = rng.normal(size=60)
    for name in values:
        values[name][1, :, 5] = 100 * (same if shared else rng.normal(size=60))
    return given(values)


def test_one_massive_dimension_is_warned_about_and_standardised():
    result = compare(massive(shared=True))
    high, low = (rows(result, "debiased_cka", it, layer=1)[0] for it in ("raw", "standardised"))
    assert high.value > 0.99
    assert abs(low.value) < 0.15
    assert low.p > 0.05 or low.value < 0.1
    for name in ("think_sft", "base"):
        assert warned(result, f"{name}:", "layer 1", "dimension 5", "in 1 of 3 layers", "100%")
    assert not warned(compare(massive(shared=True), layers=[0, 2], **QUICK), "dimension")
    apart = compare(massive(shared=False), **QUICK)
    assert abs(rows(apart, "debiased_cka", layer=1)[0].value) < 0.3


@pytest.mark.parametrize("name", [*TABLES[1:], *FITTED])
def test_every_measure_can_stand_beside_the_main_one(name):
    result = compare(related(n=60), also=[name], **QUICK)
    for variant in ("raw", "standardised"):
        found = rows(result, name, variant)
        assert [row.layer for row in found] == [0, 1, 2]
        assert all(0.3 < row.value < 1 and row.p == 1 / 10 for row in found)
        assert all(row.null < row.value for row in found)
        if name not in {"svcca", "pwcca"}:
            assert all(row.ci_low < row.value < row.ci_high for row in found)
    assert not warned(result, f"{name} left out")
    if name in LITERAL and name != "mutual_knn":
        source = related(n=60)
        x, y = source.make(THINK), source.make(BASE)
        for row in rows(result, name):
            expected = LITERAL[name](x[row.layer], y[row.layer])
            assert row.value == pytest.approx(expected, abs=1e-4)
    assert not faults(result)


@pytest.mark.parametrize("name", TABLES)
def test_every_measure_of_tables_can_be_the_main_one(name):
    result = compare(related(), measure=name)
    assert len(rows(result, f"{name}_map")) == 9
    assert all(row.p_max == 1 / 20 for row in rows(result, name))
    assert not faults(result)


@pytest.mark.parametrize(
    ("source", "options", "why"),
    [
        (related(n=8), {"also": ["mutual_knn", "rsa"], "neighbours": 10}, "among 7 rows"),
        (related(), {"also": ["svcca", "rsa"], "variance": 1.0}, "canonical correlations"),
    ],
    ids=["mutual_knn", "svcca"],
)
def test_a_measure_that_cannot_be_had_costs_nothing_else(source, options, why):
    lacking = options["also"][0]
    result = compare(source, **options, **QUICK)
    assert warned(result, f"{lacking} left out", why)
    assert lacking not in {row.metric for row in result.measurements}
    assert len(rows(result, "rsa")) == len(rows(result, "debiased_cka")) == 3


def test_the_same_seed_gives_the_same_bits(found):
    again = compare(related(layer_types=TYPES), also=["procrustes", "mutual_knn"], n_halves=2)
    assert again.measurements == found.measurements
    assert again.figures == found.figures
    assert all(np.array_equal(again.tensors[k], v) for k, v in found.tensors.items())
    other = compare(related(layer_types=TYPES), n_halves=2, seed=1)
    ends = [[row.ci_low for row in rows(it, "debiased_cka")] for it in (found, other)]
    assert ends[0] != ends[1]


def test_every_number_is_finite_and_within_its_interval(found):
    assert not faults(found)
    assert not faults(compare(unrelated(), also=["procrustes", "rsa", "rbf_cka"]))


def test_without_permutations_there_is_no_p():
    result = compare(related(), also=["procrustes"], n_permutations=0, n_permutations_also=0)
    assert all(row.p is row.p_max is row.null is None for row in result.measurements)
    assert warned(result, "no permutation null", "n_permutations=0")
    assert "debiased_cka_calibrated" not in {row.metric for row in result.measurements}


def test_tables_are_kept_only_on_request(found):
    kept = {"tables.stage.raw", "tables.reference.raw", "units", "groups", "blocks", "compared"}
    assert kept <= set(found.tensors)
    without = compare(related(), keep_tables=False, **QUICK)
    assert set(without.tensors) == {"map.raw", "map.standardised"}
    value = [row.value for row in rows(without, "debiased_cka_map")]
    assert without.tensors["map.raw"].ravel().tolist() == value


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"measure": "cka"}, ["'cka'", "debiased_cka"]),
        ({"measure": "procrustes"}, ["=procrustes", "choose from debiased_cka", "[procrustes]"]),
        ({"measure": "svcca"}, ["=svcca has no map", "analysis.also=[svcca]"]),
        ({"also": "svcca"}, ["analysis.also=svcca", "must be a list: [svcca]"]),
        ({"also": ["ccka"]}, ["'ccka'", "pwcca"]),
        ({"also": ["rsa", "rsa"]}, ["rsa", "twice"]),
        ({"also": ["debiased_cka"]}, ["debiased_cka", "twice"]),
        ({"site": "resid"}, ["'resid'", "resid_post"]),
        ({"position": "first"}, ["'first'", "tokens"]),
        ({"layers": [1, 1]}, ["[1, 1]", "twice"]),
        ({"layers": []}, ["[]", "null"]),
        ({"max_rows": 3}, ["max_rows=3", "at least 4"]),
        ({"n_resamples": 10}, ["n_resamples=10", "at least 100"]),
        ({"n_permutations": -1}, ["n_permutations=-1", "at least 0"]),
        ({"n_permutations_also": -1}, ["n_permutations_also=-1", "at least 0"]),
        ({"n_halves": -2}, ["n_halves=-2", "at least 0"]),
        ({"tokens_per_example": 0}, ["tokens_per_example=0", "1 or more"]),
        ({"measure": "minibatch_cka", "batch": 3}, ["analysis.batch=3", "at least 4"]),
        ({"also": ["mutual_knn"], "neighbours": 0}, ["neighbours=0", "at least 1"]),
        ({"also": ["procrustes"], "n_components": 0}, ["n_components=0", "at least 1"]),
        ({"also": ["svcca"], "variance": 1.5}, ["variance=1.5", "at most 1"]),
    ],
)
def test_a_bad_option_names_its_value_and_the_remedy(options, words):
    with pytest.raises(ConfigError) as caught:
        cka(**options)
    assert all(word in str(caught.value) for word in words), caught.value


def test_labels_make_no_difference():
    source = related()
    bare = replace(source, examples=tuple(replace(it, label=None) for it in source.examples))
    with_labels, without = compare(source), compare(bare)
    assert not cka().needs_labels
    assert without.measurements == with_labels.measurements
    assert without.warnings == with_labels.warnings


@pytest.mark.parametrize("measure", TABLES)
def test_an_edge_carries_the_mean_of_the_chosen_measure_whichever_way_it_was_compared(measure):
    options = QUICK | {"measure": measure, "also": []}
    result = compare(related(), **options)
    (change,) = changes(analysis, result.measurements)
    row = find(change, result.measurements, "think_sft", "base")
    assert row == rows(result, f"{measure}_mean", layer_type="")[0]
    turned = compare(related(), BASE, THINK, **options).measurements
    assert find(change, turned, "think_sft", "base").value == pytest.approx(row.value, abs=1e-6)
    together = analysis.across([Finished("think_sft", "base", result)])
    across = find(change, together.measurements, "think_sft", "base")
    assert across.value == pytest.approx(row.value, abs=1e-4)


def test_two_equal_models_have_the_unchanged_value_on_their_edge():
    values = np.random.default_rng(0).normal(size=(2, 40, 8))
    result = compare(given({"think_sft": values, "base": values}), **QUICK)
    (change,) = changes(analysis, result.measurements)
    row = find(change, result.measurements, "think_sft", "base")
    assert (row.value, row.ci_low, row.ci_high) == pytest.approx((change.unchanged,) * 3)


def test_a_stage_compared_with_itself_says_nothing_of_an_edge():
    result = compare(related(), reference=None, **QUICK)
    (change,) = changes(analysis, result.measurements)
    assert find(change, result.measurements, "think_sft", "base") is None
    assert changes(analysis, ()) == ()
