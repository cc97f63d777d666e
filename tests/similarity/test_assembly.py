"""Stage x stage matrices from what jobs kept, against comparisons of the activations."""

from dataclasses import replace

import numpy as np
import pytest
from plotly.io import from_json

from olmo_stages import records
from olmo_stages.analyses.cka import across
from olmo_stages.types import Finished
from tests.fakes import BASE, THINK
from tests.figures.told import behind, captions
from tests.similarity.analysed import DPO, QUICK, compare, faults, given, related, rows, warned
from tests.similarity.literal import debiased_cka_of_groups

TYPES = ["sliding_attention", "sliding_attention", "full_attention"]
# Tables are kept in 16 bits: 1e-3 over the square root of the number of pairs of rows, here 780.
PACKED = 1e-4
PAIRS = [("think_sft", "base"), ("think_dpo", "base"), ("think_dpo", "think_sft")]


def chain(source, **options):
    """base -> think_sft -> think_dpo, as the two jobs of a sweep."""
    return [
        Finished(stage.label, before.label, compare(source, stage, before, **QUICK | options))
        for before, stage in ((BASE, THINK), (THINK, DPO))
    ]


@pytest.fixture(scope="module")
def source():
    return related(groups=np.repeat(np.arange(20), 2), layer_types=TYPES)


@pytest.fixture(scope="module")
def found(source):
    return across(chain(source))


def pairs(result, metric):
    return list(dict.fromkeys((row.stage, row.reference) for row in rows(result, metric)))


def test_all_pairs_are_there_in_the_order_of_the_lineage(found):
    assert pairs(found, "debiased_cka_stages") == PAIRS
    assert found.headline["stages"] == 3
    assert not found.warnings


def test_the_pair_that_no_job_computed_is_as_if_it_had(source, found):
    direct = compare(source, DPO, BASE, **QUICK)
    for variant in ("raw", "standardised"):
        far = rows(found, "debiased_cka_stages", variant, stage="think_dpo", reference="base")
        assert [row.layer for row in far] == [0, 1, 2, None]
        for row, expected in zip(far[:3], rows(direct, "debiased_cka", variant), strict=True):
            assert row.value == pytest.approx(expected.value, abs=PACKED)
            assert (row.layer_type, row.n, row.n_groups) == (TYPES[row.layer], 40, 20)
            # The bootstrap and the infinitesimal jackknife agree to a fifth here.
            assert row.ci_high - row.ci_low == pytest.approx(
                expected.ci_high - expected.ci_low, rel=0.4
            )
        assert far[3].value == pytest.approx(np.mean([row.value for row in far[:3]]), abs=1e-9)
        assert far[3].ci_high - far[3].ci_low < far[0].ci_high - far[0].ci_low


def test_with_enough_rows_packing_costs_the_fifth_digit():
    source = related(n=150, layers=2)
    direct = rows(compare(source, DPO, BASE, **QUICK), "debiased_cka")
    far = rows(across(chain(source)), "debiased_cka_stages", reference="base", stage="think_dpo")
    for row, expected in zip(far[:2], direct, strict=True):
        assert row.value == pytest.approx(expected.value, abs=1e-5)


def test_the_pairs_of_the_jobs_are_theirs(source, found):
    for job in chain(source):
        mine = rows(found, "debiased_cka_stages", stage=job.stage, reference=job.reference, layer=1)
        theirs = rows(job.result, "debiased_cka", layer=1)
        assert mine[0].value == pytest.approx(theirs[0].value, abs=PACKED)


@pytest.mark.parametrize(("stage", "reference"), [(DPO, BASE), (BASE, DPO), (BASE, THINK)])
def test_best_matches_are_those_of_brute_force_in_either_direction(source, found, stage, reference):
    x, y = source.make(stage), source.make(reference)
    groups = np.repeat(np.arange(20), 2)
    every = np.array([[debiased_cka_of_groups(a, b, groups) for b in y] for a in x])
    best = rows(found, "best_match_stages", stage=stage.label, reference=reference.label)
    assert [row.layer for row in best] == [0, 1, 2, None]
    for row in best[:3]:
        assert row.reference_layer == int(every[row.layer].argmax())
        assert row.value == pytest.approx(every[row.layer].max(), abs=PACKED)
        assert row.layer_type == TYPES[row.layer]
        assert row.reference_layer_type == TYPES[row.reference_layer]
        assert row.ci_low < row.value < row.ci_high
    assert best[3].value == pytest.approx(every.max(axis=1).mean(), abs=PACKED)


