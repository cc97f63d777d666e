import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from olmo_stages.activations import entry as entry_module
from olmo_stages.activations import files, reading, upkeep
from olmo_stages.activations.entry import read_entry
from olmo_stages.activations.store import Store, is_entry_folder
from olmo_stages.errors import StoreError
from olmo_stages.models.captures import Capture

PROCESS = """
    import os, signal, sys, time
    from pathlib import Path

    sys.path.insert(0, {here!r})
    from conftest import build_examples
    from olmo_stages.activations import entry, files
    from olmo_stages.activations.extraction import Source
    from olmo_stages.activations.store import Store
    from olmo_stages.data.dataset import Dataset
    from olmo_stages.models.compute import Compute
    from olmo_stages.types import Stage

    stage = Stage("mine", "custom", {checkpoint!r})
    store = Store(Path({root!r}), heartbeat_s={heartbeat_s}, shard_examples=4)
    compute = Compute("cpu", "float32", 64, 1)
    data = Dataset("toy", build_examples(), "raw")
    source = Source(data, compute, Path({cache!r}), store=store)
    {before}
    source(stage)
    print(source.forward_passes[stage])
"""

# The third file (two shards are whole) is left half-written by a SIGKILL.
KILL = """
    from olmo_stages import atomic
    written = []
    real = atomic._write_durably
    def write(path, content):
        if path.name.startswith(".part"):
            written.append(path)
        if len(written) == 3:
            path.write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, content)
    atomic._write_durably = write
"""

# Each shard takes long enough for this process, which waits for the line, to take its share.
SLOWLY = """
    real = files.write_digested
    def write_digested(*args):
        time.sleep(0.3)
        return real(*args)
    files.write_digested = write_digested
    import olmo_stages.models.loading
    print("ready", flush=True)
"""


