"""What a reader of vectors is told, each with the case in which it must not be said."""

from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.types import Member, Stage
from olmo_stages.vectors.caveats import related
from tests.fakes import BASE, THINK
from tests.similarity.analysed import warned
from tests.vectors.planted import QUICK, compare, contrast_examples, planted, shuffled

OTHER = Stage("olmo2", "tiny", "elsewhere")
EARLY = replace(BASE, revision="stage1-step100")
SOUP = Stage("soup", "tiny", "a + b", members=(Member(THINK, 0.5), Member(BASE, 0.5)))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (THINK, BASE, True),
        (THINK, EARLY, True),
        (EARLY, BASE, True),
        (replace(THINK, name="rl_zero"), THINK, True),
        (SOUP, BASE, True),
        (THINK, OTHER, False),
        (OTHER, BASE, False),
        (replace(OTHER, members=(Member(OTHER, 1.0),)), BASE, False),
        (THINK, replace(THINK, random_init=0), False),
        (BASE, replace(BASE, random_init=0), False),
    ],
)
def test_stages_share_coordinates_where_they_share_an_ancestor(one, other, expected):
    assert related(one, other) == expected
    assert related(other, one) == expected


@pytest.mark.parametrize(("reference", "said"), [(OTHER, True), (BASE, False)])
def test_a_cosine_with_a_stranger_means_nothing(reference, said):
    result = compare(planted(), reference=reference, **QUICK)
    assert warned(result, "share no known ancestor", "mean nothing") == said


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("n_joined", "3 of 120 texts have prompt and response tokenised apart"),
        ("n_at_sink", "3 of 120 texts are read at the attention sink"),
        ("n_truncated", "3 of 120 texts were longer than the context"),
    ],
)
@pytest.mark.parametrize("count", [0, 3])
def test_texts_that_were_read_otherwise_are_counted(field, words, count):
    source = planted(change=lambda acts: replace(acts, **{field: count}))
    assert warned(compare(source, **QUICK), words) == (count > 0)


@pytest.mark.parametrize("differ", [True, False])
def test_other_tokens_are_told(differ):
    def change(acts):
        tokens = ((9,), *acts.token_ids[1:])
        return replace(acts, token_ids=tokens) if differ and acts.stage == BASE else acts

    result = compare(planted(change=change), **QUICK)
    assert warned(result, "see different token ids in 1 of 120 examples") == differ


@pytest.mark.parametrize(("n_groups", "said"), [(8, True), (10, False)])
def test_few_groups_are_told(n_groups, said):
    result = compare(planted(examples=contrast_examples(n_groups)), **QUICK)
    assert warned(result, f"a class occurs in {n_groups} groups", "rough") == said


@pytest.mark.parametrize(("n_groups", "said"), [(3, True), (10, False)])
def test_few_folds_are_told(n_groups, said):
    result = compare(planted(examples=contrast_examples(n_groups)), **QUICK)
    assert warned(result, "3 folds instead of 4: a class has 3 groups") == said


def test_labels_that_cannot_change_places_are_told_and_get_no_p():
    # Groups of one label exchange it with those of the same size: none has the other label.
    examples = [
        replace(e, id=f"{e.id}{k}", group=f"{e.id}", pair="", label=e.label)
        for e in contrast_examples(6, 2)
        for k in range(2 + e.label)
    ]
    result = compare(planted(examples=examples), n_folds=2)
    assert warned(result, "no label can change places")
    assert all(row.p is None for row in result.measurements if row.metric == "cosine")
    assert not any("null" in row.note for row in result.measurements if row.metric == "cosine")
    even = [replace(e, group=e.id, pair="") for e in contrast_examples(6, 2)]
    result = compare(planted(examples=even), n_folds=2)
    assert not warned(result, "change places")
    assert all(row.p is not None for row in result.measurements if row.metric == "cosine")


@pytest.mark.parametrize(("n_groups", "said"), [(4, True), (12, False)])
def test_few_relabellings_are_told(n_groups, said):
    result = compare(planted(examples=contrast_examples(n_groups)))
    assert warned(result, "different relabellings are possible", "no p can fall below") == said


@pytest.mark.parametrize("unequal", [True, False])
def test_groups_of_unequal_shares_are_told(unequal):
    examples = contrast_examples(12)[1 if unequal else 0 :]
    result = compare(planted(examples=examples))
    assert warned(result, "1 groups hold both labels unequally often") == unequal


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_vectors_of_noise_are_told(strength):
    examples = shuffled(contrast_examples()) if strength == 0 else contrast_examples()
    result = compare(planted(examples=examples, strength=strength))
    said = warned(result, "reliability is not above zero in", "3 of 3 layers of base")
    assert said == (strength == 0)


@pytest.mark.parametrize("lacking", [True, False])
def test_examples_without_a_counterpart_are_counted(lacking):
    examples = contrast_examples()
    if lacking:
        examples = (replace(examples[0], pair=""), *examples[1:])
    result = compare(planted(examples=examples), kind="pca", **QUICK)
    assert warned(result, "2 examples without a counterpart are left out") == lacking


def test_sentences_of_several_traits_name_theirs():
    both = [*contrast_examples(8), *contrast_examples(12, trait="rude")]
    result = compare(planted(examples=both), **QUICK)
    assert warned(result, "hostile: a class occurs in 8 groups")
    assert not warned(result, "rude: a class occurs")


def test_every_warning_is_said_once():
    result = compare(planted(examples=contrast_examples(6)))
    assert len(set(result.warnings)) == len(result.warnings)


def test_dominant_dimensions_that_decide_nothing_are_not_told_of():
    source = planted(0)
    loud = np.random.default_rng(3).normal(size=len(source.examples))

    def make(stage):
        values = source.make(stage)
        values[..., 9] += 10 * loud
        return values

    result = compare(replace(source, make=make), **QUICK)
    assert not warned(result, "dominant dimensions decide")


@pytest.mark.parametrize("alike", [True, False])
def test_relabellings_that_hardly_differ_from_the_labels_are_told(alike):
    # Groups of one label, all of different sizes but for the small ones, or all of one size.
    sizes = [2] * 8 + [3 + i for i in range(12)] if alike else [4] * 20
    template = contrast_examples(1, 2)
    examples = [
        replace(template[group % 2], id=f"{group}-{i}", group=str(group), pair="")
        for group, size in enumerate(sizes)
        for i in range(size)
    ]
    result = compare(planted(examples=examples), n_unrelated=0)
    assert warned(result, "few labels can change places", "p errs on the large side") == alike


@pytest.mark.parametrize("kind", ["pca", "mean_difference"])
def test_what_the_null_of_pca_holds_is_told(kind):
    result = compare(planted(examples=contrast_examples(10, 2)), kind=kind, n_permutations=19)
    assert warned(result, "the null of pca pairs examples of one label at random") == (
        kind == "pca"
    )
