import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from olmo_stages.activations import cleaning, files, upkeep
from olmo_stages.activations.cleaning import ABANDONED_S, DAY_S, IN_USE, Limits, gc
from olmo_stages.activations.entry import FORMAT_VERSION, MANIFEST, publish
from olmo_stages.activations.store import Store, leases_of
from olmo_stages.atomic import SCRATCH, disk_trouble
from olmo_stages.errors import StoreError
from olmo_stages.leases import Lease
from olmo_stages.models import derived

BEAT_S = 0.2
KB = 1000
ALL = Limits(max_bytes=0)

USER = """
import sys, time
from pathlib import Path
from olmo_stages.leases import Lease
with Lease(Path(sys.argv[1]), heartbeat_s=0.2).use():
    print("uses", flush=True)
    time.sleep(60)
"""

CLEANER = """
import sys
from pathlib import Path
from olmo_stages.activations.cleaning import Limits, gc
from olmo_stages.activations.store import Store
print("ready", flush=True)
sys.stdin.readline()
cleaned = gc(Store(Path(sys.argv[1]), heartbeat_s=0.2), Limits(max_bytes=0))
print(*(row.folder.name for row in cleaned.removed))
"""


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def store(cache):
    return Store(cache / "activations", heartbeat_s=BEAT_S)


@pytest.fixture
def weights(cache):
    return cache / derived.FOLDER


@pytest.fixture
def start():
    """Start a process and do not outlive it."""
    with ExitStack() as stack:

        def start(script, argument, word):
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(argument)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(cleaning.__file__).parents[2],
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == f"{word}\n"
            return process

        yield start


def add(store, name, *, kilobytes=1, age_s=0.0, complete=True):
    """An entry as a job leaves it."""
    folder = store.root / "pa" / "pass" / name
    shard = files.write_digested(folder, "part-00000", b"x" * kilobytes * KB, files.LINES)
    if complete:
        manifest = {"format_version": FORMAT_VERSION, "stage": {"label": name}}
        publish(folder, manifest | {"captures": [], "layers": [], "ids": []}, [shard])
    past = time.time() - age_s
    for path in folder.iterdir():
        os.utime(path, (past, past))
    os.utime(folder, (past, past))
    return folder


def add_weights(weights, key, *, age_s=0.0):
    folder = weights / key
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * KB)
    record = folder / derived.RECORD
    record.write_text('{"members": [{"name": "think_sft"}, {"name": "think_dpo"}]}')
    past = time.time() - age_s
    os.utime(record, (past, past))
    return folder


def names(rows):
    return [row.folder.name for row in rows]


def reasons(cleaned):
    return {row.folder.name: why for row, why in cleaned.kept}


def files_below(root):
    return [path for path in root.rglob("*") if path.is_file()]


# What may go


def test_without_limits_nothing_complete_goes(store):
    add(store, "old", age_s=1000 * DAY_S)
    assert gc(store).removed == []
    assert names(upkeep.ls(store)) == ["old"]


def test_by_age_goes_what_was_not_used_for_so_long(store):
    old, new = add(store, "old", age_s=6 * DAY_S), add(store, "new", age_s=4 * DAY_S)
    assert names(gc(store, Limits(older_than_s=5 * DAY_S)).removed) == ["old"]
    assert not old.exists()
    assert new.exists()


def test_by_size_goes_what_was_not_used_for_longest(store):
    for days in (1, 2, 3):
        add(store, f"of day {days}", kilobytes=10, age_s=days * DAY_S)
    limit = sum(row.n_bytes for row in upkeep.ls(store)) - 1
    assert names(gc(store, Limits(max_bytes=limit)).removed) == ["of day 3"]
    assert gc(store, Limits(max_bytes=limit)).removed == []


def test_a_dry_run_says_the_same_and_touches_nothing(store):
    add(store, "old", age_s=6 * DAY_S)
    limits = Limits(older_than_s=5 * DAY_S)
    before = sorted(store.root.rglob("*"))
    told = gc(store, Limits(older_than_s=5 * DAY_S, dry_run=True))
    assert sorted(store.root.rglob("*")) == before
    assert names(told.removed) == names(gc(store, limits).removed) == ["old"]


