import dataclasses
import json
import logging
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from olmo_stages import results
from olmo_stages.errors import ConfigError
from olmo_stages.expected import Expected, write_expected
from olmo_stages.records import Job, read, write
from olmo_stages.report.across import assemble
from olmo_stages.statuses import Status, read_statuses, write_status
from olmo_stages.types import Measurement, Result, Stage
from tests.report import swept

BASE = Stage("base", "tiny", "miniature", revision="stage1-step10")
SFT = Stage("think_sft", "tiny", "miniature", parent=BASE)
DPO = Stage("think_dpo", "7b", "allenai/dpo", parent=SFT)
WEIGHTS = {BASE.label: "b" * 64, SFT.label: "5" * 64, DPO.label: "d" * 64}
ROWS = (
    Measurement("auroc", 0.75, SFT.label, layer=3, variant="probe", ci_low=0.7, n=80, n_groups=16),
    Measurement("auroc", 0.5, BASE.label, layer=3, variant="reference"),
    Measurement("auroc", math.nan, SFT.label, variant="baseline:length"),
    Measurement("difference", 0.25, SFT.label, BASE.label, layer=3, reference_layer=2),
    Measurement("floor", 0.1, SFT.label, f"{SFT.label} (random)", layer=-1),
)


def job(stage=SFT, reference=BASE, analysis="probe", seed=0):
    identity = {"seed": seed, "options": {"position": "last", "layers": None}}
    return Job(analysis, stage, reference, "truth", identity)


