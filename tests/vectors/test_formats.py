"""Vectors in the formats of other tools, read by those tools' own rules and applied to a model.

The rules are those of llama.cpp (common.cpp, llama-adapter.cpp), repeng 0.4.0 (extract.py) and
steering-vectors 0.12.2 (steering_vector.py). The libraries themselves are used where they are
installed: repeng asks for numpy 1 and steering-vectors for transformers 4, so that pip installs
neither beside this package unless told `--no-deps`.
"""

import warnings
from functools import partial

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from olmo_stages.errors import ConfigError
from olmo_stages.vectors.files import TraitVector
from olmo_stages.vectors.formats import save_gguf, save_steering

HINT = "pip install --no-deps repeng==0.4.0 steering-vectors==0.12.2"
N_LAYERS = 4


@pytest.fixture(scope="module")
def model(checkpoints):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoints[0]).eval()


def trait_vector(layers=(1, 2, 3), d_model=64, **changes):
    rng = np.random.default_rng(1)
    fields = {
        "trait": "manners",
        "vectors": {i: rng.normal(size=d_model).astype(np.float32) for i in layers},
        "layer_types": dict.fromkeys(layers, "sliding_attention"),
        "site": "resid_post",
        "position": "last",
        "kind": "mean_difference",
        "provenance": {
            "stage": "think_sft",
            "family": "olmo3",
            "size": "tiny",
            "n": 40,
            "random_init": None,
            "weights": "c82d",
        },
    }
    return TraitVector(**(fields | changes))


def behind_blocks(model, ids):
    """The residual stream behind each block, which is what the next one (or the norm) receives."""
    seen = {}

    def note(layer):
        def hook(_module, args, kwargs):
            seen[layer] = (args[0] if args else kwargs["hidden_states"]).detach().clone()

        return hook

    after = [*model.model.layers[1:], model.model.norm]
    hooks = [it.register_forward_pre_hook(note(i), with_kwargs=True) for i, it in enumerate(after)]
    try:
        with torch.no_grad():
            model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return [seen[layer] for layer in range(len(after))]


IDS = torch.tensor([[5, 9, 2, 30, 7], [8, 3, 3, 1, 6]])


# ---- GGUF, by the rules of llama.cpp


def llama_cpp_reads(path):
    """What llama.cpp adds to which block: its buffer of layers from 1, laid over its tensors."""
    reader = gguf.GGUFReader(path)
    n_embd, buffer = -1, np.zeros(0, np.float32)
    for tensor in reader.tensors:
        prefix, _, number = tensor.name.partition(".")
        layer = int(number) if prefix == "direction" else -1
        assert layer > 0, "llama.cpp refuses the file"
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert len(tensor.shape) == 1
        assert n_embd in {-1, tensor.n_elements}
        n_embd = int(tensor.n_elements)
        buffer = np.pad(buffer, (0, max(0, n_embd * layer - len(buffer))))
        buffer[n_embd * (layer - 1) : n_embd * layer] += tensor.data
    added = {}
    for block in range(1, N_LAYERS):  # there is never a tensor for block 0
        start = n_embd * (block - 1)
        if start + n_embd <= len(buffer):
            added[block] = buffer[start : start + n_embd]
    return added


def text_of(reader, key):
    field = reader.get_field(key)
    return str(bytes(field.parts[-1]), encoding="utf-8")


def test_llama_cpp_adds_each_vector_behind_its_own_block(tmp_path):
    vector = trait_vector()
    save_gguf(vector, tmp_path / "v.gguf")
    added = llama_cpp_reads(tmp_path / "v.gguf")
    assert set(added) == {1, 2, 3}
    for layer, values in vector.vectors.items():
        np.testing.assert_array_equal(added[layer], values)


def test_llama_cpp_leaves_the_blocks_between_alone(tmp_path):
    vector = trait_vector(layers=(3,))
    save_gguf(vector, tmp_path / "v.gguf")
    added = llama_cpp_reads(tmp_path / "v.gguf")
    np.testing.assert_array_equal(added[3], vector.vectors[3])
    assert not added[1].any()
    assert not added[2].any()


def test_a_control_vector_says_what_it_is_and_where_it_comes_from(tmp_path):
    save_gguf(trait_vector(trait="manners / höflich"), tmp_path / "v.gguf")
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    assert text_of(reader, "general.architecture") == "controlvector"
    assert text_of(reader, "controlvector.model_hint") == "olmo3"
    count = reader.get_field("controlvector.layer_count")
    assert count.types == [gguf.GGUFValueType.UINT32]
    assert count.contents() == 3
    expected = {
        "trait": "manners / höflich",
        "stage": "think_sft",
        "weights": "c82d",
        "n": "40",
        "kind": "mean_difference",
        "scale": "raw",
    }
    for key, text in expected.items():
        assert text_of(reader, f"olmo_stages.{key}") == text
    assert reader.get_field("olmo_stages.random_init") is None


def test_a_model_of_no_known_family_is_hinted_at_as_unknown(tmp_path):
    save_gguf(trait_vector(provenance={}), tmp_path / "v.gguf")  # repeng needs the field
    assert text_of(gguf.GGUFReader(tmp_path / "v.gguf"), "controlvector.model_hint") == "unknown"