def test_what_a_stopped_job_may_go_on_with_stays_for_a_week(store):
    add(store, "begun", complete=False)
    add(store, "abandoned", complete=False, age_s=ABANDONED_S + 60)
    cleaned = gc(store)
    assert names(cleaned.removed) == ["abandoned"]
    assert reasons(cleaned) == {"begun": cleaning.RESUMABLE}
    assert names(gc(store, Limits(older_than_s=0.0)).removed) == ["begun"]


def test_what_was_hardly_begun_goes_at_once(store):
    (store.root / "pa" / "pass" / "empty").mkdir(parents=True)
    assert names(gc(store).removed) == ["empty"]


def test_a_damaged_entry_goes_on_request_only(store):
    shard = next(add(store, "bad").glob("part-*"))
    shard.write_bytes(b"y")
    add(store, "good")
    assert gc(store).removed == []
    (removed,) = gc(store, Limits(damaged=True)).removed
    assert (removed.folder.name, removed.state) == ("bad", upkeep.DAMAGED)
    assert shard.name in removed.problem


def test_a_manifest_that_cannot_be_read_is_not_taken_for_rubbish(store):
    folder = add(store, "bad")
    (folder / MANIFEST).write_text("{")
    assert gc(store).removed == []
    assert names(gc(store, Limits(damaged=True)).removed) == ["bad"]


def test_an_empty_or_missing_store_is_nothing_to_clean(store):
    assert gc(store, ALL).removed == []
    assert not store.root.exists()


# Weights


def test_weights_count_by_age_and_size_like_entries(store, weights):
    add(store, "entry", age_s=1 * DAY_S)
    add_weights(weights, "soup", age_s=2 * DAY_S)
    (row,) = (row for row in upkeep.ls(store, weights) if upkeep.is_weights(row))
    assert (row.state, row.stage, row.lease.name) == (
        "complete",
        "think_sft + think_dpo",
        "soup.used",
    )
    assert names(gc(store, ALL).removed) == ["entry"]
    assert names(gc(store, ALL, weights).removed) == ["soup"]
    assert list(weights.iterdir()) == []


def test_weights_in_use_stay_until_their_user_ends(store, weights, cache, start):
    add_weights(weights, "soup")
    user = start(USER, derived.use_lease(weights / "soup"), "uses")
    assert reasons(gc(store, ALL, weights)) == {"soup": IN_USE}
    user.kill()
    assert names(gc(store, ALL, weights).removed) == ["soup"]
    assert files_below(cache) == []


def test_weights_that_are_asked_for_are_in_use_from_then_on(store, weights, cache, monkeypatch):
    monkeypatch.setattr(derived, "_used", {})
    folder = derived.ensure("soup", cache, lambda it: (it / "a").touch(), {})
    assert reasons(gc(store, ALL, weights)) == {"soup": IN_USE}
    assert folder.is_dir()
    derived._release()
    assert names(gc(store, ALL, weights).removed) == ["soup"]


def test_what_a_killed_builder_began_of_weights_goes_at_once(store, weights):
    (weights / ".soup-host-a-12-0123abcd").mkdir(parents=True)
    (weights / ".soup-host-a-12-0123abcd" / "half").write_bytes(b"x")
    assert names(gc(store, weights=weights).removed) == [".soup-host-a-12-0123abcd"]
    assert list(weights.iterdir()) == []


def test_what_is_being_built_of_weights_stays(store, weights, start):
    (weights / ".soup-host-a-12-0123abcd").mkdir(parents=True)
    start(USER, derived.use_lease(weights / "soup"), "uses")
    assert list(reasons(gc(store, ALL, weights)).values()) == [IN_USE]
    assert (weights / ".soup-host-a-12-0123abcd").is_dir()


# Together with jobs


@pytest.mark.parametrize("complete", [True, False])
def test_what_a_running_job_uses_stays(store, start, complete):
    folder = add(store, "used", age_s=100 * DAY_S, complete=complete)
    add(store, "idle", age_s=100 * DAY_S, complete=complete)
    start(USER, store.user(folder).path, "uses")
    cleaned = gc(store, Limits(older_than_s=DAY_S, max_bytes=0))
    assert names(cleaned.removed) == ["idle"]
    assert reasons(cleaned) == {"used": IN_USE}
    assert any(folder.glob("part-*"))


