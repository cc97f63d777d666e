"""How a config.json differs from what is known of a release. Imports no torch.

Fields are compared in the values that transformers computes with, be they written or left out, and
named as config.json spells them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from olmo_stages.models import families, rope
from olmo_stages.shapes import Shape, Widths

EPSILON = 1e-6
YARN: Mapping[str, Any] = {
    "rope_type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": rope.TRAINED_CONTEXT,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "attention_factor": 0.1 * math.log(8) + 1,
}
"""Rotary parameters of the full-attention layers after long-context training."""

ASSUMED: Mapping[str, Mapping[str, Any]] = {
    "olmo3": {
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "sliding_window": 4096,
        "rope_theta": rope.THETA,
    },
    "olmo2": {
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    },
}
"""What transformers takes for a field that config.json leaves out, by family."""

# Rows beyond the tokenizer's are padding of training and change no activation.
_VOCABULARIES = (100278, 100352)
_MANY = 4
_PRECISION = 1e-6


@dataclass(frozen=True)
class Difference:
    """A field of config.json that is not as released.

    Args:
        field: as config.json spells it.
        found: its value.
        wanted: what was released.
        changes: all that it changes, where that is not every activation; else empty.
    """

    field: str
    found: str
    wanted: str
    changes: str = ""


@dataclass(frozen=True)
class Known:
    """What is known of a release.

    Args:
        family: `olmo3` or `olmo2`.
        shape: blocks and contexts.
        widths: sizes of its matrices.
        contexts: that its revision may have; each other than the longest is without YaRN.
        window: of sliding layers.
        theta: base of the rotary embedding.
        vocabularies: rows of the embedding that it may have.
        was_retrofit: whether it was released under the working name of its family, whose spelling
            of the window may have stayed when the name was corrected.
    """

    family: str
    shape: Shape
    widths: Widths
    contexts: tuple[int, ...]
    window: int = families.WINDOW
    theta: float = rope.THETA
    vocabularies: tuple[int, ...] = _VOCABULARIES
    was_retrofit: bool = False


def differences(where: str, config: Mapping[str, Any], known: Known) -> tuple[Difference, ...]:
    """Compare a config.json with what is known of a release.

    Args:
        where: the checkpoint, for messages.
        config: its config.json.
        known: what is known.

    Returns:
        The differences, the most telling first; of another architecture that one alone.

    Raises:
        ModelError: config.json gives the rotary embedding in a way that is not read.
    """
    types = ("olmo3", families.RETROFIT) if known.family == "olmo3" else (known.family,)
    kind = config.get("model_type")
    if kind not in types:
        return (Difference("model_type", str(kind), types[0]),)
    return (*_fields(config, known), *_layers(config, known), *_rotary(where, config, known))


def _fields(config: Mapping[str, Any], known: Known) -> Iterator[Difference]:
    widths, heads = known.widths, known.widths.n_heads
    window = [known.window, families.RETROFIT_WINDOW]
    is_retrofit = config["model_type"] == families.RETROFIT
    allowed: dict[str, tuple[Any, ...]] = {
        "hidden_size": (widths.d_model,),
        "intermediate_size": (widths.d_ff,),
        "num_hidden_layers": (known.shape.n_layers,),
        "num_attention_heads": (heads,),
        "num_key_value_heads": (widths.n_kv_heads,),
        "head_dim": (widths.d_model // heads,),
        "vocab_size": known.vocabularies,
        "max_position_embeddings": known.contexts,
        "rms_norm_eps": (EPSILON,),
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "tie_word_embeddings": (False,),
    }
    if known.family == "olmo3":
        allowed["sliding_window"] = tuple(window if is_retrofit else window[:1])
    asked = config.get("num_attention_heads")
    assumed = {
        **ASSUMED[known.family],
        "num_key_value_heads": asked,
        "head_dim": widths.d_model // heads,
    }
    for name, values in allowed.items():
        found = config.get(name)
        value = assumed.get(name) if found is None else found
        if not any(_same(value, it) for it in values):
            said = str(found)
            if found is None:
                said = "left out" + ("" if value is None else f", which means {value}")
            yield Difference(
                name, said, " or ".join(map(str, values)), _changes(known, name, value)
            )


def _changes(known: Known, name: str, value: object) -> str:
    """What a field changes, where that is little: its other value may have been released.

    Contexts are known of some repositories and taken for the same in their siblings.
    """
    if name == "max_position_embeddings" and value is not None:
        return "how long a prompt may be"
    if name == "sliding_window" and known.was_retrofit and value == families.RETROFIT_WINDOW:
        return f"activations of prompts of more than {known.window} tokens"
    return ""


def _layers(config: Mapping[str, Any], known: Known) -> Iterator[Difference]:
    types = config.get("layer_types")
    wanted = known.shape.layer_types
    if known.family == "olmo3" and types is not None and tuple(types) != wanted:
        yield Difference("layer_types", _full(types), _full(wanted))


def _full(types: Any) -> str:  # noqa: ANN401 (as somebody wrote it)
    full = [str(i) for i, kind in enumerate(types) if kind == rope.FULL]
    shown = ", ".join(full) if len(full) <= _MANY else f"{full[0]}, {full[1]}, ..., {full[-1]}"
    return f"full in {shown or 'none'} of {len(types)}"


def _rotary(where: str, config: Mapping[str, Any], known: Known) -> Iterator[Difference]:
    theta = config.get("rope_theta", rope.THETA)
    known_theta = known.theta
    if known.family == "olmo3" and not config.get("rope_parameters"):
        if not _same(theta, known_theta):
            yield Difference("rope_theta", _told(theta), str(known_theta))
        # Told once; another one cannot be read further in this way of writing it.
        config, known_theta = {**config, "rope_theta": rope.THETA}, rope.THETA
    default = {"rope_type": "default", "rope_theta": known_theta}
    found_context = config.get("max_position_embeddings")
    # Of a context that is none of those it may have, the last is meant.
    context = found_context if found_context in known.contexts else known.contexts[-1]
    has_yarn = known.shape.pretraining_context is not None and context == known.shape.context
    if known.family == "olmo3":
        full = {**default, **YARN} if has_yarn else default
        wanted = {rope.SLIDING: default, rope.FULL: full}
        found = {kind: rope.said(where, config, kind) for kind in wanted}
    else:
        wanted, found = {"": default}, {"": _said_by_olmo2(config)}
    seen: set[tuple[str, str]] = set()
    for kind, values in wanted.items():
        given = found[kind]
        for name in dict.fromkeys(["rope_type", *values]):
            value = _rotary_value(given, name)
            if _same(value, values.get(name)) or (name, str(value)) in seen:
                continue
            seen.add((name, str(value)))
            yield Difference(_spelt(config, kind, name), _told(value), _told(values.get(name)))
            if name == "rope_type":
                break  # of another type the other parameters mean something else


def _said_by_olmo2(config: Mapping[str, Any]) -> dict[str, Any]:
    theta = config.get("rope_theta", ASSUMED["olmo2"]["rope_theta"])
    return {
        "rope_theta": theta,
        **(config.get("rope_scaling") or {}),
        **(config.get("rope_parameters") or {}),
    }


def _rotary_value(given: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 (as written)
    match name:
        case "rope_type":
            return given.get("rope_type") or given.get("type") or "default"
        case "beta_fast" | "beta_slow":
            return given.get(name) or YARN[name]
        case "attention_factor" if given.get("factor"):
            return rope.attention_factor(given)
        case _:
            return given.get(name)


def _spelt(config: Mapping[str, Any], kind: str, name: str) -> str:
    """Where config.json has a rotary parameter."""
    nested = config.get("rope_parameters")
    if nested:
        return f"rope_parameters.{kind}.{name}" if kind in nested else f"rope_parameters.{name}"
    return name if name == "rope_theta" else f"rope_scaling.{name}"


def _told(value: object) -> str:
    return "left out" if value is None else str(value)


def _same(found: object, wanted: object) -> bool:
    numbers = (int, float)
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, numbers) and isinstance(wanted, numbers):
        return math.isclose(found, wanted, rel_tol=_PRECISION)
    return found == wanted
