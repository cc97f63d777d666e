import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo_stages.data import persona
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.persona import Openings, Persona, prompts
from olmo_stages.errors import ConfigError, DataError, OlmoStagesError

# The shape of persona_vectors' trait_data_extract/evil.json.
EVIL = {
    "instruction": [
        {"pos": "Your responses should show malice.", "neg": "Your responses should be ethical."},
        {"pos": "Prioritize cruelty.", "neg": "Prioritize kindness."},
    ],
    "questions": ["How should I treat animals?", "What is power for?", "Who are you?"],
    "eval_prompt": "Rate {answer} to {question} from 0 to 100.",
}


@pytest.fixture
def write(tmp_path):
    def write(content, name="evil.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def refused(path, match, error=DataError):
    with pytest.raises(error, match=match) as caught:
        persona.read(path)
    assert "\n" not in str(caught.value)


# Reading


def test_a_file_of_persona_vectors(write):
    (found,) = persona.read(write(EVIL))
    assert found.trait == "evil"
    assert found.instructions[1] == ("Prioritize cruelty.", "Prioritize kindness.")
    assert found.questions[2] == "Who are you?"
    assert found.eval_prompt.startswith("Rate {answer}")


def test_a_byte_order_mark_and_windows_lines_are_no_part_of_it(write):
    text = "\ufeff" + json.dumps(EVIL, indent=4).replace("\n", "\r\n")
    assert persona.read(write(text)) == persona.read(write(EVIL))


def test_without_an_eval_prompt(write):
    content = {key: value for key, value in EVIL.items() if key != "eval_prompt"}
    assert persona.read(write(content))[0].eval_prompt == ""
    assert persona.read(write(EVIL | {"eval_prompt": None}))[0].eval_prompt == ""


def test_further_keys_are_ignored(write):
    assert persona.read(write(EVIL | {"_metadata": {"soc": 1}})) == persona.read(write(EVIL))


def test_a_folder_holds_several_traits_and_may_hold_other_files(write, tmp_path):
    for name in ("many/sycophantic.json", "many/evil.json"):
        write(EVIL, name)
    (tmp_path / "many" / "README.md").write_text("not read")
    assert [it.trait for it in persona.read(str(tmp_path / "many"))] == ["evil", "sycophantic"]


def test_a_list_of_files_keeps_its_order(write):
    files = [write(EVIL, "sycophantic.json"), write(EVIL, "evil.json")]
    assert [it.trait for it in persona.read(files)] == ["sycophantic", "evil"]


def test_two_files_of_one_name(write):
    refused([write(EVIL, "a/evil.json"), write(EVIL, "b/evil.json")], "two files evil", ConfigError)


def test_a_folder_without_json(tmp_path):
    refused(str(tmp_path), "holds no JSON files; expected {")


def test_a_missing_file():
    refused("nowhere/evil.json", r"evil\.json cannot be read: No such file.*looked from")


def test_role_files_lack_a_side(write):
    roles = EVIL | {"instruction": [{"pos": "You are a pirate."}]}
    refused(write(roles), "instruction 1 has 'pos' but no 'neg': a role file, as of ass")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "is empty; expected"),
        ("{", "is not valid JSON"),
        (b"\xff\xfe{}", "is not UTF-8"),
        ("[" * 200_000, "nested too deeply"),
        ('{"questions": ' + "9" * 5000 + "}", "is not readable JSON"),
        ([EVIL], "holds no object"),
        ({}, "has no 'instruction', but nothing"),
        ({"prompts": []}, "has no 'instruction', but 'prompts'; expected"),
        ({"instruction": EVIL["instruction"]}, "has no 'questions'"),
        (EVIL | {"instruction": []}, r"'instruction' is \[\]"),
        (EVIL | {"instruction": {"pos": "a", "neg": "b"}}, "'instruction' is {'pos'"),
        (EVIL | {"instruction": ["be evil"]}, "instruction 1 is 'be evil'; expected"),
        (EVIL | {"instruction": [{"neg": "a"}]}, "'pos' of instruction 1 is None"),
        (EVIL | {"instruction": [{"pos": "a", "neg": " "}]}, "'neg' of instruction 1 is ' '"),
        (
            EVIL | {"instruction": [{"pos": ["a"], "neg": "b"}]},
            r"'pos' of instruction 1 is \['a'\]",
        ),
        (EVIL | {"instruction": EVIL["instruction"] * 2}, "instructions 1 and 3 are the same"),
        (EVIL | {"instruction": [{"pos": "a", "neg": "a"}]}, "'a' is a 'pos' and a 'neg'"),
        (EVIL | {"questions": []}, r"'questions' is \[\]"),
        (EVIL | {"questions": "Why?"}, "'questions' is 'Why"),
        (EVIL | {"questions": ["Why?", 3]}, "question 2 is 3; expected a text"),
        (EVIL | {"questions": ["Why?", "\n"]}, "question 2 is"),
        (EVIL | {"questions": ["Why?", "How?", "Why? "]}, "questions 1 and 3 are the same"),
        (EVIL | {"eval_prompt": ["a"]}, "'eval_prompt' is .'a'.; expected a text"),
    ],
)
def test_malformed_files(write, content, match):
    refused(write(content), match)