def test_a_killed_job_keeps_nothing_for_longer_than_its_lease(store, start):
    folder = add(store, "used")
    user = start(USER, store.user(folder).path, "uses")
    user.kill()
    told = []
    assert names(gc(store, ALL, on_wait=lambda *it: told.append(it)).removed) == ["used"]
    assert told == [(1, pytest.approx(3 * BEAT_S + 2 * BEAT_S / 4))]
    assert files_below(store.root) == []


def test_a_job_that_died_long_ago_is_not_waited_for(store, start):
    folder = add(store, "used", age_s=DAY_S)
    user = start(USER, store.user(folder).path, "uses")
    user.kill()
    user.wait()
    past = time.time() - DAY_S
    for record in leases_of(folder).rglob("holders/*"):
        os.utime(record, (past, past))
    told = []
    assert names(gc(store, ALL, on_wait=lambda *it: told.append(it)).removed) == ["used"]
    assert told == []


def test_a_halted_job_that_wakes_up_finds_it_gone_and_not_half_gone(store, start):
    folder = add(store, "used")
    user = start(USER, store.user(folder).path, "uses")
    user.send_signal(signal.SIGSTOP)
    assert names(gc(store, ALL).removed) == ["used"]
    user.send_signal(signal.SIGCONT)
    assert not folder.exists()


def test_what_stays_makes_others_too_many(store, start):
    used = add(store, "used", kilobytes=10, age_s=3 * DAY_S)
    for days in (1, 2):
        add(store, f"of day {days}", kilobytes=10, age_s=days * DAY_S)
    start(USER, store.user(used).path, "uses")
    n_bytes = max(row.n_bytes for row in upkeep.ls(store))
    cleaned = gc(store, Limits(max_bytes=2 * n_bytes))
    assert reasons(cleaned) == {"used": IN_USE}
    assert cleaned.removed == []


def test_what_was_used_since_it_was_listed_stays(store, monkeypatch):
    folder = add(store, "used", age_s=6 * DAY_S)
    real = cleaning._in_use

    def use_meanwhile(*args):
        os.utime(folder / MANIFEST)
        return real(*args)

    monkeypatch.setattr(cleaning, "_in_use", use_meanwhile)
    assert reasons(gc(store, Limits(older_than_s=DAY_S))) == {"used": cleaning.JUST_USED}
    assert folder.exists()


def test_what_a_job_completed_since_it_was_listed_stays(store, monkeypatch):
    add(store, "begun", complete=False, age_s=ABANDONED_S + 60)
    real = cleaning._in_use

    def complete_meanwhile(*args):
        add(store, "begun")
        return real(*args)

    monkeypatch.setattr(cleaning, "_in_use", complete_meanwhile)
    assert reasons(gc(store)) == {"begun": cleaning.JUST_USED}


def test_many_clean_at_once_and_each_entry_goes_once(store, start):
    wanted = {f"entry {number}" for number in range(12)}
    for name in wanted:
        with store.user(add(store, name)).use():
            pass
    cleaners = [start(CLEANER, store.root, "ready") for _ in range(3)]
    for cleaner in cleaners:
        cleaner.stdin.write("go\n")
        cleaner.stdin.flush()
    removed = []
    for cleaner in cleaners:
        out, _ = cleaner.communicate(timeout=60)
        assert cleaner.returncode == 0
        removed += out.strip().replace("entry ", "entry_").split()
    assert sorted(removed) == sorted(name.replace(" ", "_") for name in wanted)
    gc(store)
    assert files_below(store.root) == []


def test_an_entry_that_goes_while_it_is_listed_is_left_out(store, monkeypatch):
    add(store, "gone")
    add(store, "there")
    real = upkeep.read_entry

    def read_entry(folder):
        if folder.name == "gone":
            (folder / MANIFEST).unlink(missing_ok=True)
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
        return real(folder)

    monkeypatch.setattr(upkeep, "read_entry", read_entry)
    assert [row.folder.name for row in upkeep.ls(store) if row.state == "complete"] == ["there"]


