import json
import math

import pytest

from olmo_stages.data.labels import Labels
from olmo_stages.data.mapping import Columns, examples, limited
from olmo_stages.data.readers import Row, Table
from olmo_stages.errors import ConfigError, DataError
from olmo_stages.types import Example, Message

NAN = math.nan
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


def table(*rows, class_names=None):
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    numbered = tuple(Row(f"row {n}", row) for n, row in enumerate(rows, start=1))
    return Table("x.csv", numbered, columns, class_names or {})


def read(*rows, columns=None, labels=None, trait="", class_names=None):
    found = table(*rows, class_names=class_names)
    return examples(found, columns or Columns(), labels or Labels(), trait)


def refused(match, *rows, error=DataError, **options):
    with pytest.raises(error, match=match) as caught:
        read(*rows, **options)
    assert "\n" not in str(caught.value)


GOOD = {"text": "It rains.", "label": "1"}


# Columns


def test_columns_of_the_usual_names_are_found():
    row = GOOD | {"id": 7, "group": "g", "trait": "t", "polarity": "p"}
    assert read(row) == (Example("7", "g", 1, text="It rains.", trait="t", polarity="p"),)


def test_columns_of_other_names_are_mapped():
    row = {"statement": "It rains.", "is_true": "1", "city": "Lyon"}
    columns = Columns(text="statement", label="is_true", group="city")
    (example,) = read(row, columns=columns)
    assert (example.text, example.label, example.group) == ("It rains.", 1, "Lyon")


def test_a_missing_column_is_answered_with_the_columns():
    refused(
        r"x\.csv has no column 'text'; it has 'statement', 'label'; set data\.columns\.text",
        {"statement": "a", "label": "1"},
    )
    refused("has no column 'topic'.*set data.columns.group", GOOD, columns=Columns(group="topic"))


def test_text_and_messages_cannot_both_be_asked_for():
    columns = Columns(text="text", messages="chat")
    refused("text or messages", GOOD | {"chat": CHAT}, columns=columns, error=ConfigError)


def test_text_and_messages_that_both_exist_must_be_chosen_from():
    row = GOOD | {"messages": CHAT}
    refused("say which to read", row)
    assert read(row, columns=Columns(messages="messages"))[0].text is None


# Ids and groups


def test_without_ids_the_id_is_a_digest_of_the_content():
    one, other = read(GOOD, {"text": "Pigs fly.", "label": 0})
    assert one.id != other.id
    assert read({"label": 0, "text": "Pigs fly."})[0].id == other.id


def test_without_groups_each_row_stands_alone():
    found = read(GOOD, {"text": "Pigs fly.", "label": 0})
    assert [e.group for e in found] == [e.id for e in found]


def test_integers_that_became_floats_are_the_same_group():
    found = read(GOOD | {"group": 3}, {"text": "Pigs fly.", "label": 0, "group": 3.0})
    assert {e.group for e in found} == {"3"}


@pytest.mark.parametrize("value", [None, NAN, " "])
@pytest.mark.parametrize("column", ["id", "group"])
def test_an_empty_id_or_group_is_named(column, value):
    refused(f"row 2: column '{column}' is empty", GOOD | {column: "a"}, GOOD | {column: value})


def test_the_trait_of_a_row_wins():
    found = read(GOOD, trait="true"), read(GOOD | {"trait": "own"}, trait="true")
    assert [e.trait for (e,) in found] == ["true", "own"]


# Labels


@pytest.mark.parametrize("raw", [1, True, 1.0, "1", "true", " True", "YES"])
def test_usual_ways_to_write_1(raw):
    assert read({"text": "a", "label": raw})[0].label == 1


@pytest.mark.parametrize("raw", [0, False, 0.0, "0", "false", "FALSE", "no"])
def test_usual_ways_to_write_0(raw):
    assert read({"text": "a", "label": raw})[0].label == 0


@pytest.mark.parametrize("raw", [2, -1, 0.5, "hostile", [1]])
def test_a_label_without_a_meaning_is_named(raw):
    refused(
        "row 2: label .* has no meaning.*column 'label' holds '1'",
        GOOD,
        {"text": "b", "label": raw},
    )


