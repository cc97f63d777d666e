"""Rotary embeddings: those that a checkpoint's config.json asks for. Does not import torch.

In an OLMo 3 the two kinds of layer differ: after long-context training the full-attention layers
have YaRN and the sliding-window layers have not. Releases of transformers have lost that in several
ways without a word, so it is worked out here from the file, independently of the library, and
compared with what every block receives (`olmo_stages.models.discovery`).
"""

import json
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
    asked = {kind: said(where, config, kind) for kind in sorted(set(types))}
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


def said(where: str, config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What config.json says of one kind of layer, in any of the three ways of writing it.

    Args:
        where: the checkpoint, for messages.
        config: its config.json, of an OLMo 3.
        kind: of layer.

    Raises:
        ModelError: it says it in a way that transformers does not read.
    """
    found = _said(where, config, kind)
    if found.get("type", "default") != "default" and not found.get("rope_type"):
        raise ModelError(
            f'{where}: config.json has "type": "{found["type"]}" in its rotary parameters, which '
            f'transformers does not read; write "rope_type": "{found["type"]}"'
        )
    theta = found.setdefault("rope_theta", THETA)
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not theta > 1:
        raise ModelError(
            f"{where}: config.json has rope_theta {theta!r}, which is no base of frequencies; "
            f"OLMo 3 was trained with {THETA:.0f}"
        )
    return found


def _said(where: str, config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    for name in ("rope_parameters", "rope_scaling"):
        if not isinstance(config.get(name) or {}, Mapping):
            raise ModelError(
                f"{where}: config.json has {name} {config[name]!r}, which are no named values; "
                f"{_REMEDY}"
            )
    given, legacy = config.get("rope_parameters"), config.get("rope_scaling")
    if not given:
        # As released: rope_scaling is of the full-attention layers only.
        scaling = legacy if legacy and kind == FULL else {}
        return {**_theta(where, config, legacy or {}), **scaling}
    if FULL not in given and SLIDING not in given:
        if _kind(given) != "default":
            raise ModelError(
                f"{where}: config.json has one rope_parameters ({_kind(given)}) for all layers, as "
                "transformers 5.0 to 5.12 saved it, and would be read without it, silently; "
                f"{_REMEDY}"
            )
        return dict(given)
    _check_one_way(where, given)
    if not given.get(kind) or not isinstance(given[kind], Mapping):
        raise ModelError(
            f"{where}: config.json has no rope_parameters for its {kind} layers; {_REMEDY}"
        )
    return dict(given[kind])


def _check_one_way(where: str, given: Mapping[str, Any]) -> None:
    """Refuse parameters of all layers beside those of each kind, of which they are not.

    Raises:
        ModelError: the parameters of all layers were lost when they were read.
    """
    full = given.get(FULL)
    lost = _kind(given)
    if lost != "default" and isinstance(full, Mapping) and _kind(full) != lost:
        raise ModelError(
            f"{where}: config.json has rope_parameters for all layers ({lost}) and by kind of "
            f"layer ({_kind(full)} in {FULL}), as transformers 5.13 and later save a config whose "
            f"{lost} they have lost; {_REMEDY}"
        )


def _theta(where: str, config: Mapping[str, Any], scaling: Mapping[str, Any]) -> dict[str, Any]:
    """The base of all layers, as released checkpoints give it, outside of `rope_parameters`.

    Raises:
        ModelError: transformers would read it for the full-attention layers alone.
    """
    theta = config.get("rope_theta", THETA)
    kinds = config.get("layer_types") or (SLIDING,)
    if theta != THETA and SLIDING in kinds and isinstance(theta, int | float):
        default = {"rope_type": "default", "rope_theta": theta}
        meant = {FULL: {**default, **scaling}, SLIDING: default}
        raise ModelError(
            f"{where}: config.json has rope_theta {theta}, of which transformers reads "
            f"{THETA:.0f} for the sliding-window layers; if it was trained with {theta} in all "
            f"layers, write rope_parameters: {json.dumps(meant)} in place of rope_theta and "
            "rope_scaling"
        )
    return {"rope_theta": theta}


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
    for name in ("factor", "original_max_position_embeddings"):
        if not isinstance(spec.get(name), int | float):
            raise ModelError(
                f"{where}: the YaRN parameters in config.json lack '{name}'; copy rope_scaling "
                "from the config.json of the stage it was trained from"
            )
    if spec.get("truncate", True) is not True:
        raise ModelError(
            f'{where}: config.json has "truncate": {json.dumps(spec["truncate"])} in its YaRN '
            "parameters, which transformers does not read where kinds of layer differ, and which "
            "the released OLMo 3 have not; leave it out if the model was trained by transformers "
            "or is the released one"
        )
    return _yarn(spec, plain, base, width)


def _yarn(
    spec: Mapping[str, Any], plain: Float[np.ndarray, " pair"], base: float, width: int
) -> Rope:
    """YaRN (Peng et al. 2023, arXiv:2309.00071, section 3.2 and eq. 22)."""
    factor, context = spec["factor"], spec["original_max_position_embeddings"]

    def pair_of(turns: float) -> float:
        """The pair of dimensions that makes so many turns within the trained context."""
        return width * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = (pair_of(float(spec.get(n) or d)) for n, d in (("beta_fast", 32), ("beta_slow", 1)))
    low, high = max(math.floor(low), 0), min(math.ceil(high), width - 1)
    stretched = np.clip((np.arange(width // 2) - low) / max(high - low, 1e-3), 0, 1)
    inverse = plain / factor * stretched + plain * (1 - stretched)
    return Rope("yarn", inverse, attention_factor(spec))


def attention_factor(spec: Mapping[str, Any]) -> float:
    """The factor on cosine and sine that YaRN parameters ask for.

    Args:
        spec: with `factor`; `attention_factor`, or `mscale` and `mscale_all_dim`, where given.
    """
    given = spec.get("attention_factor")
    if given is not None:
        return float(given)
    factor, scales = spec["factor"], (spec.get("mscale"), spec.get("mscale_all_dim"))
    if all(scales):
        above, below = (_attention_factor(factor, float(it)) for it in scales if it)
        return above / below
    return _attention_factor(factor, 1.0)


def _attention_factor(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0
