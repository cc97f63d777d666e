"""Rotary embeddings: those that a checkpoint's config.json asks for. Does not import torch.

In an OLMo 3 the two kinds of layer differ: after long-context training the full-attention layers
have YaRN and the sliding-window layers have not. Releases of transformers have lost that in several
ways without a word, so it is worked out here from the file, independently of the library, and
compared with what every block receives (`olmo_stages.models.discovery`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from olmo_stages.errors import ModelError

SLIDING, FULL = "sliding_attention", "full_attention"
THETA = 500000.0
TRAINED_CONTEXT = 8192
"""Context of OLMo 3 before the long-context stage, which is what brings YaRN."""

# By d_model and number of blocks.
_RELEASED: dict[tuple[Any, Any], str] = {(4096, 32): "7b", (5120, 64): "32b"}
_REMEDY = (
    'give rope_parameters as {"full_attention": {...}, "sliding_attention": {"rope_type": '
    f'"default", "rope_theta": {THETA:.0f}}}}}, as in the config.json of the stage it was trained '
    "from"
)


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotary embedding of one kind of layer.

    Args:
        kind: `default` or `yarn`.
        inverse: frequencies in radians a token, one for each pair of dimensions of a head.
        scaling: factor on cosine and sine.
    """

    kind: str
    inverse: Float[np.ndarray, " pair"]
    scaling: float


def expected(where: str, config: Mapping[str, Any]) -> dict[str, Rope] | None:
    """Rotary embedding by kind of layer that an OLMo 3 must have.

    Args:
        where: the checkpoint, for messages.
        config: its config.json.

    Returns:
        One entry for each kind of layer; None for other families, where transformers has one rotary
        embedding for all layers or keeps the kinds apart by itself.

    Raises:
        ModelError: config.json would be read without its YaRN, or with YaRN where none belongs.
    """
    if config.get("model_type") not in {"olmo3", "olmo2-retrofit"}:
        return None
    types = config.get("layer_types") or (SLIDING, FULL)
    asked = {kind: _asked(where, config, kind) for kind in sorted(set(types))}
    _check_kinds(where, config, asked)
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return {kind: _rope(where, spec, width) for kind, spec in asked.items()}


def differs(ropes: Mapping[str, Rope] | None) -> bool:
    """Whether the kinds of layer do not all have the same rotary embedding."""
    first, *others = (ropes or {}).values() or (None,)
    return any(
        first is not None
        and (other.scaling != first.scaling or not np.array_equal(other.inverse, first.inverse))
        for other in others
    )


def _asked(where: str, config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What config.json says of one kind of layer, in any of the three ways of writing it.

    Raises:
        ModelError: it says it in a way that transformers does not read.
    """
    given, legacy = config.get("rope_parameters"), config.get("rope_scaling")
    theta = config.get("rope_theta", THETA)
    if not given:
        # As released: rope_scaling is of the full-attention layers only.
        return {"rope_theta": theta, **(legacy if legacy and kind == FULL else {})}
    if FULL not in given and SLIDING not in given:
        if _kind(given) != "default":
            raise ModelError(
                f"{where}: config.json has one rope_parameters ({_kind(given)}) for all layers, as "
                "transformers 5.0 to 5.12 saved it, and would be read without it, silently; "
                f"{_REMEDY}"
            )
        return dict(given)
    if not given.get(kind):
        raise ModelError(
            f"{where}: config.json has no rope_parameters for its {kind} layers; {_REMEDY}"
        )
    return dict(given[kind])


def _check_kinds(
    where: str, config: Mapping[str, Any], asked: Mapping[str, Mapping[str, Any]]
) -> None:
    if SLIDING in asked and _kind(asked[SLIDING]) != "default":
        raise ModelError(
            f"{where}: config.json asks for {_kind(asked[SLIDING])} in the sliding-window layers, "
            f"where OLMo 3 was trained without; {_REMEDY}"
        )
    size = _RELEASED.get((config.get("hidden_size"), config.get("num_hidden_layers")))
    context = config.get("max_position_embeddings", 0)
    if size and context > TRAINED_CONTEXT and FULL in asked and _kind(asked[FULL]) == "default":
        raise ModelError(
            f"{where}: config.json has a context of {context} but no YaRN in the full-attention "
            f"layers, which the {size} has beyond {TRAINED_CONTEXT}; copy rope_scaling from the "
            "config.json of the stage it was trained from, or, if it was trained without YaRN, set "
            f"max_position_embeddings to {TRAINED_CONTEXT}"
        )


def _kind(spec: Mapping[str, Any]) -> str:
    return spec.get("rope_type") or spec.get("type") or "default"


def _rope(where: str, spec: Mapping[str, Any], width: int) -> Rope:
    kind = _kind(spec)
    base = float(spec.get("rope_theta") or THETA)
    plain = base ** -(np.arange(0, width, 2) / width)
    if kind == "default":
        return Rope(kind, plain, 1.0)
    if kind != "yarn":
        raise ModelError(
            f"{where}: rope type {kind!r} in config.json; an OLMo 3 has default or yarn, and "
            "others are not supported"
        )
    try:
        return _yarn(spec, plain, base, width)
    except KeyError as error:
        raise ModelError(
            f"{where}: the YaRN parameters in config.json lack {error}; copy rope_scaling from the "
            "config.json of the stage it was trained from"
        ) from error


def _yarn(
    spec: Mapping[str, Any], plain: Float[np.ndarray, " pair"], base: float, width: int
) -> Rope:
    """YaRN (Peng et al. 2023, arXiv:2309.00071, section 3.2 and eq. 22)."""
    factor, context = spec["factor"], spec["original_max_position_embeddings"]

    def pair_of(turns: float) -> float:
        """The pair of dimensions that makes so many turns within the trained context."""
        return width * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = (pair_of(float(spec.get(n) or d)) for n, d in (("beta_fast", 32), ("beta_slow", 1)))
    if spec.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    stretched = np.clip((np.arange(width // 2) - low) / max(high - low, 1e-3), 0, 1)
    inverse = plain / factor * stretched + plain * (1 - stretched)
    scaling = spec.get("attention_factor") or 0.1 * math.log(factor) + 1
    return Rope("yarn", inverse, float(scaling))
