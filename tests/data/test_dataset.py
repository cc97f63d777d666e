from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.data.dataset import Dataset, by_trait
from olmo_stages.data.splits import folds
from olmo_stages.errors import DataError
from olmo_stages.heldout import HeldOut
from olmo_stages.types import Example, Message, labels_of

EXAMPLES = tuple(
    Example(f"{g}{label}", g, label, text=f"text {g} {label}") for g in "abc" for label in (0, 1)
)


def with_change(index, **change):
    changed = list(EXAMPLES)
    changed[index] = replace(changed[index], **change)
    return tuple(changed)


def test_a_good_data_set_is_accepted_and_counted():
    data = Dataset("d", EXAMPLES)
    assert (data.n_examples, data.n_groups) == (6, 3)


def test_no_examples():
    with pytest.raises(DataError, match="'d' holds no examples"):
        Dataset("d", ())


def test_one_class_only():
    with pytest.raises(DataError, match="all 3 examples have label 1; add examples of label 0"):
        Dataset("d", tuple(e for e in EXAMPLES if e.label))


def test_repeated_id():
    with pytest.raises(DataError, match="examples 1 and 4 have the same id 'a0'"):
        Dataset("d", with_change(3, id="a0"))


def test_repeated_example():
    with pytest.raises(
        DataError, match=r"examples 1 and 7 are the same \('text a 0'\); remove one"
    ):
        Dataset("d", (*EXAMPLES, EXAMPLES[0]))


def test_same_text_with_two_labels():
    with pytest.raises(DataError, match="'a0' and 'a1' hold the same text with different labels"):
        Dataset("d", with_change(1, text="text a 0"))


def test_same_text_in_two_groups():
    with pytest.raises(DataError, match="'a0' and 'b0' hold the same text in different groups"):
        Dataset("d", with_change(2, text="text a 0"))


def test_same_text_within_a_group_is_allowed():
    repeated = replace(EXAMPLES[0], id="again")
    assert Dataset("d", (*EXAMPLES, repeated)).n_examples == 7


def test_a_class_in_one_group():
    only_a = tuple(e for e in EXAMPLES if e.label == 0 or e.group == "a")
    with pytest.raises(DataError, match="all examples of label 1 are in group 'a'"):
        Dataset("d", only_a)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "z"},
        {"group": "b"},
        {"label": 0, "text": "text"},
        {"text": "text a 1!"},
        {"text": None, "messages": (Message("user", "text a 1"),)},
        {"polarity": "negated"},
    ],
)
def test_the_digest_changes_with_the_content(change):
    changed = Dataset("d", with_change(1, **change), "chat_fixed")
    assert changed.digest != Dataset("d", EXAMPLES, "chat_fixed").digest


def test_the_digest_changes_with_the_trait_and_with_the_pairs():
    traits = tuple(replace(e, trait="t") for e in EXAMPLES)
    pairs = tuple(replace(e, pair=e.group) for e in EXAMPLES)
    digests = {Dataset("d", them).digest for them in (EXAMPLES, traits, pairs)}
    assert len(digests) == 3


def test_the_digest_changes_with_the_order():
    assert Dataset("d", EXAMPLES[::-1]).digest != Dataset("d", EXAMPLES).digest


def test_the_digest_ignores_the_name():
    assert Dataset("e", EXAMPLES).digest == Dataset("d", EXAMPLES).digest


def test_the_digest_tells_where_one_turn_ends():
    one = with_change(1, text=None, messages=(Message("user", "a"), Message("user", "b")))
    other = with_change(1, text=None, messages=(Message("user", "auserb"),))
    assert Dataset("d", one, "scaffold").digest != Dataset("d", other, "scaffold").digest


def test_auto_would_put_texts_and_chats_into_different_formats():
    mixed = with_change(1, text=None, messages=(Message("user", "text a 1"),))
    with pytest.raises(DataError, match=r"5 texts raw and put 1 chats .*data.mix_formats=true"):
        Dataset("d", mixed)
    for format in ("scaffold", "chat_fixed", "chat_native"):
        assert Dataset("d", mixed, format).n_examples == 6
    assert Dataset("d", mixed, mix_formats=True).n_examples == 6


def test_whether_formats_may_be_mixed_is_no_part_of_the_content():
    assert Dataset("d", EXAMPLES, mix_formats=True).digest == Dataset("d", EXAMPLES).digest


