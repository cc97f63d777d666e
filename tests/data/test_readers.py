import json
import subprocess
import sys

import datasets
import pandas as pd
import pytest

from olmo_stages.data.readers import read_file, read_hub
from olmo_stages.errors import DataError, NotHere
from olmo_stages.looking import looking

ROWS = [{"text": "It rains.", "label": 1}, {"text": "Pigs fly.", "label": 0}]


@pytest.fixture
def write(tmp_path):
    def to(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return to


def values(table):
    return [dict(row.values) for row in table.rows]


def refused(path, match, **options):
    with pytest.raises(DataError, match=match) as caught:
        read_file(path, **options)
    assert "\n" not in str(caught.value)


# jsonl and json


def test_jsonl(write):
    table = read_file(write("x.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"))
    assert values(table) == ROWS
    assert table.columns == ("text", "label")
    assert table.rows[1].where == "line 2"


def test_jsonl_keeps_line_separators_inside_texts(write):
    text = "one\u2028two"
    path = write("x.jsonl", json.dumps({"text": text}, ensure_ascii=False))
    assert values(read_file(path)) == [{"text": text}]


def test_byte_order_mark_is_no_part_of_the_first_column(write):
    for name, content in (("x.csv", "text,label\na,1\n"), ("x.jsonl", '{"text": "a"}')):
        assert read_file(write(name, "\ufeff" + content)).columns[0] == "text"


def test_broken_jsonl_names_the_line(write):
    refused(write("x.jsonl", '{"text": "a"}\n{"text": \n'), r"x\.jsonl, line 2 is not valid JSON")


def test_a_line_that_is_no_object_is_named(write):
    refused(write("x.jsonl", '{"text": "a"}\n["b"]\n'), "line 2: expected an object with columns")


@pytest.mark.parametrize(
    "content",
    [ROWS, {"text": ["It rains.", "Pigs fly."], "label": [1, 0]}],
    ids=["rows", "columns"],
)
def test_json(write, content):
    assert values(read_file(write("x.json", json.dumps(content)))) == ROWS


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[" * 200_000 + "]" * 200_000, r"x\.json is nested too deeply to be data"),
        ('[{"text": "a", "label": ' + "9" * 5000 + "}]", r"x\.json is not readable JSON"),
    ],
)
def test_hostile_json(write, content, match):
    refused(write("x.json", content), match)


def test_lists_of_two_are_rows_without_names(write):
    for name, content in (("x.jsonl", '["a", "b"]\n'), ("x.json", '[["a", "b"]]')):
        table = read_file(write(name, content))
        assert values(table) == [{"[0]": "a", "[1]": "b"}]
        assert table.columns == ("[0]", "[1]")


def test_jsonl_under_the_name_of_json_is_told(write):
    path = write("x.json", "\n".join(map(json.dumps, ROWS)))
    refused(path, r"not valid JSON.*one object a line is \.jsonl")


def test_an_object_that_is_no_table_is_told(write):
    refused(write("x.json", '{"questions": ["a"], "prompt": "b"}'), "not columns of equal length")


# csv


def test_csv_keeps_newlines_and_separators_inside_quotes(write):
    table = read_file(write("x.csv", 'text,label\n"one\ntwo, ""three""",1\nfour,0\n'))
    assert values(table)[0] == {"text": 'one\ntwo, "three"', "label": "1"}
    assert table.rows[1].where == "row 2 (line 4)"


def test_csv_does_not_turn_texts_into_gaps_or_numbers(write):
    table = read_file(write("x.csv", "text,label\nNA,1\nNone,0\n007,1\n"))
    assert [row["text"] for row in values(table)] == ["NA", "None", "007"]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_csv_with_another_separator_is_recognised(write, separator):
    content = "text,label\nIt rains,1\n".replace(",", separator)
    assert values(read_file(write("x.csv", content))) == [{"text": "It rains", "label": "1"}]


def test_tsv_may_have_commas_in_its_header(write):
    table = read_file(write("x.tsv", "a,b,c\tlabel\nx\t1\n"))
    assert table.columns == ("a,b,c", "label")


def test_an_undecided_separator_is_asked_for(write):
    path = write("x.csv", "text,a;label\nIt rains,1;1\n")
    refused(path, "could be split at ',' or ';'; set data.separator")
    assert read_file(path, separator=";").columns == ("text,a", "label")


