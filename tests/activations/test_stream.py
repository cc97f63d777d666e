"""One layer at a time: the same numbers, little memory, and nothing that is damaged."""

import shutil
import tracemalloc

import numpy as np
import pytest

from olmo_stages.activations import files, reading
from olmo_stages.activations.store import Store
from olmo_stages.data.dataset import Dataset
from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.types import Example, Stage


def shards(store):
    return sorted(store.root.glob("*/*/*/part-*.safetensors"))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("position", ["last", "mean", "tokens"])
def test_a_stream_gives_what_a_call_gives(make_source, stage, position, dtype):
    layers = (5, -1, 0, 7)
    source = make_source(dtype=dtype)
    whole = source(stage, position=position, layers=layers)
    parts = list(source.stream(stage, position=position, layers=layers))
    assert [part.layers for part in parts] == [(5,), (-1,), (0,), (7,)]
    assert tuple(part.layer_types[0] for part in parts) == whole.layer_types
    for i, part in enumerate(parts):
        assert part.values.shape == (1, *whole.values.shape[1:])
        assert np.array_equal(part.values[0], whole.values[i])
        for name in ("ids", "token_ids", "key", "n_truncated", "left_out", "n_at_sink", "dtype"):
            assert getattr(part, name) == getattr(whole, name)
        assert np.array_equal(part.owners, whole.owners) or part.owners is whole.owners is None
    assert not np.array_equal(parts[0].values, parts[2].values)


def test_a_stream_of_all_layers_takes_one_pass(make_source, stage):
    source = make_source()
    stream = source.stream(stage, position="tokens")
    assert source.forward_passes[stage] == 3
    assert [part.layers for part in stream] == [(i,) for i in range(8)]
    assert source.forward_passes[stage] == 3
    source(stage, position="tokens", layers=(-1, 3))
    assert source.forward_passes[stage] == 3


