"""Trait vectors out of results.

A result of analysis=cosine holds a vector for each of its traits, of the stage and of the
reference; a result of analysis=probe holds the direction of its probes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float

from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.records import Recorded
from olmo_stages.stages import catalogue
from olmo_stages.types import Measurement, PooledPosition, Site
from olmo_stages.vectors.files import TraitVector, Value

Side = Literal["stage", "reference"]
"""Whose vector of a comparison: the stage's or the reference's."""

ANALYSES = ("cosine", "probe")
"""The analyses whose results hold vectors."""

_VECTOR = ".vector"


def vectors_of(folder: Path, recorded: Recorded, side: Side) -> tuple[TraitVector, ...]:
    """The trait vectors that a result holds.

    The trait of a probe, which is trained on all examples, is the name of its data.

    Args:
        folder: where the result is, for messages.
        recorded: the result.
        side: whose vectors.

    Returns:
        One a trait, by name; none of the reference where there was none.

    Raises:
        ConfigError: the analysis finds no vectors, or none of that side.
        DataError: a vector is zero or not finite.
        StoreError: the result is not what its analysis writes.
    """
    analysis = (recorded.provenance.get("job") or {}).get("analysis", "")
    if analysis not in ANALYSES:
        raise ConfigError(
            f"{folder} is of analysis={analysis or 'unknown'}, which finds no vectors; "
            f"give a result of analysis={' or analysis='.join(ANALYSES)}"
        )
    try:
        found = _of_cosine(recorded, side) if analysis == "cosine" else _of_probe(recorded, side)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{folder} is no result that analysis={analysis} writes ({error!r}); "
            "run its job again with force=true"
        ) from error
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Found:
    """The arrays of one trait, layers first."""

    trait: str
    vectors: Float[np.ndarray, "layer d_model"]
    rows: Sequence[Measurement]
    midpoint: Float[np.ndarray, " layer"] | None = None
    separation: Float[np.ndarray, " layer"] | None = None


def _of_cosine(recorded: Recorded, side: Side) -> list[TraitVector]:
    tensors = recorded.result.tensors
    prefix = "" if side == "stage" else "reference_"
    traits = sorted(name.removesuffix(_VECTOR) for name in tensors if name.endswith(_VECTOR))
    return [
        _assemble(
            recorded,
            side,
            _Found(
                trait,
                tensors[f"{trait}.{prefix}vector"],
                [row for row in recorded.result.measurements if row.trait == trait],
                tensors.get(f"{trait}.{prefix}midpoint"),
                tensors.get(f"{trait}.{prefix}separation"),
            ),
        )
        for trait in traits
        if f"{trait}.{prefix}vector" in tensors
    ]


def _of_probe(recorded: Recorded, side: Side) -> list[TraitVector]:
    job = recorded.provenance["job"]
    if side == "reference":
        raise ConfigError(
            "analysis=probe keeps the direction of the stage only; export the result of the "
            "reference's own job"
        )
    direction = recorded.result.tensors["direction"]
    found = _Found(job["data"], direction, recorded.result.measurements)
    return [_assemble(recorded, side, found)]


def _assemble(recorded: Recorded, side: Side, found: _Found) -> TraitVector:
    options = recorded.provenance["job"]["identity"]["options"]
    layers = [int(layer) for layer in recorded.result.tensors["layers"]]
    types = {row.layer: row.layer_type for row in recorded.result.measurements if row.layer_type}

    def numbers(values: Float[np.ndarray, " layer"] | None) -> dict[int, float]:
        return {} if values is None else dict(zip(layers, map(float, values), strict=True))

    return TraitVector(
        trait=found.trait,
        vectors=dict(zip(layers, np.asarray(found.vectors, dtype=np.float32), strict=True)),
        layer_types={layer: types.get(layer, "") for layer in layers},
        site=cast("Site", options["site"]),
        position=cast("PooledPosition", options["position"]),
        kind=options["kind"],
        midpoint=numbers(found.midpoint),
        separation=numbers(found.separation),
        provenance=_provenance(recorded.provenance, side, found.rows),
    )


def _provenance(
    told: Mapping[str, Any], side: Side, rows: Sequence[Measurement]
) -> dict[str, Value]:
    """Where a vector comes from, as `TraitVector.provenance` says."""
    job = told["job"]
    stage, identity = job[side], job["identity"]
    read = identity["activations"] if side == "stage" else identity["reference"]
    return {
        "side": side,
        "stage": stage["label"],
        **{name: stage[name] for name in ("name", "size", "source", "revision", "random_init")},
        "family": _family(stage, told["config"] if side == "stage" else {}),
        "weights": read["weights"],
        "data": job["data"],
        "data_digest": told["data_digest"],
        "format": read["format"],
        "responses": (told.get("responses") or {}).get("mode"),
        "n": max((row.n for row in rows), default=0),
        "n_groups": max((row.n_groups for row in rows), default=0),
        "seed": told["seed"],
        "analysis": job["analysis"],
        "job": job["digest"],
        "package": told["packages"].get("olmo-stages"),
        "code": (told["git"] or {}).get("commit"),
    }


def _family(stage: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """`olmo3` or `olmo2`; of a user's own checkpoint that of its parent; empty = not known."""
    specs = catalogue()
    spec = specs.get(stage["name"], {"sources": {}})
    if stage["source"] in spec["sources"].values():
        return spec["family"]
    model = config.get("model") or {}
    if model.get("family"):
        return model["family"]
    of = model.get("of") or ()
    near = [model.get("parent"), *([of] if isinstance(of, str) else of)]
    names = [str(it).partition("@")[0] for it in near if it]
    return next((specs[name]["family"] for name in names if name in specs), "")
