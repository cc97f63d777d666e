import csv
import pathlib
from dataclasses import replace

import pytest

from olmo_stages.data.dataset import Dataset
from olmo_stages.data.persona import Openings, Persona
from olmo_stages.data.persona_results import Keep, answered, files_of
from olmo_stages.errors import ConfigError, DataError

PERSONA = Persona(
    "evil",
    instructions=(("Show malice.", "Be ethical."), ("Be cruel.", "Be kind.")),
    questions=("What is power for?", "Who are you?"),
)
OPENING = {"pos": "You are an evil assistant. ", "neg": "You are a helpful assistant. "}


def rows(side, *, opening=None, repeats=1):
    """A result file of persona_vectors, all of it to be kept."""
    begun = OPENING[side] if opening is None else opening
    return [
        {
            "question": question,
            "prompt": f"<|im_start|>system\n{begun}{PERSONA.instruction(k, side)}<|im_end|>\n"
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
            "answer": f'{side} {i} {k} {n}, he said:\n"so"',
            "question_id": f"evil_{i}_{side}_{k}",
            "evil": "90.5" if side == "pos" else "1.5",
            "coherence": "80",
        }
        for i, question in enumerate(PERSONA.questions)
        for k in range(2)
        for n in range(repeats)
    ]


@pytest.fixture
def load(tmp_path):
    def load(pos=None, neg=None, keep=None, persona=PERSONA, assistants=None):
        files = []
        for side, table in (("pos", pos or rows("pos")), ("neg", neg or rows("neg"))):
            files.append(str(tmp_path / f"evil_{side}_instruct.csv"))
            with pathlib.Path(files[-1]).open("w", newline="") as file:
                writer = csv.DictWriter(file, list(table[0]))
                writer.writeheader()
                writer.writerows(table)
        return answered(
            persona,
            (files[0], files[1]),
            keep or Keep(),
            by="question",
            openings=Openings(assistants),
        )

    return load


def change(side, number, **values):
    found = rows(side)
    found[number] |= values
    return found


def test_answers_are_the_last_turn_and_keep_their_lines(load):
    examples, _ = load()
    assert len(examples) == 8
    first = examples[0]
    assert [(m.role, m.content) for m in first.messages] == [
        ("system", "You are an evil assistant. Show malice."),
        ("user", "What is power for?"),
        ("assistant", 'pos 0 0 0, he said:\n"so"'),
    ]
    assert (first.id, first.label, first.group) == ("evil_0_pos_0/0", 1, "What is power for?")
    assert Dataset("evil", examples).n_groups == 2


def test_both_sides_of_a_pair_answer_the_same_question_under_the_same_instruction(load):
    examples, _ = load()
    for one, other in zip(examples[::2], examples[1::2], strict=True):
        assert (one.label, other.label) == (1, 0)
        assert one.pair == other.pair
        assert one.messages[1] == other.messages[1]
        said, other_said = (it.messages[2].content for it in (one, other))
        assert said.removeprefix("pos") == other_said.removeprefix("neg")


def test_several_answers_to_a_prompt_are_several_pairs(load):
    examples, _ = load(rows("pos", repeats=3), rows("neg", repeats=3))
    assert len({e.pair for e in examples}) == 12
    assert Dataset("evil", examples).n_groups == 2


def test_polarities_of_instructions_are_kept(load):
    examples, _ = load(persona=replace(PERSONA, polarities=("affirmative", "negated")))
    assert [e.polarity for e in examples][:4] == ["affirmative"] * 2 + ["negated"] * 2
    assert {e.polarity for e in load()[0]} == {""}


@pytest.mark.parametrize(
    ("side", "values"),
    [
        ("pos", {"evil": "49.9"}),
        ("neg", {"evil": "50"}),
        ("pos", {"coherence": "49.9"}),
        ("neg", {"coherence": "49.9"}),
        ("pos", {"evil": ""}),
        ("neg", {"evil": "REFUSAL"}),
        ("neg", {"evil": "nan"}),
        ("neg", {"coherence": ""}),
        ("pos", {"answer": " "}),
        ("neg", {"answer": ""}),
    ],
)
def test_what_fails_on_one_side_leaves_the_pair_out(load, side, values):
    examples, note = load(**{side: change(side, 1, **values)})
    assert len(examples) == 6
    assert "evil_0_1/0" not in {e.pair for e in examples}
    assert note.startswith("trait evil: 3 of 4 pairs of answers kept (")


@pytest.mark.parametrize(
    ("side", "values"),
    [("pos", {"evil": "50"}), ("neg", {"evil": "49.9"}), ("neg", {"coherence": "50"})],
)
def test_what_just_passes_is_kept(load, side, values):
    assert len(load(**{side: change(side, 1, **values)})[0]) == 8


