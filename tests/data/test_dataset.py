from dataclasses import replace

import pytest

from olmo_stages.data.dataset import Dataset
from olmo_stages.errors import DataError
from olmo_stages.types import Example, Message

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
        {"trait": "t"},
        {"polarity": "negated"},
    ],
)
def test_the_digest_changes_with_the_content(change):
    changed = Dataset("d", with_change(1, **change), "chat_fixed")
    assert changed.digest != Dataset("d", EXAMPLES, "chat_fixed").digest


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
