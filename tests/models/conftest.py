"""Small random models whose norm gains are not 1, so that no identity holds by accident."""

import functools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    Olmo2Config,
    Olmo3Config,
    Qwen3Config,
)
from transformers.models.gemma2 import Gemma2ForCausalLM
from transformers.models.gemma3 import Gemma3ForCausalLM
from transformers.models.gpt2 import GPT2LMHeadModel
from transformers.models.gpt_neox import GPTNeoXForCausalLM
from transformers.models.llama import LlamaForCausalLM
from transformers.models.mamba import MambaForCausalLM
from transformers.models.olmo2 import Olmo2ForCausalLM
from transformers.models.olmo3 import Olmo3ForCausalLM
from transformers.models.qwen3 import Qwen3ForCausalLM

from tests.models.released import released_config

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="session")
def _released(tmp_path_factory):
    path = tmp_path_factory.mktemp("released")
    (path / "config.json").write_text(json.dumps(released_config()))
    torch.manual_seed(0)
    model = Olmo3ForCausalLM(Olmo3Config.from_pretrained(path))
    weights = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.fixture
def released(_released, tmp_path):
    """Writes a checkpoint as released, with other fields in its config or in shards."""

    def write(*, shards=1, **changes):
        path = tmp_path / "released"
        path.mkdir()
        (path / "config.json").write_text(json.dumps(released_config(**changes)))
        weights = load_file(_released / "model.safetensors")
        if shards == 1:
            save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
            return path
        where = {}
        for i in range(shards):
            name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            part = {k: weights[k] for k in sorted(weights)[i::shards]}
            where |= dict.fromkeys(part, name)
            save_file(part, path / name, metadata={"format": "pt"})
        index = {"metadata": {"total_size": 0}, "weight_map": where}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
        return path

    return write


WINDOW = {"sliding_window": 4, **SHAPE}
NEOX_SHAPE = {key: value for key, value in SHAPE.items() if key != "num_key_value_heads"}
GPT2_SHAPE = {
    "vocab_size": 97,
    "n_embd": 32,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": None,
    "eos_token_id": 1,
}
HEADS = {"head_dim": 8, **SHAPE}
# Class, config, number of blocks.
FAMILIES = {
    "olmo3": (Olmo3ForCausalLM, lambda n: Olmo3Config(num_hidden_layers=n, **WINDOW), 8),
    "olmo2": (Olmo2ForCausalLM, lambda n: Olmo2Config(num_hidden_layers=n, **SHAPE), 3),
    "llama": (LlamaForCausalLM, lambda n: LlamaConfig(num_hidden_layers=n, **SHAPE), 3),
    "qwen3": (Qwen3ForCausalLM, lambda n: Qwen3Config(num_hidden_layers=n, **HEADS), 3),
    "gemma2": (
        Gemma2ForCausalLM,
        lambda n: Gemma2Config(num_hidden_layers=n, head_dim=8, **WINDOW),
        3,
    ),
    "gemma3": (
        Gemma3ForCausalLM,
        lambda n: Gemma3TextConfig(num_hidden_layers=n, head_dim=8, **WINDOW),
        7,
    ),
    "gpt2": (GPT2LMHeadModel, lambda n: GPT2Config(n_layer=n, **GPT2_SHAPE), 3),
    # Not supported: parallel blocks; one sublayer a block.
    "gpt_neox": (
        GPTNeoXForCausalLM,
        lambda n: GPTNeoXConfig(num_hidden_layers=n, **NEOX_SHAPE),
        2,
    ),
    "mamba": (
        MambaForCausalLM,
        lambda n: MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=n),
        2,
    ),
}


def build(family):
    torch.manual_seed(0)
    make, config, n_layers = FAMILIES[family]
    model = make(config(n_layers))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or ".ln_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(5.0)  # so that attention is not nearly uniform
    return model.eval()


@pytest.fixture(scope="session")
def models():
    """Models by family, built once; tests must not change them."""
    return functools.cache(build)


@pytest.fixture
def fresh_model():
    """Builds a model that the test may change."""
    return build


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)
