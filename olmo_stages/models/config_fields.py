"""Fields of an OLMo's config.json that no model can have, told by name. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from olmo_stages.errors import ModelError
from olmo_stages.models.rope import FULL, SLIDING

_COUNTS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)
_REMEDY = "take the config.json that was saved with these weights, or of the stage it comes from"


def check(where: str, config: Mapping[str, Any]) -> None:
    """Refuse sizes and kinds of layer that are missing or impossible.

    transformers fills missing ones with defaults that no released OLMo has, and answers impossible
    ones with a shape mismatch somewhere inside, or not at all.

    Args:
        where: the checkpoint, for messages.
        config: config.json of an OLMo 2 or 3.

    Raises:
        ModelError: names the field and its value.
    """
    for name in _COUNTS:
        _check_count(where, name, config.get(name))
    for name in ("num_key_value_heads", "head_dim"):
        if config.get(name) is not None:
            _check_count(where, name, config[name])
    heads, keys = config["num_attention_heads"], config.get("num_key_value_heads")
    if config.get("head_dim") is None and config["hidden_size"] % heads:
        raise ModelError(
            f"{where}: config.json has num_attention_heads {heads}, which does not divide "
            f"hidden_size {config['hidden_size']}; {_REMEDY}"
        )
    if keys is not None and heads % keys:
        raise ModelError(
            f"{where}: config.json has num_key_value_heads {keys}, which does not divide "
            f"num_attention_heads {heads}; {_REMEDY}"
        )
    epsilon = config.get("rms_norm_eps", 1e-5)
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        raise ModelError(
            f"{where}: config.json has rms_norm_eps {epsilon!r}; OLMo 2 and 3 were trained with "
            f"1e-06; {_REMEDY}"
        )
    if config["model_type"] != "olmo2":
        _check_layers(where, config)


def _check_layers(where: str, config: Mapping[str, Any]) -> None:
    types, n_layers = config.get("layer_types"), config["num_hidden_layers"]
    if types is not None:
        odd = [it for it in types if it not in {SLIDING, FULL}]
        if odd or len(types) != n_layers:
            said = f"{odd[0]!r}" if odd else f"{len(types)} entries for {n_layers} layers"
            raise ModelError(
                f"{where}: config.json has {said} in layer_types; an OLMo 3 has {SLIDING} or "
                f"{FULL} for each layer, every fourth {FULL}; {_REMEDY}"
            )
    if types is None or SLIDING in types:
        # A window of 0 lets a token attend to nothing, without a word.
        _check_count(where, "sliding_window", config.get("sliding_window", 1))


def _check_count(where: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        said = "no" if value is None else f"{value!r} as"
        raise ModelError(
            f"{where}: config.json has {said} {name}, which must be a whole number of at least 1; "
            f"{_REMEDY}"
        )
