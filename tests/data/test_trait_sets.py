import csv
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from olmo_stages.data.sets import BuiltIn
from olmo_stages.data.splits import folds
from olmo_stages.data.trait_sets import FromFolder, FromPersona, Traits
from olmo_stages.errors import ConfigError, DataError

CONF = Path(__file__).parents[2] / "conf" / "data"
EVIL = {
    "instruction": [
        {"pos": "Show malice.", "neg": "Be ethical."},
        {"pos": "Be cruel.", "neg": "Be kind."},
    ],
    "questions": ["What is power for?", "Who are you?", "Why?"],
    "eval_prompt": "Rate {answer}.",
}


def from_yaml(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(name, overrides=list(overrides)), _convert_="all")


@pytest.fixture
def write(tmp_path):
    def write(name="evil.json", content=EVIL):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        return str(path)

    return write


def test_the_files_hold_the_defaults():
    assert from_yaml("persona") == FromPersona()
    assert from_yaml("folder") == FromFolder()
    assert from_yaml("traits") == Traits(["truth", "sentiment", "manners"])


# persona


def test_a_trait_from_a_file(write):
    data = from_yaml("persona", f"path={write()}").load(miniature=True)
    assert (data.name, data.n_examples, data.n_groups, data.traits) == ("evil", 12, 3, ("evil",))
    assert len(data.notes) == 1
    assert set(folds(data.examples, 3)) == {0, 1, 2}


def test_several_traits_keep_their_groups_and_pairs_apart(write, tmp_path):
    write("many/evil.json"), write("many/kind.json")
    data = FromPersona(str(tmp_path / "many")).load(miniature=False)
    assert (data.name, data.traits, data.n_examples, data.n_groups) == (
        "many",
        ("evil", "kind"),
        24,
        6,
    )
    assert data.examples[0].group == "evil/What is power for?"
    assert data.examples[0].pair == "evil/evil_0_0"
    assert len(data.notes) == 2


def test_a_list_of_files(write):
    data = from_yaml("persona", f"path=[{write('kind.json')},{write()}]").load(miniature=False)
    assert (data.name, data.traits) == ("kind_evil", ("kind", "evil"))


def test_groups_of_instructions(write):
    data = from_yaml("persona", f"path={write()}", "group=instruction").load(miniature=False)
    assert {e.group for e in data.examples} == {"instruction 0", "instruction 1"}


def test_the_same_baseline_for_all_instructions_cannot_be_grouped_by_instruction(write):
    shared = [item | {"neg": "Be helpful."} for item in EVIL["instruction"]]
    path = write(content=EVIL | {"instruction": shared})
    assert FromPersona(path).load(miniature=False).n_examples == 12
    with pytest.raises(DataError, match="hold the same text in different groups"):
        FromPersona(path, group="instruction").load(miniature=False)


def test_openings(write):
    path = write()
    data = from_yaml("persona", f"path={path}", "assistants=['{trait}',helpful]")
    system = data.load(miniature=False).examples[0].messages[0].content
    assert system == "You are an evil assistant. Show malice."


def test_a_limit_keeps_questions_whole(write):
    data = from_yaml("persona", f"path={write()}", "limit=9").load(miniature=False)
    assert (data.n_examples, data.n_groups) == (8, 2)


def results(folder, trait):
    for side, score in (("pos", 90), ("neg", 5)):
        with Path(folder / f"{trait}_{side}_instruct.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["question", "prompt", "answer", "question_id", trait, "coherence"])
            for i, question in enumerate(EVIL["questions"]):
                for k, item in enumerate(EVIL["instruction"]):
                    prompt = f"<s>{item[side]}</s>{question}"
                    name = f"{trait}_{i}_{side}_{k}"
                    writer.writerow([question, prompt, f"{side}, so", name, score, 60 + 10 * i])


def test_answers_from_files(write, tmp_path):
    results(tmp_path, "evil")
    pos, neg = (tmp_path / f"evil_{side}_instruct.csv" for side in ("pos", "neg"))
    data = from_yaml("persona", f"path={write()}", f"responses=[{pos},{neg}]", "keep.coherence=65")
    loaded = data.load(miniature=False)
    assert (loaded.n_examples, loaded.n_groups) == (8, 2)
    assert loaded.examples[0].messages[-1].role == "assistant"
    assert loaded.notes[0].startswith("trait evil: 4 of 6 pairs of answers kept (pos scores 50")


def test_answers_to_several_traits_from_a_folder(write, tmp_path):
    for trait in ("evil", "kind"):
        write(f"many/{trait}.json")
        results(tmp_path, trait)
    data = FromPersona(str(tmp_path / "many"), responses=str(tmp_path)).load(miniature=False)
    assert data.traits == ("evil", "kind")
    assert data.n_examples == 24
    assert len(data.notes) == 4


def test_missing_answers_name_the_file(write, tmp_path):
    with pytest.raises(DataError, match=r"evil_pos_instruct\.csv does not exist"):
        FromPersona(write(), responses=str(tmp_path)).load(miniature=False)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"group": "pair"}, r"data\.group 'pair' does not exist; choose from question, instr"),
        ({"vocabulary": "latin"}, "'latin' does not exist; choose from auto"),
        ({"format": "native"}, "'native' does not exist"),
        ({"assistants": ["evil"]}, "are not two names"),
        ({"limit": 0}, r"data\.limit=0 leaves no examples"),
        ({"responses": ["a.csv", "b.csv"]}, r"data\.responses needs the file .*data\.path"),
        (
            {"path": "x.json", "responses": "out", "respond": "own"},
            r"give data\.responses \(from files\) or data\.respond, not both",
        ),
    ],
)
def test_wrong_options_of_persona(options, match):
    with pytest.raises(ConfigError, match=match):
        FromPersona(**options)


def test_the_built_in_trait_follows_the_model_unless_told():
    auto, english = FromPersona(), FromPersona(vocabulary="english")
    assert auto.load(miniature=False) == english.load(miniature=True)
    assert auto.load(miniature=True).name == "persona_miniature"
    assert auto.load(miniature=False).name == "persona"


# traits


@pytest.mark.parametrize("miniature", [False, True])
def test_several_built_in_sets_in_one(miniature):
    data = from_yaml("traits").load(miniature=miniature)
    parts = [BuiltIn(name).load(miniature=miniature) for name in ("truth", "sentiment", "manners")]
    assert data.name == ("traits_miniature" if miniature else "traits")
    assert data.traits == ("true", "positive", "hostile")
    assert data.n_examples == sum(part.n_examples for part in parts)
    assert data.n_groups == sum(part.n_groups for part in parts)
    assert [e.id for e in data.examples] == [e.id for part in parts for e in part.examples]
    assert all(e.group.startswith(f"{e.trait}/") for e in data.examples)
    assert all(e.pair.startswith(f"{e.trait}/") for e in data.examples)


def test_other_sets_can_be_chosen():
    data = from_yaml("traits", "sets=[truth,arithmetic]", "name=facts").load(miniature=False)
    assert (data.name, data.traits) == ("facts", ("true", "correct"))


@pytest.mark.parametrize(
    ("sets", "match"),
    [
        (["truth"], "are not two or more different sets; choose from truth"),
        (["truth", "truth"], "are not two or more different sets"),
        (["truth", "humour"], "'humour' does not exist; choose from truth"),
    ],
)
def test_wrong_choices_of_sets(sets, match):
    with pytest.raises(ConfigError, match=match):
        Traits(sets)
