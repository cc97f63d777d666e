import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from olmo_stages.activations import sharing
from olmo_stages.activations.entry import read_entry
from olmo_stages.activations.sharing import finish
from olmo_stages.errors import ModelError, StoreError
from olmo_stages.leases import Lease
from olmo_stages.stopping import Stopped, listening
from tests.activations.squares import HEARTBEAT_S, Squares, content, crew_of, noted, store_at

ROOT = Path(sharing.__file__).parents[2]
LEASE_S = 3 * HEARTBEAT_S
LONG = {"heartbeat_s": 20.0}
LONG_S = 3 * LONG["heartbeat_s"]
"""A lease that a busy machine does not outlast."""


class Helper:
    """A process that takes part."""

    def __init__(self, root, *options):
        command = [sys.executable, "-m", "tests.activations.squares", str(root), *options]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.pid = self.process.pid

    def wait_until_ready(self):
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def go(self):
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self, limit_s=30.0):
        """Names of the shards of each entry, once it has ended well."""
        out, err = self.process.communicate(timeout=limit_s)
        assert self.process.returncode == 0, err
        return [[shard["name"] for shard in entry] for entry in json.loads(out)]


@pytest.fixture
def helpers(tmp_path):
    """Start processes that begin together."""
    with ExitStack() as stack:

        def start(n, *options):
            found = [Helper(tmp_path, *options) for _ in range(n)]
            for it in found:
                stack.callback(it.process.communicate)
                stack.callback(it.process.kill)
            for it in found:
                it.wait_until_ready()
            for it in found:
                it.go()
            return found

        yield start


def log_of(tmp_path):
    return tmp_path / "log"


def wait_for(check, limit_s=20.0):
    start = time.monotonic()
    while not (found := check()):
        assert time.monotonic() - start < limit_s
        time.sleep(0.005)
    return found


def wait_until_begun(tmp_path, pid):
    """A shard that a process is computing."""

    def last():
        begun = [part for part, by in noted(log_of(tmp_path), "begun") if by == pid]
        done = [part for part, by in noted(log_of(tmp_path), "computed") if by == pid]
        return [part for part in begun if part not in done]

    return wait_for(last)[0]


def check_whole(tmp_path, n_parts):
    """The entry is complete and right, and nothing but it and who used it is left."""
    entry = read_entry(crew_of(tmp_path).folder)
    assert entry is not None
    found = [(entry.folder / name).read_bytes() for name in entry.file_names]
    assert found == [content(part) for part in range(n_parts)]
    assert not list(entry.folder.parent.glob("*.leases/*"))
    assert not list(entry.folder.glob(".*"))


def how_often(tmp_path, what="computed"):
    return Counter(part for part, _ in noted(log_of(tmp_path), what))


# Several processes


def test_four_processes_compute_each_shard_once(helpers, tmp_path):
    n = 12
    four = helpers(4, "--parts", str(n), "--seconds", "0.15")
    names = [it.end() for it in four]
    assert how_often(tmp_path) == dict.fromkeys(range(n), 1)
    assert {pid for _, pid in noted(log_of(tmp_path), "computed")} == {it.pid for it in four}
    assert all(it == names[0] for it in names)
    assert len(noted(log_of(tmp_path), "published")) == 1
    check_whole(tmp_path, n)


def test_a_killed_process_costs_one_shard_and_blocks_for_no_longer_than_its_lease(
    helpers, tmp_path
):
    n, each_s = 8, 0.3
    four = helpers(4, "--parts", str(n), "--seconds", str(each_s))
    lost = wait_until_begun(tmp_path, four[1].pid)
    four[1].process.kill()
    start = time.monotonic()
    for it in (four[0], four[2], four[3]):
        it.end()
    took_s = time.monotonic() - start
    assert took_s < LEASE_S + 4 * each_s + 10.0  # the rest is for a machine that is busy
    assert how_often(tmp_path) == dict.fromkeys(range(n), 1)
    begun = how_often(tmp_path, "begun")
    assert begun == dict.fromkeys(range(n), 1) | {lost: 2}
    check_whole(tmp_path, n)


def test_a_halted_process_is_overtaken_and_changes_nothing_when_it_wakes_up(helpers, tmp_path):
    n = 4
    both = helpers(2, "--parts", str(n), "--seconds", "0.4")
    overtaken = wait_until_begun(tmp_path, both[0].pid)
    both[0].process.send_signal(signal.SIGSTOP)
    names = both[1].end()
    manifest = (read_entry(crew_of(tmp_path).folder).folder / "manifest.json").read_bytes()
    assert how_often(tmp_path)[overtaken] == 1
    both[0].process.send_signal(signal.SIGCONT)
    assert both[0].end() == names
    assert (crew_of(tmp_path).folder / "manifest.json").read_bytes() == manifest
    assert len(noted(log_of(tmp_path), "published")) == 1
    check_whole(tmp_path, n)


