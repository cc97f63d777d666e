"""LoRA adapters merged into the weights of their base, tensor by tensor."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from olmo_stages.errors import ModelError
from olmo_stages.models import adapter_files, derived, digests, families
from olmo_stages.models.adapter_files import Adapter
from olmo_stages.models.tensors import Tensors, n_bytes, write_weights

VERSION = 1
"""Raise it when the same base and adapter give other weights."""

_REMEDY = (
    "merge it where it was trained, PeftModel.merge_and_unload().save_pretrained(DIR), and give DIR"
)
# What changes nothing in the merged weights, or is handled.
_HANDLED = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
}
# The others (pissa, olora, corda, loftq, lora_ga) also change the weights of the base.
_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
_NO_IDENTITY = ("base_model_name_or_path", "inference_mode", "peft_version", "revision")


@dataclass(frozen=True, eq=False)
class Change:
    """What becomes of a tensor of the base.

    Args:
        make: the new one from the old one.
        dtype: of the new one.
    """

    make: Callable[[torch.Tensor], torch.Tensor]
    dtype: torch.dtype


def ensure_merged(adapter: Adapter, base: Path, digest: str, cache: Path) -> tuple[Path, str]:
    """The checkpoint directory of an adapter merged into its base.

    Tensors that the adapter changes are float32, so that a change far below the spacing of
    bfloat16 is not rounded away before the forward pass asks for its own dtype.

    Args:
        adapter: the adapter; LoRA, rsLoRA or DoRA, with or without `modules_to_save`.
        base: directory of the model that it was trained on.
        digest: identity of that model's weights.
        cache: the cache folder.

    Returns:
        The directory and the identity of its weights.

    Raises:
        ModelError: the adapter cannot be merged; says why.
        StoreError: the disk is full.
    """
    _check_kind(adapter)
    config = {key: it for key, it in adapter.config.items() if key not in _NO_IDENTITY}
    weights = digests.file_digest(adapter.path / adapter_files.WEIGHTS)
    merged = {"adapter": VERSION, "base": digest, "config": config, "weights": weights}
    key = digests.digest(merged)
    small = adapter_files.small_files(adapter, base)
    files = {name: digests.file_digest(file) for name, file in small.items()}

    def write(folder: Path) -> None:
        derived.copy_small(small.values(), folder)
        _write(folder, adapter, Tensors(base))

    record = {"path": str(adapter.path), "trained on": adapter.base, **merged}
    return derived.ensure(digests.digest([key, files]), cache, write, record), key


def changes(adapter: Adapter, base: Path) -> dict[str, Change]:
    """What an adapter does to each tensor of its base, by name.

    The base stays on disk: peft, which knows the arithmetic, is given a model without weights, and
    then one weight at a time.

    Args:
        adapter: the adapter.
        base: directory of its base.

    Raises:
        ModelError: the adapter does not fit.
    """
    model = _attach(adapter, base)
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    found: dict[str, Change] = {}
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer):
            what = f"adapter {adapter.path}: weight {name}"
            found[f"{name}.weight"] = Change(_merging(module, what), torch.float32)
        elif isinstance(module, ModulesToSaveWrapper):
            trained = module.modules_to_save["default"]
            for part, values in trained.named_parameters():
                found[f"{name}.{part}"] = Change(_replacing(values.data), values.dtype)
    return found


def _write(folder: Path, adapter: Adapter, base: Tensors) -> None:
    found = changes(adapter, base.path)
    unknown = sorted(found.keys() - base.layouts.keys())
    if unknown:
        raise ModelError(
            f"adapter {adapter.path} changes {unknown[0]}, which {base.path} does not hold as a "
            f"weight of its own (tied, perhaps); {_REMEDY}"
        )
    sizes = {
        name: n_bytes(layout, found[name].dtype if name in found else None)
        for name, layout in base.layouts.items()
    }

    def make(name: str) -> torch.Tensor:
        values = base.read(name)
        return found[name].make(values) if name in found else values

    write_weights(folder, sizes, make, f"merging {adapter.path.name}")


def _attach(adapter: Adapter, base: Path) -> Any:  # noqa: ANN401  (a PeftModel)
    from transformers import AutoModelForCausalLM

    peft = _peft()
    where = f"adapter {adapter.path}"
    config = families.native_config(base)
    if getattr(config.get_text_config(), "tie_word_embeddings", False):
        _check_untied(where, adapter.config)
    try:
        weights = load_file(adapter.path / adapter_files.WEIGHTS)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        _hollow(model)
        # The adapter is initialised at random first; nobody else's random numbers shall move.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # keys that do not fit are refused below
            said = peft.LoraConfig.from_pretrained(str(adapter.path))
            attached = peft.PeftModel(model, said)
            wanted = set(peft.get_peft_model_state_dict(attached, save_embedding_layers=False))
            # In float32, since peft rounds the product to the dtype of its factors.
            values = {name: value.float() for name, value in weights.items()}
            # "low_cpu_mem_usage": put in place, since a hollow tensor cannot be written to.
            peft.set_peft_model_state_dict(attached, values, low_cpu_mem_usage=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        lines = (str(error).strip() or type(error).__name__).splitlines()
        reason = " ".join(line.strip() for line in lines[:2])
        raise ModelError(
            f"{where} does not fit {base}: {reason}; give the model it was trained on as "
            "model.parent"
        ) from error
    for names, said in ((set(weights) - wanted, "holds"), (wanted - set(weights), "lacks")):
        if names:
            raise ModelError(
                f"{where} {said} {min(names)}, unlike an adapter of its {adapter_files.CONFIG} on "
                f"{base}; {_REMEDY}"
            )
    return attached


def _hollow(model: torch.nn.Module) -> None:
    """Weights of the right shape that take no memory, all elements being one.

    Not of the device "meta": peft would move the adapter there, and adding something from there
    to real weights changes nothing, without a word.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            hollow = torch.zeros(()).expand(parameter.shape)
            setattr(module, name, torch.nn.Parameter(hollow, requires_grad=False))


