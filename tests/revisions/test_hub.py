import errno
import logging
import os
import time

import pytest
from huggingface_hub import constants, file_download

from olmo_stages.errors import ModelError, StoreError
from olmo_stages.models.checkpoints import locate, model_digest
from olmo_stages.revisions import hub
from olmo_stages.stages import lookup
from olmo_stages.types import Stage
from tests.disks import read_only_later

SOURCE = "allenai/Olmo-3-7B-Think"
FIRST, SECOND = "1" * 40, "2" * 40


def stage(revision="main", source=SOURCE, name="mine"):
    return Stage(name, "custom", source, revision)


def cache_ref(root, commit, revision="main", snapshot=True):
    folder = root / "hub" / "models--allenai--Olmo-3-7B-Think"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    if snapshot:
        (folder / "snapshots" / commit).mkdir(parents=True)


def test_the_branches_of_a_repository_with_their_commits(online):
    online.add(SOURCE, step_0025=FIRST)
    assert hub.branches(SOURCE) == {"main": "a" * 40, "step_0025": FIRST}


def test_all_branches_come_in_one_answer(online):
    many = {f"stage1-step{step}": FIRST for step in range(0, 1_487_000, 1000)}
    online.add(SOURCE, **many)
    assert len(hub.branches(SOURCE)) == 1488
    assert len(online.asked) == 1


def test_a_revision_is_resolved_once_a_process(online):
    online.add(SOURCE, main=FIRST)
    assert hub.pin(stage()) == FIRST
    online.add(SOURCE, main=SECOND)
    assert hub.pin(stage()) == FIRST
    assert hub.pin(stage(source=SOURCE.lower())) == FIRST  # the hub takes an id in any case
    assert len(online.asked) == 1


def test_another_process_sees_the_branch_where_it_is(online, monkeypatch):
    online.add(SOURCE, main=FIRST)
    hub.pin(stage())
    online.add(SOURCE, main=SECOND)
    monkeypatch.setattr(hub, "_pinned", {})
    assert hub.pin(stage()) == SECOND


def test_a_commit_is_its_own_and_nobody_is_asked(online):
    assert hub.pin(stage(FIRST)) == FIRST
    assert online.asked == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_in_trouble_leaves_the_commit_that_the_cache_remembers(
    online, tmp_path, caplog, status
):
    online.status = status
    cache_ref(tmp_path, FIRST)
    with caplog.at_level(logging.WARNING):
        assert hub.pin(stage()) == FIRST
    assert f"status {status}" in caplog.text
    assert f"{SOURCE} at main is commit 111111111111, as it was when last downloaded" in caplog.text


def test_offline_the_cache_answers_and_it_is_said(tmp_path, caplog):
    cache_ref(tmp_path, FIRST)
    with caplog.at_level(logging.WARNING):
        assert hub.pin(stage()) == FIRST
    assert "not in reach" in caplog.text


def test_offline_without_a_cache_there_is_no_commit():
    assert hub.pin(stage()) is None


def test_offline_a_damaged_note_is_no_commit(tmp_path):
    cache_ref(tmp_path, "not a commit", snapshot=False)
    assert hub.pin(stage()) is None


