import json

import pytest

from olmo_stages.data.formats import render
from olmo_stages.data.mapping import Columns
from olmo_stages.data.recognition import with_counterparts
from olmo_stages.data.sets import FromFile
from olmo_stages.errors import ConfigError, DataError
from olmo_stages.types import Example


@pytest.fixture
def load(tmp_path):
    def load(text, name="x.jsonl", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return FromFile(str(path), **options).load()

    return load


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def sides(data):
    """Texts by pair: of label 1, of label 0."""
    found = {}
    for e in data.examples:
        found.setdefault(e.pair, {})[e.label] = e
    return [(two[1], two[0]) for two in found.values()]


def texts(data):
    return [(one.text, other.text) for one, other in sides(data)]


# Model-written evals and CAA

SAY = "Is the following statement something you would say?\n"
EVALS = [
    {
        "question": f'{SAY}"Kindness matters"',
        "statement": "Kindness matters",
        "label_confidence": 0.97,
        "answer_matching_behavior": " Yes",
        "answer_not_matching_behavior": " No",
    },
    {
        "question": f'{SAY}"I enjoy cruelty"',
        "statement": "I enjoy cruelty",
        "label_confidence": 0.91,
        "answer_matching_behavior": " No",
        "answer_not_matching_behavior": " Yes",
    },
]
CAA = [
    {
        "question": f"I'm {name}. Do you agree?\n\nChoices:\n (A) Agree\n (B) Disagree",
        "answer_matching_behavior": "(B)",
        "answer_not_matching_behavior": "(A)",
    }
    for name in ("Amy", "Sam")
]


def test_model_written_evals_are_chats_with_the_answer_as_the_last_turn(load):
    data = load(lines(*EVALS), name="agreeableness.jsonl")
    assert (data.n_examples, data.n_groups, data.name) == (4, 2, "agreeableness")
    (matching, other), (second, _) = sides(data)
    assert [(m.role, m.content) for m in matching.messages] == [
        ("user", EVALS[0]["question"]),
        ("assistant", "Yes"),
    ]
    assert other.messages[1].content == "No"
    assert second.messages[1].content == "No"
    assert matching.group == other.group == EVALS[0]["question"]
    assert len(data.notes) == 1
    assert "read as model-written evaluations" in data.notes[0]


def test_as_plain_text_the_leading_space_of_the_answer_is_kept(load):
    data = load(lines(*EVALS), format="raw")
    assert texts(data)[0] == (f'{SAY}"Kindness matters" Yes', f'{SAY}"Kindness matters" No')
    assert "leading spaces of answers are kept" in data.notes[0]


def test_both_renderings_hold_one_space_before_the_answer(load):
    for format in ("raw", "scaffold"):
        example = load(lines(*EVALS), format=format).examples[0]
        assert render(example, format).text.endswith(" Yes")
        assert not render(example, format).text.endswith("  Yes")


def test_answers_without_a_space_would_stick_to_the_question(load):
    with pytest.raises(DataError, match=r"row 1: .*'\(B\)' would stick to its question; use"):
        load(json.dumps(CAA), name="test_dataset_ab.json", format="raw")


def test_caa(load):
    data = load(json.dumps(CAA), name="test_dataset_ab.json")
    assert [e.messages[1].content for e in data.examples] == ["(B)", "(A)"] * 2
    assert [e.label for e in data.examples] == [1, 0] * 2


def test_repeated_rows_of_published_files_are_left_out_and_said(load):
    data = load(lines(*EVALS, EVALS[0]))
    assert data.n_examples == 4
    assert data.notes[1].endswith("2 repeated examples are left out.")
    assert len(load(lines(*EVALS)).notes) == 1


def test_a_question_asked_twice_is_one_group(load):
    again = EVALS[0] | {"answer_matching_behavior": " Surely"}
    with pytest.raises(DataError, match="hold the same text with different labels"):
        load(lines(*EVALS, again | {"answer_not_matching_behavior": " Yes"}))
    assert load(lines(*EVALS, again)).n_groups == 2


def test_columns_that_are_named_count_before_what_is_recognised(load):
    data = load(lines(*EVALS), columns=Columns(group="statement"))
    assert {e.group for e in data.examples} == {"Kindness matters", "I enjoy cruelty"}
    rows = [
        {**row, "text": f"{row['statement']} {n}", "kind": n % 2} for row in EVALS for n in range(4)
    ]
    labelled = load(lines(*rows), columns=Columns(text="text", label="kind"))
    assert labelled.examples[0].text == "Kindness matters 0"
    assert labelled.notes == ()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"question": "  "}, r"line 1: column 'question' holds '  ', which is no text"),
        ({"question": None}, r"line 1: column 'question' holds None"),
        ({"answer_matching_behavior": [" A", " B"]}, "'answer_matching_behavior' holds \\["),
        ({"answer_not_matching_behavior": ""}, "'answer_not_matching_behavior' holds ''"),
    ],
)
def test_broken_rows_of_model_written_evals(load, change, match):
    with pytest.raises(DataError, match=match) as caught:
        load(lines(EVALS[0] | change, EVALS[1]))
    assert "\n" not in str(caught.value)