@pytest.mark.parametrize("line", ["It rains, again,1", "It rains"])
def test_csv_rows_of_the_wrong_width_are_named(write, line):
    path = write("x.csv", f"text,label\nok,0\n{line}\n")
    refused(path, r"x\.csv, row 2 \(line 3\): [13] fields, but the header has 2")


def test_csv_with_an_open_quote_is_named(write):
    refused(write("x.csv", 'text,label\n"open,1\nmore,0\n'), r"x\.csv, line \d: broken csv")


def test_csv_with_a_repeated_column_is_named(write):
    refused(write("x.csv", "text,text\na,b\n"), "column 'text' occurs twice")


def test_csv_takes_long_texts(write):
    text = "x" * 200_000
    assert values(read_file(write("x.csv", f"text\n{text}\n")))[0]["text"] == text


# parquet


def test_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    pd.DataFrame(ROWS).to_parquet(path)
    assert values(read_file(str(path))) == ROWS


def test_broken_parquet(write):
    refused(write("x.parquet", "PAR1 not really"), "is not a readable parquet file")


# Files that will not do


def test_missing_file():
    refused("nowhere.csv", r"nowhere\.csv does not exist \(looked from /")


def test_unknown_extension(write):
    refused(write("x.xlsx", "a"), r"cannot read '\.xlsx'; use \.jsonl")


def test_a_folder_is_sent_to_the_other_reader(tmp_path):
    refused(str(tmp_path), "is a folder; read it with data=hub")


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.tsv"])
def test_empty_files(write, name):
    refused(write(name, ""), f"{name} holds no rows")


def test_a_header_without_rows(write):
    refused(write("x.csv", "text,label\n"), "holds no rows")


def test_latin_1(write):
    refused(write("x.csv", "text,label\ncafé,1\n".encode("latin-1")), r"x\.csv is not UTF-8")


# Hugging Face data sets


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def saved(tmp_path):
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["no rain", "rain"])
    )
    one = datasets.Dataset.from_list(ROWS, features=features)
    datasets.DatasetDict(train=one, test=one.select([1])).save_to_disk(tmp_path / "both")
    one.save_to_disk(tmp_path / "one")
    return tmp_path


@pytest.mark.usefixtures("own_cache")
def test_saved_data_set_with_its_class_names(saved):
    table = read_hub(str(saved / "one"))
    assert values(table) == ROWS
    assert table.class_names == {"label": ("no rain", "rain")}


@pytest.mark.usefixtures("own_cache")
def test_split_of_a_saved_data_set(saved):
    table = read_hub(str(saved / "both"), split="test")
    assert values(table) == ROWS[1:]
    assert table.source.endswith("both[test]")


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("split", [None, "dev"])
def test_a_missing_split_is_answered_with_the_splits(saved, split):
    with pytest.raises(
        DataError, match=f"no split {split!r}; set data.split to one of train, test"
    ):
        read_hub(str(saved / "both"), split=split)


@pytest.mark.usefixtures("own_cache")
def test_folder_of_files(write):
    path = write("train.jsonl", "\n".join(map(json.dumps, ROWS)))
    assert values(read_hub(path.removesuffix("/train.jsonl"))) == ROWS


@pytest.mark.usefixtures("own_cache")
def test_a_hub_data_set_without_a_network_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"'owner/name' cannot be loaded: .*without a network") as e:
        read_hub("owner/name", split="train")
    assert "\n" not in str(e.value)


def test_nothing_heavy_is_imported_with_the_data_room():
    code = (
        "import sys, olmo_stages.data.sets, olmo_stages.data.spans, olmo_stages.data.splits\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'sklearn'}\n"
        "print(heavy & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.fixture
def hub_cache(monkeypatch, tmp_path):
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", False)
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_who_only_looks_reads_a_folder_and_leaves_nothing(tmp_path, hub_cache):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text("text,label\na b,1\nc d,0\n")
    with looking():
        rows = read_hub(str(tmp_path / "set")).rows
    assert [it.values["text"] for it in rows] == ["a b", "c d"]
    assert list(hub_cache.iterdir()) == []


def test_who_only_looks_asks_the_hub_for_nothing(hub_cache):
    with looking(), pytest.raises(NotHere, match="data set me/mine of the hub"):
        read_hub("me/mine")
    assert list(hub_cache.iterdir()) == []
