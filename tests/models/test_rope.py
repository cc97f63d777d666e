"""The rotary embeddings that config.json asks for, in every way in which it is written."""

import json

import numpy as np
import pytest
import torch
from transformers import Olmo3Config
from transformers.models.olmo3 import Olmo3ForCausalLM
from transformers.models.olmo3.modeling_olmo3 import Olmo3RotaryEmbedding

from olmo_stages.errors import ModelError
from olmo_stages.models import rope
from tests.models.released import RELEASED, released_config

SLIDING, FULL = "sliding_attention", "full_attention"
YARN = RELEASED["rope_scaling"]
DEFAULT = {"rope_type": "default", "rope_theta": 500000.0}
NESTED = {FULL: {**YARN, "rope_theta": 500000.0}, SLIDING: DEFAULT}
# The released sizes: d_model, MLP, blocks, heads, key-value heads, parameters.
SIZES = {
    "7b": (4096, 11008, 32, 32, 32, 7_298_011_136),
    "32b": (5120, 27648, 64, 40, 8, 32_233_522_176),
}


def asked(**changes):
    return rope.expected("here", released_config(**changes))


def nested(**changes):
    return asked(rope_parameters=NESTED, rope_scaling=None, rope_theta=None, **changes)


def real(size, **changes):
    d_model, d_ff, n_layers, n_heads, n_kv, _ = SIZES[size]
    return released_config(
        vocab_size=100278,
        hidden_size=d_model,
        intermediate_size=d_ff,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv,
        layer_types=([SLIDING] * 3 + [FULL]) * (n_layers // 4),
        **changes,
    )


def test_yarn_is_of_the_full_layers_only():
    found = asked()
    assert {kind: r.kind for kind, r in found.items()} == {SLIDING: "default", FULL: "yarn"}
    assert found[SLIDING].scaling == 1.0
    assert found[FULL].scaling == pytest.approx(1.2079441541679836)
    assert rope.differs(found)


def test_by_kind_of_layer_is_the_same_as_released():
    for kind, wanted in asked().items():
        assert np.array_equal(nested()[kind].inverse, wanted.inverse)
        assert nested()[kind].scaling == wanted.scaling


def test_before_the_long_context_stage_there_is_no_yarn():
    found = asked(rope_scaling=None, max_position_embeddings=8192)
    assert {r.kind for r in found.values()} == {"default"}
    assert not rope.differs(found)


@pytest.mark.parametrize("size", SIZES)
def test_the_frequencies_are_those_of_transformers_at_real_size(size):
    """Two implementations, one from the paper and one of the library."""
    config = Olmo3Config.from_dict(real(size))
    module = Olmo3RotaryEmbedding(config)
    for kind, wanted in rope.expected("here", real(size)).items():
        inverse = getattr(module, f"{kind}_inv_freq").double().numpy()
        np.testing.assert_allclose(wanted.inverse, inverse, rtol=1e-5)
        assert getattr(module, f"{kind}_attention_scaling") == pytest.approx(wanted.scaling)


@pytest.mark.parametrize("size", SIZES)
def test_a_real_shape_is_the_released_model(size):
    d_model, _, n_layers, _, _, n_parameters = SIZES[size]
    with torch.device("meta"):
        model = Olmo3ForCausalLM(Olmo3Config.from_dict(real(size)))
    assert sum(p.numel() for p in model.parameters()) == n_parameters
    assert model.model.embed_tokens.weight.shape == (100278, d_model)
    full = [i for i, layer in enumerate(model.model.layers) if not layer.self_attn.sliding_window]
    assert full == list(range(3, n_layers, 4))
    assert model.model.layers[0].self_attn.sliding_window == 4096
    assert model.model.rotary_emb.rope_type == {FULL: "yarn", SLIDING: "default"}


def test_one_yarn_for_all_layers_is_refused():
    flat = {**YARN, "rope_theta": 500000.0}
    with pytest.raises(ModelError, match=r"one rope_parameters .yarn. for all layers"):
        asked(rope_parameters=flat, rope_scaling=None, rope_theta=None)
    # This is what makes it dangerous: transformers reads it without YaRN, silently.
    config = Olmo3Config.from_dict(released_config(rope_parameters=flat, rope_scaling=None))
    assert config.rope_parameters[FULL]["rope_type"] == "default"


def test_one_yarn_that_was_lost_and_saved_again_is_refused():
    flat = {**YARN, "rope_theta": 500000.0}
    lost = Olmo3Config.from_dict(
        released_config(rope_parameters=flat, rope_scaling=None, rope_theta=None)
    ).to_dict()
    assert lost["rope_parameters"][FULL]["rope_type"] == "default"
    with pytest.raises(
        ModelError, match=r"all layers \(yarn\) and by kind of layer \(default in f"
    ):
        rope.expected("here", lost)
    lost["rope_parameters"] |= NESTED
    assert rope.expected("here", lost)[FULL].kind == "yarn"


def test_one_default_for_all_layers_loses_nothing():
    found = asked(rope_parameters=DEFAULT, rope_scaling=None, max_position_embeddings=8192)
    assert {r.kind for r in found.values()} == {"default"}


@pytest.mark.parametrize("lost", [FULL, SLIDING])
def test_a_kind_of_layer_without_parameters_is_refused(lost):
    left = {kind: spec for kind, spec in NESTED.items() if kind != lost}
    with pytest.raises(ModelError, match=f"no rope_parameters for its {lost} layers"):
        asked(rope_parameters=left, rope_scaling=None)


def test_yarn_in_the_sliding_window_layers_is_refused():
    both = {FULL: NESTED[FULL], SLIDING: NESTED[FULL]}
    with pytest.raises(ModelError, match="yarn in the sliding-window layers"):
        asked(rope_parameters=both, rope_scaling=None)


@pytest.mark.parametrize("size", SIZES)
def test_a_long_context_of_real_size_without_yarn_is_refused(size):
    with pytest.raises(ModelError, match=f"which the {size} has beyond 8192"):
        rope.expected("here", real(size, rope_scaling=None))
    assert rope.expected("here", real(size, rope_scaling=None, max_position_embeddings=8192))


def test_another_rope_type_is_refused():
    with pytest.raises(ModelError, match="rope type 'dynamic'"):
        asked(rope_scaling={"rope_type": "dynamic", "factor": 2.0})


def test_incomplete_yarn_is_refused_by_name():
    with pytest.raises(ModelError, match="lack 'original_max_position_embeddings'"):
        asked(rope_scaling={"rope_type": "yarn", "factor": 8.0})


def test_other_families_are_left_to_transformers():
    assert rope.expected("here", {"model_type": "llama", "rope_parameters": YARN}) is None
    assert not rope.differs(None)


def test_the_retrofit_is_an_olmo3():
    assert rope.differs(asked(model_type="olmo2-retrofit"))


def test_the_written_remedy_is_json():
    with pytest.raises(ModelError) as caught:
        asked(rope_parameters=dict(YARN), rope_scaling=None)
    text = str(caught.value)
    shown = text[text.index("{") : text.rindex("}") + 1]
    assert json.loads(shown.replace("{...}", "{}"))[SLIDING] == DEFAULT