def finish(sweep, it, rows=ROWS, name=None):
    """A finished job in OUTPUTS, noted in a sweep of it."""
    outputs = sweep.parent.parent
    folder = it.folder(outputs)
    sides = [side.label for side in (it.stage, it.reference) if side is not None]
    record = {
        "job": it.describe(),
        "data_digest": "da7a",
        "model_digests": {label: WEIGHTS.get(label, "?") for label in sides},
        "config": {},
    }
    write(folder, Result(tuple(rows)), record)
    noted = folder.relative_to(outputs.parent)
    name = name or f"analysis={it.analysis},model={it.stage.name},seed={it.identity['seed']}"
    write_status(sweep, Status(name, "ok", folder=str(noted), about=it.about()))
    return folder


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """An empty sweep, seen from the folder it is launched in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs" / "sweeps" / "s"


# ---- measurements


def test_every_number_is_a_row_with_all_that_is_known_of_it(sweep):
    it = job()
    folder = finish(sweep, it)
    frame = results.load(sweep)
    assert list(frame.columns) == list(results.COLUMNS)
    assert len(frame) == len(ROWS)
    for field in dataclasses.fields(Measurement):
        for found, row in zip(frame[field.name], ROWS, strict=True):
            given = getattr(row, field.name)
            missing = given is None or given != given
            assert pd.isna(found) if missing else found == given, field.name
    same = {
        "kind": "measurement",
        "state": "ok",
        "error": "",
        "sweep": "s",
        "job": "analysis=probe,model=think_sft,seed=0",
        "analysis": "probe",
        "data": "truth",
        "options": '{"layers":null,"position":"last"}',
        "job_stage": SFT.label,
        "job_reference": BASE.label,
        "data_digest": "da7a",
        "job_digest": it.digest,
        "result_digest": read(folder).digest,
        "folder": str(folder),
    }
    assert all(set(frame[name]) == {value} for name, value in same.items())


def test_a_row_about_the_reference_is_labelled_with_what_the_reference_is(sweep):
    rows = [
        dataclasses.replace(
            it,
            stage=it.stage.replace(SFT.label, DPO.label),
            reference=it.reference.replace(SFT.label, DPO.label),
        )
        for it in ROWS
    ]
    finish(sweep, job(DPO, BASE), rows)
    frame = results.load(sweep)
    about = frame[["size", "revision", "source", "model_digest"]].to_numpy().tolist()
    own = ["7b", "main", "allenai/dpo", "d" * 64]
    assert about == [own, ["tiny", "stage1-step10", "miniature", "b" * 64], own, own, own]
    names = ["reference_size", "reference_revision", "reference_source", "reference_model_digest"]
    others = frame[names].to_numpy().tolist()
    none = ["", "", "", ""]
    # An untrained model of the same shape has other weights, which nobody noted.
    untrained = ["7b", "main", "allenai/dpo", ""]
    assert others == [none, none, none, ["tiny", "stage1-step10", "miniature", "b" * 64], untrained]


def test_what_one_label_for_two_models_is_about_is_not_guessed(sweep):
    twin = dataclasses.replace(BASE, source="mine", size="custom")
    finish(sweep, job(twin, BASE), ROWS[1:2])
    frame = results.load(sweep)
    assert frame[["size", "source", "model_digest"]].to_numpy().tolist() == [["", "", ""]]
    assert frame["value"].tolist() == [0.5]


def test_numbers_and_texts_have_their_own_types(sweep):
    finish(sweep, job())
    types = results.load(sweep).dtypes.astype(str).to_dict()
    whole = {"layer", "reference_layer", "n", "n_groups", "seed"}
    floats = {"value", "ci_low", "ci_high", "null", "p", "p_max", "q"}
    assert {name for name, it in types.items() if it == "Int64"} == whole
    assert {name for name, it in types.items() if it == "float64"} == floats
    assert {it for name, it in types.items() if name not in whole | floats} == {"str"}


# ---- jobs without a number


def row(frame, name):
    (found,) = frame[frame["job"] == name].to_dict("records")
    return found


NUMBERS = [
    "value",
    "ci_low",
    "ci_high",
    "null",
    "p",
    "p_max",
    "q",
    "layer",
    "n",
    "n_groups",
    "seed",
]


@pytest.mark.parametrize("state", ["failed", "killed", "running", "missing"])
def test_a_job_that_did_not_finish_is_a_row_with_state_and_reason(sweep, state):
    finish(sweep, job())
    overrides = ["analysis=cka", "model=think_dpo", "size=tiny", "reference=base"]
    if state == "missing":
        write_expected(sweep, [Expected("x", overrides)])
    else:
        written = "running" if state == "killed" else state
        path = write_status(sweep, Status("x", written, error="no\ndisk", overrides=overrides))
    if state == "killed":
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"writer": {**content["writer"], "pid": 2**22 + 1}}))
    frame = results.load(sweep)
    assert len(frame) == len(ROWS) + 1
    found = row(frame, "x")
    reason = {"missing": "not started", "killed": "killed before it finished"}.get(state, "no disk")
    assert (found["kind"], found["state"], found["error"]) == ("empty", state, reason)
    assert (found["sweep"], found["folder"]) == ("s", "")
    # What its settings tell of it.
    assert (found["analysis"], found["stage"], found["reference"]) == ("cka", "think_dpo", "base")
    assert (found["job_stage"], found["job_reference"]) == ("think_dpo", "base")
    assert (found["size"], found["revision"]) == ("tiny", "main")
    assert (found["reference_size"], found["reference_revision"]) == ("tiny", "main")
    assert all(pd.isna(found[name]) for name in NUMBERS)


@pytest.mark.parametrize("harm", ["flip", "cut", "lose", "gone", "foreign", "old"])
def test_a_damaged_result_is_a_row_that_says_so(sweep, harm):
    finish(sweep, job(DPO, None, seed=1), ROWS[:1])
    folder = finish(sweep, job())
    path = folder / "measurements.parquet"
    content = path.read_bytes()
    if harm == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "cut":
        path.write_bytes(content[:-1])
    elif harm == "lose":
        (folder / "tensors.safetensors").unlink()  # its job would be run again
    elif harm == "gone":
        shutil.rmtree(folder)
    elif harm == "foreign":
        write(folder, Result(ROWS), {"job": {"who": "knows"}})
    else:
        mark = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(mark | {"schema": 1}))
    frame = results.load(sweep)
    assert len(frame) == 2
    found = row(frame, "analysis=probe,model=think_sft,seed=0")
    assert (found["kind"], found["state"]) == ("empty", "damaged")
    assert "\n" not in found["error"]
    assert "run its job again" in found["error"] or harm in {"gone", "foreign"}
    assert "force=true" not in found["error"]  # the job sees by itself that it is to be done
    assert (found["analysis"], found["data"]) == ("probe", "truth")
    assert (found["stage"], found["reference"]) == (SFT.label, BASE.label)
    assert found["revision"] == "main"
    assert found["reference_revision"] == "stage1-step10"
    assert all(pd.isna(found[name]) for name in NUMBERS)
    assert row(frame, "analysis=probe,model=think_dpo,seed=1")["state"] == "ok"


def test_a_job_that_measured_nothing_is_a_row(sweep):
    finish(sweep, job(), ())
    (found,) = results.load(sweep).to_dict("records")
    assert (found["kind"], found["state"]) == ("empty", "ok")
    assert found["error"] == "it measured nothing"
    assert found["job_digest"] == job().digest


def test_a_sweep_of_which_nothing_started_has_only_such_rows(sweep):
    write_expected(sweep, [Expected("a", ["model=base"]), Expected("b", ["model=think_sft"])])
    frame = results.load(sweep)
    assert frame["state"].tolist() == ["missing", "missing"]
    assert str(frame["layer"].dtype) == "Int64"


# ---- the same job several times


def test_a_job_of_two_sweeps_is_there_once_and_keeps_both_names(sweep):
    other = sweep.with_name("t")
    finish(sweep, job())
    finish(other, job())
    finish(other, job(DPO, SFT), ROWS[:1])
    frame = results.load(sweep, other)
    assert frame["sweep"].tolist() == ["s, t"] * len(ROWS) + ["t"]
    assert len(results.load(sweep, sweep, Path("outputs/sweeps/../sweeps/s"))) == len(ROWS)


def test_a_job_twice_in_a_sweep_is_there_once(sweep):
    finish(sweep, job(), name="a")
    finish(sweep, job(), name="b")
    assert results.load(sweep)["job"].tolist() == ["a"] * len(ROWS)


def test_sweeps_of_one_name_stay_apart(sweep, tmp_path):
    other = tmp_path / "elsewhere" / "sweeps" / "s"
    finish(sweep, job())
    finish(other, job(DPO, SFT), ROWS[:1])
    assert set(results.load(sweep, other)["sweep"]) == {str(sweep), str(other)}


def test_two_results_of_one_job_that_differ_are_not_mixed(sweep, tmp_path, caplog):
    other = tmp_path / "elsewhere" / "sweeps" / "t"
    first = finish(sweep, job())
    second = finish(other, job(), [dataclasses.replace(ROWS[0], value=0.1)])
    with caplog.at_level(logging.WARNING):
        frame = results.load(sweep, other)
    assert frame["value"].dropna().tolist() == [0.75, 0.5, 0.25, 0.1]
    assert set(frame["folder"]) == {str(first)}
    (line,) = [it.getMessage() for it in caplog.records]
    assert str(first) in line
    assert str(second) in line
    # The control: the same numbers in two places are no matter.
    caplog.clear()
    finish(other, job())
    assert len(results.load(sweep, other)) == len(ROWS)
    assert not caplog.records


def test_what_failed_in_one_sweep_and_is_done_in_another_is_done(sweep):
    other = sweep.with_name("t")
    name = "analysis=probe,model=think_sft,seed=0"
    finish(other, job())
    overrides = ["analysis=probe", "model=think_sft", "seed=0"]
    write_status(sweep, Status(name, "failed", error="no", overrides=overrides))
    assert set(results.load(sweep, other)["state"]) == {"ok"}
    assert results.load(sweep)["state"].tolist() == ["failed"]
    # Another size is another job, be the rest the same.
    write_status(sweep, Status(name, "failed", overrides=[*overrides, "size=7b"]))
    assert set(results.load(sweep, other)["state"]) == {"failed", "ok"}


def test_a_damaged_result_gives_way_to_a_sound_copy_of_it(sweep, tmp_path):
    other = tmp_path / "copy" / "sweeps" / "s"
    folder = finish(sweep, job())
    finish(other, job())
    (folder / "measurements.parquet").unlink()
    frame = results.load(sweep, other)
    assert set(frame["state"]) == {"ok"}
    assert set(frame["sweep"]) == {f"{sweep}, {other}"}


# ---- several jobs together


@pytest.fixture
def together(sweep):
    """Two jobs, and what they say together."""
    jobs = [job(), job(DPO, SFT)]
    finish(sweep, jobs[0])
    finish(sweep, jobs[1], ROWS[:1])
    return sweep, put_together(sweep, jobs)


def put_together(sweep, jobs, folder=None):
    folder = folder or sweep / "across" / "probe.truth"
    rows = (Measurement("ratio", 2.0, DPO.label, SFT.label), Measurement("ratio", 1.0, "x"))
    key = {"analysis": "probe", "data": "truth", "size": "7b", "options": {"a": 1}}
    about = [
        {"digest": it.digest, "result": read(it.folder(sweep.parent.parent)).digest} for it in jobs
    ]
    digests = {it.label: WEIGHTS[it.label] for it in (BASE, SFT, DPO)}
    record = {"job": {"across": key, "jobs": about}, "data_digest": "da7a"}
    write(folder, Result(rows), {**record, "model_digests": digests})
    return folder


def test_numbers_of_several_jobs_are_marked_as_such(together):
    sweep, folder = together
    frame = results.load(sweep)
    assert frame["kind"].tolist() == ["measurement"] * 6 + ["across"] * 2
    found = frame[frame["kind"] == "across"]
    assert set(found["job"]) == {"probe.truth"}
    assert set(found["state"]) == {"ok"}
    assert set(found["sweep"]) == {"s"}
    assert set(found["folder"]) == {str(folder)}
    assert set(found["options"]) == {'{"a":1}'}
    assert set(found["job_stage"]) == {""}
    first = found.iloc[0]
    assert (first["size"], first["source"], first["model_digest"]) == (
        "7b",
        "allenai/dpo",
        "d" * 64,
    )
    assert (first["reference_size"], first["reference_model_digest"]) == ("tiny", "5" * 64)
    assert set(found.iloc[1][["size", "revision", "model_digest"]]) == {""}


def test_numbers_about_results_that_were_replaced_say_so(together):
    sweep, _ = together
    finish(sweep, job(), ROWS[:2])
    found = results.load(sweep)
    found = found[found["kind"] == "across"]
    assert found["value"].tolist() == [2.0, 1.0]
    assert set(found["state"]) == {"stale"}
    assert "olmo-stages report" in found["error"].iloc[0]


def test_numbers_about_a_job_that_is_gone_say_so(together):
    sweep, _ = together
    shutil.rmtree(job().folder(sweep.parent.parent))
    found = results.load(sweep)
    assert set(found[found["kind"] == "across"]["state"]) == {"stale"}


def test_a_damaged_assembled_result_is_a_row(together):
    sweep, folder = together
    (folder / "measurements.parquet").unlink()
    found = row(results.load(sweep), "probe.truth")
    assert (found["kind"], found["state"], found["sweep"]) == ("empty", "damaged", "s")


def test_what_several_sweeps_say_together_takes_the_place_of_what_each_says(sweep, tmp_path):
    other = sweep.with_name("t")
    jobs = [job(), job(DPO, SFT)]
    finish(sweep, jobs[0])
    finish(other, jobs[1], ROWS[:1])
    put_together(sweep, jobs[:1])
    place = tmp_path / "report" / "across" / "probe.truth"
    put_together(sweep, jobs, place)
    frame = results.gather([sweep, other], [place])
    found = frame[frame["kind"] == "across"]
    assert set(found["sweep"]) == {"s, t"}
    assert set(found["folder"]) == {str(place)}
    assert set(found["state"]) == {"ok"}
    assert "across" not in set(results.gather([sweep, other], [])["kind"])
    assert set(results.gather([sweep, other])["folder"]) > {str(sweep / "across/probe.truth")}


def test_results_are_read_by_themselves_too(together):
    sweep, folder = together
    alone = results.load(job().folder(sweep.parent.parent))
    whole = results.load(sweep)
    both = results.load(folder, job().folder(sweep.parent.parent))
    own = whole[whole["job_digest"] == job().digest]
    assert alone["value"].equals(own["value"].reset_index(drop=True))
    assert set(alone["sweep"]) == set(alone["job"]) == {""}
    assert both["kind"].tolist() == ["across"] * 2 + ["measurement"] * len(ROWS)
    assert set(both["state"]) == {"ok"}


# ---- real analyses


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A sweep of real analyses, one job of which failed and one of which never started."""
    outputs = tmp_path_factory.mktemp("study") / "outputs"
    chosen = [it for it in swept.stages() if it.name.startswith(("think_sft", "rl_zero_code"))]
    folder = swept.sweep(outputs, chosen=chosen, names=("cka", "cosine"))
    write_status(folder, Status("analysis=probe,model=mine", "failed", error=swept.HOSTILE))
    return folder


