"""Other families: the sites by structure, and one line about those that cannot be read."""

import pytest
import torch
from torch import nn

from olmo_stages.errors import ModelError, NonFiniteError
from olmo_stages.models.captures import Capture
from olmo_stages.models.discovery import find_decoder
from olmo_stages.models.forward import Item, pooled

FAMILIES = ("olmo3", "olmo2", "llama", "qwen3", "gemma2", "gemma3", "gpt2")
IDS = (5, 17, 42, 8, 91, 33, 60)


def embeddings_of(model):
    item = Item("a", IDS, {"last": (len(IDS) - 1,)})
    found = pooled(
        find_decoder(model), [item], [Capture("resid_post", "last")], (-1,), token_budget=64
    )
    return next(iter(found.values()))[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_found_in_both_precisions(fresh_model, family, dtype):
    model = fresh_model(family).to(dtype)
    decoder = find_decoder(model)
    assert len(decoder.blocks) == model.config.num_hidden_layers


def test_families_with_norms_after_their_sublayers_are_read_there(models):
    for family, attn, mlp in [
        ("olmo3", "post_attention_layernorm", "post_feedforward_layernorm"),
        ("olmo2", "post_attention_layernorm", "post_feedforward_layernorm"),
        ("gemma2", "post_attention_layernorm", "post_feedforward_layernorm"),
        ("gemma3", "post_attention_layernorm", "post_feedforward_layernorm"),
        ("llama", "self_attn", "mlp"),
        ("qwen3", "self_attn", "mlp"),
        ("gpt2", "attn", "mlp"),
    ]:
        block = find_decoder(models(family)).blocks[0]
        children = dict(block.module.named_children())
        assert (block.attn, block.mlp) == (children[attn], children[mlp])


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_gemma_embeddings_are_read_as_scaled(models, family):
    model = models(family)
    raw = model.model.embed_tokens.weight[IDS[-1]]
    torch.testing.assert_close(embeddings_of(model), raw * 32**0.5)


@pytest.mark.parametrize("family", ["llama", "olmo3"])
def test_other_embeddings_are_the_rows_of_the_matrix(models, family):
    model = models(family)
    assert torch.equal(embeddings_of(model), model.model.embed_tokens.weight[IDS[-1]])


def test_layer_types_of_families_with_both_kinds(models):
    sliding, full = "sliding_attention", "full_attention"
    assert find_decoder(models("gemma2")).layer_types == (sliding, full, sliding)
    assert find_decoder(models("gemma3")).layer_types == (sliding,) * 5 + (full, sliding)
    assert find_decoder(models("qwen3")).layer_types == (full,) * 3


def test_parallel_blocks_are_refused(models):
    with pytest.raises(ModelError, match=r"GPTNeoX.*block 0: looked for two modules.*parallel"):
        find_decoder(models("gpt_neox"))


def test_sequential_gpt_neox_is_read(fresh_model):
    """Twin: it is what the blocks do that is refused, not their name."""
    model = fresh_model("gpt_neox")
    for block in model.gpt_neox.layers:
        block.use_parallel_residual = False
    assert len(find_decoder(model).blocks) == 2


def test_blocks_without_two_sublayers_are_refused(models):
    with pytest.raises(ModelError, match=r"Mamba.*block 0: looked for two modules among"):
        find_decoder(models("mamba"))


class Scale(nn.Module):
    def forward(self, hidden):
        return 2 * hidden


def between(model, i):
    """Does something to the stream before block i, outside the blocks."""
    layers = model.model.layers
    layers[i].register_forward_pre_hook(lambda _m, args: (args[0] + 1, *args[1:]), prepend=False)
    return model


@pytest.mark.parametrize(
    ("i", "what"),
    [(0, "looked for the token embeddings"), (2, "output of block 1 as the input of block 2")],
)
def test_what_happens_outside_the_blocks_is_refused(fresh_model, i, what):
    with pytest.raises(ModelError, match=what):
        find_decoder(between(fresh_model("llama"), i))


def test_more_than_a_final_norm_is_refused(fresh_model):
    model = fresh_model("llama")
    model.model.norm = nn.Sequential(model.model.norm, Scale())
    find_decoder(model)  # one module, whatever it computes
    model = fresh_model("llama")
    model.model.norm.register_forward_pre_hook(lambda _m, args: (2 * args[0],))
    with pytest.raises(ModelError, match="one final norm"):
        find_decoder(model)


def test_a_window_that_the_config_does_not_have_is_refused(fresh_model):
    model = fresh_model("qwen3")
    model.model.layers[1].self_attn.sliding_window = 4
    with pytest.raises(ModelError, match=r"block 1: full_attention .* window of None.* has 4"):
        find_decoder(model)


def test_weights_whose_activations_overflow_are_refused(fresh_model):
    model = fresh_model("llama").to(torch.float16)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(60000.0)
    with pytest.raises(NonFiniteError, match=r"block 1.*compute.dtype=float32"):
        find_decoder(model)
