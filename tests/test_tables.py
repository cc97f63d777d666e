"""Tables of results: there and back, small, and read only when asked for."""

import io

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from olmo_stages import records
from olmo_stages.errors import StoreError
from olmo_stages.records import is_finished, mark_digest, read, read_mark, write
from olmo_stages.tables import Tables, parquet
from olmo_stages.types import Measurement, Result

TOKENS = {
    "example": ["a", "a", "b/é 🙂"],
    "index": np.array([1, 2, 1], dtype=np.int32),
    "is_content": np.array([True, False, True]),
    "layer_-1": np.array([0.1, np.nan, -np.inf], dtype=np.float32),
    "layer_0": np.array([0.1, 1e300, 5e-324]),
}


def result(**tables):
    rows = (Measurement("projection", 0.5, "think_sft"),)
    return Result(rows, tables=tables or {"tokens": TOKENS})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "projection" / "job"


def same(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        if isinstance(values, np.ndarray):
            assert found[name].dtype == values.dtype
            np.testing.assert_array_equal(found[name], values)
        else:
            assert found[name] == list(values)


def test_what_is_written_is_read_back(folder):
    write(folder, result(), {})
    back = read(folder).result
    assert list(back.tables) == ["tokens"]
    same(back.tables["tokens"], TOKENS)


def test_pandas_reads_it(folder):
    write(folder, result(), {})
    frame = pd.read_parquet(folder / "tables" / "tokens.parquet")
    assert list(frame.columns) == list(TOKENS)
    assert frame["example"].tolist() == TOKENS["example"]


def test_a_result_without_tables_has_none(folder):
    write(folder, Result(result().measurements), {})
    assert dict(read(folder).result.tables) == {}
    assert not (folder / "tables").exists()


def test_an_empty_table_and_odd_names(folder):
    empty = {"example": [], "score": np.zeros(0, np.float32)}
    write(folder, result(**{"a/b": empty, "../c": TOKENS}), {})
    back = read(folder).result
    same(back.tables["a/b"], empty)
    same(back.tables["../c"], TOKENS)
    assert is_finished(folder)
    assert all(
        path.parent == folder / "tables"
        for path in folder.rglob("*.parquet")
        if path.name != records.MEASUREMENTS
    )


def test_a_table_of_an_older_result_goes_with_it(folder):
    write(folder, result(), {})
    write(folder, Result(result().measurements), {})
    assert not (folder / "tables").exists()


def test_the_mark_lists_it_and_its_numbers_are_part_of_the_identity(folder):
    write(folder, result(), {})
    before = read_mark(folder)
    assert before["tables"] == {"tokens": "tables/tokens.parquet"}
    assert before["files"]["tables/tokens.parquet"]["size"] > 0
    write(folder, result(), {"other": "provenance"})
    assert mark_digest(read_mark(folder)) == mark_digest(before)
    changed = {**TOKENS, "index": np.array([1, 2, 2], dtype=np.int32)}
    write(folder, result(tokens=changed), {})
    assert mark_digest(read_mark(folder)) != mark_digest(before)


def test_a_damaged_table_is_noticed_although_no_one_asks_for_it(folder):
    write(folder, result(), {})
    path = folder / "tables" / "tokens.parquet"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=r"tokens\.parquet is damaged"):
        read(folder)


def test_a_missing_table_makes_a_result_unfinished(folder):
    write(folder, result(), {})
    (folder / "tables" / "tokens.parquet").unlink()
    assert not is_finished(folder)


def test_a_table_is_read_only_when_it_is_asked_for(folder):
    write(folder, result(), {})
    found = read(folder).result
    path = folder / "tables" / "tokens.parquet"
    path.write_bytes(b"no parquet")
    assert list(found.tables) == ["tokens"]
    assert len(found.tables) == 1
    with pytest.raises(StoreError, match=r"tokens\.parquet is damaged"):
        found.tables["tokens"]
    path.unlink()
    with pytest.raises(StoreError, match=r"tokens\.parquet is damaged"):
        found.tables["tokens"]


def test_another_name_is_a_key_error(tmp_path):
    with pytest.raises(KeyError):
        Tables({"tokens": tmp_path / "x"})["token"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"a": ["x"], "b": np.zeros(2)}, r"table 'tokens': columns of different lengths"),
        ({"a": np.zeros((2, 2))}, r"column 'a' of table 'tokens': an array of float64 \(2, 2\)"),
        ({"a": np.array([object()])}, r"column 'a' of table 'tokens': an array of object"),
        ({"a": ["\ud800"]}, r"column 'a' of table 'tokens'"),
    ],
)
def test_what_cannot_be_stored_is_one_line(folder, table, words):
    with pytest.raises(StoreError, match=words) as caught:
        write(folder, result(tokens=table), {})
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def test_scores_of_many_tokens_take_about_their_own_bytes():
    rng = np.random.default_rng(0)
    n, n_layers = 20_000, 8
    table = {
        "example": np.repeat([f"{i:016x}" for i in range(n // 200)], 200),
        "text": [f" w{i % 997}" for i in range(n)],
        **{f"layer_{i}": rng.normal(size=n).astype(np.float32) for i in range(n_layers)},
    }
    content = parquet("tokens", table)
    assert len(content) < 1.1 * 4 * n * n_layers
    assert pq.read_table(io.BytesIO(content), columns=["layer_3"]).num_rows == n
