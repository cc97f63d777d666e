"""Checkpoints whose files are broken in ways that libraries answer with a traceback."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from olmo_stages.errors import ModelError
from olmo_stages.models.checkpoints import Checkpoint, locate
from olmo_stages.models.digests import INDEX
from olmo_stages.models.loading import load
from olmo_stages.models.malformed import malformed
from olmo_stages.types import Member, Stage
from tests.models.released import RELEASED

WEIGHTS = "model.safetensors"
YARN = RELEASED["rope_scaling"]
OLDER = {"type" if key == "rope_type" else key: value for key, value in YARN.items()}


def load_here(path):
    return load(
        Stage("own", "custom", str(path)), Checkpoint(path, None), dtype="float32", device="cpu"
    )


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"sliding_window": None}, "sliding_window"),
        ({"rope_scaling": "yarn"}, ""),
        ({"max_position_embeddings": None}, "max_position_embeddings"),
        ({"hidden_size": None}, "no hidden_size"),
        ({"layer_types": ["chunked_attention"] * 4}, "'chunked_attention' in layer_types"),
        ({"layer_types": ["full_attention"] * 3}, "3 entries for 4 layers in layer_types"),
        ({"sliding_window": 0}, "0 as sliding_window"),
        ({"sliding_window": "4096"}, "'4096' as sliding_window"),
        ({"num_attention_heads": 3}, "3, which does not divide hidden_size 32"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3, which does not divide"),
        ({"vocab_size": None}, "no vocab_size"),
        ({"model_type": None}, 'no model_type; write "model_type": "olmo3"'),
        ({"rms_norm_eps": 0}, "rms_norm_eps 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps nan"),
        ({"rope_theta": None}, "rope_theta None"),
        ({"rope_theta": -1, "rope_scaling": None}, "rope_theta -1"),
        ({"rope_parameters": [1]}, "rope_parameters [1]"),
        ({"rope_scaling": "yarn"}, "rope_scaling 'yarn'"),
        ({"rope_scaling": YARN | {"factor": None}}, "lack 'factor'"),
        ({"rope_scaling": YARN | {"truncate": False}}, '"truncate": false'),
        ({"rope_scaling": OLDER}, 'write "rope_type": "yarn"'),
    ],
    ids=lambda it: it if isinstance(it, str) else next(iter(it)),
)
def test_a_malformed_config_is_one_line_that_names_the_checkpoint(released, changes, word):
    path = released()
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ModelError) as caught:
        load_here(path)
    assert "\n" not in str(caught.value)
    assert "released" in str(caught.value)
    assert word in str(caught.value)


def test_the_same_checkpoint_untouched_loads(released):
    assert load_here(released()).decoder.blocks


def test_a_config_that_is_no_mapping_is_refused(released):
    path = released()
    (path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="holds no settings but list"):
        load_here(path)


def test_integer_codes_are_not_taken_for_weights(released):
    path = released()
    weights = load_file(path / WEIGHTS)
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = torch.ones_like(weights[name], dtype=torch.int8)
    save_file(weights, path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="stored as I8"):
        load_here(path)


@pytest.mark.parametrize(
    ("zero", "said"),
    [
        (lambda name: "embed" in name, r"1 of \d+ matrices are 0, of model.embed_tokens.weight"),
        (lambda name: "proj" in name, r"28 of 30 matrices are 0, of model.layers"),
    ],
    ids=["embeddings", "blocks"],
)
def test_weights_that_were_never_filled_in_are_refused(released, zero, said):
    path = released()
    weights = load_file(path / WEIGHTS)
    for name, values in weights.items():
        if zero(name):
            values.zero_()
    save_file(weights, path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=said):
        load_here(path)


def test_an_ablated_block_is_no_mistake(released):
    path = released()
    weights = load_file(path / WEIGHTS)
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        weights[f"model.layers.2.{name}.weight"].zero_()
    save_file(weights, path / WEIGHTS, metadata={"format": "pt"})
    assert load_here(path).decoder.blocks


def test_an_index_that_leads_out_of_the_directory_is_refused(released, tmp_path):
    path = released(shards=2)
    index = json.loads((path / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    (path / INDEX).write_text(json.dumps(index))
    shutil.copy(path / "model-00001-of-00002.safetensors", tmp_path / "elsewhere.safetensors")
    with pytest.raises(ModelError, match=r"names ../elsewhere.safetensors, which is not in"):
        locate(Stage("own", "custom", str(path)), tmp_path)


def test_shards_of_two_savings_are_refused(released):
    path = released(shards=2)
    first, second = (path / f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    weights, others = load_file(first), load_file(second)
    others["model.norm.weight"] = weights.setdefault("model.norm.weight", torch.ones(32)) * 2
    for file, values in ((first, weights), (second, others)):
        save_file(values, file, metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"model.norm.weight is in model-00001.* and in model-00002"
    ):
        load_here(path)


def test_a_folder_of_checkpoints_names_them(released, tmp_path):
    path = released()
    with pytest.raises(ModelError, match=r"no config.json; .*: one of its folders, released\?"):
        locate(Stage("own", "custom", str(path.parent)), tmp_path)


def test_a_directory_has_no_revision(released, tmp_path):
    """It would be a name for the same weights."""
    path = released()
    with pytest.raises(ModelError, match=r"is a directory, which has no revision step_20"):
        locate(Stage("own", "custom", str(path), revision="step_20"), tmp_path)


def test_a_revision_in_the_path_is_recognised(tmp_path):
    with pytest.raises(ModelError, match=r"model.path=me/mine model.revision=step_20\?"):
        locate(Stage("own", "custom", "me/mine@step_20"), tmp_path)


def test_our_own_errors_pass_as_they_are():
    with pytest.raises(ModelError, match=r"^own$"), malformed("here"):
        raise ModelError("own")


def test_members_of_a_soup_may_spell_one_architecture_in_two_ways(released, tmp_path):
    one = released()
    other = shutil.copytree(one, tmp_path / "respelt")
    config = AutoConfig.from_pretrained(one).to_dict() | {"architectures": ["Olmo3ForCausalLM"]}
    (other / "config.json").write_text(json.dumps(config))
    weights = load_file(other / WEIGHTS)
    save_file({k: v + 1 for k, v in weights.items()}, other / WEIGHTS, metadata={"format": "pt"})
    for path in (one, other):
        (path / "tokenizer.json").write_text("{}")
    members = tuple(Member(Stage(p.name, "custom", str(p)), 0.5) for p in (one, other))
    found = locate(Stage("soup", "custom", "two", members=members), tmp_path / "cache")
    assert load_file(found.path / WEIGHTS).keys() == weights.keys()
    config["num_attention_heads"] *= 2
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="num_attention_heads"):
        locate(Stage("soup", "custom", "two", members=members), tmp_path / "cache2")
