"""Checkpoints whose files are broken in ways that libraries answer with a traceback."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from olmo_stages.errors import ModelError
from olmo_stages.models.checkpoints import Checkpoint, locate
from olmo_stages.models.loading import load
from olmo_stages.models.malformed import malformed
from olmo_stages.types import Member, Stage

WEIGHTS = "model.safetensors"


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
        ({"hidden_size": None}, ""),
    ],
    ids=["layer_types", "window", "rope", "context", "width"],
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