@pytest.mark.parametrize("raw", [None, NAN, ""])
def test_a_missing_label_is_named_even_if_all_others_are_negative(raw):
    refused("row 2: no label", GOOD, {"text": "b", "label": raw}, labels=Labels(positive="1"))


def test_positive_makes_all_others_negative():
    rows = [{"text": t, "label": t} for t in ("hostile", "polite", "curt")]
    assert [e.label for e in read(*rows, labels=Labels(positive="Hostile"))] == [1, 0, 0]


def test_a_positive_label_that_never_occurs_is_named():
    refused(
        "no row has the label data.positive=hostil.*holds 'hostile'",
        {"text": "a", "label": "hostile"},
        labels=Labels(positive="hostil"),
    )


def test_label_map_with_keys_as_yaml_reads_them():
    rows = [{"text": "a", "label": "true"}, {"text": "b", "label": "maybe"}]
    labels = Labels(label_map={True: 0, "maybe": 1})
    assert [e.label for e in read(*rows, labels=labels)] == [0, 1]


def test_a_label_outside_the_map_is_named():
    refused(
        "label 'b' has no meaning", {"text": "b", "label": "b"}, labels=Labels(label_map={"a": 1})
    )


def test_names_of_classes_serve_as_labels():
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 2}]
    names = {"label": ("World", "Sports", "Tech")}
    labels = Labels(label_map={"world": 0, "tech": 1})
    assert [e.label for e in read(*rows, labels=labels, class_names=names)] == [0, 1]
    refused("holds 0 = World, 2 = Tech", *rows, class_names=names)


def test_names_of_classes_that_are_labels_themselves_decide():
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    swapped = {"label": ("true", "false")}
    assert [e.label for e in read(*rows, class_names=swapped)] == [1, 0]


def test_a_label_that_is_a_name_of_one_class_and_the_index_of_another_is_refused():
    rows = [{"text": str(i), "label": i} for i in range(5)]
    stars = {"label": ("1", "2", "3", "4", "5")}
    with pytest.raises(DataError, match="name of one class and the index of another"):
        read(*rows, labels=Labels(positive=1), class_names=stars)


def test_a_csv_column_of_floats_means_its_integers():
    rows = [{"text": "a", "label": "1.0"}, {"text": "b", "label": "0.0"}]
    assert [e.label for e in read(*rows)] == [1, 0]
    assert [e.label for e in read(*rows, labels=Labels(positive=0))] == [0, 1]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"positive": "a", "label_map": {"a": 1}}, "not both"),
        ({"label_map": {"a": 2}}, "maps 'a' to 2"),
        ({"label_map": {"a": 1, "A": 0}}, "twice"),
    ],
)
def test_contradicting_label_options(options, match):
    with pytest.raises(ConfigError, match=match):
        Labels(**options)


# Texts and chats


@pytest.mark.parametrize("text", [None, NAN, "", " \n"])
def test_an_empty_text_is_named(text):
    refused(r"x\.csv, row 2: column 'text' is an empty text", GOOD, {"text": text, "label": 0})


@pytest.mark.parametrize("text", [3, ["a"]])
def test_what_is_no_text_is_named(text):
    refused("row 1: column 'text' holds .* not a text", {"text": text, "label": 0})


def test_a_text_is_kept_byte_for_byte():
    text = " {0} ${oc.env:HOME} %s __import__('os')\n"
    assert read({"text": text, "label": 0})[0].text == text


@pytest.mark.parametrize("chat", [CHAT, json.dumps(CHAT)], ids=["list", "json"])
def test_chats(chat):
    (example,) = read({"messages": chat, "label": 1})
    assert example.messages == (Message("user", "Hi"), Message("assistant", "Yo"))