def test_half_of_a_character_is_refused():
    with pytest.raises(
        DataError, match=r"example 2 holds '\\ud83d', half of a character"
    ) as caught:
        Dataset("d", with_change(1, text="so \ud83d"))
    assert str(caught.value).isprintable()


# Notes


def test_notes_are_no_part_of_the_content():
    assert Dataset("d", EXAMPLES, notes=("said",)).digest == Dataset("d", EXAMPLES).digest


# Traits


def of_trait(trait, examples=EXAMPLES):
    return tuple(
        replace(e, id=f"{trait}/{e.id}", group=f"{trait}/{e.group}", trait=trait) for e in examples
    )


def test_several_traits_in_one_data_set():
    data = Dataset("d", (*of_trait("kind"), *of_trait("true")))
    assert data.traits == ("kind", "true")
    assert (data.n_examples, data.n_groups) == (12, 6)
    assert [len(them) for them in by_trait(data.examples).values()] == [6, 6]


def test_a_text_may_have_other_labels_for_other_traits_but_not_for_one():
    turned = tuple(replace(e, label=1 - e.label) for e in EXAMPLES)
    assert Dataset("d", (*of_trait("kind"), *of_trait("true", turned))).n_examples == 12
    with pytest.raises(DataError, match="same text with different labels"):
        Dataset("d", (*EXAMPLES, *(replace(e, id=f"{e.id}'") for e in turned)))


def test_each_trait_needs_both_classes():
    lopsided = of_trait("true", tuple(e for e in EXAMPLES if e.label))
    with pytest.raises(DataError, match="data 'd: true': all 3 examples have label 1"):
        Dataset("d", (*of_trait("kind"), *lopsided))


# Pairs


def paired(**change):
    found = [replace(e, pair=e.group) for e in EXAMPLES]
    found[0] = replace(found[0], **change)
    return tuple(found)


def test_pairs_of_one_example_of_either_label_are_accepted():
    assert Dataset("d", paired()).n_examples == 6
    alone = (replace(EXAMPLES[0], pair=""), replace(EXAMPLES[1], pair=""), *paired()[2:])
    assert Dataset("d", alone).n_examples == 6


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"pair": ""}, "pair 'a' has 1 examples of label 1 and 0 of label 0"),
        ({"pair": "b"}, "pair 'b' has 1 examples of label 1 and 2 of label 0"),
        ({"label": 1}, "pair 'a' has 2 examples of label 1 and 0 of label 0"),
        ({"group": "b"}, "the two sides of pair 'a' are in the groups 'b' and 'a'; give both"),
    ],
)
def test_pairs_that_are_none_are_refused(change, match):
    with pytest.raises(DataError, match=match):
        Dataset("d", paired(**change))


# Without labels

TEXTS = tuple(replace(example, label=None) for example in EXAMPLES)
ONE = np.zeros(len(TEXTS), dtype=np.int64)


def test_texts_without_labels_are_accepted_when_that_is_said():
    data = Dataset("d", TEXTS, labelled=False)
    assert (data.n_examples, data.n_groups) == (6, 3)
    assert Dataset("d", TEXTS[:1], labelled=False).n_examples == 1
    with pytest.raises(DataError, match="example 'a0' has no label; give it one"):
        Dataset("d", TEXTS)


@pytest.mark.parametrize("labelled", [True, False])
def test_labels_are_on_all_examples_or_on_none(labelled):
    with pytest.raises(DataError, match=r"example 'b0' has no label|example 'a0' has label 0"):
        Dataset("d", (*EXAMPLES[:2], *TEXTS[2:]), labelled=labelled)


def test_the_digest_without_labels_is_another():
    labelled, unlabelled = Dataset("d", EXAMPLES), Dataset("d", TEXTS, labelled=False)
    assert labelled.digest != unlabelled.digest
    assert unlabelled.digest == Dataset("other", TEXTS, labelled=False).digest


def test_the_same_text_in_two_groups_is_refused_without_labels_too():
    twice = (*TEXTS, replace(TEXTS[0], id="again", group="b"))
    with pytest.raises(DataError, match="same text in different groups"):
        Dataset("d", twice, labelled=False)


def test_labels_that_are_not_there_are_never_read_as_some():
    assert labels_of(EXAMPLES).tolist() == [0, 1] * 3
    for read in (labels_of, lambda them: folds(them, 2), lambda them: HeldOut.of(them, ONE, 9, 0)):
        with pytest.raises(DataError, match="example 'a0' has no label"):
            read(TEXTS)
