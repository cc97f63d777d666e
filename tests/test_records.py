import dataclasses
import io
import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from olmo_stages import records
from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.records import Job, is_finished, read, write
from olmo_stages.types import Measurement, Result, Stage

BASE = Stage("base", "tiny", "miniature")
SFT = Stage("think_sft", "tiny", "miniature", parent=BASE)


def job(**changes):
    fields = {
        "analysis": "probe",
        "stage": SFT,
        "reference": BASE,
        "data": "truth",
        "identity": {"seed": 0, "layers": [0, 1], "site": "resid_post"},
    }
    return Job(**(fields | changes))


def result(value=0.75):
    rows = (
        Measurement("auroc", value, "think_sft", layer=3, ci_low=0.5, ci_high=0.9, n=40),
        Measurement("auroc", math.nan, "think_sft", variant="baseline:length"),
    )
    return Result(
        measurements=rows,
        tensors={"probe": np.arange(6, dtype=np.float32).reshape(2, 3), "cut": np.array(0.1)},
        figures={"auroc by layer": '{"data": []}'},
        headline={"best layer": 3, "auroc": value},
        warnings=("12 texts were cut",),
    )


@pytest.fixture
def folder(tmp_path):
    return job().folder(tmp_path)


# ---- identity


def test_digest_does_not_depend_on_key_order():
    assert job(identity={"a": 1, "b": 2}).digest == job(identity={"b": 2, "a": 1}).digest


@pytest.mark.parametrize(
    "change",
    [
        {"analysis": "cka"},
        {"data": "sentiment"},
        {"reference": None},
        {"stage": dataclasses.replace(SFT, revision="step_20")},
        {"stage": dataclasses.replace(SFT, random_init=0)},
        {"stage": dataclasses.replace(SFT, source="/ckpts/other")},
        {"identity": {"seed": 1, "layers": [0, 1], "site": "resid_post"}},
    ],
)
def test_digest_changes_with_everything_that_changes_a_number(change):
    assert job(**change).digest != job().digest


