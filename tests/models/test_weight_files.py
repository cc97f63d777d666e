"""Weights are read from their files as safetensors itself gives them."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from olmo_stages.errors import ModelError
from olmo_stages.models import memory, weight_files
from olmo_stages.models.tensors import Tensors
from olmo_stages.models.weight_files import WeightFiles

NAMES = ("a.weight", "b.weight", "c.bias", "d.scale", "e.count")


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    weights = {
        "a.weight": torch.randn(37, 11, generator=generator).bfloat16(),
        "b.weight": torch.randn(5, 7, 3, generator=generator),
        "c.bias": torch.randn(13, generator=generator).half(),
        "d.scale": torch.tensor(2.5, dtype=torch.float64),
        "e.count": torch.arange(4),
    }
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize("step", [16, 8 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_those_of_safetensors_in_the_dtype_asked_for(folder, monkeypatch, dtype, step):
    monkeypatch.setattr(weight_files, "STEP", step)
    files = WeightFiles("mine", Tensors(folder))
    for name, expected in load_file(folder / "model.safetensors").items():
        into = torch.full(expected.shape, torch.nan, dtype=dtype)
        files.read(name, into)
        assert torch.equal(into, expected.to(dtype)), name


def test_they_are_read_in_the_order_in_which_they_lie(folder):
    order = WeightFiles("mine", Tensors(folder)).in_order(NAMES)
    assert sorted(order) == sorted(NAMES)
    content = (folder / "model.safetensors").read_bytes()
    weights = load_file(folder / "model.safetensors")
    at = [
        content.index(weights[name].reshape(-1).view(torch.uint8).numpy().tobytes())
        for name in order
    ]
    assert at == sorted(at)


def test_a_file_that_ends_too_early_is_one_line(folder):
    files = WeightFiles("mine", Tensors(folder))
    last = files.in_order(NAMES)[-1]
    into = torch.empty(load_file(folder / "model.safetensors")[last].shape, dtype=torch.float32)
    path = folder / "model.safetensors"
    files.in_order(NAMES)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(ModelError, match="ends too early"):
        files.read(last, into)


@pytest.mark.parametrize(("free", "goes"), [(10, True), (10**12, False)])
def test_pages_go_where_the_files_cannot_stay_cached(folder, monkeypatch, free, goes):
    monkeypatch.setattr(memory, "free_bytes", lambda _device: (free, free))
    advised = []
    monkeypatch.setattr("os.posix_fadvise", lambda *args: advised.append(args))
    files = WeightFiles("mine", Tensors(folder))
    files.read("b.weight", torch.empty(5, 7, 3))
    assert bool(advised) == goes
