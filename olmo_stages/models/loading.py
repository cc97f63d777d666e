"""From a checkpoint directory to a model that may be trusted."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from olmo_stages.atomic import TEMPORARY, scratch, writing
from olmo_stages.errors import ModelError
from olmo_stages.models import (
    digests,
    families,
    fitting,
    guards,
    layer_kinds,
    memory,
    placement,
    plans,
    rope,
)
from olmo_stages.models.checkpoints import ATTENTION, Checkpoint
from olmo_stages.models.discovery import block_modules, find_decoder
from olmo_stages.models.initialisation import initialise
from olmo_stages.models.malformed import malformed
from olmo_stages.models.parts import Random, Read
from olmo_stages.models.sites import Decoder
from olmo_stages.models.skeleton import Skeleton, build, check_dtype, check_names
from olmo_stages.models.tensors import Tensors
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


def load(
    stage: Stage,
    checkpoint: Checkpoint,
    *,
    dtype: str,
    device: str,
    quantisation: str = "none",
    device_map: str | Mapping[str, int | str] | None = None,
) -> Loaded:
    """Load a stage's model, or initialise one of the same shape at random.

    `stage.random_init` runs transformers' own `_init_weights` on the CPU from that seed, part by
    part (`olmo_stages.models.initialisation`): normal with the config's `initializer_range` (0.02
    for OLMo) for matrices and embeddings, ones for norm gains. That is how training of these
    families starts. With gains of 1 each contribution of a post-norm block has root mean square 1,
    fifty times the embeddings, so the token's own embedding fades from the residual stream within a
    block or two; the embedding layer itself is the baseline for what token identity alone gives.

    Args:
        stage: which weights.
        checkpoint: from `locate`.
        dtype: `float32`, `bfloat16` or `float16`.
        device: `cpu` or `cuda`; where the model goes that `device_map` does not place.
        quantisation: `none`, `int8` or `int4` (a random initialisation too is quantised).
        device_map: `auto` = accelerate spreads the blocks over all GPUs and the CPU; or what
            `places` found.

    Returns:
        The model in eval mode; its weights are complete and finite, its layers are of the kinds and
        have the rotary embeddings that config.json says, and its sites add up.

    Raises:
        ModelError: the checkpoint cannot be used; says why.
    """
    import transformers  # late: it is slow

    where = f"stage {stage.label} ({checkpoint.path})"
    with malformed(where):
        families.check_config(checkpoint.path, quantisation)
        config = digests.read_config(checkpoint.path)
        if stage.random_init is None and not config.get("quantization_config"):
            guards.check_files(where, checkpoint.path)
        ropes = rope.expected(where, config)
        if rope.differs(ropes):
            guards.check_transformers(transformers.__version__)
        if not sys.stderr.isatty():
            transformers.utils.logging.disable_progress_bar()
        with _explained(where), _one_line():
            placed = placement.options(checkpoint.path, dtype, device, quantisation, device_map)
            model, info = _build(stage, checkpoint.path, dtype, placed)
            if not placed:
                model = model.to(device)
        guards.check_keys(where, info)
        guards.check_head(where, model)
        model = model.eval().requires_grad_(requires_grad=False)
        if not placed:
            guards.check_values(where, model, dtype)
        elif stage.random_init is None:
            placement.check_values(where, checkpoint.path, dtype)
        placement.settle(model)
        with placement.running(where, quantisation):
            decoder = find_decoder(model)
        layer_kinds.check_rotary(where, ropes, decoder.layer_types, decoder.rotary)
        return Loaded(stage, model, decoder)


def places(
    stage: Stage,
    checkpoint: Checkpoint,
    *,
    dtype: str,
    device: str,
    quantisation: str,
    say: Callable[[str], None],
) -> dict[str, int] | None:
    """Over which GPUs a stage's model has to be spread, if one device does not hold its weights.

    Args:
        stage: which weights.
        checkpoint: from `locate`.
        dtype: `float32`, `bfloat16` or `float16`.
        device: `cpu` or `cuda`.
        quantisation: `none`, `int8` or `int4`.
        say: told in one line that it is spread, and why.

    Returns:
        The `device_map` of `load`.

    Raises:
        ModelError: the weights do not fit; says what else to do.
    """
    where = f"stage {stage.label} ({checkpoint.path})"
    with malformed(where), _explained(where), _one_line():
        config = _unquantised(families.native_config(checkpoint.path))
        weights = fitting.weights_of(config, dtype, quantisation)
    return fitting.places(stage.label, weights, device, say)


def skeleton(stage: Stage, checkpoint: Checkpoint, *, dtype: str, device: str) -> Skeleton:
    """A stage's model without its weights, for `olmo_stages.models.layer_major`.

    Args:
        stage: which weights; a random initialisation is that of `load`.
        checkpoint: from `locate`.
        dtype: `float32`, `bfloat16` or `float16`.
        device: `cpu` or `cuda`, where each block is computed.

    Returns:
        The model; that its files hold all weights has been checked, their values are when read.

    Raises:
        ModelError: the checkpoint cannot be used; says why.
        ConfigError: its architecture cannot be run block by block in this dtype.
    """
    import transformers

    where = f"stage {stage.label} ({checkpoint.path})"
    exact, place = getattr(torch, dtype), torch.device(device)
    with malformed(where):
        families.check_config(checkpoint.path)
        config = digests.read_config(checkpoint.path)
        ropes = rope.expected(where, config)
        if rope.differs(ropes):
            guards.check_transformers(transformers.__version__)
        with _explained(where), _one_line():
            model = plans.model(families.native_config(checkpoint.path), exact, place)
        check_dtype(model, exact)
        if stage.random_init is not None:
            return Skeleton(where, model, Random(model, stage.random_init), exact, place, ropes)
        guards.check_files(where, checkpoint.path)
        tensors = Tensors(checkpoint.path)
        check_names(where, model, tensors)
        return Skeleton(where, model, Read(where, tensors, exact), exact, place, ropes)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Say in one line what transformers says of files that it cannot read or does not know.

    Raises:
        ModelError: they cannot be loaded, or do not fit into memory.
    """
    from safetensors import SafetensorError

    try:
        yield
    except ModelError:
        raise
    except MemoryError as error:
        raise ModelError(f"{where}: {memory.NOT_LOADED}") from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        if memory.is_exhausted(error):
            raise ModelError(f"{where}: {memory.NOT_LOADED}") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = "; download or save it again" if isinstance(error, SafetensorError) else ""
        if isinstance(error, KeyError):
            reason = f"transformers knows no {reason}, which its config.json asks for"
            remedy = "; take the config.json that was saved with these weights"
        raise ModelError(f"{where} cannot be loaded: {reason}{remedy}") from error


