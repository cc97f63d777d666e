"""What is read of a stage: tokens and documents, warnings of dominance, refusals by layer."""

from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.errors import DataError, NonFiniteError
from tests.fakes import BASE, THINK
from tests.similarity.analysed import (
    QUICK,
    compare,
    faults,
    given,
    related,
    rows,
    unrelated,
    warned,
)
from tests.similarity.literal import LITERAL

OWNERS = np.repeat(np.arange(12), [3, 4, 5] * 4)


def tokens(owners=OWNERS, copies=1, **kwargs):
    """Tokens that share what their example is about; every one `copies` times."""
    index = np.repeat(np.arange(len(owners)), copies)

    def make(stage):
        noise = related(n=len(owners)).make(stage)
        example = related(n=12, seed=1).make(stage)[:, owners]
        return (noise + example)[:, index]

    source = related(n=12, **kwargs)
    return replace(source, make=make, owners=owners[index])


def at_tokens(source, **options):
    return compare(source, position="tokens", **QUICK | options)


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_every_token_change_neither_score_nor_interval(copies):
    once, often = (at_tokens(tokens(copies=it), also=["rbf_cka", "rsa"]) for it in (1, copies))
    for metric in ("debiased_cka", "debiased_cka_map", "debiased_cka_mean", "rbf_cka"):
        for a, b in zip(rows(once, metric), rows(often, metric), strict=True):
            assert [b.value, b.ci_low, b.ci_high] == pytest.approx(
                [a.value, a.ci_low, a.ci_high], abs=1e-4
            )
            assert (a.n, b.n) == (48, 48 * copies)
            assert a.n_groups == b.n_groups == 12


def test_tokens_as_documents_of_their_own_would_narrow_the_interval():
    """The control twin: what counting tokens as independent would do."""
    copies = 5
    honest = at_tokens(tokens(copies=copies))
    n = 48 * copies
    naive = replace(tokens(copies=copies), examples=unrelated(n=n).examples, owners=np.arange(n))
    widths = [
        np.mean([row.ci_high - row.ci_low for row in rows(it, "debiased_cka")])
        for it in (honest, at_tokens(naive))
    ]
    assert widths[1] < 0.6 * widths[0]


def test_pairs_of_tokens_of_one_example_do_not_count():
    """Unrelated tokens whose examples' parts are unrelated too, but large."""

    def make(stage):
        example = unrelated(n=12, seed=1).make(stage)[:, OWNERS]
        return 5 * example + unrelated(n=48).make(stage)

    result = at_tokens(replace(tokens(), make=make), also=["biased_cka"], n_permutations=19)
    for row in rows(result, "debiased_cka"):
        assert abs(row.value) < 0.35
    assert all(row.value > 0.5 for row in rows(result, "biased_cka"))


def test_one_token_an_example_is_the_same_as_examples():
    source = related(n=12)
    as_tokens = replace(source, owners=np.arange(12))
    one, other = compare(source, **QUICK), at_tokens(as_tokens)
    assert one.measurements == other.measurements


def test_counts_of_what_is_left_out_are_reported():
    def change(acts):
        left_out = {"sink": 12, "special": 3, "template": 0}
        return replace(acts, left_out=left_out, n_at_sink=2, n_truncated=1)

    result = at_tokens(tokens(change=change))
    assert warned(result, "left out of 12 texts", "12 sink", "3 special")
    assert not warned(result, "template")
    assert warned(result, "2 of 12 texts", "sink")
    assert warned(result, "1 of 12 texts", "longer than the context")
    without = at_tokens(tokens())
    assert not any(warned(without, word) for word in ("sink", "left out of", "longer"))


def test_an_example_with_most_of_the_tokens_is_refused():
    owners = np.repeat(np.arange(5), [40, 1, 1, 1, 1])
    with pytest.raises(DataError, match=r"layer 0 of think_sft.*40 of 44 rows"):
        at_tokens(unrelated(n=44, groups=range(5), owners=owners))


def broken(name, layer, value, row=slice(None)):
    """Stages of which one is broken in one layer."""
    values = {stage.name: unrelated().make(stage) for stage in (BASE, THINK)}
    values[name][layer, row] = value
    return given(values)


@pytest.mark.parametrize("name", ["think_sft", "base"])
def test_constant_features_name_stage_and_layer(name):
    source = broken(name, 1, 3.25)
    with pytest.raises(DataError, match=rf"layer 1 of {name}: constant features.*analysis.layers"):
        compare(source, **QUICK)
    assert rows(compare(source, layers=[0, 2], **QUICK), "debiased_cka")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["think_sft", "base"])
def test_non_finite_values_name_stage_layer_and_row(name, value):
    source = broken(name, 2, value, row=7)
    with pytest.raises(NonFiniteError, match=rf"layer 2 of {name}: 1 of 40 rows.*row 7"):
        compare(source, **QUICK)
    assert rows(compare(source, layers=[0, 1], **QUICK), "debiased_cka")


@pytest.mark.parametrize("d", [1, 2])
def test_very_narrow_stages(d):
    source = related(d=d)
    result = compare(source, n_permutations=9)
    x, y = source.make(THINK), source.make(BASE)
    for row in rows(result, "debiased_cka"):
        expected = LITERAL["debiased_cka"](x[row.layer], y[row.layer])
        assert row.value == pytest.approx(expected, abs=1e-5)
    assert not faults(result)
    assert warned(result, "ceiling is left out", "half of the dimensions") == (d == 1)


def test_many_ties():
    """Each stage knows only which of two kinds an example is."""
    kind = np.arange(40) % 2
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(2, 2, 8))[:, kind] for name in ("base", "think_sft")}
    result = compare(given(values), also=["procrustes", "mutual_knn", "rsa"])
    assert all(row.value == pytest.approx(1, abs=1e-5) for row in rows(result, "debiased_cka"))
    assert not faults(result)


def test_every_stage_is_read_once_layer_by_layer():
    kept = {}

    def change(acts):
        kept.setdefault(acts.stage.label, []).append(acts.layers)
        return acts

    compare(related(change=change), also=["procrustes", "rsa"])
    assert set(kept) == {"think_sft", "base", "think_sft (random)"}
    assert all(layers == [(0,), (1,), (2,)] for layers in kept.values())


def equidistant(rng):
    del rng
    return np.eye(40)


def one_row_differs(rng):
    values = np.zeros((40, 40))
    values[3] = rng.normal(size=40)
    return values


@pytest.mark.parametrize("make", [equidistant, one_row_differs])
def test_rows_without_any_structure_are_refused_instead_of_scoring_their_rounding(make):
    rng = np.random.default_rng(0)
    values = make(rng)[None]
    turned = values @ np.linalg.qr(rng.normal(size=(40, 40)))[0]
    source = given({"base": values, "think_sft": turned})
    with pytest.raises(DataError, match=r"layer 0 of think_sft.*nothing to compare"):
        compare(source, **QUICK)
    result = compare(source, measure="biased_cka", also=["debiased_cka"], **QUICK)
    assert warned(result, "debiased_cka left out", "nothing to compare")
    assert sum("left out: " in warning for warning in result.warnings) == 1
    assert rows(result, "biased_cka")[0].value == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [1, 30, 1000])
def test_a_huge_row_is_warned_about_but_not_refused(size):
    values = {stage.name: related(layers=1).make(stage) for stage in (BASE, THINK)}
    for layers in values.values():
        layers[0, 7] *= size
    result = compare(given(values), **QUICK)
    assert warned(result, "squared norm") == (size > 1)
    assert not faults(result)