def _merging(module: Any, what: str) -> Callable[[torch.Tensor], torch.Tensor]:  # noqa: ANN401
    def merge(values: torch.Tensor) -> torch.Tensor:
        layer = module.get_base_layer()
        empty = layer.weight
        layer.weight = torch.nn.Parameter(values.float(), requires_grad=False)
        module.merge()
        merged = layer.weight.data
        layer.weight = empty
        if not bool(merged.isfinite().all()):
            raise ModelError(f"{what} is not finite once merged; save the adapter again")
        return merged.contiguous()

    return merge


def _replacing(values: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda _: values.contiguous()


def _check_kind(adapter: Adapter) -> None:
    """Refuse what is more than LoRA, by name.

    Raises:
        ModelError: says what it is, and how to merge it.
    """
    where, config = f"adapter {adapter.path}", adapter.config
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{where} is of type {config.get('peft_type')}, not LORA; {_REMEDY}")
    if config.get("bias", "none") != "none":
        raise ModelError(f"{where} has bias={config['bias']}, which is not merged; {_REMEDY}")
    if (init := config.get("init_lora_weights")) not in _INITS:
        raise ModelError(
            f"{where} has init_lora_weights={init}, which also changes the base; {_REMEDY}"
        )
    usual = {it.name: it.default for it in fields(_peft().LoraConfig)}
    for key, value in config.items():
        if key not in _HANDLED and value and value != usual.get(key):
            raise ModelError(f"{where} has {key}={value}, which is not merged; {_REMEDY}")


def _check_untied(where: str, config: Mapping[str, Any]) -> None:
    targets = config.get("target_modules") or ()
    named = [targets] if isinstance(targets, str) else [*targets]
    for name in [*named, *(config.get("modules_to_save") or ())]:
        if "embed" in name or "lm_head" in name or name == "all-linear":
            raise ModelError(
                f"{where} changes {name} of a model whose head is tied to its embeddings; {_REMEDY}"
            )


def _peft() -> Any:  # noqa: ANN401  (the module)
    try:
        import peft
    except ImportError as error:
        raise ModelError(
            "LoRA adapters need the package peft: pip install 'olmo-stages[peft]'"
        ) from error
    return peft
