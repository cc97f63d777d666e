"""Jobs whose disk is full or only to be read: one line, and what was finished stays."""

import errno
import hashlib
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from olmo_stages import atomic, launch
from olmo_stages.activations.cleaning import Limits, gc
from olmo_stages.activations.store import default_store
from tests.disks import read_only_later, remount, small_disk

NORMS = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from olmo_stages.types import Measurement, Result

@dataclass(frozen=True)
class Norms:
    name: ClassVar[str] = "norms"
    needs_labels: ClassVar[bool] = False

    def __call__(self, stage, reference, activations, seed):
        a = activations(stage)
        norms = np.linalg.norm(a.values, axis=2).mean(1)
        rows = [Measurement("norm", float(v), stage.label, layer=i) for i, v in enumerate(norms)]
        return Result(tuple(rows), tensors={"all": a.values}, headline={"norm": rows[-1]})
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capfd, checkpoints):
    """Runs jobs of a small model; returns exit code and the lines of standard error.

    Those that show progress are left out.
    """
    (tmp_path / "conf" / "analysis").mkdir(parents=True)
    (tmp_path / "conf" / "analysis" / "norms.yaml").write_text("_target_: disk_norms.Norms\n")
    (tmp_path / "disk_norms.py").write_text(NORMS)
    texts = "\n".join(f"{number} + 4 = {number + 4}" for number in range(9))
    (tmp_path / "sums.csv").write_text(f"statement\n{texts}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    own = ["--config-dir", str(tmp_path / "conf"), "analysis=norms", "tracking=none"]
    own += ["model=custom", f"model.path={checkpoints[0]}", "reference=none", "report=false"]
    own += ["data=file", "data.path=sums.csv", "data.columns.text=statement"]
    own += ["data.unlabelled=true", "compute.threads=1"]

    def go(*arguments, cache="cache", outputs="outputs"):
        try:
            launch.main([*own, f"cache={cache}", f"outputs={outputs}", *arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code
        lines = capfd.readouterr().err.splitlines()
        return code, [line for line in lines if line.strip() and not line.endswith(" done")]

    return go


def results(root="outputs"):
    """Digests of what was measured, by folder."""
    return {
        mark.parent.name: hashlib.sha256((mark.parent / "measurements.jsonl").read_bytes()).digest()
        for mark in Path(root).rglob("result.json")
    }


def left_over(*roots):
    return [it for root in roots for it in Path(root).rglob("*") if it.name.endswith(".tmp")]


IN_STORE = ["part-00000.", "tokens.", "manifest.json"]
WRITES = ['"state": "running"', "command.json", *IN_STORE, "result.json", '"state": "ok"']
"""What a job writes, in its order."""


@contextmanager
def full_from(write, number):
    """The disk is full from one of these writes on; gives what it refused."""
    refused = []
    real = atomic._write_durably

    def write_durably(path, data):
        if refused or write in path.name or write.encode() in data:
            refused.append(path)
            path.write_bytes(data[: len(data) // 2])
            raise OSError(number, os.strerror(number))
        real(path, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "_write_durably", write_durably)
        yield refused


@pytest.mark.parametrize("write", WRITES)
def test_whatever_a_full_disk_refuses_is_one_line_and_nothing_is_torn(run, write):
    with full_from(write, errno.ENOSPC) as refused:
        code, (line,) = run()
    assert code == 1
    assert refused
    setting = "cache=DIR" if write in IN_STORE else "outputs=DIR"
    said = "No space left on device; free some space or choose another folder with"
    assert f": {said} {setting}" in line
    assert ("only the analysis is redone" in line) == (write == "result.json")
    assert len(results()) == (write == WRITES[-1])
    assert left_over("outputs", "cache") == []
    assert run() == (0, [])
    assert len(results()) == 1


def test_a_quota_is_told_from_a_full_disk(run):
    with full_from("part-00000.", errno.EDQUOT):
        code, (line,) = run()
    assert code == 1
    assert "Disk quota exceeded; free some of your quota or choose another folder" in line


def test_jobs_of_a_sweep_that_were_done_before_the_disk_was_full_are_kept(run, tmp_path):
    arguments = ["-m", f"seed={','.join(map(str, range(6)))}", "hydra/launcher=basic"]
    with small_disk(tmp_path / "disk", "100k") as disk:
        code, lines = run(*arguments, outputs=disk)
        kept = results(disk)
        assert code == 1
        assert 0 < len(kept) < 6
        assert not [line for line in lines if "Traceback" in line]
        refused = [line for line in lines if "No space left on device" in line]
        assert len(refused) >= 6 - len(kept)
        remount(disk, "size=2m")
        code, _ = run(*arguments, outputs=disk)
        assert code == 0
        assert len(results(disk)) == 6
        assert kept.items() <= results(disk).items()


def test_a_store_that_can_only_be_read_is_read(run, tmp_path):
    with read_only_later(tmp_path / "disk") as (disk, make_read_only):
        assert run(cache=disk)[0] == 0
        before = results()
        make_read_only()
        assert run(cache=disk, outputs="others") == (0, [])
        assert results("others") == before


def test_what_a_store_does_not_hold_that_can_only_be_read_is_one_line(run, tmp_path):
    with read_only_later(tmp_path / "disk") as (disk, make_read_only):
        make_read_only()
        code, (line,) = run(cache=disk)
    assert code == 1
    assert line.startswith(f"cannot write {disk}/activations/")
    assert line.endswith("make it writable or choose another folder with cache=DIR")


def test_room_is_made_on_a_disk_that_is_full(run, tmp_path):
    with small_disk(tmp_path / "disk", "200k") as disk:
        assert run(cache=disk)[0] == 0
        room = shutil.disk_usage(disk).free
        (disk / "other").write_bytes(b"x" * room)
        assert shutil.disk_usage(disk).free == 0
        (removed,) = gc(default_store(disk), Limits(max_bytes=0)).removed
        assert not removed.folder.exists()
        assert shutil.disk_usage(disk).free > 0
