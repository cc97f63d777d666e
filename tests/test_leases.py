import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from olmo_stages import leases
from olmo_stages.errors import StoreError
from olmo_stages.leases import Lease, Owner

BEAT_S = 0.2

HOLDER = """
import sys, time
from pathlib import Path
from olmo_stages.leases import Lease
with getattr(Lease(Path(sys.argv[1]), heartbeat_s=0.2), sys.argv[2])():
    print("held", flush=True)
    {busy}
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "leases" / "part"


@pytest.fixture
def start(path):
    """Start a process that holds the lease, and do not outlive it."""
    with ExitStack() as stack:

        def start(how="claim", busy="time.sleep(60)"):
            process = subprocess.Popen(
                [sys.executable, "-c", HOLDER.format(busy=busy), str(path), how],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(leases.__file__).parents[1],
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            assert process.stdout.readline() == "held\n"
            return process

        yield start


def new(path):
    return Lease(path, heartbeat_s=BEAT_S)


def claimed(lease):
    with lease.claim() as held:
        return held


def wait_until_claimed(lease, limit_s=5.0):
    start = time.monotonic()
    while not claimed(lease):
        assert time.monotonic() - start < limit_s
        time.sleep(0.02)
    return time.monotonic() - start


def test_a_claim_is_for_one_at_a_time(path):
    with new(path).claim() as held:
        assert held
        assert not claimed(new(path))
    assert claimed(new(path))


def test_claims_of_two_leases_do_not_meet(path):
    with new(path).claim(), new(path.with_name("other")).claim() as held:
        assert held


def test_a_claim_is_given_back_after_an_error(path):
    with pytest.raises(KeyError), new(path).claim():
        raise KeyError
    assert claimed(new(path))


def test_many_use_it_and_then_nobody_is_given_it_alone(path):
    with new(path).use(), new(path).use():
        assert not claimed(new(path))
    assert claimed(new(path))


def test_who_claims_in_vain_leaves_users_and_later_ones_alone(path):
    with new(path).use():
        assert not claimed(new(path))
        start = time.monotonic()
        with new(path).use():
            assert time.monotonic() - start < BEAT_S


def test_a_living_holder_keeps_it_for_longer_than_three_heartbeats(path, start):
    start()
    lease = new(path)
    for _ in range(10):
        assert not claimed(lease)
        time.sleep(BEAT_S / 2)


@pytest.mark.parametrize("how", ["claim", "use"])
def test_a_killed_holder_blocks_for_three_heartbeats_and_no_longer(path, start, how):
    holder = start(how)
    lease = new(path)
    assert not claimed(lease)
    holder.kill()
    # Its last sign of life may have come at any time since the one before.
    assert 1.5 * BEAT_S < wait_until_claimed(lease) < 3 * BEAT_S + 1.0


def test_a_halted_holder_loses_it_and_learns_so(path, start):
    busy = "lease = globals()\n    time.sleep(60)"
    holder = start(busy=busy)
    lease = new(path)
    assert not claimed(lease)
    holder.send_signal(signal.SIGSTOP)
    wait_until_claimed(lease)
    with lease.claim() as held:
        assert held
        holder.send_signal(signal.SIGCONT)
        time.sleep(2 * BEAT_S)
        # Awake again, it takes nothing back.
        assert not claimed(new(path))
        assert not lease.lost


def test_a_holder_knows_that_it_lost_the_lease(path):
    lease = new(path)
    with lease.claim():
        assert not lease.lost
        lease.remove()
        time.sleep(2 * BEAT_S)
        assert lease.lost
        # The successor's name is not taken away by whoever lost it.
        successor = new(path)
        with successor.claim() as held:
            assert held
            lease._release()
            assert successor.owner() is not None


def test_a_holder_that_computes_in_c_keeps_it(path, start):
    # One call of a second or more, which lets go of Python's lock as torch does.
    busy = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 6_000_000)"
    start(busy=busy)
    lease = new(path)
    for _ in range(10):
        assert not claimed(lease)
        time.sleep(BEAT_S / 2)


def test_clocks_of_machines_do_not_matter(path, start, monkeypatch):
    start()
    lease = new(path)
    for clock in (time.time() + 1e6, time.time() - 1e6):
        monkeypatch.setattr(time, "time", lambda it=clock: it)
        for file in path.with_name("part.rw").glob("*/*"):
            os.utime(file, (clock, clock))
        assert not claimed(lease)


def test_a_wait_says_for_whom(path, start, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    holder = start()
    said = []
    with pytest.raises(StoreError, match=f"held for 0 s by process {holder.pid} on"):
        new(path).hold(timeout_s=0.1, on_wait=said.append).__enter__()
    assert len(said) == 1
    assert f"process {holder.pid} on {os.uname().nodename}, Slurm job 71, since 20" in said[0]


def test_a_wait_ends_when_the_holder_does(path, start):
    start(busy="time.sleep(0.5)")
    with new(path).hold(timeout_s=5.0):
        assert not claimed(new(path))
    with new(path).hold(timeout_s=5.0, on_wait=lambda who: pytest.fail(f"waited for {who}")):
        pass


def test_a_job_of_an_array_is_named_as_slurm_does(path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "75")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "72")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    lease = new(path)
    assert lease.owner() is None
    with lease.claim():
        owner = lease.owner()
        assert isinstance(owner, Owner)
        assert owner.job == "72_3"
    assert lease.owner() is None


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"host": "a"})])
def test_an_owner_who_wrote_nonsense_is_another_process(path, content):
    lease = new(path)
    with lease.claim():
        path.with_name("part.owner").write_text(content)
        assert lease.held_by() == "another process"


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS"])
def test_a_full_or_read_only_disk_is_one_error_for_a_claim_and_none_for_use(
    path, monkeypatch, code
):
    import errno

    from filelock import SoftReadWriteLock

    def refuse(*_, **__):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(SoftReadWriteLock, "acquire_write", refuse)
    monkeypatch.setattr(SoftReadWriteLock, "acquire_read", refuse)
    with pytest.raises(StoreError, match=r"cannot write .*part: .*; (free|make)"):
        claimed(new(path))
    with new(path).use():
        pass


def test_where_nothing_can_be_leased_work_goes_on_with_a_warning(path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    # A file system without hard links.
    monkeypatch.setattr("filelock._soft_rw._storage.link_no_follow", refuse)
    with pytest.warns(RuntimeWarning, match=r"part cannot be leased .*not permitted.*twice"):
        assert claimed(new(path))


def test_many_claim_at_once_and_one_has_it(path):
    code = (
        "import sys, time; from pathlib import Path; from olmo_stages.leases import Lease\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "with Lease(Path(sys.argv[1]), heartbeat_s=2.0).claim() as held:\n"
        "    print(int(held), flush=True); sys.stdin.read()"
    )
    at = str(time.time() + 1.0)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), at],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(leases.__file__).parents[1],
        )
        for _ in range(4)
    ]
    said = [process.stdout.readline() for process in processes if process.stdout is not None]
    for process in processes:
        process.communicate()
    assert sorted(said) == ["0\n", "0\n", "0\n", "1\n"]


def test_a_forked_child_neither_holds_nor_gives_back_its_parents_lease(path):
    lease = new(path)
    with lease.claim():
        child = os.fork()
        if child == 0:
            try:
                lease._release()
                os._exit(10 + claimed(lease))
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10
        assert lease.owner() is not None
        assert not claimed(new(path))


def test_removing_it_leaves_nothing(path):
    lease = new(path)
    claimed(lease)
    lease.remove()
    assert list(path.parent.iterdir()) == []
    assert claimed(lease)


def test_who_uses_it_while_its_files_are_cleaned_away_holds_it_all_the_same(path, monkeypatch):
    mkdir = Path.mkdir
    cleaned = []

    def clean_once(folder, *args, **options):
        mkdir(folder, *args, **options)
        if folder == path.parent and len(cleaned) < 2:
            cleaned.append(folder)
            folder.rmdir()

    monkeypatch.setattr(Path, "mkdir", clean_once)
    with new(path).use():
        assert len(cleaned) == 2
        assert not claimed(new(path))
