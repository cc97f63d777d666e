"""That the fault test would notice: each fault it looks for, planted, beside its control."""

import json

import pytest

from olmo_stages import records
from olmo_stages.records import Times
from olmo_stages.types import Measurement, Result, Stage
from tests.faults.launches import Place
from tests.faults.many import Ended, Killed, leftovers, results, verdict

PART = "store/aa/pass/entry/part-0000{}.digest.safetensors"


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path, tmp_path, heartbeat_s=1.0)
    (found.orders / "taken").mkdir(parents=True)
    found.store.mkdir(parents=True)
    write_result(found.outputs, 0.5)
    return found


def write_result(outputs, value):
    result = Result((Measurement("auroc", value, "think_sft"),))
    stage = Stage("think_sft", "tiny", "miniature")
    job = records.Job("probe", stage, None, "truth", {"seed": 0})
    provenance = records.provenance(
        job=job.describe(),
        config={},
        times=Times(records.now(), records.now()),
        seed=0,
        data_digest="d",
        model_digests={},
    )
    records.write(job.folder(outputs), result, provenance)
    return job.folder(outputs)


def happened(place, *events):
    place.log.write_text("".join(f"{json.dumps(it)}\n" for it in events))


def shard(pid, part, time=0.0):
    return {"event": "shard", "pid": pid, "time": time, "path": PART.format(part)}


def computing(pid):
    return {"event": "computing", "pid": pid, "time": 0.0}


def wait(pid, begun, time):
    return {"event": "wait", "pid": pid, "begun": begun, "time": time, "entry": "e"}


def told(place, *killed, expected=None, failures=()):
    ended = Ended(place, list(killed), list(failures), 1.0)
    return verdict(ended, results(place.outputs) if expected is None else expected)


def test_what_went_well_is_not_found_fault_with(place):
    happened(place, computing(1), shard(1, 0), computing(2), computing(1), shard(1, 1))
    assert told(place, Killed(2, 5.0, "computing")) == []


def test_another_number_is_found(place):
    expected = results(place.outputs)
    write_result(place.outputs, 0.5)
    assert told(place, expected=expected) == []
    write_result(place.outputs, 0.5000001)
    (line,) = told(place, expected=expected)
    assert line.startswith("another result: probe/think_sft.tiny")
    assert "measurements.parquet" in line


def test_a_missing_and_a_surplus_result_are_found(place):
    expected = results(place.outputs)
    assert told(place, expected=expected | {"other": {}}) == ["no result other"]
    (line,) = told(place, expected={})
    assert "nobody asked for" in line


def test_a_torn_result_is_found(place):
    folder = write_result(place.outputs, 0.5)
    (folder / "measurements.jsonl").write_text("{")
    with pytest.raises(Exception, match="damaged"):
        told(place, expected={})


def test_a_shard_that_was_written_twice_is_found(place):
    happened(place, computing(1), shard(1, 0), computing(2), shard(2, 0))
    (line,) = told(place)
    assert "written 2 times" in line


def test_a_shard_that_was_computed_for_nothing_is_found(place):
    happened(place, computing(1), computing(1), shard(1, 0))
    (line,) = told(place)
    assert line == "process 1 (unkilled) computed 2 shards and wrote 1"
    assert told(place, Killed(1, 0.0, "computing")) == []


def test_a_process_that_lost_two_shards_is_found(place):
    happened(place, computing(1), computing(1))
    (line,) = told(place, Killed(1, 0.0, "computing"))
    assert line == "process 1 (killed) computed 2 shards and wrote 0"


def polls(pid, begun, n):
    return [wait(pid, begun + i / 4, begun + 0.2 + i / 4) for i in range(n)]


def test_a_wait_beyond_the_lease_is_found(place):
    happened(place, *polls(1, 10.0, 16))
    assert told(place) == []
    happened(place, *polls(1, 10.0, 40))
    (line,) = told(place)
    assert line == "waited 9.9 s for nobody; leases last 3.0 s"
    # A kill begins it anew: it may leave another lease.
    assert told(place, Killed(2, 15.0, "computing")) == []
    (line,) = told(place, Killed(2, 11.0, "computing"))
    assert "waited 8.9 s" in line


def test_who_waits_for_somebody_at_work_is_not_found_fault_with(place):
    begun = {**computing(2), "time": 9.0}
    happened(place, begun, *polls(1, 10.0, 40), shard(2, 0, time=18.0))
    assert told(place) == []
    happened(place, begun, *polls(1, 10.0, 40))
    (line,) = told(place, Killed(2, 12.0, "computing"))
    assert "waited 7.9 s" in line
    # Others' work counts, one's own between two looks does not.
    happened(place, {**computing(1), "time": 9.0}, *polls(1, 10.0, 40), shard(1, 0, time=18.0))
    assert len(told(place)) == 1


def test_an_unfinished_entry_is_found(place):
    folder = place.store / "aa" / "pass" / "entry"
    folder.mkdir(parents=True)
    (folder / "part-00000.x.safetensors").write_bytes(b"x")
    (line,) = told(place)
    assert line.startswith("store: entry is unfinished")


def test_launches_that_failed_by_themselves_are_told(place):
    assert told(place, failures=["cka ended with 1, unkilled"]) == ["cka ended with 1, unkilled"]


def test_temporary_files_are_found(place):
    assert leftovers(place) == []
    (place.store / ".part-00000.x.tmp").touch()
    assert leftovers(place) == ["cache/activations/.part-00000.x.tmp"]
