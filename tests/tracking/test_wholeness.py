import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from olmo_stages.records import TRACKING
from olmo_stages.tracking import runs as wandb_runs
from olmo_stages.tracking.wholeness import becomes_whole, is_whole
from tests.disks import small_disk
from tests.tracking.test_tracking import finished, record, runs


@pytest.fixture(scope="module")
def offline_run(tmp_path_factory):
    """An offline run, ended by W&B itself."""
    import wandb

    place = tmp_path_factory.mktemp("run")
    settings = {"silent": True, "console": "off"}
    run = wandb.init(project="p", mode="offline", dir=place, settings=settings)
    for step in range(200):
        run.log({"a": step, "text": "x" * 500})
    run.finish()
    wandb.teardown()
    return Path(run.dir).parent


def test_an_ended_run_is_whole(offline_run):
    assert is_whole(offline_run)


@pytest.mark.parametrize("keep", [0, 7, 4096, 32768, 40000, -1])
def test_a_run_that_is_cut_is_not_whole(offline_run, tmp_path, keep):
    # A link to a log of W&B's service may lead nowhere, which an earlier test started elsewhere.
    place = shutil.copytree(offline_run, tmp_path / "run", symlinks=True)
    (file,) = place.glob("run-*.wandb")
    content = file.read_bytes()
    assert len(content) > 50000
    file.write_bytes(content[:keep])
    assert not is_whole(place)


def test_no_run_is_not_whole(tmp_path):
    assert not is_whole(tmp_path)


@pytest.fixture
def disk(tmp_path):
    """A folder `out` of 60 kB, on which an offline run has no room."""
    with small_disk(tmp_path / "out", "60k") as place:
        yield place


def test_a_copy_that_does_not_become_whole_is_not_noted_as_recorded(tmp_path, monkeypatch, caplog):
    job, result, folder = finished(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(wandb_runs, "becomes_whole", lambda _: False)
        record(tmp_path, job, result, folder)
    assert "is cut short: a full disk?" in caplog.text
    assert not (folder / TRACKING).exists()
    record(tmp_path, job, result, folder)
    assert (folder / TRACKING).exists()
    assert len(runs(tmp_path)) == 1


def test_what_a_full_disk_cut_is_not_noted_as_recorded(tmp_path, disk, caplog, monkeypatch):
    monkeypatch.setattr(wandb_runs, "becomes_whole", partial(becomes_whole, patience_s=0.5))
    job, result, folder = finished(tmp_path)
    # However much is missing at the end: sooner or later all of it fits.
    for used in (18, 14, 10, 6):
        (disk / "other").write_bytes(b"x" * used * 1000)
        record(tmp_path, job, result, folder)
        if (folder / TRACKING).exists():
            assert [is_whole(run) for run in runs(tmp_path)] == [True]
            break
        assert "the copy is not whole" in caplog.text
        shutil.rmtree(disk / "wandb")
    (disk / "other").unlink()
    record(tmp_path, job, result, folder)
    assert is_whole(Path(json.loads((folder / TRACKING).read_text())["place"]))