def test_a_stage_whose_layers_moved_is_found_by_its_best_matches():
    values = related().make(BASE)
    source = given({"base": values, "think_sft": values[[1, 2, 0]], "think_dpo": values})
    found = across(chain(source))
    best = rows(found, "best_match_stages", stage="think_sft", reference="base")
    assert [row.reference_layer for row in best[:3]] == [1, 2, 0]
    assert all(row.value == row.ci_low == row.ci_high == 1 for row in best)
    back = rows(found, "best_match_stages", stage="base", reference="think_sft")
    assert [row.reference_layer for row in back[:3]] == [2, 0, 1]
    same = rows(found, "debiased_cka_stages", stage="think_dpo", reference="base")
    assert all(row.value == 1 for row in same)


def test_every_number_is_finite_and_within_its_interval(found):
    assert not faults(found)
    assert all(row.ci_low is not None for row in found.measurements)


def test_order_is_that_of_the_lineage_whatever_that_of_the_jobs(source, found):
    figures = found.figures
    assert {"stages_raw", "best_match_raw", "stages_standardised", "diagonals"} <= set(figures)
    assert all(from_json(text).data for text in figures.values())
    matrix = from_json(figures["stages_raw"]).layout
    assert list(matrix.xaxis.ticktext) == ["base", "think_sft", "think_dpo"]
    turned = across(chain(source)[::-1])
    assert turned.measurements == found.measurements
    assert from_json(turned.figures["stages_raw"]).layout.xaxis.ticktext == matrix.xaxis.ticktext


def test_figures_say_what_was_resampled_and_which_rows_they_are_made_of(source, found):
    said = captions(found)
    assert "jackknife intervals over groups (20)" in said["stages_raw"]
    assert "best of several is not in them" in said["best_match_raw"]
    assert "bootstrap intervals over 20 groups" in said["diagonals"]
    assert "No null was run" in said["diagonals"]
    permuted = captions(across(chain(source, n_permutations=5)))["diagonals"]
    assert "Dotted: median over permutations of the rows" in permuted
    assert behind(found, "stages_raw") == rows(found, "debiased_cka_stages", "raw")
    meta = from_json(found.figures["diagonals"]).layout.meta
    assert (meta["of"], meta["metric"], meta["variant"]) == ("jobs", ["debiased_cka"], ["raw"])


def test_a_stage_of_no_lineage_comes_last(source):
    odd = replace(DPO, name="a_soup")
    jobs = [Finished("a_soup", "base", compare(source, odd, BASE, **QUICK)), *chain(source)]
    assert pairs(across(jobs), "debiased_cka_stages")[-1] == ("a_soup", "think_dpo")


def test_colours_are_those_of_the_data(found):
    metrics = {"stages": "debiased_cka_stages", "best_match": "best_match_stages"}
    for name, metric in metrics.items():
        values = [row.value for row in rows(found, metric)]
        for trace in from_json(found.figures[f"{name}_raw"]).data:  # one scale for every layer
            assert (trace.zmin, trace.zmax) == (min(values), 1)


def with_massive(stage_name):
    """Three stages; in layer 1 of one of them a dimension is a hundred times the others."""
    values = {stage.name: related().make(stage) for stage in (BASE, THINK, DPO)}
    values[stage_name][1, :, 5] *= 100
    return given(values)


def test_standardised_tables_are_kept_where_a_dimension_dominates_and_raw_ones_serve_else():
    source = with_massive("think_dpo")
    jobs = chain(source)
    kept = [{name for name in job.result.tensors if name.endswith(".standardised")} for job in jobs]
    assert kept == [{"map.standardised"}, {"map.standardised", "tables.stage.standardised"}]
    found = across(jobs)
    direct = compare(source, DPO, BASE, **QUICK)
    for variant in ("raw", "standardised"):
        far = rows(found, "debiased_cka_stages", variant, stage="think_dpo", reference="base")
        for row, expected in zip(far[:3], rows(direct, "debiased_cka", variant), strict=True):
            assert row.value == pytest.approx(expected.value, abs=PACKED)
    raw, scaled = (
        rows(found, "debiased_cka_stages", it, stage="think_dpo", reference="base", layer=1)[0]
        for it in ("raw", "standardised")
    )
    assert scaled.value > raw.value + 0.1