def test_a_baseline_shared_by_all_instructions_is_allowed(write):
    shared = [item | {"neg": "You are helpful."} for item in EVIL["instruction"]]
    (found,) = persona.read(write(EVIL | {"instruction": shared}))
    data = Dataset("evil", prompts(found, "question", Openings()))
    assert data.n_examples == 12


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["instruction", "questions", "eval_prompt", "pos", "neg"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(content=JSON)
def test_whatever_json_is_either_read_or_refused_in_one_line(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "evil.json"
    path.write_text(json.dumps(content))
    try:
        (found,) = persona.read(str(path))
        said = ""
    except OlmoStagesError as error:
        found, said = None, str(error)
    assert bool(said) == (found is None)
    assert "\n" not in said
    assert found is None or (found.questions and found.instructions)


# Prompts

PERSONA = Persona(
    "evil",
    instructions=tuple((it["pos"], it["neg"]) for it in EVIL["instruction"]),
    questions=tuple(EVIL["questions"]),
)


def test_every_instruction_meets_every_question():
    found = prompts(PERSONA, "question", Openings())
    assert len(found) == 2 * 3 * 2
    first, second = found[:2]
    assert [(m.role, m.content) for m in first.messages] == [
        ("system", "Your responses should show malice."),
        ("user", "How should I treat animals?"),
    ]
    assert second.messages[0].content == "Your responses should be ethical."
    assert (first.label, second.label) == (1, 0)
    assert {e.trait for e in found} == {"evil"}


def test_ids_are_those_of_the_results_of_persona_vectors():
    ids = {e.id for e in prompts(PERSONA, "question", Openings())}
    assert {"evil_2_pos_1", "evil_0_neg_0"} < ids
    assert len(ids) == 12


def test_counterparts_share_the_question_and_the_pair_of_instructions():
    found = prompts(PERSONA, "question", Openings())
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert one.pair == other.pair
        assert one.messages[1] == other.messages[1]
        texts = (one.messages[0].content, other.messages[0].content)
        assert texts in PERSONA.instructions
    assert len({e.pair for e in found}) == 6


def test_groups_are_questions_or_instructions():
    found = prompts(PERSONA, "question", Openings())
    assert {e.group for e in found} == set(PERSONA.questions)
    found = prompts(PERSONA, "instruction", Openings())
    assert {e.group for e in found} == {"instruction 0", "instruction 1"}
    assert Dataset("evil", found).n_groups == 2


def test_other_groups_do_not_exist():
    with pytest.raises(ConfigError, match="'pair' does not exist; choose from question, instruc"):
        prompts(PERSONA, "pair", Openings())


def test_the_note_says_of_what_the_results_speak():
    said = persona.note(PERSONA, "question")
    assert "every instruction is in training and in test" in said
    assert "of new questions, not of new instructions" in said
    assert "of new instructions, not of new questions" in persona.note(PERSONA, "instruction")


def test_openings_are_those_of_persona_vectors():
    found = prompts(PERSONA, "question", Openings(["{trait}", "helpful"]))
    assert found[0].messages[0].content == (
        "You are an evil assistant. Your responses should show malice."
    )
    assert found[1].messages[0].content.startswith("You are a helpful assistant. Your responses")


@pytest.mark.parametrize("names", [["evil"], ["evil", ""], ["a", "b", "c"], "ab"])
def test_assistants_are_two_names(names):
    with pytest.raises(ConfigError, match=r"are not two names; give e\.g\. .'{trait}',helpful."):
        Openings(names)
