"""The miniature models: OLMo 3 and OLMo 2 at 0.4 M parameters, their start, their files."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
)

from olmo_stages.miniature.recipe import Architecture, Family
from olmo_stages.miniature.tokenizer import END, EOS, PAD, TOKEN_ID, make_tokenizer

EMBEDDING_STD = 1.0
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
BRANCH_SCALE = 0.3
"""Start of the norms that end each branch: small steps on a residual stream of unit size.

With the library's own start (0.02 everywhere, norms 1) this post-norm model needs twice the steps.
"""


CausalLM = Olmo2ForCausalLM | Olmo3ForCausalLM
"""A miniature model of either architecture."""


def new_model(architecture: Architecture, seed: int, family: Family = "olmo3") -> CausalLM:
    """Return an untrained model.

    Args:
        architecture: its shape.
        seed: of its weights.
        family: `olmo3`, with sliding attention but for every fourth layer and the last, or
            `olmo2`, with full attention in all.
    """
    make = _olmo2 if family == "olmo2" else _olmo3
    model = make(
        architecture,
        vocab_size=len(TOKEN_ID),
        hidden_size=architecture.d_model,
        intermediate_size=architecture.d_ff,
        num_hidden_layers=architecture.n_layers,
        num_attention_heads=architecture.n_heads,
        max_position_embeddings=architecture.max_positions,
        rms_norm_eps=1e-6,
        pad_token_id=TOKEN_ID[PAD],
        eos_token_id=TOKEN_ID[EOS],
        tie_word_embeddings=False,
    )
    model.generation_config = GenerationConfig(
        eos_token_id=[TOKEN_ID[EOS], TOKEN_ID[END]],
        pad_token_id=TOKEN_ID[PAD],
        max_length=architecture.max_positions,
    )
    _initialise(model, torch.Generator().manual_seed(seed))
    return model


def _olmo3(architecture: Architecture, **shared: Any) -> Olmo3ForCausalLM:  # noqa: ANN401
    last = architecture.n_layers - 1
    full = [(i + 1) % 4 == 0 or i == last for i in range(architecture.n_layers)]
    config = Olmo3Config(
        **shared,
        sliding_window=architecture.window,
        layer_types=["full_attention" if f else "sliding_attention" for f in full],
        rope_parameters={"full_attention": dict(ROPE), "sliding_attention": dict(ROPE)},
    )
    return Olmo3ForCausalLM(config)


def _olmo2(_: Architecture, **shared: Any) -> Olmo2ForCausalLM:  # noqa: ANN401
    return Olmo2ForCausalLM(Olmo2Config(**shared, rope_parameters=dict(ROPE)))


@torch.no_grad()
def _initialise(model: CausalLM, generator: torch.Generator) -> None:
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            parameter.normal_(0, EMBEDDING_STD, generator=generator)
        elif parameter.ndim == 2:
            parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
        elif "post_" in name:
            parameter.fill_(BRANCH_SCALE)


def load_model(directory: Path) -> CausalLM:
    """Load a checkpoint in float32."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    assert isinstance(model, CausalLM)
    return model.train()


def save_checkpoint(model: CausalLM, directory: Path, *, chat: bool) -> None:
    """Write a directory in Hugging Face format: config, weights, generation config, tokenizer.

    Args:
        model: what to save.
        directory: where to; replaced where it exists.
        chat: whether the tokenizer carries the chat template.
    """
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)
    tokenizer = make_tokenizer(chat=chat, max_length=model.config.max_position_embeddings)
    tokenizer.save_pretrained(directory)
    for file in directory.iterdir():
        file.chmod(0o644)
