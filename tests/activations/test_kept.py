"""A pass block by block that is ended goes on where it was, and gives what it would have given."""

import os
import shutil
import signal
from collections import namedtuple

import numpy as np
import pytest
import safetensors.torch
import torch

from olmo_stages.activations import cleaning, kept, upkeep
from olmo_stages.activations.kept import Kept
from olmo_stages.activations.store import Store
from olmo_stages.models import layer_major
from olmo_stages.stopping import Stopped, listening

POSITIONS = ("last", "mean", "tokens")
BATCHES = 8
"""Of the examples, with the token budget of `work`."""


@pytest.fixture
def where(tmp_path):
    return Store(tmp_path / "streamed", heartbeat_s=0.1, shard_examples=4)


@pytest.fixture
def source(make_source, where):
    def make(**options):
        return make_source(streamed=True, where=where, **{"token_budget": 12} | options)

    return make


@pytest.fixture(scope="module")
def once():
    return []


@pytest.fixture
def expected(make_source, stage, tmp_path, once):
    if not once:
        where = Store(tmp_path / "undisturbed", shard_examples=4)
        undisturbed = make_source(streamed=True, where=where, token_budget=12)
        once += [undisturbed(stage, position=it).values for it in POSITIONS]
    return once


@pytest.fixture
def steps(monkeypatch):
    """Layers of all batches that went through the model."""
    seen, step = [], layer_major._Pass._step

    def watched(self, block, layer, batch):
        step(self, block, layer, batch)
        seen.append(layer)

    monkeypatch.setattr(layer_major._Pass, "_step", watched)
    return seen


def run(source, stage):
    """Values of all positions, of one pass."""
    source.prefetch(stage, [("resid_post", it) for it in POSITIONS], tuple(range(8)))
    return [source(stage, position=it).values for it in POSITIONS]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


def files_kept(where):
    return sorted(where.root.glob("*/*/*/kept-*"))


def end(source, stage, steps, after, error=KeyboardInterrupt):
    """End a pass after so many steps of batches."""
    watched = layer_major._Pass._step

    def ended(self, block, layer, batch):
        if len(steps) == after:
            raise error
        watched(self, block, layer, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_major._Pass, "_step", ended)
        with pytest.raises(error):
            run(source, stage)