def test_all_rows_of_real_analyses_are_there(planted, monkeypatch):
    monkeypatch.chdir(planted.parents[2])
    frame = results.load(planted)
    files = [*planted.parents[1].glob("c*/*/*/measurements.parquet")]
    files += planted.glob("across/*/measurements.parquet")
    assert len(frame) == sum(len(pd.read_parquet(it)) for it in files) + 1
    assert len(frame) > 1000
    assert set(frame["kind"]) == {"measurement", "across", "empty"}
    assert (frame["state"] == "ok").sum() == len(frame) - 1
    numbers = frame[frame["kind"] != "empty"]
    known = numbers[~numbers["stage"].str.endswith("(random)")]
    assert (known["model_digest"].str.len() == 64).all()
    assert row(frame, "analysis=probe,model=mine")["error"] == swept.HOSTILE


def test_what_is_put_together_is_current_until_a_job_is_done_anew(planted, tmp_path, monkeypatch):
    outputs = tmp_path / "outputs"
    shutil.copytree(planted.parents[1], outputs)
    monkeypatch.chdir(tmp_path)
    sweep = outputs / "sweeps" / planted.name
    states = results.load(sweep)
    assert set(states[states["kind"] == "across"]["state"]) == {"ok"}
    folder = next((outputs / "cosine").glob("*/*"))
    found = read(folder)
    write(folder, dataclasses.replace(found.result, headline={}, figures={}), found.provenance)
    states = results.load(sweep)
    stale = states[(states["kind"] == "across") & (states["state"] == "stale")]
    assert set(stale["analysis"]) == {"cosine"}
    assemble(sweep, read_statuses(sweep))
    states = results.load(sweep)
    assert set(states[states["kind"] == "across"]["state"]) == {"ok"}


