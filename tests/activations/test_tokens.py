"""Position `tokens`: one row a token, through the store and back."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from olmo_stages.activations import entry as entry_module
from olmo_stages.activations import files
from olmo_stages.activations.entry import read_entry
from olmo_stages.activations.rows import Chosen, Rows
from olmo_stages.activations.store import Store
from olmo_stages.data.dataset import Dataset
from olmo_stages.types import Example


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def manifest_of(store):
    (path,) = store.root.glob("*/*/*/manifest.json")
    return json.loads(path.read_text())


def test_rows_are_the_hidden_states_of_their_tokens(make_source, stage, checkpoint):
    source = make_source()
    found = source(stage, position="tokens", layers=(-1, 2, 5))
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    expected, before = [], []
    for example in source.examples:
        ids = tokenizer(example.text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states
        three = torch.stack([states[layer + 1][0] for layer in found.layers]).numpy()
        expected.append(three[:, 1:])  # all but the sink
        before.append(three[:, :-1])
    expected = np.concatenate(expected, axis=1)
    assert found.values.shape == expected.shape
    for own, other, row in zip(expected, np.concatenate(before, axis=1), found.values, strict=True):
        assert relative(row, own) < 1e-5  # fp32 rounding
        assert relative(row, other) > 0.01  # twin: the neighbouring tokens


def test_owners_and_tokens_of_the_rows(make_source, stage):
    found = make_source()(stage, position="tokens", layers=(0,))
    lengths = [len(ids) for ids in found.token_ids]
    assert len(set(lengths)) > 3  # sorted and back, so the order means something
    assert lengths != sorted(lengths, reverse=True)
    assert found.owners.tolist() == [i for i, n in enumerate(lengths) for _ in range(1, n)]
    assert found.token_index.tolist() == [t for n in lengths for t in range(1, n)]
    assert found.values.shape == (1, sum(lengths) - len(lengths), 32)


def test_single_token_positions_have_no_owners(make_source, stage):
    found = make_source()(stage, layers=(0,))
    assert found.owners is None
    assert found.token_index is None


def test_the_mean_of_an_examples_rows_is_the_mean(make_source, stage):
    source = make_source()
    rows = source(stage, position="tokens", layers=(4,))
    mean = source(stage, position="mean", layers=(4,))
    for i in range(len(mean.ids)):
        own = rows.values[0, rows.owners == i].mean(axis=0)
        np.testing.assert_allclose(own, mean.values[0, i], rtol=1e-4, atol=1e-5)  # fp32 sums
    assert relative(own, mean.values[0, 0]) > 0.01
    assert (rows.left_out, rows.n_at_sink) == (mean.left_out, mean.n_at_sink)


def test_mean_and_tokens_take_one_pass(make_source, stage, store):
    source = make_source()
    source.prefetch(stage, [("resid_post", "mean"), ("resid_post", "tokens")])
    n = source.forward_passes[stage]
    mean = source(stage, position="mean")
    rows = source(stage, position="tokens")
    assert source.forward_passes[stage] == n == 3
    assert mean.values.shape == (8, 11, 32)
    assert rows.values.shape[1] == len(rows.owners) > 11
    separate = make_source(where=Store(store.root.parent / "separate", shard_examples=4))
    assert np.array_equal(separate(stage, position="mean").values, mean.values)
    assert np.array_equal(separate(stage, position="tokens").values, rows.values)


def test_batches_and_shards_change_no_row(make_source, stage, tmp_path):
    one = make_source(where=Store(tmp_path / "one", shard_examples=1), token_budget=1)
    many = make_source(where=Store(tmp_path / "many"), token_budget=10_000)
    rows = make_source(where=Store(tmp_path / "rows", shard_rows=7))
    a, b, c = (source(stage, position="tokens") for source in (one, many, rows))
    assert (one.forward_passes[stage], many.forward_passes[stage]) == (11, 1)
    assert a.key == b.key == c.key
    for other in (a, c):
        assert relative(other.values, b.values) < 1e-5
        assert np.array_equal(other.owners, b.owners)
        assert np.array_equal(other.token_index, b.token_index)


def test_rows_come_in_the_order_of_the_data(make_source, stage, dataset):
    forward = make_source()(stage, position="tokens", layers=(3,))
    backward = make_source(Dataset("toy", dataset.examples[::-1], "raw"))(
        stage, position="tokens", layers=(3,)
    )
    n = len(forward.ids)
    for i in range(n):
        assert backward.ids[n - 1 - i] == forward.ids[i]
        own = forward.values[0, forward.owners == i]
        mirrored = backward.values[0, backward.owners == n - 1 - i]
        np.testing.assert_allclose(mirrored, own, rtol=1e-4, atol=1e-4)
    assert not np.allclose(backward.values, forward.values)


def test_truncation_leaves_the_rows_of_what_is_left(make_source, stage):
    whole = make_source()(stage, position="tokens", layers=(0,))
    cut = make_source(max_length=5)(stage, position="tokens", layers=(0,))
    lengths = [min(len(ids), 5) for ids in whole.token_ids]
    assert [len(ids) for ids in cut.token_ids] == lengths
    assert cut.token_index.tolist() == [t for n in lengths for t in range(1, n)]
    assert cut.n_truncated > 0
    assert cut.left_out == {"sink": 11, "special": 0, "template": 0}


def test_bfloat16_rows_are_stored_as_they_were(make_source, stage):
    found = make_source(dtype="bfloat16")(stage, position="tokens", layers=(3,))
    as_bfloat16 = torch.from_numpy(found.values).to(torch.bfloat16).float().numpy()
    assert np.array_equal(found.values, as_bfloat16)
    assert relative(found.values, make_source()(stage, position="tokens", layers=(3,)).values) < 0.1


# What is left out


def examples_of(*texts):
    return tuple(Example(f"e{i}", f"g{i}", i % 2, text=text) for i, text in enumerate(texts))


@pytest.mark.parametrize("position", ["mean", "tokens"])
def test_left_out_of_raw_texts(make_source, stage, position):
    # Sinks w1, w4 and <eos>; the other <eos> is special; the lone w7 is read all the same.
    data = Dataset("toy", examples_of("w1 w2 w3", "w4 <eos> w5", "w7", "<eos> w6"), "raw")
    make_source(data)(stage, position=position, layers=(0,))
    found = make_source(data)(stage, position=position, layers=(0,))  # from the store
    assert found.left_out == {"sink": 3, "special": 1, "template": 0}
    assert found.n_at_sink == 1
    if position == "tokens":
        assert found.owners.tolist() == [0, 0, 1, 2, 3]
        assert found.token_index.tolist() == [1, 2, 2, 0, 1]
        n_tokens = sum(map(len, found.token_ids))
        assert sum(found.left_out.values()) + len(found.owners) == n_tokens


def test_left_out_of_chats(make_source, stage):
    # Words: <|im_start|>user, w1, w2, w3<|im_end|>, <|im_start|>assistant. The first is the sink;
    # the last two are unknown to this tokenizer, hence special.
    data = Dataset("toy", examples_of("w1 w2 w3", "w4 w5", "w6 w7", "w8 w9"), "chat_fixed")
    found = make_source(data)(stage, position="tokens", layers=(0,))
    assert [len(ids) for ids in found.token_ids] == [5, 4, 4, 4]
    assert found.left_out == {"sink": 4, "special": 8, "template": 0}
    assert found.token_index.tolist() == [1, 2, 1, 1, 1]
    assert found.n_at_sink == 0


@pytest.mark.parametrize(
    ("position", "n"), [("first_content", 4), ("last", 1), ("last_content", 1)]
)
def test_examples_read_at_the_sink_are_counted(make_source, stage, position, n):
    data = Dataset("toy", examples_of("w1 w2 w3", "w4 w5", "w7", "w8 w9"), "raw")
    make_source(data)(stage, position=position, layers=(0,))
    found = make_source(data)(stage, position=position, layers=(0,))
    assert found.left_out == {}
    assert found.n_at_sink == n


# Shards and versions


def rows_of(lengths):
    tokens = [tuple(range(1, n + 1)) for n in lengths]
    chosen = {"tokens": Chosen(tokens, {}, 0)}
    ids = [f"e{i}" for i in range(len(lengths))]
    return Rows(ids, range(len(lengths)), [(0,)] * len(lengths), 0, chosen)


def test_shards_are_cut_by_examples_and_by_rows():
    cut = list(rows_of([9, 5, 3, 3, 2, 2, 1]).shards(3, 8))
    assert cut == [[0], [1, 2], [3, 4, 5], [6]]
    assert list(rows_of([1, 1, 1, 1, 1]).shards(2, 100)) == [[0, 1], [2, 3], [4]]


def test_pooled_positions_are_cut_by_examples_alone():
    rows = dataclasses.replace(rows_of([9, 9, 9]), chosen={"mean": Chosen([(1,)] * 3, {}, 0)})
    assert list(rows.shards(2, 1)) == [[0, 1], [2]]


def test_a_shard_of_tokens_stays_small(make_source, stage, store):
    make_source(where=dataclasses.replace(store, shard_rows=8))(
        stage, position="tokens", layers=(0,)
    )
    n_small = len(manifest_of(store)["shards"])
    shutil.rmtree(store.root)
    make_source()(stage, position="tokens", layers=(0,))
    assert n_small > len(manifest_of(store)["shards"]) == 3


def test_an_interrupted_extraction_of_tokens_goes_on(make_source, stage, store, monkeypatch):
    source = make_source()
    real, written = files.write_digested, []

    def stop(folder, stem, *content):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.extend([stem] if stem.startswith("part") else [])
        return real(folder, stem, *content)

    monkeypatch.setattr(files, "write_digested", stop)
    with pytest.raises(KeyboardInterrupt):
        source(stage, position="tokens")
    monkeypatch.undo()
    again = make_source()
    found = again(stage, position="tokens")
    assert again.forward_passes[stage] == 1  # of three shards the third is missing
    fresh = make_source(where=dataclasses.replace(store, root=store.root.parent / "fresh"))
    assert np.array_equal(fresh(stage, position="tokens").values, found.values)


def test_an_entry_of_an_earlier_layout_misses_and_its_shards_are_used(make_source, stage, store):
    before = make_source()(stage)
    (path,) = store.root.glob("*/*/*/manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["positions"], manifest["digest"]
    manifest["format_version"] = 1
    digest = entry_module.digest(manifest)
    path.write_text(json.dumps(manifest | {"digest": digest}))
    assert read_entry(path.parent) is None
    source = make_source()
    after = source(stage)
    assert source.forward_passes[stage] == 0
    assert np.array_equal(before.values, after.values)
    assert (after.key, after.n_at_sink, after.left_out) == (before.key, 0, {})
    assert read_entry(path.parent) is not None


def test_the_shard_says_which_layout_it_has(make_source, stage, store, monkeypatch):
    make_source()(stage)
    (path,) = store.root.glob("*/*/*/manifest.json")
    path.unlink()
    monkeypatch.setattr(entry_module, "SHARD_VERSION", entry_module.SHARD_VERSION + 1)
    source = make_source()
    source(stage)
    assert source.forward_passes[stage] == 3
