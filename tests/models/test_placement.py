"""Models that are quantised or spread over devices, as far as a CPU can show it."""

import importlib.util
import json

import accelerate
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Olmo3Config
from transformers.models.olmo3 import Olmo3ForCausalLM

from olmo_stages.errors import ConfigError, ModelError
from olmo_stages.models import families, guards, placement
from olmo_stages.models.captures import Capture, Key
from olmo_stages.models.checkpoints import Checkpoint
from olmo_stages.models.discovery import find_decoder
from olmo_stages.models.forward import Item, pooled
from olmo_stages.models.loading import load
from olmo_stages.models.sites import device_of
from olmo_stages.types import Stage
from tests.models.released import released_config

CAPTURES = [Capture("resid_post", "last"), Capture("attn_out", "mean")]
ITEMS = [
    Item("a", (5, 6, 7, 8), {"last": (3,), "mean": (1, 2, 3)}),
    Item("b", (9, 10, 11), {"last": (2,), "mean": (1, 2)}),
]
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs the extra `quantised`"
)


@pytest.fixture
def wide(tmp_path):
    """A checkpoint whose matrices hold whole blocks of 64 values, which is how NF4 scales them."""
    path = tmp_path / "wide"
    sizes = {"hidden_size": 64, "intermediate_size": 128, "layer_types": None}
    torch.manual_seed(0)
    config = Olmo3Config.from_dict(released_config(**sizes))
    Olmo3ForCausalLM(config).save_pretrained(path)
    (path / "config.json").write_text(json.dumps(released_config(**sizes)))
    return path


def load_here(path, *, random_init=None, **options):
    stage = Stage("mine", "custom", str(path), random_init=random_init)
    return load(stage, Checkpoint(path, None), **{"dtype": "float32", "device": "cpu"} | options)


def rows(decoder):
    layers = tuple(range(-1, len(decoder.blocks)))
    return pooled(decoder, ITEMS, CAPTURES, layers, token_budget=64)


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], expected[key]) for key in expected
    )


def relative(found, expected, key):
    return float((found[key] - expected[key]).norm() / expected[key].norm())


@pytest.mark.parametrize("random_init", [None, 0])
def test_an_automatic_device_map_changes_no_number(released, random_init):
    path = released(shards=2)
    plain = load_here(path, random_init=random_init)
    spread = load_here(path, random_init=random_init, device_map="auto")
    assert same(rows(spread.decoder), rows(plain.decoder))


@pytest.mark.parametrize("family", ["olmo3", "llama", "gemma2"])
def test_weights_that_wait_on_the_cpu_change_no_number(fresh_model, family):
    """Every module's weights come to where they are used for the time of its call."""
    model = fresh_model(family)
    expected = rows(find_decoder(model))
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.get_input_embeddings().weight.device.type == "meta"
    decoder = find_decoder(model)
    assert device_of(decoder.model) == torch.device("cpu")
    assert same(rows(decoder), expected)
    assert same(rows(decoder), expected)  # nothing is left behind by the pass that stopped early


def test_blocks_on_the_disk_change_no_number(fresh_model, tmp_path):
    model = fresh_model("olmo3")
    expected = rows(find_decoder(model))
    parts = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
    places = dict.fromkeys(parts, "cpu") | {
        f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(8)
    }
    accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=tmp_path)
    assert next(model.model.layers[1].parameters()).device.type == "meta"
    assert same(rows(find_decoder(model)), expected)


