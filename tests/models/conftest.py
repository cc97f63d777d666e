"""Small random models whose norm gains are not 1, so that no identity holds by accident."""

import functools

import pytest
import torch
from transformers import (
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    Olmo2Config,
    Olmo3Config,
)
from transformers.models.gemma2 import Gemma2ForCausalLM
from transformers.models.gpt2 import GPT2LMHeadModel
from transformers.models.llama import LlamaForCausalLM
from transformers.models.olmo2 import Olmo2ForCausalLM
from transformers.models.olmo3 import Olmo3ForCausalLM

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


def build(family):
    torch.manual_seed(0)
    match family:
        case "olmo3":
            config = Olmo3Config(num_hidden_layers=8, sliding_window=4, **SHAPE)
            model = Olmo3ForCausalLM(config)
        case "olmo2":
            model = Olmo2ForCausalLM(Olmo2Config(num_hidden_layers=3, **SHAPE))
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=3, **SHAPE))
        case "gemma2":
            config = Gemma2Config(num_hidden_layers=3, head_dim=8, sliding_window=4, **SHAPE)
            model = Gemma2ForCausalLM(config)
        case "gpt2":
            config = GPT2Config(
                vocab_size=97,
                n_embd=32,
                n_layer=3,
                n_head=4,
                n_positions=64,
                bos_token_id=None,
                eos_token_id=1,
            )
            model = GPT2LMHeadModel(config)
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