def test_digest_is_the_same_in_another_process():
    code = textwrap.dedent("""
        from olmo_stages.records import Job
        from olmo_stages.types import Stage
        base = Stage("base", "tiny", "miniature")
        sft = Stage("think_sft", "tiny", "miniature", parent=base)
        identity = {"seed": 0, "layers": [0, 1], "site": "resid_post"}
        print(Job("probe", sft, base, "truth", identity).digest)
    """)
    env = os.environ | {"PYTHONHASHSEED": "7"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert out.stdout.strip() == job().digest


@pytest.mark.parametrize("value", [math.nan, Path("x"), {1, 2}])
def test_an_identity_that_is_not_json_is_refused(value):
    with pytest.raises(ConfigError, match="plain JSON"):
        _ = job(identity={"x": value}).digest


def test_run_id_is_a_short_form_of_the_digest():
    assert job().run_id == job().digest[:16]


# ---- names


def test_folder_says_what_was_run(tmp_path):
    name = f"truth.{job().digest[:12]}"
    assert job().folder(tmp_path) == tmp_path / "probe" / "think_sft.tiny.vs.base" / name


def test_folder_without_reference_says_no_reference(tmp_path):
    assert job(reference=None).folder(tmp_path).parent.name == "think_sft.tiny"


@pytest.mark.parametrize("data", ["../../etc", "a/b c", "x" * 400, "", "..", "é" * 200, "a\nb"])
def test_odd_names_stay_inside_the_root_and_short(tmp_path, data):
    place = job(data=data).folder(tmp_path)
    assert place.parent.parent.parent == tmp_path
    assert place.resolve() == tmp_path.resolve() / place.relative_to(tmp_path)
    write(place, result(), {})
    assert is_finished(place)


def test_names_that_had_to_be_changed_stay_apart(tmp_path):
    assert job(data="a/b").folder(tmp_path).name.split(".")[0] != "a_b"
    assert records.safe_name("a/b") != records.safe_name("a b")


# ---- files


def test_what_is_written_is_read_back(folder):
    write(folder, result(), {"seed": 7})
    back = read(folder)
    assert back.provenance == {"seed": 7}
    assert back.result.measurements[0] == result().measurements[0]
    assert math.isnan(back.result.measurements[1].value)
    assert back.result.measurements[1].ci_low is None
    assert back.result.headline == result().headline
    assert list(back.result.headline) == ["best layer", "auroc"]
    assert back.result.warnings == result().warnings
    assert back.result.figures == result().figures


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, 2.5], [3.5, 4.5]], dtype=np.float64).T,
        np.arange(10, dtype=np.float32)[::2],
        np.array(0.1),
        np.arange(3, dtype=">f4"),
        np.zeros((0, 4), dtype=np.float32),
        np.array([True, False]),
        np.arange(4, dtype=np.int64),
    ],
)
def test_tensors_keep_value_shape_and_precision(folder, array):
    write(folder, dataclasses.replace(result(), tensors={"t": array}), {})
    back = read(folder).result.tensors["t"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype.newbyteorder("=")


def test_a_tensor_of_objects_is_refused_in_one_line(folder):
    bad = dataclasses.replace(result(), tensors={"names": np.array(["a", None], dtype=object)})
    with pytest.raises(StoreError, match="names object") as caught:
        write(folder, bad, {})
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def test_layers_stay_whole_numbers_for_pandas(folder):
    write(folder, result(), {})
    frame = pd.read_parquet(folder / "measurements.parquet")
    assert str(frame["layer"].dtype) == "Int64"
    assert frame["layer"].tolist() == [3, pd.NA]
    assert frame["n"].tolist() == [40, 0]


def test_measurements_are_marked_as_pandas_would_mark_them():
    found = pq.read_schema(io.BytesIO(records.parquet(result().measurements)))
    frame = pd.read_parquet(io.BytesIO(records.parquet(())))
    theirs = pa.Table.from_pandas(frame, preserve_index=False).schema
    assert json.loads(found.metadata[b"pandas"]) == json.loads(theirs.metadata[b"pandas"])


def test_json_lines_say_null_where_there_is_no_number(folder):
    write(folder, result(), {})
    text = (folder / "measurements.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert "NaN" not in text
    assert [row["value"] for row in rows] == [0.75, None]
    assert [row["layer"] for row in rows] == [3, None]


def test_a_result_without_rows_tensors_and_figures_is_whole(folder):
    write(folder, Result(measurements=()), {})
    assert is_finished(folder)
    assert read(folder).result.measurements == ()


def test_a_measurement_in_a_headline_is_read_back_as_such(folder):
    row = Measurement("auroc", 0.9, "base", ci_low=0.8, ci_high=0.95, layer=3)
    write(folder, dataclasses.replace(result(), headline={"auroc": row, "at layer": 3}), {})
    assert read(folder).result.headline == {"auroc": row, "at layer": 3}


def test_mark_holds_strict_json_even_for_an_undefined_headline(folder):
    write(folder, dataclasses.replace(result(), headline={"auroc": math.nan}), {})
    assert "NaN" not in (folder / "result.json").read_text()
    assert read(folder).result.headline == {"auroc": None}


# ---- completeness


def test_a_missing_folder_is_unfinished(folder):
    assert not is_finished(folder)
    with pytest.raises(StoreError, match="no finished result"):
        read(folder)


@pytest.mark.parametrize(
    "name",
    ["result.json", "measurements.parquet", "tensors.safetensors", "provenance.json"],
)
def test_a_lost_file_makes_the_folder_unfinished(folder, name):
    write(folder, result(), {})
    assert is_finished(folder)
    (folder / name).unlink()
    assert not is_finished(folder)


def test_a_cut_file_makes_the_folder_unfinished(folder):
    write(folder, result(), {})
    path = folder / "measurements.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_finished(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 999, "files": {}}'])
def test_a_strange_mark_makes_the_folder_unfinished(folder, text):
    write(folder, result(), {})
    (folder / "result.json").write_text(text)
    assert not is_finished(folder)


def test_a_flipped_byte_is_named(folder):
    write(folder, result(), {})
    path = folder / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"tensors\.safetensors is damaged"):
        read(folder)


@pytest.mark.parametrize("name", ["measurements.parquet", "provenance.json", "figures/"])
def test_without_tensors_what_is_read_is_checked_all_the_same(folder, name):
    write(folder, result(), {})
    path = folder / name
    path = next(path.iterdir()) if path.is_dir() else path
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StoreError, match=f"{path.name} is damaged"):
        read(folder, tensors=False)