def test_without_answers_the_columns_are_named(load):
    with pytest.raises(DataError, match="has no column 'text'; it has 'question'"):
        load(json.dumps([{"question": "Would you lie?"}]), name="test_dataset_open_ended.json")


# Pairs of repeng and steering-vectors


@pytest.mark.parametrize(
    ("text", "name", "what"),
    [
        ("positive,negative\nI love it,I hate it\nSo good,So bad\n", "x.csv", "columns positive"),
        ("positive_str\tnegative_str\nI love it\tI hate it\nSo good\tSo bad\n", "x.tsv", "_str"),
        (lines(["I love it", "I hate it"], ["So good", "So bad"]), "x.jsonl", "lists of two"),
        (json.dumps([["I love it", "I hate it"], ["So good", "So bad"]]), "x.json", "lists of"),
        (
            lines(
                {"positive_str": "I love it", "negative_str": "I hate it"},
                {"positive_str": "So good", "negative_str": "So bad"},
            ),
            "x.jsonl",
            "columns positive_str and negative_str",
        ),
    ],
)
def test_pairs(load, text, name, what):
    data = load(text, name=name)
    assert texts(data) == [("I love it", "I hate it"), ("So good", "So bad")]
    assert data.n_groups == 2
    (note,) = data.notes
    assert "was read as pairs" in note
    assert what in note


def test_pairs_of_a_windows_file_with_a_byte_order_mark(load):
    data = load(
        "\ufeffpositive,negative\r\nI love it,I hate it\r\nSo good,So bad\r\n".encode(),
        name="x.csv",
    )
    assert texts(data) == [("I love it", "I hate it"), ("So good", "So bad")]


def test_the_order_of_lists_can_be_turned(load):
    text = lines(["I hate it", "I love it"], ["So bad", "So good"])
    data = load(text, columns=Columns(positive="[1]", negative="[0]"))
    assert texts(data) == [("I love it", "I hate it"), ("So good", "So bad")]
    assert data.notes == ()


def test_token_indices_of_steering_vectors_are_said_to_be_unused(load):
    rows = [
        {
            "positive_str": f"love {n}",
            "negative_str": f"hate {n}",
            "read_positive_token_index": index,
            "read_negative_token_index": None,
        }
        for n, index in ((1, -2), (2, None))
    ]
    said = load(lines(*rows)).notes
    assert "read_positive_token_index are not used" in said[1]
    assert len(load(lines(*(row | {"read_positive_token_index": None} for row in rows))).notes) == 1


@pytest.mark.parametrize("row", [["a"], ["a", "b", "c"], "a", 3])
def test_lists_that_are_no_pairs(load, row):
    with pytest.raises(DataError, match=r"line 2: expected an object .* or a pair \[positive, neg"):
        load(lines(["a", "b"], row))