# ---- as a file


@pytest.fixture
def saved(together, tmp_path):
    sweep, _ = together
    write_status(sweep, Status("x", "failed", error="no", overrides=["model=base"]))
    frame = results.load(sweep)
    path = tmp_path / "report" / "measurements.parquet"
    results.save(frame, path)
    return frame, path


def test_what_is_saved_is_loaded_again(saved):
    frame, path = saved
    pd.testing.assert_frame_equal(results.load(path), frame)
    assert [it.name for it in path.parent.iterdir()] == [path.name]


def test_rows_of_it_in_any_order_are_saved_and_loaded_again(saved, tmp_path):
    frame, _ = saved
    some = frame.sort_values(["metric", "value"]).iloc[::-2]
    results.save(some, tmp_path / "some.parquet")
    found = results.load(tmp_path / "some.parquet")
    pd.testing.assert_frame_equal(found, some.reset_index(drop=True))
    results.save(frame[:0], tmp_path / "none.parquet")
    none = results.load(str(tmp_path / "none.parquet"))
    pd.testing.assert_frame_equal(none, frame[:0])


def test_a_file_beside_the_sweeps_it_was_made_of_changes_nothing(saved, together):
    frame, path = saved
    pd.testing.assert_frame_equal(results.load(path, together[0]), frame)
    pd.testing.assert_frame_equal(results.load(together[0], path), frame)


