import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from olmo_stages import once
from olmo_stages.errors import ModelError, StoreError
from olmo_stages.once import make_once

BEAT_S = 0.2

# Tells what it does, and writes two files with a pause between them.
BUILDER = """
import os, sys, time
from pathlib import Path
from olmo_stages.once import make_once

def fill(hidden):
    print("fills", flush=True)
    (hidden / "first").write_text(str(os.getpid()))
    time.sleep(float(sys.argv[2]))
    (hidden / "last").write_text(str(os.getpid()))

def on_wait(owner):
    print("waits for", owner, flush=True)

folder = Path(sys.argv[1])
make_once(folder, fill, on_wait=on_wait, heartbeat_s=0.2)
print("has", (folder / "last").read_text(), flush=True)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "folder"


@pytest.fixture
def start(folder):
    """Start a process that wants the folder, and do not outlive it."""
    with ExitStack() as stack:

        def start(pause_s=0.0):
            process = subprocess.Popen(
                [sys.executable, "-c", BUILDER, str(folder), str(pause_s)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(once.__file__).parents[1],
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield start


def said(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.splitlines()


def never(_hidden):
    raise AssertionError("made twice")


def test_of_many_processes_one_makes_it(folder, start):
    processes = [start(pause_s=1.0) for _ in range(4)]
    lines = [said(process) for process in processes]
    (builder,) = [
        process.pid
        for process, told in zip(processes, lines, strict=True)
        if any(line == "fills" for line in told)
    ]
    assert {told[-1] for told in lines} == {f"has {builder}"}
    assert [it.name for it in folder.parent.iterdir()] == ["folder"]


def test_whoever_waits_is_told_for_whom(start):
    builder = start(pause_s=3.0)
    assert builder.stdout.readline() == "fills\n"
    waiting, has = said(start())
    assert waiting.startswith(f"waits for process {builder.pid} on ")
    assert has == f"has {builder.pid}"


def test_a_killed_builder_blocks_nobody_longer_than_its_lease(folder, start):
    killed = start(pause_s=60)
    assert killed.stdout.readline() == "fills\n"
    killed.kill()
    begun = time.monotonic()
    make_once(folder, lambda it: (it / "a").touch(), on_wait=lambda _: None, heartbeat_s=BEAT_S)
    assert time.monotonic() - begun < 3 * BEAT_S + 3.0
    assert [it.name for it in folder.parent.iterdir()] == ["folder"]
    assert [it.name for it in folder.iterdir()] == ["a"]


def test_a_living_builder_keeps_it_for_longer_than_its_lease(folder, start):
    process = start(pause_s=6 * BEAT_S)
    assert process.stdout.readline() == "fills\n"
    make_once(folder, never, on_wait=lambda _: None, heartbeat_s=BEAT_S)
    assert (folder / "last").read_text() == str(process.pid)


@pytest.mark.parametrize("wakes", ["while it is made", "when it is there"])
def test_a_halted_builder_gives_way_to_its_successor(folder, start, wakes):
    halted = start(pause_s=0.5)
    assert halted.stdout.readline() == "fills\n"
    halted.send_signal(signal.SIGSTOP)

    def fill(hidden):
        if wakes == "while it is made":
            halted.send_signal(signal.SIGCONT)
            time.sleep(1.0)
        (hidden / "last").write_text("successor")

    make_once(folder, fill, on_wait=lambda _: None, heartbeat_s=BEAT_S)
    halted.send_signal(signal.SIGCONT)
    assert said(halted)[-1] == "has successor"
    assert [it.name for it in folder.parent.iterdir()] == ["folder"]


def test_what_is_there_is_not_made_again_and_leased_by_nobody(folder):
    folder.mkdir(parents=True)
    make_once(folder, never, on_wait=lambda _: None)
    assert [it.name for it in folder.parent.iterdir()] == ["folder"]


def test_what_fails_leaves_nothing_half_made(folder):
    def fail(hidden):
        (hidden / "half").touch()
        raise ModelError("no")

    with pytest.raises(ModelError, match=r"^no$"):
        make_once(folder, fail, on_wait=lambda _: None)
    assert {it.name for it in folder.parent.iterdir()} <= {"folder.lock.rw"}
    make_once(folder, lambda it: (it / "a").touch(), on_wait=lambda _: None)
    assert [it.name for it in folder.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_what_the_disk_refuses_is_one_line(folder, number):
    def fail(hidden):
        raise OSError(number, os.strerror(number), str(hidden / "file"))

    with pytest.raises(StoreError) as caught:
        make_once(folder, fail, on_wait=lambda _: None)
    told = str(caught.value)
    assert told.startswith(f"cannot write {folder}: {os.strerror(number)}; ")
    assert told.endswith("choose another folder with cache=DIR")
    assert "\n" not in told


def test_files_are_as_readable_as_their_folder(folder):
    def fill(hidden):
        (hidden / "inner").mkdir()
        (hidden / "inner" / "file").touch(mode=0o600)
        (hidden / "link").symlink_to("/nowhere")

    make_once(folder, fill, on_wait=lambda _: None)
    assert (folder / "inner" / "file").stat().st_mode & 0o777 == folder.stat().st_mode & 0o666