def test_no_activation_is_read(source):
    jobs = chain(source)
    before = len(source.asked)
    assert before > 0
    across(jobs)
    assert len(source.asked) == before


@pytest.mark.parametrize("name", ["minibatch_cka", "mutual_knn", "rbf_cka", "rsa", "biased_cka"])
def test_other_main_measures_go_through(source, name):
    options = {"measure": name, "neighbours": 5}
    found = across(chain(source, **options))
    direct = compare(source, DPO, BASE, **QUICK, **options)
    far = rows(found, f"{name}_stages", stage="think_dpo", reference="base")[:3]
    for row, expected in zip(far, rows(direct, name), strict=True):
        assert row.value == pytest.approx(expected.value, abs=PACKED)
    assert not faults(found)
    for text in found.figures.values():
        assert "1 nearest" not in from_json(text).layout.title.text


def test_jobs_of_other_rows_are_left_out_and_it_is_said(source):
    other = replace(source, token_ids=((9, 9),) * 40)
    jobs = chain(source)
    mixed = [jobs[0], replace(chain(other)[1], stage="odd", reference="think_sft")]
    found = across(mixed)
    assert pairs(found, "debiased_cka_stages") == [("think_sft", "base")]
    assert warned(found, "1 jobs", "other rows")


def test_nothing_kept_or_nothing_to_compare_is_none(source):
    assert across(chain(source, keep_tables=False)) is None
    assert across([]) is None
    alone = compare(source, THINK, None, **QUICK)
    assert across([Finished("think_sft", "", alone)]) is None


def test_stages_without_reference_are_compared_with_one_another(source):
    jobs = [
        Finished(stage.label, "", compare(source, stage, None, **QUICK)) for stage in (BASE, DPO)
    ]
    found = across(jobs)
    assert pairs(found, "debiased_cka_stages") == [("think_dpo", "base")]
    direct = rows(compare(source, DPO, BASE, **QUICK), "debiased_cka")
    for row, expected in zip(rows(found, "debiased_cka_stages")[:3], direct, strict=True):
        assert row.value == pytest.approx(expected.value, abs=PACKED)


def test_stages_of_other_depth_only_best_match():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(3, 40, 16))
    deeper = np.concatenate([rng.normal(size=(1, 40, 16)), base])
    found = across(chain(given({"base": base, "think_sft": deeper, "think_dpo": base})))
    assert pairs(found, "debiased_cka_stages") == [("think_dpo", "base")]
    best = rows(found, "best_match_stages", stage="think_sft", reference="base")
    assert [row.reference_layer for row in best[1:4]] == [0, 1, 2]
    assert len(rows(found, "best_match_stages", stage="base", reference="think_sft")) == 4
    assert {"best_match_raw", "stages_raw"} <= set(found.figures)
    assert not faults(found)


def test_tokens_go_through():
    owners = np.repeat(np.arange(12), [2, 3, 4] * 4)
    source = replace(related(n=36, groups=range(12)), owners=owners)
    found = across(chain(source, position="tokens"))
    direct = rows(compare(source, DPO, BASE, position="tokens", **QUICK), "debiased_cka")
    far = rows(found, "debiased_cka_stages", stage="think_dpo", reference="base")[:3]
    for row, expected in zip(far, direct, strict=True):
        assert row.value == pytest.approx(expected.value, abs=PACKED)
        assert (row.n, row.n_groups) == (36, 12)


def test_results_that_were_written_and_read_say_the_same(source, found, tmp_path):
    read = []
    for job in chain(source, n_permutations=9, n_halves=1, also=["procrustes"]):
        folder = tmp_path / job.stage
        records.write(folder, job.result, {})
        back = records.read(folder).result
        assert back.measurements == job.result.measurements
        assert dict(back.figures) == dict(job.result.figures)
        assert dict(back.headline) == dict(job.result.headline)
        assert back.warnings == job.result.warnings
        assert set(back.tensors) == set(job.result.tensors)
        for name, tensor in job.result.tensors.items():
            assert back.tensors[name].dtype == tensor.dtype
            assert np.array_equal(back.tensors[name], tensor)
        read.append(Finished(job.stage, job.reference, back))
    assert across(read).measurements == found.measurements
