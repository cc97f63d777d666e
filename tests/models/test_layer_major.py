"""Block by block with all batches: the same numbers as batch by batch with all blocks."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from olmo_stages.errors import ConfigError, ModelError, NonFiniteError, StoreError
from olmo_stages.models import forward, layer_major, room
from olmo_stages.models.captures import Capture
from olmo_stages.models.checkpoints import Checkpoint
from olmo_stages.models.forward import Item
from olmo_stages.models.loading import load, skeleton
from olmo_stages.models.memory import TokenBudget
from olmo_stages.models.under_way import Snapshot
from olmo_stages.models.weight_files import WeightFiles
from olmo_stages.types import Stage

CAPTURES = (
    Capture("resid_pre", "last"),
    Capture("attn_out", "tokens"),
    Capture("resid_mid", "mean"),
    Capture("mlp_out", "last"),
    Capture("resid_post", "mean"),
)


def items_of(n, vocabulary=97):
    lengths = sorted((3 + (7 * i) % 20 for i in range(n)), reverse=True)
    return [
        Item(
            f"e{i}",
            tuple(1 + (5 * i + 3 * j * j) % (vocabulary - 1) for j in range(length)),
            {"last": (length - 1,), "mean": tuple(range(1, length)), "tokens": (0, length - 1)},
        )
        for i, length in enumerate(lengths)
    ]


def saved(model, path):
    model.save_pretrained(path)
    return path


def both(path, tmp_path, *, dtype="float32", seed=None, layers=None, budget=60, shards=None):
    """Rows of the ordinary pass and of the streamed one."""
    stage, checkpoint = Stage("mine", "custom", str(path), random_init=seed), Checkpoint(path, None)
    shards = shards or [items_of(9), items_of(4)]
    whole = load(stage, checkpoint, dtype=dtype, device="cpu")
    layers = layers or (-1, *range(len(whole.decoder.blocks)))
    expected = [
        forward.pooled(whole.decoder, items, CAPTURES, layers, token_budget=budget)
        for items in shards
    ]
    streamed = skeleton(stage, checkpoint, dtype=dtype, device="cpu")
    memory = layer_major.Memory(TokenBudget(budget), tmp_path)
    return expected, layer_major.pooled(streamed, shards, CAPTURES, layers, memory)


def assert_same(expected, found):
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for key, rows in one.items():
            assert rows.dtype == other[key].dtype
            assert torch.equal(rows, other[key]), key


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["olmo3", "olmo2", "llama", "qwen3", "gemma3", "gpt2"])
def test_every_bit_is_that_of_the_ordinary_pass(models, tmp_path, family, dtype):
    path = saved(models(family), tmp_path / "model")
    assert_same(*both(path, tmp_path, dtype=dtype))


def test_a_random_initialisation_is_that_of_the_ordinary_pass(models, tmp_path):
    path = saved(models("olmo3"), tmp_path / "model")
    assert_same(*both(path, tmp_path, seed=3))


def test_other_seeds_and_the_trained_model_differ(models, tmp_path):
    path = saved(models("olmo3"), tmp_path / "model")
    found = [both(path, tmp_path, seed=seed)[1] for seed in (None, 3, 4)]
    key = max(found[0][0])
    first, second, third = (it[0][key] for it in found)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_some_layers_only(models, tmp_path):
    path = saved(models("olmo3"), tmp_path / "model")
    assert_same(*both(path, tmp_path, layers=(1,)))


def test_released_weights_in_shards_of_files(released, tmp_path):
    path = released(shards=3)
    assert_same(*both(path, tmp_path, dtype="bfloat16", shards=[items_of(5, 90)]))


def test_what_memory_has_no_room_for_lies_in_files_and_is_the_same(models, tmp_path, monkeypatch):
    path = saved(models("olmo3"), tmp_path / "model")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(room, "SHARE", 0)
    taken = []
    from_file = torch.from_file
    monkeypatch.setattr(torch, "from_file", lambda *a, **k: taken.append(a) or from_file(*a, **k))
    assert_same(*both(path, scratch))
    assert taken
    assert not list(scratch.iterdir())


def test_a_full_disk_is_one_line(models, tmp_path, monkeypatch):
    path = saved(models("olmo3"), tmp_path / "model")

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "SHARE", 0)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StoreError, match="No space left on device"):
        both(path, tmp_path)


def test_a_batch_for_which_memory_does_not_suffice_is_done_in_smaller_ones(
    models, tmp_path, monkeypatch
):
    path = saved(models("olmo3"), tmp_path / "model")
    run, largest = layer_major._run, []

    def small(decoder, mask, register, given):
        if mask.numel() > 70:
            raise torch.OutOfMemoryError("out of memory")
        largest.append(mask.numel())
        return run(decoder, mask, register, given)

    monkeypatch.setattr(layer_major, "_run", small)
    expected, found = both(path, tmp_path, budget=200)
    assert max(largest) <= 70
    for one, other in zip(expected, found, strict=True):
        for key, rows in one.items():
            # Other batches have other shapes, whose kernels may round differently.
            torch.testing.assert_close(other[key], rows, rtol=1e-4, atol=1e-4)


def test_each_weight_is_read_once(models, tmp_path, monkeypatch):
    path = saved(models("olmo3"), tmp_path / "model")
    read, names = WeightFiles.read, []

    def counted(self, name, into):
        names.append(name)
        return read(self, name, into)

    monkeypatch.setattr(WeightFiles, "read", counted)
    both(path, tmp_path)
    assert sorted(names) == sorted(load_file(path / "model.safetensors"))


def test_at_most_two_blocks_hold_weights(models, tmp_path):
    path = saved(models("olmo3"), tmp_path / "model")
    stage, checkpoint = Stage("mine", "custom", str(path)), Checkpoint(path, None)
    model = skeleton(stage, checkpoint, dtype="float32", device="cpu")
    for _, block in model.filled(0, len(model.blocks)):
        held = [it for it in model.blocks if next(it.parameters()).device.type != "meta"]
        assert held == [block]
    assert all(it.device.type == "meta" for it in model.model.parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [("model.layers.1.mlp.up_proj.weight", float("nan")), ("lm_head.weight", float("inf"))],
)
def test_a_weight_that_is_not_finite_is_refused(models, tmp_path, name, value):
    path = saved(models("olmo3"), tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    weights[name][0, 0] = value
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    model = skeleton(
        Stage("m", "custom", str(path)), Checkpoint(path, None), dtype="float32", device="cpu"
    )
    memory = layer_major.Memory(TokenBudget(60), tmp_path)
    with pytest.raises(ModelError, match=f"{name} is not finite"):
        layer_major.pooled(model, [items_of(3)], CAPTURES, (0,), memory)


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_weights_that_are_not_the_models_are_refused(models, tmp_path, change):
    path = saved(models("olmo3"), tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    if change == "missing":
        del weights["model.layers.0.mlp.up_proj.weight"]
    else:
        weights["model.layers.9.mlp.up_proj.weight"] = torch.ones(2, 2)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"1 weight is {change}"):
        skeleton(
            Stage("m", "custom", str(path)), Checkpoint(path, None), dtype="float32", device="cpu"
        )


def test_a_head_that_is_not_tied_although_the_config_says_so_is_refused(models, tmp_path):
    path = saved(models("olmo3"), tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(ModelError, match=r"ties lm_head\.weight"):
        skeleton(
            Stage("m", "custom", str(path)), Checkpoint(path, None), dtype="float32", device="cpu"
        )


def test_activations_that_are_not_finite_name_layer_and_example(models, tmp_path):
    path = saved(models("olmo3"), tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    weights["model.embed_tokens.weight"][96] = 3e38
    weights["model.layers.0.post_attention_layernorm.weight"] *= 3e38
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises((NonFiniteError, ModelError), match="not finite"):
        both(path, tmp_path)


def test_a_family_that_keeps_weights_in_float32_is_refused_in_another_dtype(models, tmp_path):
    path = saved(models("olmo3"), tmp_path / "model")
    model = skeleton(
        Stage("m", "custom", str(path)), Checkpoint(path, None), dtype="float32", device="cpu"
    )
    from olmo_stages.models.skeleton import check_dtype

    model.model._keep_in_fp32_modules = {"norm"}
    check_dtype(model.model, torch.float32)
    with pytest.raises(ConfigError, match="keeps norm in float32"):
        check_dtype(model.model, torch.bfloat16)


class Ended:
    """Keeps snapshots in memory, and ends the pass after so many batches."""

    def __init__(self, after):
        self.after, self.left = after, {}

    def found(self, shard):
        return self.left.get(shard)

    def pause(self, _fleet):
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt

    def leave(self, fleet):
        copies = {}
        for i in range(len(fleet.shards)):
            snapshot = fleet.snapshot(i)
            if snapshot is not None:
                tensors = {name: it.clone() for name, it in snapshot.tensors.items()}
                copies[i] = Snapshot(dict(snapshot.facts), tensors)
        self.left = copies


@pytest.mark.parametrize("after", [1, 3, 5, 8, 14])
@pytest.mark.parametrize("family", ["olmo3", "gemma3"])
def test_a_pass_goes_on_from_between_any_two_batches(models, tmp_path, family, after):
    path = saved(models(family), tmp_path / "model")
    stage, checkpoint = Stage("mine", "custom", str(path)), Checkpoint(path, None)
    shards = [items_of(9), items_of(4)]
    keep, found = Ended(after), []
    for _ in range(2):
        streamed = skeleton(stage, checkpoint, dtype="bfloat16", device="cpu")
        memory = layer_major.Memory(TokenBudget(60), tmp_path, keep)
        try:
            found = layer_major.pooled(streamed, shards, CAPTURES, (-1, 0, 1), memory)
        except KeyboardInterrupt:
            assert keep.left
    assert_same(both(path, tmp_path, dtype="bfloat16", layers=(-1, 0, 1), shards=shards)[0], found)


@pytest.mark.parametrize("family", ["olmo3", "gemma3", "gpt2"])
def test_one_model_serves_several_passes(models, tmp_path, family):
    path = saved(models(family), tmp_path / "model")
    stage, checkpoint = Stage("mine", "custom", str(path)), Checkpoint(path, None)
    model = skeleton(stage, checkpoint, dtype="float32", device="cpu")
    found = []
    for items in (items_of(9), items_of(4)):
        memory = layer_major.Memory(TokenBudget(60), tmp_path)
        found += layer_major.pooled(model, [items], CAPTURES, (0, 1), memory)
    assert_same(both(path, tmp_path, layers=(0, 1))[0], found)


def test_weights_of_zeros_that_an_ended_pass_saw_count(models, tmp_path):
    path = saved(models("olmo3"), tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    zeros = [it for i in range(4) for it in weights if f"layers.{i}." in it]
    # Half of all matrices, and fewer without those of block 0.
    for name in (*zeros, "model.layers.4.mlp.up_proj.weight"):
        if weights[name].ndim == 2:
            weights[name].zero_()
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    stage, checkpoint = Stage("mine", "custom", str(path)), Checkpoint(path, None)
    keep = Ended(after=7)
    for error in (KeyboardInterrupt, ModelError):
        streamed = skeleton(stage, checkpoint, dtype="float32", device="cpu")
        memory = layer_major.Memory(TokenBudget(60), tmp_path, keep)
        with pytest.raises(error, match=r"^$|never filled in"):
            layer_major.pooled(streamed, [items_of(9)], CAPTURES, (0, 1), memory)
    assert keep.left[0].done == 0
