"""What jobs at the same time share of a machine."""

import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.launching import devices
from olmo_stages.launching.devices import Gpus, named_by, threads_of_each, visible_gpus

WHOLE = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000001)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000002)
"""
SPLIT = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000001)
  MIG 3g.40gb     Device  0: (UUID: MIG-22222222-aaaa-bbbb-cccc-000000000001)
  MIG 3g.40gb     Device  1: (UUID: MIG-22222222-aaaa-bbbb-cccc-000000000002)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000002)
"""


def test_gpus_are_told_by_their_names():
    names = named_by(WHOLE)
    assert names == [f"GPU-11111111-aaaa-bbbb-cccc-00000000000{it}" for it in (1, 2)]
    assert named_by("No devices were found\n") == []


def test_of_a_gpu_that_is_split_the_parts_are_told():
    assert [it[:12] + it[-1] for it in named_by(SPLIT)] == [
        "MIG-222222221",
        "MIG-222222222",
        "GPU-111111112",
    ]


@pytest.mark.parametrize(
    ("variable", "names"),
    [("0,2", ["0", "2"]), ("", []), ("-1", []), (" GPU-1 , 3", ["GPU-1", "3"])],
)
def test_gpus_that_the_user_chose_are_those_there_are(monkeypatch, variable, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == names


def test_without_a_driver_there_are_none(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices.shutil, "which", lambda _: None)
    assert visible_gpus() == []


def test_gpus_go_to_whoever_comes_those_least_used_first():
    gpus = Gpus(["a", "b", "c"], 2, 2)
    first = gpus.take()
    assert first == ["a", "b"]
    assert gpus.take() == ["c", "a"]
    gpus.give_back(first)
    assert gpus.take() == ["b", "a"]


@pytest.mark.parametrize(
    ("names", "per_job", "n_jobs", "taken"),
    [
        (["a", "b"], None, 1, None),
        (["a", "b"], None, 2, ["a"]),
        (["a", "b", "c", "d"], None, 2, ["a", "b"]),
        (["a"], None, 4, ["a"]),
        ([], None, 4, None),
        (["a", "b"], 0, 1, []),
        (["a", "b"], 2, 4, ["a", "b"]),
    ],
)
def test_how_many_gpus_a_job_has(names, per_job, n_jobs, taken):
    assert Gpus(names, per_job, n_jobs).take() == taken


def test_more_gpus_than_there_are_cannot_be_had():
    with pytest.raises(ConfigError, match="gpus_per_job=2, but there are 1 GPUs"):
        Gpus(["a"], 2, 1)


@pytest.mark.parametrize(
    ("n_jobs", "chosen", "cores", "share"),
    [(1, "", 8, None), (2, "", 8, 4), (16, "", 8, 1), (2, "3", 8, None)],
)
def test_threads_are_shared_unless_the_user_chose(monkeypatch, n_jobs, chosen, cores, share):
    monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: set(range(cores)))
    assert threads_of_each(n_jobs) == share