def in_child(work):
    """How a child process ended."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def test_whoever_is_killed_at_whatever_batch_goes_on_bit_for_bit(
    source, stage, where, expected, monkeypatch
):
    monkeypatch.setattr(kept, "EVERY_S", 0)
    monkeypatch.setattr(kept, "SHARE", float("inf"))

    def killed():
        leave, n = Kept.leave, []

        def and_killed(self, fleet):
            leave(self, fleet)
            n.append(1)
            if len(n) == 2 * BATCHES + 3:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(Kept, "leave", and_killed)
        run(source(), stage)

    ends = [in_child(killed) for _ in range(3)]
    assert ends == [signal.SIGKILL] * 3
    assert len(files_kept(where)) == 3
    assert_same(run(source(), stage), expected)
    assert not files_kept(where)


@pytest.mark.parametrize("after", [1, BATCHES, 3 * BATCHES + 2, 9 * BATCHES - 1])
def test_whoever_is_interrupted_goes_on_and_repeats_nothing(
    source, stage, expected, steps, after, capsys
):
    end(source(), stage, steps, after)
    assert_same(run(source(), stage), expected)
    assert len(steps) == 9 * BATCHES
    assert "where an earlier process was ended" in capsys.readouterr().err


def test_whoever_is_told_to_stop_does_one_more_batch_at_most(source, stage, expected, steps):
    step = layer_major._Pass._step

    def told(self, block, layer, batch):
        step(self, block, layer, batch)
        if len(steps) == 2 * BATCHES + 3:
            os.kill(os.getpid(), signal.SIGUSR2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_major._Pass, "_step", told)
        with pytest.raises(Stopped), listening():
            run(source(), stage)
    assert len(steps) <= 2 * BATCHES + 4
    assert_same(run(source(), stage), expected)
    assert len(steps) == 9 * BATCHES


def test_whoever_is_not_told_goes_on_to_the_end(source, stage, expected, steps):
    with listening():
        assert_same(run(source(), stage), expected)
    assert len(steps) == 9 * BATCHES


def test_a_short_pass_keeps_nothing(source, stage, monkeypatch):
    times = []
    monkeypatch.setattr(Kept, "leave", lambda *_args: times.append(1))
    run(source(), stage)
    assert not times


class Slow:
    """Shards whose snapshots take half a minute."""

    n_row_bytes = 0

    def __init__(self, monkeypatch):
        self.now, self.times = 0.0, []
        monkeypatch.setattr(kept, "monotonic", lambda: self.now)

    def snapshot(self, _shard):
        self.times.append(self.now)
        self.now += 30.0


def test_keeping_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    fleet = Slow(monkeypatch)
    keep = Kept(tmp_path, "mine", [kept.Shard(0, {})], {})
    for fleet.now in range(0, 2000, 50):
        keep.pause(fleet)
    # First when it is due, then when half a minute is a twentieth of what has passed.
    assert fleet.times == [300, 950, 1600]


def test_who_is_interrupted_while_a_batch_is_put_down_leaves_nothing_doubtful(
    source, stage, where, monkeypatch
):
    def interrupted(_self, _source):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "copy_", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(source(dtype="float32"), stage)
    assert not files_kept(where)


def test_a_damaged_snapshot_is_not_gone_on_with(source, stage, where, expected, steps, capsys):
    end(source(), stage, steps, 4 * BATCHES)
    for path in files_kept(where):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
    del steps[:]
    assert_same(run(source(), stage), expected)
    assert len(steps) == 9 * BATCHES
    said = capsys.readouterr().err
    assert said.count("not going on with kept-00000") == said.count("not going on with") == 1
    assert "it is damaged" in said


def test_shards_of_which_one_snapshot_is_lost_go_on_together(source, stage, where, expected, steps):
    end(source(), stage, steps, 4 * BATCHES)
    files_kept(where)[0].unlink()
    del steps[:]
    assert_same(run(source(), stage), expected)
    assert 5 * BATCHES < len(steps) < 9 * BATCHES


def test_a_snapshot_of_another_version_is_not_gone_on_with_and_stays(
    source, stage, where, expected, steps, capsys, monkeypatch
):
    end(source(), stage, steps, 4 * BATCHES)
    before = files_kept(where)
    monkeypatch.setattr("olmo_stages.activations.streaming.KEPT_VERSION", 0)
    end(source(), stage, steps, 4 * BATCHES, error=RuntimeError)
    assert "kept_version was 1 and is 0" in capsys.readouterr().err
    assert files_kept(where) == before
    assert_same(run(source(), stage), expected)
    assert not files_kept(where)


def test_a_snapshot_of_another_request_is_not_found(source, stage, where, steps):
    end(source(), stage, steps, 4 * BATCHES)
    del steps[:]
    source()(stage, site="attn_out")
    assert len(steps) == 9 * BATCHES
    assert files_kept(where)


def test_a_full_disk_is_told_once_and_ends_nothing(
    source, stage, where, expected, capsys, monkeypatch
):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "EVERY_S", 0)
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    assert_same(run(source(), stage), expected)
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 1
    assert "going on without keeping how far it is" in said
    assert not list(where.root.glob("*/*/*/.kept*"))


def test_room_is_left_for_the_results(source, stage, expected, capsys, monkeypatch):
    monkeypatch.setattr(kept, "EVERY_S", 0)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(20_000))
    assert_same(run(source(), stage), expected)
    assert "too little for" in capsys.readouterr().err


def test_who_computed_before_is_told_too(source, stage, steps, monkeypatch):
    name = "olmo_stages.models.placement.name"
    monkeypatch.setattr(name, lambda _device: "one kind")
    end(source(), stage, steps, 4 * BATCHES)
    monkeypatch.setattr(name, lambda _device: "another")
    again = source()
    run(again, stage)
    assert again.ran_on == {"mine": {"cpu": "one kind; another"}}


def test_a_smaller_budget_that_memory_asked_for_is_kept(source, stage, steps, tmp_path):
    def scarce(run_):
        def small(decoder, mask, register, given):
            if len(mask) > 2 and mask.shape[1] < 8:
                raise torch.OutOfMemoryError("out of memory")
            return run_(decoder, mask, register, given)

        return small

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_major, "_run", scarce(layer_major._run))
        whole = run(source(token_budget=40), stage)
    shutil.rmtree(tmp_path / "streamed")
    del steps[:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_major, "_run", scarce(layer_major._run))
        end(source(token_budget=40), stage, steps, 20)
    assert_same(run(source(token_budget=40), stage), whole)


def test_cleaning_removes_what_a_complete_entry_has_left_over(source, stage, where, steps):
    end(source(), stage, steps, 4 * BATCHES)
    content = files_kept(where)[0]
    saved = content.read_bytes()
    cleaning.gc(where)
    assert files_kept(where)  # its job may go on
    run(source(), stage)
    content.write_bytes(saved)
    cleaning.gc(where)
    assert not files_kept(where)


def test_verify_tells_a_damaged_snapshot_and_no_other(source, stage, where, steps):
    end(source(), stage, steps, 4 * BATCHES)
    assert [row.problem for row in upkeep.verify(where)] == [""]
    files_kept(where)[0].write_bytes(b"half")
    (row,) = upkeep.verify(where)
    assert "its shard is computed from the beginning" in row.problem
    assert row.state in {upkeep.UNFINISHED, upkeep.LOCKED}
