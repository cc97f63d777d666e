"""From a checkpoint directory to a model that may be trusted."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from olmo_stages.errors import ModelError
from olmo_stages.models import guards
from olmo_stages.models.checkpoints import ATTENTION, Checkpoint
from olmo_stages.models.sites import Decoder, find_decoder
from olmo_stages.types import Stage


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in memory.

    Args:
        stage: what it is.
        model: the causal language model, in eval mode.
        decoder: its decoder with the modules behind each site.
    """

    stage: Stage
    model: torch.nn.Module
    decoder: Decoder


def load(stage: Stage, checkpoint: Checkpoint, *, dtype: str, device: str) -> Loaded:
    """Load a stage's model, or initialise one of the same shape at random.

    `stage.random_init` runs transformers' own `_init_weights` on the CPU from that seed: normal
    with the config's `initializer_range` (0.02 for OLMo) for matrices and embeddings, ones for norm
    gains. That is how training of these families starts. With gains of 1 each contribution of a
    post-norm block has root mean square 1, fifty times the embeddings, so the token's own
    embedding fades from the residual stream within a block or two; the embedding layer itself is
    the baseline for what token identity alone gives.

    Args:
        stage: which weights.
        checkpoint: from `locate`.
        dtype: `float32`, `bfloat16` or `float16`.
        device: `cpu` or `cuda`.

    Returns:
        The model in eval mode; its weights are complete and finite.

    Raises:
        ModelError: the checkpoint cannot be used; says why.
    """
    import transformers
    from safetensors import SafetensorError

    guards.check_transformers(transformers.__version__)
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    where = f"stage {stage.label} ({checkpoint.path})"
    try:
        model, info = _build(stage, checkpoint.path, dtype)
    # What transformers raises for files that it cannot read or does not know.
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{where} cannot be loaded: {reason}") from error
    guards.check_keys(where, info)
    guards.check_finite(where, model)
    model = model.to(device).eval().requires_grad_(requires_grad=False)
    return Loaded(stage, model, find_decoder(model))


def load_tokenizer(checkpoint: Checkpoint) -> Any:  # noqa: ANN401 (transformers types it loosely)
    """Load the tokenizer of a checkpoint.

    Raises:
        ModelError: it has none, or one that needs code of its own.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            checkpoint.path, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"tokenizer of {checkpoint.path} cannot be loaded: {reason}; put one beside the "
            "weights with tokenizer.save_pretrained, usually that of the stage it was trained from"
        ) from error


def _build(stage: Stage, path: Path, dtype: str) -> tuple[Any, dict[str, Any]]:
    """The model and which of its weights the checkpoint did not give it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    options = {"dtype": getattr(torch, dtype), "attn_implementation": ATTENTION}
    if stage.random_init is not None:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stage.random_init)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False, **options)
        return model, {"missing_keys": (), "unexpected_keys": (), "mismatched_keys": ()}
    # With output_loading_info the answer is a pair, which the type of from_pretrained leaves out.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    return loaded