def test_an_undefined_number_is_not_the_same_as_none(saved):
    _, path = saved
    table = pq.read_table(path)
    values = dict(zip(table["job"].to_pylist(), table["value"].to_pylist(), strict=True))
    assert values["x"] is None
    nan = [it for it in table["value"].to_pylist() if it is not None and math.isnan(it)]
    assert len(nan) == 1
    assert not any(it is not None and math.isnan(it) for it in table["ci_low"].to_pylist())
    frame = results.load(path)
    assert frame[frame["value"].isna()]["kind"].tolist() == ["measurement", "empty"]


def test_every_reader_finds_the_same(saved):
    frame, path = saved
    alone = pd.read_parquet(path)
    pd.testing.assert_frame_equal(alone, frame)
    polars = pl.read_parquet(path)
    assert polars.columns == list(frame.columns)
    assert polars["layer"].dtype == pl.Int64
    assert polars["layer"].to_list() == [None if pd.isna(it) else it for it in frame["layer"]]
    assert (polars["value"].null_count(), polars["value"].is_nan().sum()) == (1, 1)
    found = duckdb.sql(f"select sum(n), count(value) from '{path}'").fetchall()
    assert found == [(frame["n"].sum(), len(frame) - 1)]


def test_a_file_says_what_it_is(saved):
    notes = pq.read_schema(saved[1]).metadata
    assert notes[b"olmo_stages.schema"] == str(results.SCHEMA).encode()
    assert notes[b"olmo_stages.version"]
    assert re.match(rb"\d{4}-\d\d-\d\dT", notes[b"olmo_stages.made"])


def with_notes(path, **notes):
    table = pq.read_table(path)
    given = {f"olmo_stages.{name}".encode(): value for name, value in notes.items()}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **given}), path)


