import pytest
import torch

from olmo_stages.errors import ModelError, NonFiniteError
from olmo_stages.models.captures import Capture, Key
from olmo_stages.models.discovery import find_decoder
from olmo_stages.models.forward import Item, pooled

FAMILIES = ("olmo3", "olmo2", "llama", "gemma2", "gpt2")
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
IDS = (5, 17, 42, 8, 91, 33, 60)


def read(model, position="last", layers=None):
    decoder = find_decoder(model)
    layers = range(len(decoder.blocks)) if layers is None else layers
    item = Item("a", IDS, {position: (len(IDS) - 1,)})
    captures = [Capture(site, position) for site in SITES]
    found = pooled(decoder, [item], captures, tuple(layers), token_budget=64)
    return {(key.site, key.layer): value for key, value in found.items()}


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_contributions_add_up_to_the_output(models, family):
    found = read(models(family))
    n_layers = len(found) // len(SITES)
    for layer in range(n_layers):
        total = found["resid_pre", layer] + found["attn_out", layer]
        # Exact: the same additions in the same order and dtype as in the model.
        assert torch.equal(total, found["resid_mid", layer])
        assert torch.equal(total + found["mlp_out", layer], found["resid_post", layer])
        # Twin: each contribution is a real part of the sum.
        assert relative(found["resid_mid", layer], found["resid_pre", layer]) > 0.01
        assert relative(found["resid_post", layer], found["resid_mid", layer]) > 0.01


def test_contributions_add_up_in_bfloat16(fresh_model):
    found = read(fresh_model("olmo3").to(torch.bfloat16))
    total = found["resid_pre", 3] + found["attn_out", 3] + found["mlp_out", 3]
    assert total.dtype == torch.bfloat16
    assert torch.equal(total, found["resid_post", 3])


@pytest.mark.parametrize("family", ["olmo3", "olmo2"])
def test_raw_sublayer_outputs_are_not_the_contributions(models, family):
    model = models(family)
    block = model.model.layers[2]
    raw = {}
    handles = [
        block.self_attn.register_forward_hook(lambda _m, _a, out: raw.update(attn=out[0][0, -1])),
        block.mlp.register_forward_hook(lambda _m, _a, out: raw.update(mlp=out[0, -1])),
    ]
    found = read(model)
    for handle in handles:
        handle.remove()
    wrong = found["resid_pre", 2][0] + raw["attn"] + raw["mlp"]
    assert relative(wrong, found["resid_post", 2][0]) > 0.1
    assert find_decoder(model).blocks[2].attn is block.post_attention_layernorm
    assert find_decoder(model).blocks[2].mlp is block.post_feedforward_layernorm


def test_llama_contributions_are_the_sublayers(models):
    model = models("llama")
    block = find_decoder(model).blocks[1]
    assert block.attn is model.model.layers[1].self_attn
    assert block.mlp is model.model.layers[1].mlp


@pytest.mark.parametrize("family", ["olmo3", "olmo2", "llama"])
def test_captures_are_the_hidden_states_of_transformers(fresh_model, family):
    model = fresh_model(family)  # transformers leaves hooks of its own behind
    decoder = find_decoder(model)
    n = len(decoder.blocks)
    found = read(model, layers=range(-1, n))
    with torch.no_grad():
        output = model.model(torch.tensor([IDS]), output_hidden_states=True)
        normed = model.model.norm(found["resid_post", n - 1])
    states = [state[:, -1] for state in output.hidden_states]
    assert len(states) == n + 1
    for layer in range(-1, n - 1):
        assert torch.equal(found["resid_post", layer], states[layer + 1])
        assert torch.equal(found["resid_pre", layer + 1], states[layer + 1])
    # The last one that transformers gives is after the final norm, ours is before it.
    torch.testing.assert_close(normed, states[n], rtol=1e-6, atol=1e-6)
    assert relative(found["resid_post", n - 1], states[n]) > 0.1


def test_layer_types_come_from_the_config(models):
    sliding, full = "sliding_attention", "full_attention"
    assert find_decoder(models("olmo3")).layer_types == (sliding, sliding, sliding, full) * 2
    assert find_decoder(models("olmo2")).layer_types == (full,) * 3


def test_the_embeddings_are_the_same_for_every_site(models):
    found = read(models("olmo3"), layers=(-1, 0))
    for site in SITES:
        assert torch.equal(found[site, -1], found["resid_pre", 0])
    assert not torch.equal(found["resid_post", -1], found["resid_post", 0])


def test_blocks_that_are_not_additive_are_refused(fresh_model):
    model = fresh_model("llama")
    original = type(model.model.layers[1]).forward

    def scaled(self, hidden_states, **kwargs):
        return 1.5 * original(self, hidden_states, **kwargs)

    model.model.layers[1].forward = scaled.__get__(model.model.layers[1])
    with pytest.raises(ModelError, match="block 1: looked for two modules among self_attn"):
        find_decoder(model)


def test_a_model_without_a_list_of_blocks_is_refused(fresh_model):
    model = fresh_model("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(ModelError, match="one list of 7 decoder blocks"):
        find_decoder(model)


def test_non_finite_outputs_are_named_as_such(fresh_model):
    model = fresh_model("olmo3")
    with torch.no_grad():
        model.model.layers[2].post_attention_layernorm.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="block 2"):
        find_decoder(model)


def test_discovery_leaves_no_hooks(models):
    model = models("olmo3")
    find_decoder(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_key_names_its_tensor(models):
    decoder = find_decoder(models("olmo3"))
    item = Item("a", IDS, {"last": (6,)})
    found = pooled(decoder, [item], [Capture("attn_out", "last")], (3, 1), token_budget=64)
    assert list(found) == [Key("attn_out", "last", 1), Key("attn_out", "last", 3)]