def test_a_commit_is_remembered_for_when_the_hub_is_away(online, monkeypatch):
    online.add(SOURCE, step_0025=FIRST)
    assert hub.pin(stage("step_0025")) == FIRST
    monkeypatch.setattr(hub, "_pinned", {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.pin(stage("step_0025")) == FIRST


def test_a_cache_that_cannot_be_written_costs_nothing(online, tmp_path):
    online.add(SOURCE, main=FIRST)
    (tmp_path / "hub").write_text("a file where the folder should be")
    assert hub.pin(stage()) == FIRST


def test_a_silent_hub_is_waited_for_no_longer_than_told(online):
    online.add(SOURCE)
    online.patience = 3.0
    start = time.monotonic()
    with pytest.raises(hub.NotInReach, match="not in reach"):
        hub.branches(SOURCE, patience=0.2)
    assert hub.pin(stage(), patience=0.2) is None
    assert time.monotonic() - start < 2.0


def test_a_wrong_revision_names_the_spelling_and_the_nearest_ones(online):
    online.add(SOURCE, **{f"step_{step:04d}": FIRST for step in range(25, 1400, 25)})
    with pytest.raises(ModelError) as caught:
        hub.pin(lookup("think_rlvr@step_25", "7b"))
    said = str(caught.value)
    assert "Olmo-3-7B-Think has no revision step_25; there are step_NNNN (25..1375), main" in said
    assert "nearest: step_0025, step_0050, step_0075" in said
    assert said.endswith("olmo-stages revisions think_rlvr --size 7b")
    assert "\n" not in said


def test_a_wrong_revision_is_not_taken_from_the_cache(online, tmp_path):
    online.add(SOURCE)
    cache_ref(tmp_path, FIRST, revision="gone")
    with pytest.raises(ModelError, match="has no revision gone"):
        hub.pin(stage("gone"))


def test_a_wrong_revision_of_ones_own_repository(online):
    online.add("me/mine", checkpoint=FIRST)
    with pytest.raises(ModelError, match=r"no revision checkpont; nearest: checkpoint; choose"):
        hub.pin(stage("checkpont", source="me/mine"))


def test_an_unknown_repository_names_the_login_and_the_nearest(online):
    with pytest.raises(ModelError, match=r"login .*did you mean allenai/Olmo-3-7B-Think-SFT\?"):
        hub.branches("allenai/Olmo-3-7B-ThinkSFT")
    assert online.asked


def test_a_refusal_is_no_lack_of_connection(online, tmp_path):
    online.add(SOURCE)
    online.status = 403
    cache_ref(tmp_path, FIRST)
    with pytest.raises(ModelError, match=r"refuses \(status 403\); log in") as caught:
        hub.pin(stage())
    assert not isinstance(caught.value, hub.NotInReach)


def test_what_the_cache_holds(tmp_path):
    cache_ref(tmp_path, FIRST)
    cache_ref(tmp_path, SECOND, revision="step_0025", snapshot=False)  # downloaded no more
    assert hub.cached(SOURCE) == {"main": FIRST}
    assert hub.cached("me/never") == {}


def test_a_branch_that_moves_between_two_jobs_is_loaded_as_it_was(online, checkpoints, tmp_path):
    online.files = {FIRST: checkpoints[0], SECOND: checkpoints[1]}
    online.add(SOURCE, main=FIRST)
    before = locate(stage(), tmp_path)
    online.add(SOURCE, main=SECOND)
    after = locate(stage(), tmp_path)
    assert before == after
    assert model_digest(stage(), before, tmp_path) == FIRST
    weights = (checkpoints[0] / "model.safetensors").read_bytes()
    assert (after.path / "model.safetensors").read_bytes() == weights


def test_what_was_downloaded_is_found_offline(online, checkpoints, tmp_path, monkeypatch):
    online.files = {FIRST: checkpoints[0]}
    online.add(SOURCE, main=FIRST)
    before = locate(stage(), tmp_path)
    monkeypatch.setattr(hub, "_pinned", {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate(stage(), tmp_path) == before


def test_offline_a_misspelt_revision_is_told_with_the_nearest_known(tmp_path):
    with pytest.raises(ModelError) as caught:
        locate(lookup("think_sft@step_1000", "7b"), tmp_path)
    said = str(caught.value)
    assert "has no revision step_1000; there are stepN (1000..43000), main" in said
    assert "nearest: step1000; list them with: olmo-stages revisions think_sft --size 7b" in said
    assert said.endswith("no hub in reach)")


@pytest.mark.parametrize("revision", ["step1000", "main", "1" * 40])
def test_offline_a_right_revision_is_only_out_of_reach(tmp_path, revision):
    with pytest.raises(ModelError, match=f"at revision {revision} is neither .* nor in reach"):
        locate(lookup(f"think_sft@{revision}", "7b"), tmp_path)


def test_files_of_a_repository(online, checkpoints, monkeypatch):
    online.files = {FIRST: checkpoints[0]}
    online.add(SOURCE, main=FIRST)
    assert hub.has_file(SOURCE, FIRST, "config.json")
    assert not hub.has_file(SOURCE, FIRST, "never.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.has_file(SOURCE, FIRST, "config.json")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Data processing error: IO Error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_not_taken_for_a_hub_that_does_not_answer(
    online, checkpoints, tmp_path, monkeypatch, error
):
    online.files = {FIRST: checkpoints[0]}
    online.add(SOURCE, main=FIRST)

    def refuse(*_args, **_options):
        raise error

    monkeypatch.setattr(file_download, "_download_to_tmp_and_move", refuse)
    with pytest.raises(StoreError) as caught:
        locate(stage(), tmp_path)
    place = constants.HF_HUB_CACHE
    assert str(caught.value) == (
        f"cannot write {place}: No space left on device; free some space or choose another folder "
        "with HF_HUB_CACHE=DIR"
    )


@pytest.mark.parametrize("offline", [False, True])
def test_a_cache_of_the_hub_that_can_only_be_read_is_read(
    online, checkpoints, tmp_path, monkeypatch, offline
):
    online.files = {FIRST: checkpoints[0]}
    online.add(SOURCE, main=FIRST)
    with read_only_later(tmp_path / "disk", "30m") as (disk, make_read_only):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(disk))
        before = locate(stage(), tmp_path / "cache")
        assert disk in before.path.parents
        make_read_only()
        monkeypatch.setattr(hub, "_pinned", {})
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        assert locate(stage(), tmp_path / "cache") == before


def test_what_a_cache_of_the_hub_does_not_hold_that_can_only_be_read_is_one_line(
    online, checkpoints, tmp_path, monkeypatch
):
    online.files = {FIRST: checkpoints[0]}
    online.add(SOURCE, main=FIRST)
    with read_only_later(tmp_path / "disk", "30m") as (disk, make_read_only):
        make_read_only()
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(disk))
        with pytest.raises(StoreError, match=r"make it writable or .* HF_HUB_CACHE=DIR") as caught:
            locate(stage(), tmp_path / "cache")
    assert "\n" not in str(caught.value)