def test_two_streams_can_be_read_together(make_source, stage):
    source = make_source()
    pairs = zip(
        source.stream(stage, position="tokens"), source.stream(stage, position="mean"), strict=True
    )
    for rows, mean in pairs:
        assert rows.layers == mean.layers
        own = rows.values[0, rows.owners == 2].mean(axis=0)
        np.testing.assert_allclose(own, mean.values[0, 2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [(8,), ()])
def test_a_wrong_question_is_refused_before_the_first_layer(make_source, stage, layers):
    with pytest.raises(ConfigError, match=r"-1 \(embeddings\) to 7"):
        make_source().stream(stage, layers=layers)


def allocated(read):
    tracemalloc.start()
    for answer in read():
        del answer
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_a_stream_holds_one_layer(make_source, make_checkpoint, tmp_path):
    path = make_checkpoint(tmp_path / "deep", n_layers=16)
    texts = [
        " ".join(f"w{(i // (1 + 39 * (j % 2)) + j * j) % 40}" for j in range(30))
        for i in range(300)
    ]
    examples = [Example(f"e{i}", f"g{i}", i % 2, text=text) for i, text in enumerate(texts)]
    source = make_source(
        Dataset("deep", tuple(examples), "raw"),
        where=Store(tmp_path / "deep_store"),
        token_budget=4000,
    )
    deep = Stage("deep", "custom", str(path))
    source.prefetch(deep, [("resid_post", "tokens")])
    size = 16 * 300 * 29 * 32 * 4
    streamed = allocated(lambda: source.stream(deep, position="tokens"))
    called = allocated(lambda: [source(deep, position="tokens")])
    # One layer of 16 is held while the next one is read, with a block and some bookkeeping.
    assert streamed < size / 4
    assert called > size  # control


def test_a_stream_reads_each_file_once_and_then_only_its_layer(
    make_source, stage, store, monkeypatch
):
    source = make_source()
    source(stage, position="tokens")
    checked, tensors = [], []
    check, tensor = files.check, files.Checked.tensor
    monkeypatch.setattr(files, "check", lambda path: checked.append(path.name) or check(path))
    monkeypatch.setattr(
        files.Checked, "tensor", lambda self, name: tensors.append(name) or tensor(self, name)
    )
    list(source.stream(stage, position="tokens", layers=(2, 6)))
    assert sorted(checked) == sorted({path.name for path in store.root.glob("*/*/*/*.safetensors")})
    activations = [name for name in tensors if "/" in name]
    assert activations == ["resid_post/tokens/layer.02"] * 3 + ["resid_post/tokens/layer.06"] * 3


@pytest.mark.parametrize("part", [0, 2])
def test_a_damaged_shard_is_found_before_the_first_layer(make_source, stage, store, part):
    source = make_source()
    source(stage, position="tokens")
    assert list(source.stream(stage, position="tokens"))  # control
    flip(shards(store)[part])
    stream = source.stream(stage, position="tokens", layers=(0,))
    with pytest.raises(StoreError, match=r"part-0000\d.* is damaged.*delete the folder"):
        next(stream)


def test_a_shard_damaged_while_streaming_is_noticed(make_source, stage, store):
    source = make_source()
    stream = source.stream(stage, position="tokens")
    next(stream)
    flip(shards(store)[1])
    with pytest.raises(StoreError, match=r"part-00001.* was changed while it was in use"):
        next(stream)


def test_a_missing_shard_is_named(make_source, stage, store):
    source = make_source()
    stream = source.stream(stage, position="tokens")
    next(stream)
    shards(store)[1].unlink()
    with pytest.raises(StoreError, match=r"part-00001.* cannot be read"):
        next(stream)


def test_an_entry_removed_while_streaming_is_computed_again(make_source, stage, store):
    source = make_source()
    whole = source(stage, position="tokens")
    n = source.forward_passes[stage]
    stream = source.stream(stage, position="tokens")
    found = [next(stream), next(stream)]
    shutil.rmtree(store.root)
    assert not shards(store)
    found += stream
    assert source.forward_passes[stage] == 2 * n
    assert np.array_equal(np.concatenate([part.values for part in found]), whole.values)


def test_an_entry_replaced_while_streaming_is_read_anew(make_source, stage, store):
    """Another process made the entry again, cut into other shards."""
    source = make_source()
    stream = source.stream(stage, position="tokens")
    first = next(stream)
    shutil.rmtree(store.root)
    other = make_source(where=Store(store.root, heartbeat_s=0.3, shard_examples=3))
    whole = other(stage, position="tokens")
    found = [first, *stream]
    assert source.forward_passes[stage] == 3
    values = np.concatenate([part.values for part in found])
    np.testing.assert_allclose(values, whole.values, rtol=1e-4, atol=1e-4)
    assert np.array_equal(values[1:], whole.values[1:])


def test_an_entry_that_is_removed_again_and_again_is_an_error(make_source, stage, monkeypatch):
    source = make_source()
    stream = source.stream(stage, position="tokens")
    real = reading.open_entry

    def open_entry(entry, capture):
        shutil.rmtree(entry.folder)
        return real(entry, capture)

    monkeypatch.setattr(reading, "open_entry", open_entry)
    with pytest.raises(StoreError, match="cannot be read"):
        next(stream)


# Files


def test_a_tensor_is_read_from_its_offset(tmp_path):
    import torch
    from safetensors.torch import save

    tensors = {
        "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "b": torch.tensor([[1.5, -2.0, 3e38], [0.0, 1e-30, -0.1]]).to(torch.bfloat16),
        "c": torch.tensor([7, 8, 9]),
        "d": torch.tensor([0.1, 2.0]).to(torch.float16),
    }
    name = files.write_digested(tmp_path, "part", save(tensors, metadata={"k": "v"}))
    checked = files.check(tmp_path / name)
    assert checked.metadata == {"k": "v"}
    for key, tensor in tensors.items():
        assert checked.shape(key) == tuple(tensor.shape)
        expected = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        assert np.array_equal(checked.tensor(key), expected)
    assert checked.tensor("b").dtype == np.float32


def test_a_tensor_that_is_not_there_is_named(tmp_path):
    from safetensors.numpy import save

    name = files.write_digested(tmp_path, "part", save({"a": np.zeros(3)}))
    with pytest.raises(StoreError, match="does not hold b"):
        files.check(tmp_path / name).tensor("b")


@pytest.mark.parametrize("content", [b"", b"\x05", b"\xff" * 64, b"\x02" + b"\x00" * 7 + b"[]"])
def test_what_is_no_safetensors_file_is_one_line(tmp_path, content):
    name = files.write_digested(tmp_path, "part", content)
    with pytest.raises(StoreError, match="is no safetensors file"):
        files.check(tmp_path / name)
    assert not files.is_sound(tmp_path / name, {})


def test_a_file_of_several_blocks_is_checked_whole(tmp_path, monkeypatch):
    from safetensors.numpy import save

    monkeypatch.setattr(files, "_BLOCK", 64)
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    name = files.write_digested(tmp_path, "part", save({"a": values}))
    assert np.array_equal(files.check(tmp_path / name).tensor("a"), values)
    flip(tmp_path / name)
    with pytest.raises(StoreError, match="is damaged"):
        files.check(tmp_path / name)