@pytest.mark.parametrize("version", ["0", "2"])
def test_a_table_of_another_version_is_refused(saved, version):
    with_notes(saved[1], schema=version)
    with pytest.raises(ConfigError, match=f"has version {version}.*olmo-stages report") as caught:
        results.load(saved[1])
    assert "\n" not in str(caught.value)


def test_a_table_without_its_columns_is_refused(saved):
    table = pq.read_table(saved[1])
    pq.write_table(table.drop_columns(["job"]), saved[1])
    with pytest.raises(ConfigError, match="its columns are others"):
        results.load(saved[1])


def test_a_frame_of_other_columns_is_not_saved(saved, tmp_path):
    frame, _ = saved
    for odd in (frame.assign(mine=1), frame.drop(columns="p")):
        with pytest.raises(ConfigError, match=r"differs in (mine|p)$"):
            results.save(odd, tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match="not a table of measurements") as caught:
        results.save(frame.assign(layer="three"), tmp_path / "x.parquet")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.parquet").exists()


# ---- places


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere", ["nowhere does not exist", "OUTPUTS/sweeps/NAME"]),
        ("empty", ["empty holds no results", "OUTPUTS/sweeps/NAME"]),
        ("outputs", ["outputs is no sweep; give one or more of: outputs/sweeps/s"]),
        ("outputs/sweeps", ["give one or more of: outputs/sweeps/s"]),
        ("text.txt", ["text.txt is no parquet file"]),
        ("one.parquet", ["one.parquet is no table that olmo_stages.results.save wrote"]),
    ],
)
def test_a_place_without_results_is_one_line_that_says_what_would_do(sweep, place, words):
    folder = finish(sweep, job())
    Path("empty").mkdir()
    Path("text.txt").write_text("x")
    shutil.copy(folder / "measurements.parquet", "one.parquet")
    with pytest.raises(ConfigError) as caught:
        results.load(place)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_no_place_is_one_line():
    with pytest.raises(ConfigError, match="needs a place"):
        results.load()


def test_a_copied_study_is_read_from_the_copy(sweep, tmp_path, monkeypatch):
    finish(sweep, job())
    shutil.copytree(tmp_path / "outputs", tmp_path / "copy")
    copy = tmp_path / "copy" / "sweeps" / "s"
    monkeypatch.chdir(tmp_path)  # where the originals are
    frame = results.load(copy)
    assert set(frame["folder"]) == {str(job().folder(tmp_path / "copy"))}
    (job().folder(tmp_path / "copy") / "measurements.parquet").write_bytes(b"")
    assert results.load(copy)["state"].tolist() == ["damaged"]


# ---- what the documentation says

DOC = Path(__file__).parent.parent / "docs" / "results.md"


def test_every_column_is_documented_with_its_type(sweep):
    finish(sweep, job())
    frame = results.load(sweep)
    lines = [it.split("|")[1:3] for it in DOC.read_text().splitlines() if it.startswith("| `")]
    told = {
        name: kind.strip()
        for names, kind in lines
        for name in re.findall(r"`(\w+)`", names)
        if kind.strip() in {"text", "whole", "float"}
    }
    kinds = {"str": "text", "Int64": "whole", "float64": "float"}
    assert told == {name: kinds[str(it)] for name, it in frame.dtypes.items()}
    assert f"Version {results.SCHEMA} of the table" in DOC.read_text()


def test_every_example_of_the_documentation_runs(planted, tmp_path, monkeypatch):
    shutil.copytree(planted.parents[1], tmp_path / "outputs")
    (tmp_path / "outputs/sweeps" / planted.name).rename(tmp_path / "outputs/sweeps/NAME")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert len(examples) >= 3
    found = {}
    for example in examples:
        exec(example, found)
    assert set(found["undone"]["job"]) == {"analysis=probe,model=mine"}
    assert found["best"].shape[0] > 0
    # A layer without an interval may be noise, however small its cosine.
    (recipe,) = (it for it in examples if "best =" in it)
    frame = found["frame"]
    chosen = (frame["metric"] == "corrected_cosine") & (frame["variant"] == "raw")
    noise = frame[chosen].assign(value=-0.9, ci_low=float("nan"), ci_high=float("nan"))
    again = {**found, "frame": pd.concat([frame, noise], ignore_index=True)}
    exec(recipe, again)
    assert again["best"].sort("stage").equals(found["best"].sort("stage"))
    assert Path("cosine.html").stat().st_size > 1000


def test_a_notebook_needs_neither_torch_nor_wandb():
    code = "import sys, olmo_stages.results; print('torch' in sys.modules, 'wandb' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