@pytest.mark.parametrize("layers", [(0, 1), (-1, 2)])
def test_a_layer_that_llama_cpp_refuses_is_refused(tmp_path, layers):
    with pytest.raises(ConfigError, match=rf"no place for layers \[{layers[0]}\]"):
        save_gguf(trait_vector(layers=layers), tmp_path / "v.gguf")
    assert not (tmp_path / "v.gguf").exists()


@pytest.mark.parametrize("save", [save_gguf, save_steering])
@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "attn_out", "mlp_out"])
def test_only_the_output_of_a_block_fits(tmp_path, save, site):
    with pytest.raises(ConfigError, match=f"was read at {site}; measure it with analysis.site"):
        save(trait_vector(site=site), tmp_path / "v")
    assert not (tmp_path / "v").exists()


# ---- steering-vectors


def test_a_steering_file_holds_a_tensor_a_layer(tmp_path):
    vector = trait_vector(layers=(0, 3))
    save_steering(vector, tmp_path / "v.safetensors")
    activations = {int(layer): v for layer, v in load_file(tmp_path / "v.safetensors").items()}
    assert set(activations) == {0, 3}
    for layer, values in vector.vectors.items():
        assert activations[layer].dtype == torch.float32
        np.testing.assert_array_equal(activations[layer].numpy(), values)


def test_embeddings_are_no_block_to_steer(tmp_path):
    with pytest.raises(ConfigError, match=r"no place for layers \[-1\]"):
        save_steering(trait_vector(layers=(-1, 0)), tmp_path / "v.safetensors")


@pytest.mark.parametrize("save", [save_gguf, save_steering])
def test_the_same_vector_gives_the_same_bytes(tmp_path, save):
    vector = trait_vector()
    save(vector, tmp_path / "a")
    save(vector, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# ---- applied to a model: the residual stream behind block i is changed by exactly vector i


def check_steered(before, after, layer, values):
    shift = torch.from_numpy(values)
    for i in range(layer):
        assert torch.equal(after[i], before[i])
    assert torch.equal(after[layer], before[layer] + shift)  # the very same addition, bit by bit
    assert not torch.equal(after[layer], before[layer])


def add(values, _module, _args, output):
    return output + torch.from_numpy(values)


@pytest.mark.parametrize("layer", range(1, N_LAYERS))
def test_a_control_vector_added_as_llama_cpp_does(model, tmp_path, layer):
    vector = trait_vector(layers=(layer,), d_model=model.config.hidden_size)
    save_gguf(vector, tmp_path / "v.gguf")
    added = llama_cpp_reads(tmp_path / "v.gguf")
    before = behind_blocks(model, IDS)
    hooks = [
        model.model.layers[i].register_forward_hook(partial(add, values.copy()))
        for i, values in added.items()
    ]
    try:
        after = behind_blocks(model, IDS)
    finally:
        for hook in hooks:
            hook.remove()
    check_steered(before, after, layer, vector.vectors[layer])


@pytest.mark.parametrize("layer", range(N_LAYERS))
def test_through_steering_vectors(model, tmp_path, layer):
    library = pytest.importorskip("steering_vectors", reason=HINT)
    vector = trait_vector(layers=(layer,), d_model=model.config.hidden_size)
    save_steering(vector, tmp_path / "v.safetensors")
    loaded = load_file(tmp_path / "v.safetensors")
    steering = library.SteeringVector({int(i): v for i, v in loaded.items()})
    before = behind_blocks(model, IDS)
    with steering.apply(model):
        after = behind_blocks(model, IDS)
    check_steered(before, after, layer, vector.vectors[layer])


@pytest.fixture
def repeng(monkeypatch):
    # A name that numpy 2 took away stands in an annotation of repeng 0.4.0, nowhere else.
    monkeypatch.setattr(np, "float_", np.float64, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("repeng", reason=HINT)


@pytest.mark.parametrize("layer", range(1, N_LAYERS))
def test_through_repeng(model, repeng, tmp_path, layer):
    vector = trait_vector(layers=(layer,), d_model=model.config.hidden_size)
    save_gguf(vector, tmp_path / "v.gguf")
    control = repeng.ControlVector.import_gguf(tmp_path / "v.gguf")
    assert control.model_type == model.config.model_type
    # One sequence: with transformers 5 it takes the positions for those of a batch of one.
    before = behind_blocks(model, IDS[:1])
    steered = repeng.ControlModel(model, [layer])
    try:
        steered.set_control(control)
        after = behind_blocks(model, IDS[:1])
    finally:
        steered.unwrap()
    check_steered(before, after, layer, vector.vectors[layer])


def test_repeng_writes_what_we_write(repeng, tmp_path):
    vector = trait_vector()
    save_gguf(vector, tmp_path / "ours.gguf")
    theirs = repeng.ControlVector("olmo3", {i: v.copy() for i, v in vector.vectors.items()})
    theirs.export_gguf(tmp_path / "theirs.gguf")
    assert repeng.ControlVector.import_gguf(tmp_path / "ours.gguf") == theirs
    a, b = (gguf.GGUFReader(tmp_path / f"{name}.gguf") for name in ("ours", "theirs"))
    for key in b.fields:
        if not key.startswith("GGUF."):
            assert a.get_field(key).contents() == b.get_field(key).contents(), key