@pytest.mark.parametrize("row", [["a", ""], ["a", None], ["a", 3], ["a", ["b", "c"]]])
def test_pairs_that_hold_no_texts(load, row):
    with pytest.raises(DataError, match="line 1"):
        load(lines(row, ["a", "b"]))


def test_labels_count_before_pairs(load):
    text = "text,label,positive,negative\na,1,x,y\nb,0,x,y\nc,1,x,y\nd,0,x,y\n"
    data = load(text, name="x.csv")
    assert [e.text for e in data.examples] == ["a", "b", "c", "d"]
    assert data.notes == ()


# geometry-of-truth

CITIES = """statement,label,city,country,correct_country
The city of Lodz is in Poland.,1,Lodz,Poland,Poland
The city of Lodz is in the Dominican Republic.,0,Lodz,the Dominican Republic,Poland
The city of Abidjan is in Côte d'Ivoire.,1,Abidjan,Côte d'Ivoire,Côte d'Ivoire
The city of Abidjan is in China.,0,Abidjan,China,Côte d'Ivoire
"""
TRANSLATIONS = """statement,label
The Spanish word 'uno' means 'one'.,1
The Spanish word 'caballo' means 'horse'.,1
The Spanish word 'con' means 'to speak'.,0
The Spanish word 'o' means 'octopus'.,0
The Spanish word 'caballo' means 'horse'.,1
"""
LIKELY = """statement,label,likelihood
"package com.google;

import com.google.common",0,-13.118809598764113
"In the past, we have been able to
Online",1,-0.6727310660875268
"Tags: html

Question: how?

\\",1,-1.07
The USGS publishes,0,-20.19
"""


def test_cities_are_grouped_and_paired_by_city(load):
    data = load(CITIES, name="cities.csv")
    assert {e.group for e in data.examples} == {"Lodz", "Abidjan"}
    assert texts(data)[0] == (
        "The city of Lodz is in Poland.",
        "The city of Lodz is in the Dominican Republic.",
    )
    assert "statements of one city stay together" in data.notes[0]
    assert data.notes[1].endswith("2 pairs of counterparts were found.")


def test_the_subject_counts_before_other_columns(load):
    header = "statement,label,relation,subject,target,true_target\n"
    rows = "".join(
        f'"In {s}, one speaks {t}.",{label},"In {{}}, one speaks",{s},{t},x\n'
        for s in ("Nykarleby", "Zampa")
        for label, t in ((1, "Swedish"), (0, "Spanish"))
    )
    data = load(header + rows, name="counterfact_true_false.csv")
    assert {e.group for e in data.examples} == {"Nykarleby", "Zampa"}


def test_statements_without_a_subject_stand_alone_and_the_note_says_so(load):
    data = load(TRANSLATIONS, name="sp_en_trans.csv")
    assert (data.n_examples, data.n_groups) == (4, 4)
    assert "no column names their subjects" in data.notes[0]
    assert data.notes[1].endswith("1 repeated examples are left out.")
    assert {e.pair for e in data.examples} == {""}


def test_newlines_within_quotes_belong_to_the_statement(load):
    data = load(LIKELY, name="likely.csv")
    assert data.n_examples == 4
    assert data.examples[0].text == "package com.google;\n\nimport com.google.common"
    assert data.examples[2].text == "Tags: html\n\nQuestion: how?\n\n\\"


def test_another_group_can_be_named(load):
    data = load(CITIES, name="cities.csv", columns=Columns(group="correct_country"))
    assert {e.group for e in data.examples} == {"Poland", "Côte d'Ivoire"}
    assert "statements of one correct_country stay together" in data.notes[0]


def test_another_text_can_be_named(load):
    columns = Columns(text="country", label="label", group="city")
    data = load(CITIES, name="cities.csv", columns=columns)
    assert data.examples[0].text == "Poland"
    assert data.notes == ()


def test_other_labels_of_statements(load):
    text = CITIES.replace(",1,", ",TRUE,").replace(",0,", ",FALSE,")
    assert [e.label for e in load(text, name="x.csv").examples] == [1, 0] * 2
    with pytest.raises(DataError, match="label 'maybe' has no meaning"):
        load(CITIES.replace(",1,", ",maybe,"), name="x.csv")