@contextmanager
def _one_line() -> Iterator[None]:
    """Keep transformers' reports off the terminal: what they say is checked, and raised."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _build(
    stage: Stage, path: Path, dtype: str, placed: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The model and which of its weights the checkpoint did not give it."""
    options = {"dtype": getattr(torch, dtype), "attn_implementation": ATTENTION}
    config = families.native_config(path)
    if stage.random_init is None:
        return _read(path, config, {**options, **placed})
    model = build(_unquantised(config), getattr(torch, dtype), torch.device("cpu"))
    initialise(model, block_modules(model), stage.random_init)
    if not placed:
        return model, {"missing_keys": (), "unexpected_keys": (), "mismatched_keys": ()}
    # Quantised and spread by the code that does it to trained weights, which reads files.
    with scratch() as folder:
        with writing(folder, TEMPORARY):
            model.save_pretrained(folder)
        del model
        return _read(folder, config, {**options, **placed})


def _unquantised(config: Any) -> Any:  # noqa: ANN401 (a config of transformers)
    """The config of a checkpoint that was saved quantised, as if it had not been."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _read(path: Path, config: Any, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
    from transformers import AutoModelForCausalLM

    # With output_loading_info the answer is a pair, which the type of from_pretrained leaves out.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path,
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported, and then refused by name
        **options,
    )
    return loaded