def test_without_tensors_the_rest_is_read(folder):
    write(folder, result(), {"seed": 7})
    (folder / "tensors.safetensors").write_bytes(b"")  # not even looked at
    back = read(folder, tensors=False)
    assert back.result.tensors == {}
    assert back.result.measurements[0] == result().measurements[0]
    assert back.result.figures == result().figures
    assert (back.result.headline, back.result.warnings) == (result().headline, result().warnings)
    assert (back.provenance, len(back.digest)) == ({"seed": 7}, 64)


def test_a_file_that_the_mark_does_not_list_is_not_read(folder):
    write(folder, result(), {})
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"notes\.txt is damaged"):
        records.read_file(folder, records.read_mark(folder), "notes.txt")


# ---- where a sweep's jobs are


def test_jobs_are_where_they_were_noted_unless_they_lie_beside_their_sweep(tmp_path):
    original, sweep = job().folder(tmp_path / "out"), tmp_path / "out" / "sweeps" / "s"
    write(original, result(), {})
    assert records.locate(sweep, original) == original
    assert records.locate(tmp_path / "else" / "sweeps" / "s", original) == original
    copied = job().folder(tmp_path / "copy")
    write(copied, result(), {})
    assert records.locate(tmp_path / "copy" / "sweeps" / "s", original) == copied


def test_a_sweep_seen_from_within_finds_its_jobs(tmp_path, monkeypatch):
    write(job().folder(tmp_path / "out"), result(), {})
    sweep = tmp_path / "out" / "sweeps" / "s"
    sweep.mkdir(parents=True)
    monkeypatch.chdir(sweep)
    found = records.locate(Path(), job().folder(Path("out")))
    assert found.resolve() == job().folder(tmp_path / "out").resolve()


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from olmo_stages import atomic, records
from olmo_stages.types import Measurement, Result
calls = 0
real = getattr({module}, "{name}")
def dies(*arguments, **options):
    global calls
    calls += 1
    if calls == {call}:
        os._exit(9)
    return real(*arguments, **options)
{module}.{name} = dies
records.write(Path(sys.argv[1]), Result((Measurement("auroc", 0.25, "x"),)), {{}})
"""


def write_and_die(folder, module, name, call):
    code = KILLED.format(module=module, name=name, call=call)
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 9


@pytest.mark.parametrize("call", [1, 5])
def test_a_killed_writer_leaves_nothing_that_is_read(folder, call):
    write_and_die(folder, "atomic", "_write_durably", call)
    assert not is_finished(folder)
    assert not folder.exists()


# Path.rename when an older result is there: 1 new onto old (refused), 2 old aside, 3 new in.
@pytest.mark.parametrize("call", [2, 3])
def test_a_writer_killed_while_overwriting_leaves_the_old_result(folder, call):
    write(folder, result(0.75), {})
    write_and_die(folder, "Path", "rename", call)
    assert is_finished(folder)
    assert read(folder).result.measurements[0].value == 0.75


def test_the_next_writer_clears_what_a_killed_one_left(folder):
    write_and_die(folder, "atomic", "_write_durably", 3)
    assert len(list(folder.parent.iterdir())) == 1
    write(folder, result(), {})
    assert list(folder.parent.iterdir()) == [folder]


def test_overwriting_replaces_the_result_and_keeps_what_others_put_there(folder):
    write(folder, result(0.75), {})
    (folder / "notes.txt").write_text("mine")
    (folder / "tracking.json").write_text("{}")
    write(folder, dataclasses.replace(result(0.5), figures={}), {})
    assert read(folder).result.measurements[0].value == 0.5
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "tracking.json").exists()
    assert not (folder / "figures").exists()
    assert list(folder.parent.iterdir()) == [folder]


def test_digest_of_the_files_follows_the_numbers_only(folder):
    digests = []
    for value, seed in [(0.75, 1), (0.75, 2), (0.5, 1)]:
        write(folder, result(value), {"seed": seed})
        digests.append(read(folder).digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write") as caught:
        write(tmp_path / "file" / "result", result(), {})
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_leaves_the_old_result(folder, monkeypatch):
    write(folder, result(0.75), {})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("olmo_stages.atomic._write_durably", full)
    with pytest.raises(StoreError, match="No space left on device"):
        write(folder, result(0.5), {})
    assert read(folder).result.measurements[0].value == 0.75
    assert list(folder.parent.iterdir()) == [folder]


def test_records_import_neither_torch_nor_wandb():
    code = "import sys, olmo_stages.records; print('torch' in sys.modules, 'wandb' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
