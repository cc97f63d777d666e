import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from olmo_stages.data.mapping import Columns
from olmo_stages.data.sets import ENGLISH, MINIATURE, BuiltIn, FromFile, FromHub
from olmo_stages.errors import ConfigError, DataError

CONF = Path(__file__).parents[2] / "conf" / "data"
CSV = "statement;coastal;city\n" + "".join(
    f"{city} lies {where} the sea;{where == 'by'};{city}\n"
    for city in ("Lyon", "Nice", "Brest")
    for where in ("by", "far from")
)


def from_yaml(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(name, overrides=list(overrides)), _convert_="all")


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "seas.csv"
    path.write_text(CSV)
    return str(path)


def test_there_is_one_file_for_each_set_and_for_each_kind_of_ones_own():
    others = {"file", "hub", "persona", "folder", "traits"}
    assert {path.stem for path in CONF.glob("*.yaml")} == {*ENGLISH, *others}
    assert set(ENGLISH) == set(MINIATURE)


@pytest.mark.parametrize("name", list(ENGLISH))
def test_built_in_sets_from_yaml(name):
    assert from_yaml(name) == BuiltIn(name)


def test_the_files_for_ones_own_hold_the_defaults():
    assert from_yaml("file") == FromFile()
    assert from_yaml("hub") == FromHub()


@pytest.mark.parametrize("format", ["auto", "raw", "scaffold", "chat_fixed", "chat_native"])
def test_every_format_can_be_asked_of_every_kind_of_data(format, csv_file):
    built_in = from_yaml("truth", f"format={format}", "mix_formats=true")
    own = from_yaml(
        "file",
        f"path={csv_file}",
        f"format={format}",
        "mix_formats=true",
        "columns.text=statement",
        "columns.label=coastal",
        "columns.group=city",
    )
    for dataset in (built_in.load(miniature=False), own.load()):
        assert (dataset.format, dataset.mix_formats) == (format, True)


def test_formats_are_not_mixed_unless_asked():
    assert not from_yaml("truth").load(miniature=True).mix_formats


def test_the_vocabulary_follows_the_model_unless_told():
    auto, english = BuiltIn("truth"), BuiltIn("truth", vocabulary="english")
    assert auto.load(miniature=False) == english.load(miniature=True)
    assert auto.load(miniature=True).name == "truth_miniature"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"name": "truht"}, "'truht' does not exist; choose from truth"),
        ({"name": "truth", "vocabulary": "latin"}, "'latin' does not exist; choose from auto"),
        ({"name": "truth", "format": "native"}, "'native' does not exist; choose from auto, raw"),
    ],
)
def test_mistyped_options_are_answered_with_the_alternatives(options, match):
    with pytest.raises(ConfigError, match=match):
        BuiltIn(**options)


@pytest.mark.parametrize("options", [{"format": "native"}, {"limit": 0}, {"label_map": {"a": 5}}])
def test_wrong_options_of_ones_own_data(options):
    with pytest.raises(ConfigError):
        FromFile(**options)


def test_a_file_by_overrides(csv_file):
    data = from_yaml(
        "file",
        f"path={csv_file}",
        "columns.text=statement",
        "columns.label=coastal",
        "columns.group=city",
        "trait=by the sea",
        "format=chat_fixed",
    ).load(miniature=False)
    assert (data.name, data.n_examples, data.n_groups, data.format) == ("seas", 6, 3, "chat_fixed")
    assert data.examples[0].text == "Lyon lies by the sea"
    assert [e.label for e in data.examples] == [1, 0] * 3


def test_a_label_map_by_override(csv_file):
    data = from_yaml(
        "file",
        f"path={csv_file}",
        "columns={text: statement, label: coastal, group: city}",
        "label_map={true: 0, false: 1}",
    ).load(miniature=False)
    assert [e.label for e in data.examples] == [0, 1] * 3


def test_a_limit(csv_file):
    columns = Columns(text="statement", label="coastal", group="city")
    assert FromFile(csv_file, columns=columns, limit=5).load().n_groups == 2


def test_the_checks_of_a_data_set_apply(csv_file):
    with pytest.raises(DataError, match="data 'seas': all examples of label 0 are in group 'Lyon'"):
        FromFile(
            csv_file,
            columns=Columns(text="statement", label="city", group="city"),
            label_map={"Lyon": 0, "Nice": 1, "Brest": 1},
        ).load()


@pytest.mark.parametrize(("own", "name"), [(FromFile(), "data=file"), (FromHub(), "data=hub")])
def test_no_path_is_an_error_only_when_loading(own, name):
    with pytest.raises(ConfigError, match=f"{name} needs .*data.path="):
        own.load()


def test_a_separator_is_one_character():
    with pytest.raises(ConfigError, match=r"data\.separator=xx is not one character"):
        FromFile(separator="xx")
    assert FromFile(separator=";").separator == ";"


# Without labels


@pytest.mark.parametrize("name", ["file", "hub"])
def test_texts_without_labels_by_override(name, tmp_path):
    # Of a local folder the hub's reader takes its data files.
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "a", "group": "g"}\n{"text": "b", "group": "g"}\n')
    path = file if name == "file" else tmp_path
    data = from_yaml(name, f"path={path}", "unlabelled=true").load()
    assert not data.labelled
    assert [(it.text, it.group, it.label) for it in data.examples] == [
        ("a", "g", None),
        ("b", "g", None),
    ]
    assert data.notes == ()
    with pytest.raises(DataError, match=r"no column 'label'.*or data\.unlabelled=true"):
        from_yaml(name, f"path={path}").load()


def test_a_column_of_labels_is_ignored_with_a_note(tmp_path):
    file = tmp_path / "cities.csv"
    file.write_text(
        "statement,label,city\nLyon is in France.,1,Lyon\nLyon is in Spain.,0,Lyon\n"
        "Nice is in France.,1,Nice\nNice is in Spain.,0,Nice\n"
    )
    labelled = FromFile(str(file)).load()
    data = FromFile(str(file), unlabelled=True).load()
    assert {(it.label, it.pair) for it in data.examples} == {(None, "")}
    assert {it.pair for it in labelled.examples} == {"Lyon", "Nice"}
    assert [it.group for it in data.examples] == [it.group for it in labelled.examples]
    assert data.notes[-1] == f"{file}: column 'label' is ignored (data.unlabelled=true)."
    assert not [note for note in labelled.notes if "ignored" in note]
    assert data.digest != labelled.digest


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"columns": Columns(label="x")}, "data.columns.label"),
        ({"columns": Columns(positive="x")}, "data.columns.positive"),
        ({"columns": Columns(negative="x")}, "data.columns.negative"),
        ({"positive": 1}, "data.positive"),
        ({"label_map": {"a": 1}}, "data.label_map"),
    ],
)
def test_options_about_labels_that_are_not_read_are_refused(options, named):
    with pytest.raises(ConfigError, match=f"^{named} says what the labels are.*unlabelled=true"):
        FromFile(unlabelled=True, **options)
    assert not FromFile(**options).unlabelled


@pytest.mark.parametrize(
    "row",
    [
        {"positive": "a", "negative": "b"},
        {
            "question": "Q?",
            "answer_matching_behavior": " Yes",
            "answer_not_matching_behavior": " No",
        },
    ],
)
def test_published_pairs_are_not_read_without_labels(row, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(ConfigError, match=r"data\.unlabelled=true: .*holds pairs"):
        FromFile(str(file), unlabelled=True).load()