def test_a_tied_head_that_is_spread_is_not_taken_for_another(released):
    path = released(tie_word_embeddings=True)
    weights = load_file(path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    model = load_here(path, device_map="auto").model
    guards.check_head("here", model)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_of_a_spread_model_must_be_finite(released, bad):
    path = released(shards=2)
    file = path / "model-00002-of-00002.safetensors"
    weights = load_file(file)
    name = sorted(weights)[0]
    weights[name].view(-1)[3] = bad
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{name} is not finite"):
        load_here(path, device_map="auto")


def test_memory_that_runs_out_while_loading_is_one_line(released, monkeypatch):
    def exhausted(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has")

    monkeypatch.setattr(torch.nn.Module, "to", exhausted)
    with pytest.raises(ModelError, match="out of memory while loading; use compute=int8") as caught:
        load_here(released())
    assert "\n" not in str(caught.value)


SAVED_INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}


@pytest.mark.parametrize("asked", ["none", "int4"])
def test_a_checkpoint_saved_in_another_quantisation_is_refused(released, asked):
    path = released(quantization_config=SAVED_INT8)
    with pytest.raises(ModelError, match=r"saved quantised \(bitsandbytes\).*compute=int8"):
        families.check_config(path, asked)


def test_a_checkpoint_saved_in_the_same_quantisation_is_not(released):
    families.check_config(released(quantization_config=SAVED_INT8), "int8")


def test_an_unknown_quantisation_is_refused_however_it_is_asked_for(released):
    path = released(quantization_config={"quant_method": "gptq", "bits": 4})
    for asked in ("none", "int8", "int4"):
        with pytest.raises(ModelError, match=r"saved quantised \(gptq\)"):
            families.check_config(path, asked)


@needs_bitsandbytes
@pytest.mark.parametrize(("kind", "low", "high"), [("int8", 1e-4, 0.05), ("int4", 0.01, 0.6)])
def test_quantised_weights_are_near_but_not_the_same(wide, kind, low, high):
    path = wide
    plain, quantised = load_here(path), load_here(path, quantisation=kind)
    weight = quantised.model.model.layers[0].mlp.up_proj.weight
    assert weight.dtype == (torch.int8 if kind == "int8" else torch.uint8)
    # Embeddings, norms and the head stay as they are.
    assert torch.equal(quantised.model.lm_head.weight, plain.model.lm_head.weight)
    found, expected = rows(quantised.decoder), rows(plain.decoder)
    assert torch.equal(found[Key(*CAPTURES[0], -1)], expected[Key(*CAPTURES[0], -1)])
    assert low < relative(found, expected, Key(*CAPTURES[0], 3)) < high


@needs_bitsandbytes
def test_a_random_initialisation_is_quantised_too(wide):
    path = wide
    plain = load_here(path, random_init=3)
    quantised = load_here(path, random_init=3, quantisation="int8")
    assert quantised.model.model.layers[0].mlp.up_proj.weight.dtype == torch.int8
    key = Key(*CAPTURES[0], 3)
    assert 1e-4 < relative(rows(quantised.decoder), rows(plain.decoder), key) < 0.05


@needs_bitsandbytes
def test_quantisation_does_not_hide_weights_that_are_not_finite(released):
    path = released()
    weights = load_file(path / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][2, 3] = float("nan")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight is not finite"):
        load_here(path, quantisation="int8")


@needs_bitsandbytes
def test_a_checkpoint_saved_quantised_is_the_one_quantised_at_load(wide, tmp_path):
    path = wide
    quantised = load_here(path, quantisation="int8")
    quantised.model.save_pretrained(tmp_path / "saved")
    assert "quantization_config" in json.loads((tmp_path / "saved" / "config.json").read_text())
    again = load_here(tmp_path / "saved", quantisation="int8")
    found, expected = rows(again.decoder), rows(quantised.decoder)
    assert relative(found, expected, Key(*CAPTURES[0], 3)) < 1e-6
    with pytest.raises(ModelError, match="saved quantised"):
        load_here(tmp_path / "saved")


def test_quantisation_without_its_library_names_what_to_install(monkeypatch):
    from tests.models.test_compute import compute

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install 'olmo-stages\[quantised\]'"):
        compute(quantisation="int4").resolve_quantisation()
    assert compute().resolve_quantisation() == "none"


@needs_bitsandbytes
def test_4_bit_weights_of_any_shape_run_on_the_cpu(released):
    assert load_here(released(), quantisation="int4").decoder.blocks


def test_a_device_that_cannot_compute_quantised_weights_is_one_line():
    with (
        pytest.raises(
            ModelError, match=r"compute=int4 does not run on this device \(no kernel\); use"
        ),
        placement.running("here", "int4"),
    ):
        raise AssertionError("no kernel\nfor this")
    with pytest.raises(RuntimeError, match="a bug"), placement.running("here", "none"):
        raise RuntimeError("a bug")


def test_where_a_model_lies_is_told(released):
    path = released()
    assert list(placement.where(load_here(path).model)) == ["cpu"]
    spread = load_here(path, device_map="auto").model
    spread.hf_device_map = {"model.embed_tokens": 0, "model.layers.0": 0, "lm_head": "cpu"}
    found = placement.where(spread)
    assert list(found) == ["cuda:0", "cpu"]
    assert found["cuda:0"].endswith(", 2 of 3 parts of the model")