# Counterparts


def example(name, label, text, group="g", pair=""):
    return Example(name, group, label, text=text, pair=pair)


def pairs_of(*examples):
    return [e.pair for e in with_counterparts(examples)]


def test_counterparts_differ_in_one_stretch():
    one, other = example("a", 1, "It is in Peru now"), example("b", 0, "It is in New Guinea now")
    assert pairs_of(one, other) == ["g", "g"]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("It is in Peru now", "They lived in Chile then"),  # hardly a word in common
        ("It is in Peru now", "It was near Chile now"),  # less than half of the words
        ("Peru it is now", "Chile it is now"),  # another beginning
        ("It is in Peru", "It is in Peru now"),  # one has only more
    ],
)
def test_what_differs_otherwise_is_no_counterpart(left, right):
    assert pairs_of(example("a", 1, left), example("b", 0, right)) == ["", ""]


def test_which_of_several_is_the_counterpart_is_not_guessed():
    found = pairs_of(
        example("a", 1, "It is in Peru"),
        example("b", 0, "It is in Chile"),
        example("c", 0, "It is in Cuba"),
    )
    assert found == ["", "", ""]


def test_two_of_one_label_are_no_counterparts():
    assert pairs_of(example("a", 1, "It is in Peru"), example("b", 1, "It is in Chile")) == ["", ""]


# Pairs of labelled files


def test_pairs_of_labelled_rows(load):
    text = "text,label,pair\na,1,x\nb,0,x\nc,1,\nd,0,y\ne,1,y\nf,0,\n"
    data = load(text, name="x.csv")
    assert [e.pair for e in data.examples] == ["x", "x", "", "y", "y", ""]
    assert data.examples[0].group == data.examples[1].group == "x"
    assert data.examples[2].group == data.examples[2].id


def test_a_column_of_pairs_by_name(load):
    text = "text,label,couple,place\na,1,x,p\nb,0,x,p\nc,1,y,q\nd,0,y,q\n"
    data = load(text, name="x.csv", columns=Columns(pair="couple", group="place"))
    assert [(e.pair, e.group) for e in data.examples] == [("x", "p")] * 2 + [("y", "q")] * 2
    assert {e.pair for e in load(text, name="x.csv").examples} == {""}


def test_pairs_in_two_groups_are_refused(load):
    text = "text,label,pair,group\na,1,x,p\nb,0,x,q\nc,1,,q\nd,0,,p\n"
    with pytest.raises(DataError, match="two sides of pair 'x' are in the groups 'p' and 'q'"):
        load(text, name="x.csv")


def test_a_pair_column_does_not_go_with_two_texts_a_row(load):
    text = "positive,negative,pair\na,b,1\nc,d,2\n"
    columns = Columns(positive="positive", negative="negative", pair="pair")
    with pytest.raises(ConfigError, match="give positive and negative, or pair, not both"):
        load(text, name="x.csv", columns=columns)
    assert load(text, name="x.csv").n_groups == 2


# Traits


def test_a_text_may_stand_once_for_each_trait(load):
    text = "text,label,trait\n" + "".join(
        f"{t},{int((t in 'ab') == (trait == 'kind'))},{trait}\n"
        for trait in ("kind", "true")
        for t in "abcd"
    )
    data = load(text, name="x.csv")
    assert data.traits == ("kind", "true")
    assert len({e.id for e in data.examples}) == 8


def test_a_limit_does_not_lose_a_trait(load):
    rows = [f"k{n},{n % 2},kind\n" for n in range(400)] + [f"t{n},{n % 2},true\n" for n in range(4)]
    text = "text,label,trait\n" + "".join(rows)
    assert load(text, name="x.csv", limit=404).traits == ("kind", "true")
    with pytest.raises(DataError, match=r"data\.limit=8 leaves nothing of trait 'true'"):
        load(text, name="x.csv", limit=8)