def test_what_a_source_reads_stays_until_it_is_closed(make_source, stage, store):
    with make_source(where=store) as source:
        found = source(stage)
        cleaned = gc(store, Limits(older_than_s=0.0, max_bytes=0))
        assert [why for _, why in cleaned.kept] == [IN_USE]
        assert source(stage).values.tolist() == found.values.tolist()
    (removed,) = gc(store, ALL).removed
    assert "resid_post/last" in removed.captures
    assert files_below(store.root) == []


def test_reading_counts_as_use(make_source, stage, store):
    for _ in range(2):
        with make_source(where=store) as source:
            source(stage)
        (row,) = upkeep.ls(store)
        assert gc(store, Limits(older_than_s=5 * DAY_S)).removed == []
        past = time.time() - 10 * DAY_S
        os.utime(row.folder / MANIFEST, (past, past))
    assert gc(store, Limits(older_than_s=5 * DAY_S)).removed


def test_a_job_computes_again_what_was_cleaned_before_it(make_source, stage, store):
    with make_source(where=store) as source:
        before = source(stage).values.tolist()
    assert len(gc(store, ALL).removed) == 1
    with make_source(where=store) as source:
        assert source(stage).values.tolist() == before
        assert source.forward_passes[stage]


# What is left behind


def test_no_lease_is_left_where_nobody_works(store, start):
    idle, used = add(store, "idle"), add(store, "used")
    for folder in (idle, used):
        with store.user(folder).use(), store.lease(folder, "part-00000").claim():
            pass
    gone = store.root / "pa" / "pass" / "gone"
    with store.user(gone).use():
        pass
    start(USER, store.user(used).path, "uses")
    assert gc(store).removed == []
    assert [path.name for path in store.root.glob("*/*/*.leases")] == [leases_of(used).name]
    assert names(upkeep.ls(store)) == ["used", "idle"]


def test_what_interrupted_writers_and_cleaners_left_goes(store):
    folder = add(store, "entry")
    old, new = folder / ".part-00001.x.tmp", folder / ".part-00002.x.tmp"
    for path in (old, new):
        path.touch()
    past = time.time() - 7200
    os.utime(old, (past, past))
    doomed = folder.with_name(".other.0123.removed")
    doomed.mkdir()
    scratch = [store.root / f"{SCRATCH}{name}" for name in ("old", "new")]
    for place in scratch:
        place.mkdir()
    past = time.time() - ABANDONED_S - 60
    os.utime(scratch[0], (past, past))
    gc(store)
    assert [place.exists() for place in scratch] == [False, True]
    assert not old.exists()
    assert new.exists()  # of somebody who is writing it
    assert not doomed.exists()


# Where the disk is full, or cannot be written


def test_room_is_made_where_there_is_none_for_a_lease(store, monkeypatch):
    add(store, "idle")
    with store.user(add(store, "used")).use():
        refuse(monkeypatch, errno.ENOSPC)
        monkeypatch.setattr(cleaning.time, "sleep", lambda _: None)
        cleaned = gc(store, ALL)
    assert names(cleaned.removed) == ["idle"]
    assert reasons(cleaned) == {"used": IN_USE}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_what_cannot_be_leased_is_one_line_and_stays(store, monkeypatch, number):
    folder = add(store, "used")
    with store.user(folder).use():
        pass
    refuse(monkeypatch, number)
    with pytest.raises(StoreError, match=os.strerror(number)) as caught:
        gc(store, ALL)
    assert "\n" not in str(caught.value)
    assert folder.exists()


def refuse(monkeypatch, number):
    def claim(lease):
        error = OSError(number, os.strerror(number))
        raise StoreError(disk_trouble(lease.path, error)) from error

    monkeypatch.setattr(Lease, "claim", claim)


@pytest.mark.filterwarnings("ignore:.*cannot be leased:RuntimeWarning")
def test_where_leases_do_not_work_nothing_goes(store, monkeypatch):
    from filelock import SoftReadWriteLock

    folder = add(store, "used")
    with store.user(folder).use():
        pass

    def unsupported(*_args, **_options):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(SoftReadWriteLock, "acquire_write", unsupported)
    with pytest.raises(StoreError, match="cannot be leased, so that nobody knows what is in use"):
        gc(store, ALL)
    assert folder.exists()
