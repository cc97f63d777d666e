"""What config.json says a checkpoint is, checked before anything is loaded. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmo_stages.errors import ModelError
from olmo_stages.models import config_fields, digests, rope

RETROFIT = "olmo2-retrofit"
"""Name of the OLMo 3 architecture before its release; some RL-Zero checkpoints still carry it."""

OLMO3 = "olmo3"
OLMO = (OLMO3, RETROFIT, "olmo2")
"""Values of `model_type` of OLMo 2 and OLMo 3."""

RETROFIT_WINDOW = 4097
"""How `olmo2-retrofit` spells a window of 4096."""

WINDOW = 4096
"""Tokens that a sliding-window layer of OLMo 3 attends to, the current one included."""


def check_config(path: Path, quantisation: str = "none") -> None:
    """Refuse a checkpoint whose config.json would be read as something else, silently.

    Cheap, and made before the store is asked, so that activations that an earlier version made of
    such a checkpoint are not handed out either.

    Args:
        path: checkpoint directory.
        quantisation: what is asked for; a checkpoint that was saved in that way is not refused.

    Raises:
        ModelError: names what is wrong in config.json and what to write there.
    """
    where = str(path)
    config = digests.read_config(path)
    if config.get("quantization_config") is not None:
        _check_quantised(where, config["quantization_config"], quantisation)
    if not config.get("model_type"):
        known = "olmo2" if any("Olmo2" in it for it in config.get("architectures") or ()) else OLMO3
        raise ModelError(
            f'{where}: config.json has no model_type; write "model_type": "{known}" if it is one, '
            "or take the config.json that was saved with these weights"
        )
    if config["model_type"] in OLMO:
        _check_olmo2(where, config)
        config_fields.check(where, config)
    rope.expected(where, config)


def _check_quantised(where: str, saved: Mapping[str, Any], asked: str) -> None:
    """Refuse weights that were saved in another quantisation than the one asked for.

    Raises:
        ModelError: says which.
    """
    if saved.get("load_in_8bit"):
        kind = "int8"
    elif saved.get("load_in_4bit") and saved.get("bnb_4bit_quant_type") == "nf4":
        kind = "int4"
    else:
        kind = ""
    if kind and kind == asked:
        return
    method = saved.get("quant_method", "unknown")
    remedy = f", or use compute={kind} for all that it is compared with" if kind else ""
    raise ModelError(
        f"{where}: the weights are saved quantised ({method}), which full-precision stages are "
        f"not compared with; give the checkpoint that it was made from{remedy}"
    )


def native_config(path: Path) -> Any:  # noqa: ANN401 (a config of transformers)
    """The config of the class of transformers that computes a checkpoint.

    `olmo2-retrofit` is OLMo 3 under its working name, with the same weight names, and is loaded as
    `Olmo3`; never as `Olmo2`, which would fit all weights too but knows neither window nor YaRN.
    There `sliding_window` 4097 means what 4096 means in `Olmo3`, and is read as such: it matters
    for prompts beyond 4096 tokens.

    Args:
        path: checkpoint directory, already checked.

    Returns:
        The config; code that a checkpoint brings along is never run.

    Raises:
        ModelError: the architecture needs code of its own.
        ValueError: transformers does not know it.
    """
    from transformers import AutoConfig, Olmo3Config

    config = digests.read_config(path)
    if config.get("model_type") == RETROFIT:
        # With its old name AutoTokenizer would not know it either.
        found = Olmo3Config.from_dict(config | {"model_type": "olmo3"})
        if found.sliding_window == RETROFIT_WINDOW:
            found.sliding_window = WINDOW
        return found
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except ValueError as error:
        if "auto_map" not in config:
            raise
        raise ModelError(
            f"{path}: architecture {config.get('model_type')!r} needs Python code that comes with "
            "the checkpoint, which is never run; convert it to an architecture that transformers "
            "has, e.g. olmo3 or llama"
        ) from error


def _check_olmo2(where: str, config: Mapping[str, Any]) -> None:
    """Refuse an OLMo 3 under the name of OLMo 2, which has the same weight names.

    Raises:
        ModelError: names what would be ignored.
    """
    if config.get("model_type") != "olmo2":
        return
    classes = [name for name in config.get("architectures") or () if "Olmo3" in name]
    foreign = [
        *(f"architectures {name}" for name in classes),
        *(["sliding_window"] if config.get("sliding_window") else []),
        *(["layer_types"] if rope.SLIDING in (config.get("layer_types") or ()) else []),
    ]
    if foreign:
        raise ModelError(
            f'{where}: config.json says "model_type": "olmo2", which would ignore its '
            f'{" and ".join(foreign)}; if it is an OLMo 3, write "model_type": "olmo3"'
        )