@pytest.mark.parametrize(
    "chat",
    [
        "Hi",
        [],
        ["Hi"],
        [{"from": "human", "value": "Hi"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": " "}],
        [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    ],
    ids=str,
)
def test_what_is_no_chat_is_named(chat):
    refused("row 1: column 'messages'.*expected a list like", {"messages": chat, "label": 1})


# Pairs


def test_a_pair_becomes_two_examples_in_one_group():
    found = read({"positive": "Go away.", "negative": "Come in."}, trait="hostile")
    assert [(e.label, e.text, e.trait) for e in found] == [
        (1, "Go away.", "hostile"),
        (0, "Come in.", "hostile"),
    ]
    assert len({e.group for e in found}) == 1
    assert len({e.id for e in found}) == 2


def test_pairs_may_be_chats_and_share_a_group():
    row = {"chosen": CHAT, "rejected": CHAT[:1], "id": "p1", "group": "g"}
    found = read(row, columns=Columns(positive="chosen", negative="rejected"))
    assert [(e.id, e.group, len(e.messages)) for e in found] == [
        ("p1/positive", "g", 2),
        ("p1/negative", "g", 1),
    ]


def test_half_a_pair_is_named():
    row = {"positive": "a", "text": "b"}
    refused("no column 'negative'", row, columns=Columns(positive="positive"))


def test_a_pair_with_an_empty_side_is_named():
    refused("row 1: column 'negative' is an empty text", {"positive": "a", "negative": None})


def test_pairs_with_a_label_column_are_refused():
    columns = Columns(positive="positive", negative="negative", label="label")
    row = {"positive": "a", "negative": "b", "label": 1}
    refused("positive and negative, or label", row, columns=columns, error=ConfigError)


# Choosing some


MANY = tuple(
    Example(f"{g}.{label}", f"g{g}", label, text=f"{g} {label}")
    for g in range(30)
    for label in (0, 1)
)


def test_no_limit_or_a_high_one_keeps_all():
    assert limited(MANY, None, 0) == limited(MANY, 60, 0) == MANY


def test_a_limit_keeps_whole_groups_in_order():
    chosen = limited(MANY, 21, 0)
    assert len(chosen) == 20
    assert len({e.group for e in chosen}) == 10
    assert list(chosen) == [e for e in MANY if e in chosen]


def test_a_limit_is_not_the_first_n():
    assert set(limited(MANY, 20, 0)) != set(MANY[:20])


def test_a_limit_does_not_depend_on_the_order():
    assert set(limited(MANY[::-1], 20, 0)) == set(limited(MANY, 20, 0))


def test_a_limit_depends_on_its_seed():
    assert limited(MANY, 20, 0) != limited(MANY, 20, 1)


def test_a_limit_below_a_group_is_refused():
    with pytest.raises(DataError, match=r"data\.limit=1 is smaller than a group"):
        limited(MANY, 1, 0)


# Without labels


def bare(*rows, columns=None):
    return examples(table(*rows), columns or Columns(), None)


def test_without_labels_no_column_of_them_is_needed():
    (example,) = bare({"text": "It rains."})
    assert (example.text, example.label, example.group) == ("It rains.", None, example.id)
    refused(
        r"no column 'label'.*set data\.columns\.label, or data\.unlabelled=true",
        {"text": "It rains."},
    )


def test_who_names_a_column_of_labels_is_not_told_to_do_without():
    with pytest.raises(DataError, match=r"no column 'is_true'.*set data.columns.label$"):
        read(GOOD, columns=Columns(label="is_true"))


def test_without_labels_a_column_of_them_is_not_read():
    (example,) = bare(GOOD | {"label": "neither"})
    assert example.label is None


def test_groups_are_read_without_labels_and_counterparts_are_one():
    rows = [{"text": "a", "group": "g"}, {"text": "b", "group": "h"}]
    assert [it.group for it in bare(*rows)] == ["g", "h"]
    rows = [{"text": "a", "pair": "7"}, {"text": "b", "pair": "7"}]
    assert [(it.group, it.pair) for it in bare(*rows)] == [("7", "")] * 2


def test_pairs_without_labels_are_refused():
    sides = {"positive": "a", "negative": "b"}
    with pytest.raises(ConfigError, match=r"data\.unlabelled=true: x\.csv holds pairs"):
        bare(sides)
    (one,) = bare(sides, columns=Columns(text="positive"))
    assert (one.text, one.label) == ("a", None)
