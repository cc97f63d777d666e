"""The same rows of every stage, in whole groups, and refusals to compare what differs."""

from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.errors import DataError, PairingError
from olmo_stages.similarity.rows import check_pair, chosen_rows, digest, owners_of
from tests.fakes import BASE, THINK
from tests.similarity.analysed import QUICK, compare, related, rows, unrelated, warned
from tests.similarity.literal import debiased_cka_of_groups

PAIRS = np.repeat(np.arange(10), 2)


def groups_of(source):
    return [example.group for example in source.examples]


def choose(source, *, per_example=None, most=None, seed=0):
    return chosen_rows(
        source(THINK), groups_of(source), per_example=per_example, most=most, seed=seed
    )


def test_everything_is_compared_where_there_is_room():
    assert choose(unrelated(n=20, groups=PAIRS), most=20).tolist() == list(range(20))


def test_max_rows_keeps_whole_groups():
    source = unrelated(n=20, groups=PAIRS)
    kept = choose(source, most=11)
    assert len(kept) == 10
    assert np.unique(PAIRS[kept], return_counts=True)[1].tolist() == [2] * 5
    assert (np.diff(kept) > 0).all()


def test_the_choice_depends_on_names_and_seed_alone():
    source = unrelated(n=20, groups=PAIRS)
    kept = {source.examples[i].id for i in choose(source, most=11)}
    turned = replace(source, examples=source.examples[::-1])
    assert {turned.examples[i].id for i in choose(turned, most=11)} == kept
    assert {source.examples[i].id for i in choose(source, most=11, seed=1)} != kept


def test_a_group_that_is_too_large_makes_room_for_smaller_ones():
    groups = [0] * 10 + [1, 1, 2, 2, 3, 3]
    assert choose(unrelated(n=16, groups=groups), most=6).tolist() == list(range(10, 16))


def test_no_group_fits():
    with pytest.raises(DataError, match=r"max_rows=4: the smallest has 5 rows"):
        choose(unrelated(n=20, groups=np.repeat(np.arange(4), 5)), most=4)


@pytest.mark.parametrize("n", [1, 3])
def test_fewer_than_four_examples_are_refused(n):
    with pytest.raises(DataError, match=rf"{n} examples .* at least 4"):
        compare(unrelated(n=n), **QUICK)


def test_many_tokens_of_three_examples_are_refused():
    with pytest.raises(DataError, match=r"3 examples"):
        compare(unrelated(n=30, groups=range(3), owners=np.repeat(np.arange(3), 10)), **QUICK)


def test_four_examples_are_enough():
    result = compare(related(n=4), **QUICK)
    assert len(rows(result, "debiased_cka")) == 3
    assert rows(result, "debiased_cka")[0].n == 4


def test_tokens_of_an_example_are_spaced_evenly():
    owners = np.repeat(np.arange(5), [2, 3, 9, 4, 1])
    source = unrelated(n=19, groups=range(5), owners=owners)
    kept = choose(source, per_example=3)
    mine = [(kept[owners[kept] == i] - np.searchsorted(owners, i)).tolist() for i in range(5)]
    assert mine == [[0, 1], [0, 1, 2], [1, 4, 7], [0, 2, 3], [0]]
    assert choose(source).tolist() == list(range(19))


def test_an_example_is_its_own_owner():
    assert owners_of(unrelated(n=4)(BASE)).tolist() == [0, 1, 2, 3]


def test_both_stages_are_read_at_the_chosen_rows_and_it_is_said():
    source = related(n=20, groups=PAIRS)
    result = compare(source, max_rows=11, **QUICK)
    kept = choose(source, most=11)
    x, y = source.make(THINK)[0, kept], source.make(BASE)[0, kept]
    expected = debiased_cka_of_groups(x, y, PAIRS[kept])
    (row,) = rows(result, "debiased_cka", layer=0)
    assert row.value == pytest.approx(expected, abs=1e-5)
    assert (row.n, row.n_groups) == (10, 5)
    assert warned(result, "10 of 20 examples", "max_rows=11")
    assert not warned(compare(source, **QUICK), "are compared (")


def test_tokens_left_out_are_said():
    source = related(n=40, groups=range(8), owners=np.repeat(np.arange(8), 5))
    result = compare(source, position="tokens", tokens_per_example=2, **QUICK)
    assert rows(result, "debiased_cka")[0].n == 16
    assert warned(result, "16 of 40 tokens", "tokens_per_example=2")