def start(checkpoint, tmp_path, store, before="", **names):
    script = textwrap.dedent(PROCESS).format(
        here=str(Path(__file__).parent),
        checkpoint=str(checkpoint),
        root=str(store.root),
        cache=str(tmp_path / "cache"),
        heartbeat_s=store.heartbeat_s,
        before=textwrap.dedent(before).strip().format(**names) if before else "",
    )
    root = str(Path(entry_module.__file__).parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return int(out)


def folder_of(store):
    (manifest,) = store.root.glob("*/*/*/manifest.json")
    return manifest.parent


@pytest.fixture(scope="session")
def killed_store(checkpoint, tmp_path_factory):
    """A store whose only writer was killed in the middle of its third shard."""
    root = tmp_path_factory.mktemp("killed")
    store = Store(root / "store", heartbeat_s=0.3, shard_examples=4)
    process = start(checkpoint, root, store, KILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, err
    return store


@pytest.fixture
def killed(killed_store, tmp_path):
    root = shutil.copytree(killed_store.root, tmp_path / "store")
    return dataclasses.replace(killed_store, root=root)


def test_a_killed_writer_leaves_nothing_readable(killed):
    (folder,) = filter(is_entry_folder, killed.root.glob("*/*/*"))
    assert len(list(folder.glob("part-*.safetensors"))) == 2
    assert len(list(folder.glob(".*.tmp"))) == 1
    assert read_entry(folder) is None
    (row,) = upkeep.ls(killed)
    assert row.state in {upkeep.UNFINISHED, upkeep.LOCKED}


def test_finished_shards_of_a_killed_writer_are_used(killed, make_source, stage, tmp_path):
    source = make_source(where=killed)
    begun = time.monotonic()
    found = source(stage)
    # 11 examples in shards of 4: only the third is computed.
    assert source.forward_passes[stage] == 1
    assert time.monotonic() - begun < 20  # the dead holder's lock does not block for long
    fresh = make_source(where=dataclasses.replace(killed, root=tmp_path / "fresh"))
    assert np.array_equal(fresh(stage).values, found.values)
    assert fresh.forward_passes[stage] == 3


def test_a_damaged_shard_of_a_killed_writer_is_not_used(killed, make_source, stage):
    flip(next(killed.root.glob("*/*/*/part-00000.*.safetensors")))
    source = make_source(where=killed)
    source(stage)
    assert source.forward_passes[stage] == 2


def test_two_processes_compute_once(checkpoint, tmp_path, store, make_source, stage, monkeypatch):
    # Nobody dies here, and imports on a busy machine may hold Python's lock for a second.
    store = dataclasses.replace(store, heartbeat_s=5.0)
    real = files.write_digested
    monkeypatch.setattr(files, "write_digested", lambda *its: time.sleep(0.3) or real(*its))
    source = make_source(where=store)
    other = start(checkpoint, tmp_path, store, SLOWLY)
    assert other.stdout.readline() == "ready\n"
    source(stage)
    assert source.forward_passes[stage] + finish(other) == 3


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("pattern", ["part-00001.*", "tokens.*", "manifest.json"])
def test_a_flipped_byte_is_detected_and_named(make_source, stage, store, pattern):
    make_source()(stage)
    (path,) = folder_of(store).glob(pattern)
    if pattern == "manifest.json":
        path.write_text(path.read_text().replace('"e7"', '"e8"'))
    else:
        flip(path)
    with pytest.raises(StoreError, match=f"{path.name} is damaged.*delete the folder"):
        make_source()(stage)
    (row,) = upkeep.verify(store)
    assert row.state == upkeep.DAMAGED
    assert path.name in row.problem


def test_a_missing_shard_is_named(make_source, stage, store):
    make_source()(stage)
    (path,) = folder_of(store).glob("part-00001.*")
    path.unlink()
    with pytest.raises(StoreError, match=f"{path.name} cannot be read"):
        make_source()(stage)


def test_a_sound_store_verifies(make_source, stage, store):
    make_source()(stage)
    assert [row.state for row in upkeep.verify(store)] == [upkeep.COMPLETE]


def test_an_entry_without_manifest_is_computed_again(make_source, stage, store):
    make_source()(stage)
    (folder_of(store) / "manifest.json").unlink()
    source = make_source()
    source(stage)
    assert source.forward_passes[stage] == 0  # its shards were whole
    assert folder_of(store)


def test_an_entry_of_a_later_version_is_not_read(make_source, stage, store, monkeypatch):
    monkeypatch.setattr(entry_module, "FORMAT_VERSION", entry_module.FORMAT_VERSION + 1)
    make_source()(stage)
    monkeypatch.undo()
    assert read_entry(folder_of(store)) is None


def test_the_manifest_holds_the_inputs_of_the_key(make_source, stage, store):
    found = make_source()(stage)
    manifest = json.loads((folder_of(store) / "manifest.json").read_text())
    assert manifest["pass"]["weights"] == found.model_digest
    assert manifest["pass"]["dtype"] == "float32"
    assert folder_of(store).name == manifest["entry_key"] == found.key
    assert manifest["versions"]["transformers"]
    assert folder_of(store).parent.name == manifest["pass_key"]


@pytest.mark.usefixtures("thrifty")
def test_the_tensors_are_plain_safetensors(make_source, stage, store):
    from safetensors.numpy import load_file

    values = make_source()(stage, layers=(2,)).values
    manifest = json.loads((folder_of(store) / "manifest.json").read_text())
    shard = load_file(folder_of(store) / manifest["shards"][0]["name"])
    assert list(shard) == ["resid_post/last/layer.02"]
    assert np.array_equal(shard["resid_post/last/layer.02"], values[0][manifest["order"][:4]])


def test_a_store_that_cannot_be_written_is_one_line(make_source, stage, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"choose another folder") as caught:
        make_source(where=Store(tmp_path / "file" / "store"))(stage)
    assert "\n" not in str(caught.value)


def full(*_args):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_one_line_and_leaves_no_rubbish(make_source, stage, store, monkeypatch):
    monkeypatch.setattr(Path, "replace", full)
    source = make_source()
    with pytest.raises(StoreError, match=r"No space left on device; free some space"):
        source(stage)
    monkeypatch.undo()
    assert source.forward_passes[stage] == 1
    assert not list(store.root.rglob("*.safetensors*"))


def test_a_full_disk_is_noticed_before_the_forward_pass(make_source, stage, monkeypatch):
    source = make_source()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device; free some space"):
        source(stage)
    assert source.forward_passes[stage] == 0


@pytest.mark.usefixtures("thrifty")
def test_a_lock_that_stays_held_is_a_warning_only(make_source, stage, store):
    impatient = dataclasses.replace(store, lock_timeout_s=0.2)
    source = make_source(where=impatient)
    work = source._work(stage)
    folder = store.writer(
        work.identity, (Capture("resid_post", "last"),), tuple(range(-1, 8))
    ).folder
    with (
        store.lease(folder, "part-00000").claim(),
        pytest.warns(RuntimeWarning, match="computing all the same"),
    ):
        found = source(stage)
    assert found.values.shape[0] == 8


def test_a_free_lock_warns_of_nothing(make_source, stage, store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_source(where=dataclasses.replace(store, lock_timeout_s=0.2))(stage)


@pytest.mark.usefixtures("thrifty")
def test_ls_says_what_is_there(make_source, stage, store):
    make_source()(stage, site="attn_out", position="mean", layers=(1, 2))
    (row,) = upkeep.ls(store)
    assert (row.state, row.stage, row.captures) == ("complete", "mine", ("attn_out/mean",))
    assert (row.n_layers, row.n_examples) == (2, 11)
    assert row.n_bytes > 11 * 2 * 32 * 4
    assert abs(row.used - time.time()) < 60


def test_ls_of_no_store_is_empty(tmp_path):
    assert upkeep.ls(Store(tmp_path / "nowhere")) == []


def test_an_entry_removed_between_finding_and_reading_is_computed_again(
    make_source, stage, monkeypatch
):
    make_source()(stage)
    real = reading.open_entry
    calls = []

    def open_entry(entry, capture):
        calls.append(entry.folder)
        if len(calls) == 1:
            shutil.rmtree(entry.folder)
        return real(entry, capture)

    monkeypatch.setattr(reading, "open_entry", open_entry)
    source = make_source()
    assert source(stage).values.shape == (8, 11, 32)
    assert source.forward_passes[stage] == 3