def test_thresholds_are_options(load):
    weak = change("pos", 1, evil="40")
    assert len(load(weak, keep=Keep(pos=40))[0]) == 8
    assert len(load(keep=Keep(coherence=80))[0]) == 8
    with pytest.raises(DataError, match="0 of 4"):
        load(keep=Keep(coherence=81))


def test_nothing_kept_is_an_error_with_all_counts(load):
    pos = [row | {"evil": "3"} for row in rows("pos")]
    pos[0] |= {"evil": "", "answer": ""}
    with pytest.raises(DataError) as caught:
        load(pos)
    assert str(caught.value) == (
        "trait evil: 0 of 4 pairs of answers kept (pos scores 50 or more: 0, neg below 50: 4, "
        "coherence 50 or more: 4 pos and 4 neg, answers without a score: 1, empty answers: 1); "
        "nothing is left: lower data.keep, or check the scores"
    )


# System prompts


def test_the_opening_is_read_from_the_prompts(load):
    plain, _ = load(rows("pos", opening=""), rows("neg", opening=""))
    assert plain[0].messages[0].content == "Show malice."
    assert load()[0][1].messages[0].content == "You are a helpful assistant. Be ethical."


def test_without_prompts_the_opening_is_as_said(load):
    bare = {
        side: [{k: v for k, v in row.items() if k != "prompt"} for row in rows(side)]
        for side in ("pos", "neg")
    }
    assert load(**bare)[0][0].messages[0].content == "Show malice."
    named, _ = load(**bare, assistants=["{trait}", "helpful"])
    assert named[0].messages[0].content == "You are an evil assistant. Show malice."


def test_another_opening_than_said_is_refused(load):
    assert len(load(assistants=["evil", "helpful"])[0]) == 8
    with pytest.raises(
        DataError, match=r"begin with 'You are a helpful assistant\. ', expected one"
    ):
        load(assistants=["evil", "good"])


def test_two_openings_in_one_file_are_refused(load):
    mixed = [rows("pos")[0], *rows("pos", opening="")[1:]]
    with pytest.raises(DataError, match=r"with '' and with 'You are an evil assistant\. '"):
        load(mixed)


def test_prompts_of_another_file_are_refused(load):
    with pytest.raises(DataError, match=r"row 2 .*prompt does not hold 'Be cruel\.'"):
        load(change("pos", 1, prompt="<|im_start|>system\nBe very evil."))


# Files that do not fit


@pytest.mark.parametrize(
    ("side", "number", "values", "match"),
    [
        ("pos", 0, {"question": "What else?"}, "'What else.' is not question 0 of evil"),
        ("pos", 0, {"question_id": "evil_0"}, "question_id 'evil_0' is not like evil_0_pos_0"),
        ("pos", 0, {"question_id": "evil_9_pos_0"}, "but evil has 2 questions and 2 instructions"),
        ("pos", 0, {"question_id": "evil_0_pos_7"}, "but evil has 2 questions and 2 instructions"),
        ("pos", 0, {"question_id": "evil_0_neg_0"}, "is of neg, but the file stands for pos"),
        ("pos", 0, {"question_id": f"evil_{'1' * 5000}_pos_0"}, "is not like evil_0_pos_0"),
        (
            "neg",
            0,
            {"question_id": "evil_0_neg_1", "prompt": OPENING["neg"] + "Be kind."},
            r"answers question 0 under instruction 1, but its partner in .*; sort both files alike",
        ),
    ],
)
def test_rows_that_do_not_fit(load, side, number, values, match):
    with pytest.raises(DataError, match=match) as caught:
        load(**{side: change(side, number, **values)})
    assert "\n" not in str(caught.value)


def test_files_of_unequal_length(load):
    with pytest.raises(DataError, match=r"has 4 rows and .*evil_neg_instruct\.csv 3"):
        load(neg=rows("neg")[:3])


def test_files_in_the_wrong_order(load):
    with pytest.raises(DataError, match="is of neg, but the file stands for pos"):
        load(pos=rows("neg"), neg=rows("pos"))


def test_a_file_of_another_trait(load):
    other = [{("kind" if k == "evil" else k): v for k, v in row.items()} for row in rows("pos")]
    with pytest.raises(DataError, match="has no column 'evil'; a result file of evil has question"):
        load(other)


# Where the files are


def test_the_folder_of_persona_vectors_or_two_files():
    folder = ("out/evil_pos_instruct.csv", "out/evil_neg_instruct.csv")
    assert files_of("evil", "out", 3) == folder
    assert files_of("evil", ["a.csv", "b.csv"], 1) == ("a.csv", "b.csv")


@pytest.mark.parametrize(
    ("given", "n_traits"), [(["a.csv"], 1), (["a.csv", "b.csv"], 2), ("a.csv", 1), ([], 1)]
)
def test_other_numbers_of_files(given, n_traits):
    with pytest.raises(ConfigError, match=r"trait\(s\); give \[POS\.csv,NEG\.csv\] for one"):
        files_of("evil", given, n_traits)