def changed(stage, **fields):
    """A source that hands out other fields for one of the stages."""

    def change(acts):
        return replace(acts, **fields) if acts.stage == stage else acts

    return related(n=8, change=change)


def test_other_examples_are_refused():
    ids = (*(f"e{i}" for i in range(7)), "another")
    with pytest.raises(PairingError, match=r"think_sft and base .*8 and 8, 2 in one side only"):
        compare(changed(BASE, ids=ids), **QUICK)


def test_another_order_is_refused():
    ids = tuple(f"e{i}" for i in reversed(range(8)))
    with pytest.raises(PairingError, match=r"another order .*0 in one side only"):
        compare(changed(BASE, ids=ids), **QUICK)


def test_other_token_ids_are_refused_with_count_and_first():
    tokens = tuple((5, 6, i % 3 + (i in {3, 5})) for i in range(8))
    with pytest.raises(PairingError, match=r"in 2 of 8 examples, the first 'e3'.*data\.format"):
        compare(changed(BASE, token_ids=tokens), **QUICK)


OTHER_TOKENS = tuple((5, 6, i % 3 + (i in {3, 5})) for i in range(8))


def mixed(one=True, other=True):
    """Stages whose prompts differ in two examples, and whether each may be mixed."""

    def change(acts):
        acts = replace(acts, mixed=one if acts.stage == THINK else other)
        return replace(acts, token_ids=OTHER_TOKENS) if acts.stage == BASE else acts

    return related(n=8, change=change)


def test_prompts_that_differ_by_choice_are_compared_and_it_is_said():
    result = compare(mixed(), **QUICK)
    plain = compare(related(n=8), **QUICK)
    assert rows(result, "debiased_cka") == rows(plain, "debiased_cka")
    assert warned(result, "different token ids in 2 of 8", "by choice (data.mix_formats=true)")
    assert not warned(plain, "by choice")


def test_nothing_is_kept_of_mixed_prompts_for_matrices_of_stages():
    assert "compared" in compare(related(n=8), **QUICK).tensors
    assert not {"compared", "units"} & compare(mixed(), **QUICK).tensors.keys()


@pytest.mark.parametrize("sides", [(True, False), (False, True)])
def test_prompts_that_differ_without_the_choice_are_refused(sides):
    with pytest.raises(PairingError, match=r"in 2 of 8 .*, or compare them .*mix_formats=true"):
        compare(mixed(*sides), **QUICK)


def test_tokens_of_prompts_that_differ_are_refused_by_choice_or_not():
    owners = np.repeat(np.arange(8), 5)
    other = tuple(tuple(range(8, 14)) for _ in range(8))

    def change(acts):
        tokens = other if acts.stage == BASE else acts.token_ids
        return replace(acts, mixed=True, token_ids=tokens)

    source = related(n=40, groups=range(8), owners=owners, change=change)
    with pytest.raises(PairingError, match=r"data.format=raw$"):
        compare(source, position="tokens", **QUICK)


@pytest.mark.parametrize("field", ["owners", "token_index"])
def test_other_tokens_of_the_same_texts_are_refused(field):
    owners = np.repeat(np.arange(8), 5)
    other = owners.copy()
    if field == "owners":
        other[5] = 0
    else:
        other = np.tile(np.arange(2, 7), 8)

    def change(acts):
        return replace(acts, **{field: other}) if acts.stage == BASE else acts

    source = related(n=40, groups=range(8), owners=owners, change=change)
    with pytest.raises(PairingError, match=r"other tokens of the same texts"):
        compare(source, position="tokens", **QUICK)


def test_the_same_sides_pass():
    source = related(n=8)
    assert check_pair(source(THINK), source(BASE)) is None


def test_the_digest_is_that_of_what_is_compared():
    source = unrelated(n=20, groups=PAIRS)
    everything, some = (choose(source, most=it) for it in (20, 11))
    one = digest(source(THINK), everything)
    assert len(one) == 32
    assert np.array_equal(one, digest(source(BASE), everything))
    assert not np.array_equal(one, digest(source(THINK), some))
    other = replace(source, token_ids=((1, 2),) * 20)
    assert not np.array_equal(one, digest(other(THINK), everything))