PUBLISHER = """
import sys
from pathlib import Path
from olmo_stages.leases import Lease
with Lease(Path(sys.argv[1]), heartbeat_s=0.2).claim() as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def test_whoever_publishes_may_be_killed(helpers, tmp_path):
    path = sharing_path(tmp_path, sharing.PUBLISH)
    publisher = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert publisher.stdout is not None
        assert publisher.stdout.readline() == "True\n"
        (one,) = helpers(1, "--parts", "2")
        wait_for(lambda: len(noted(log_of(tmp_path), "computed")) == 2)
        time.sleep(2 * LEASE_S)
        assert read_entry(crew_of(tmp_path).folder) is None
    finally:
        publisher.kill()
        publisher.communicate()
    one.end(LEASE_S + 10.0)
    check_whole(tmp_path, 2)


def test_nobody_waits_while_there_is_other_work(helpers, tmp_path):
    one, other = helpers(2, "--names", "a", "b", "--parts", "2", "--seconds", "0.5")
    assert one.end() == other.end()
    log = log_of(tmp_path)
    by = {name: noted(log, "computed", name) for name in "ab"}
    assert {name: sorted(part for part, _ in it) for name, it in by.items()} == {
        "a": [0, 1],
        "b": [0, 1],
    }
    # Who came second began with the other entry rather than with the same.
    assert {by["a"][0][1], by["b"][0][1]} == {one.pid, other.pid}


# One process, and what it finds


def sharing_path(tmp_path, name):
    crew = crew_of(tmp_path)
    return store_at(tmp_path).lease(crew.folder, name).path


def run(crew):
    finish([crew])
    return crew.complete


def test_one_process_alone_is_the_same(tmp_path):
    run(crew_of(tmp_path))
    check_whole(tmp_path, 4)
    run(crew_of(tmp_path))
    assert how_often(tmp_path) == dict.fromkeys(range(4), 1)


def test_shards_that_are_there_are_used(tmp_path):
    entry = run(crew_of(tmp_path))
    (entry.folder / "manifest.json").unlink()
    (entry.folder / entry.file_names[2]).unlink()
    run(crew_of(tmp_path))
    assert how_often(tmp_path) == {0: 1, 1: 1, 2: 2, 3: 1}
    check_whole(tmp_path, 4)


@pytest.mark.parametrize("cut", [0, 10, None])
def test_half_of_a_shard_is_none(tmp_path, cut):
    entry = run(crew_of(tmp_path))
    (entry.folder / "manifest.json").unlink()
    path = entry.folder / entry.file_names[1]
    whole = path.read_bytes()
    # None: of the right length, but not what was written.
    path.write_bytes(whole[:-9] + bytes(9) if cut is None else whole[:cut])
    run(crew_of(tmp_path))
    assert how_often(tmp_path) == {0: 1, 1: 2, 2: 1, 3: 1}
    check_whole(tmp_path, 4)


def test_a_shard_that_goes_missing_meanwhile_is_computed_again(tmp_path):
    class Losing(Squares):
        def add(self, part, found):
            if part == 3 and len(noted(self.log, "computed")) == 3:
                next(self.folder.glob("part-00001.*")).unlink()
            return super().add(part, found)

    run(crew_of(tmp_path, kind=Losing))
    assert how_often(tmp_path) == {0: 1, 1: 2, 2: 1, 3: 1}
    check_whole(tmp_path, 4)


def test_all_free_shards_may_be_computed_in_one_go(tmp_path):
    goes = []

    class Together(Squares):
        at_once = 3
        shows_examples = False

        def compute(self, parts, advance):
            goes.append(list(parts))
            yield from super().compute(parts, advance)

    run(crew_of(tmp_path, kind=Together))
    assert goes == [[0, 1, 2], [3]]
    check_whole(tmp_path, 4)


def held_elsewhere(tmp_path, part):
    path = sharing_path(tmp_path, sharing.stem(part))
    return Lease(path, heartbeat_s=HEARTBEAT_S).claim()


def test_a_wait_names_who_is_waited_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    held = held_elsewhere(tmp_path, 2)
    with held:
        thread = threading.Thread(target=run, args=[crew_of(tmp_path)])
        thread.start()
        wait_for(lambda: len(noted(log_of(tmp_path), "computed")) == 3)
        time.sleep(1.0)
        assert thread.is_alive()
    thread.join()
    said = [line for line in capsys.readouterr().err.splitlines() if "waiting" in line]
    assert len(said) == 1
    assert f"squares: waiting for process {os.getpid()} on {os.uname().nodename}" in said[0]
    assert ", Slurm job 4711, since 20" in said[0]
    check_whole(tmp_path, 4)


def test_no_wait_is_told_where_there_is_none(tmp_path, capsys):
    run(crew_of(tmp_path))
    assert capsys.readouterr().err == "squares: 8 done\n"


def test_examples_that_others_did_are_counted(tmp_path, capsys):
    entry = run(crew_of(tmp_path))
    (entry.folder / "manifest.json").unlink()
    (entry.folder / entry.file_names[0]).unlink()
    capsys.readouterr()
    run(crew_of(tmp_path))
    assert capsys.readouterr().err == "squares: 8 done\n"


def test_a_holder_that_lives_and_does_nothing_is_not_waited_for_for_ever(tmp_path):
    crew = crew_of(tmp_path, lock_timeout_s=0.3)
    with held_elsewhere(tmp_path, 0), pytest.warns(RuntimeWarning, match=r"computing all the same"):
        run(crew)
    assert how_often(tmp_path) == dict.fromkeys(range(4), 1)


class Unable(Squares):
    def ready(self):
        raise ModelError("no memory")


def test_who_cannot_load_the_model_leaves_it_to_those_at_work(tmp_path, capsys):
    slow = {"heartbeat_s": 2.0}  # who takes over may be slow to do so
    with held_elsewhere(tmp_path, 0):
        thread = threading.Thread(target=run, args=[crew_of(tmp_path, kind=Unable, **slow)])
        thread.start()
        wait_for(lambda: "no memory; leaving squares" in capsys.readouterr().err)
        time.sleep(1.0)
        assert thread.is_alive()
        assert not noted(log_of(tmp_path), "begun")
    run(crew_of(tmp_path))
    thread.join()
    check_whole(tmp_path, 4)


def test_who_cannot_load_the_model_does_not_wait_for_the_dead(tmp_path):
    entry = run(crew_of(tmp_path))
    (entry.folder / "manifest.json").unlink()
    (entry.folder / entry.file_names[0]).unlink()
    start = time.monotonic()
    with pytest.raises(ModelError, match="no memory"):
        run(crew_of(tmp_path, kind=Unable))
    assert LEASE_S < time.monotonic() - start < 20 * LEASE_S


def test_who_cannot_load_the_model_and_is_alone_says_so_at_once(tmp_path, capsys):
    start = time.monotonic()
    with pytest.raises(ModelError, match="no memory"):
        run(crew_of(tmp_path, kind=Unable, **LONG))
    assert time.monotonic() - start < LONG_S
    assert capsys.readouterr().err == ""


def test_an_error_gives_the_shard_back(tmp_path, capsys):
    class Failing(Squares):
        def add(self, part, found):
            if part == 2:
                raise StoreError("full")
            return super().add(part, found)

    with pytest.raises(StoreError, match="full"):
        run(crew_of(tmp_path, kind=Failing, **LONG))
    assert "done" not in capsys.readouterr().err
    start = time.monotonic()
    run(crew_of(tmp_path, **LONG))
    assert time.monotonic() - start < LONG_S
    assert how_often(tmp_path) == dict.fromkeys(range(4), 1)


def test_a_signal_is_answered_between_two_shards(tmp_path):
    class Told(Squares):
        def compute(self, parts, advance):
            if parts == [1]:
                os.kill(os.getpid(), signal.SIGTERM)
            yield from super().compute(parts, advance)

    with pytest.raises(Stopped), listening():
        run(crew_of(tmp_path, kind=Told, **LONG))
    assert how_often(tmp_path) == {0: 1, 1: 1}
    assert len(list(crew_of(tmp_path).folder.glob("part-*"))) == 2
    start = time.monotonic()
    run(crew_of(tmp_path, **LONG))
    assert time.monotonic() - start < LONG_S  # what it held was given back
    assert how_often(tmp_path) == dict.fromkeys(range(4), 1)
    check_whole(tmp_path, 4)


def test_a_read_only_place_is_one_line_before_anything_is_computed(tmp_path):
    (tmp_path / "store").touch()
    with pytest.raises(StoreError, match=r"cannot write .*; choose another folder"):
        run(crew_of(tmp_path))
    assert not noted(log_of(tmp_path), "begun")
