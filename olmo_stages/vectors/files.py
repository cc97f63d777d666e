"""A trait vector as a file: one safetensors file with where it comes from, checked when it is read.

import olmo_stages

vector = olmo_stages.load_vector("manners.safetensors")
vector.vectors[4]  # float32 [d_model], in the scale of the activations
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import safetensors.numpy
from jaxtyping import Float, Float32
from safetensors import SafetensorError, safe_open

from olmo_stages.atomic import write_file
from olmo_stages.errors import ConfigError, DataError
from olmo_stages.types import PooledPosition, Site, check_choice

Scale = Literal["raw", "unit"]
"""`raw`: in the scale of the activations, as extracted; `unit`: each of length 1."""

Value = str | int | float | bool | None
"""What provenance holds: plain values, so that every format can carry them."""

VERSION = 1
"""Of the file's layout; a file of a later one is refused."""

_KEY = "olmo_stages.trait_vector"
_TEXTS = ("trait", "site", "position", "kind", "scale")


@dataclass(frozen=True, eq=False)
class TraitVector:
    """The direction of a trait at each layer of one stage, and where it comes from.

    A positive score along it means label 1, the trait.

    Args:
        trait: what it is about.
        vectors: one vector by layer (block index; -1 = embeddings).
        layer_types: `embedding`, `sliding_attention` or `full_attention` by layer.
        site: where the layers were read.
        position: which tokens of an example were read.
        kind: how it was found: `mean_difference`, `pca`, `lda` or `logistic`.
        midpoint: middle between the mean scores of both classes *along the unit vector*, by layer,
            in the scale of the activations; empty where it was not measured.
        separation: their distance along the unit vector, label 1 minus label 0, by layer; empty
            where it was not measured.
        scale: whether the vectors have their own length or length 1.
        provenance: where it comes from, plain values only. What `olmo-stages export` writes:
            `side` (`stage` or `reference` of the job), `stage` (its label), `name`, `size`,
            `source`, `revision`, `random_init`, `family`, `weights` (digest), `data`,
            `data_digest`, `format`, `responses` (`own` or `replay of STAGE`; None = none were
            written), `n`, `n_groups`, `seed`, `analysis`, `job` (digest), `package` (version of
            olmo-stages), `code` (its commit).
    """

    trait: str
    vectors: Mapping[int, Float32[np.ndarray, " d_model"]]
    layer_types: Mapping[int, str]
    site: Site
    position: PooledPosition
    kind: str
    midpoint: Mapping[int, float] = field(default_factory=dict)
    separation: Mapping[int, float] = field(default_factory=dict)
    scale: Scale = "raw"
    provenance: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        what = f"vector of trait {self.trait!r}"
        if not self.vectors:
            raise DataError(f"{what}: no layer; give at least one")
        for name, given in (
            ("layer_types", self.layer_types),
            ("midpoint", self.midpoint),
            ("separation", self.separation),
        ):
            optional = not given and name != "layer_types"
            if given.keys() != self.vectors.keys() and not optional:
                raise DataError(
                    f"{what}: {name} of layers {sorted(given)} for vectors of layers "
                    f"{sorted(self.vectors)}"
                )
        for layer, values in self.vectors.items():
            _check_values(f"{what}, layer {layer}", values, self.d_model)
        numbers = [*self.midpoint.values(), *self.separation.values()]
        if not np.isfinite(numbers).all():
            raise DataError(f"{what}: midpoint or separation is not finite")

    @property
    def layers(self) -> tuple[int, ...]:
        """Its layers, ascending."""
        return tuple(sorted(self.vectors))

    @property
    def d_model(self) -> int:
        """Width of the residual stream that it belongs to."""
        return len(next(iter(self.vectors.values())))

    @property
    def values(self) -> Float32[np.ndarray, "layer d_model"]:
        """The vectors in the order of `layers`."""
        return np.stack([self.vectors[layer] for layer in self.layers])

    def told(self, key: str) -> str:
        """A value of the provenance as text; empty where there is none."""
        value = self.provenance.get(key)
        return "" if value is None else str(value)

    def select(self, layers: Collection[int]) -> "TraitVector":
        """The same vector at some of its layers.

        Raises:
            ConfigError: it has no such layer; names those it has.
        """
        if missing := sorted(set(layers) - set(self.vectors)):
            raise ConfigError(
                f"layers {missing} are not in the vector of trait {self.trait!r}; "
                f"it has {list(self.layers)}"
            )

        def chosen(given: Mapping[int, Any]) -> dict[int, Any]:
            return {layer: given[layer] for layer in sorted(set(layers)) if layer in given}

        return replace(
            self,
            vectors=chosen(self.vectors),
            layer_types=chosen(self.layer_types),
            midpoint=chosen(self.midpoint),
            separation=chosen(self.separation),
        )

    def unit(self) -> "TraitVector":
        """Every vector divided by its length; midpoint and separation are along it already."""
        scaled = {
            layer: (values / np.linalg.norm(values.astype(np.float64))).astype(np.float32)
            for layer, values in self.vectors.items()
        }
        return replace(self, vectors=scaled, scale="unit")

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as a safetensors file, whole or not at all; the same vector, the same bytes.

        Raises:
            StoreError: the disk is full or the place cannot be written.
        """
        layers = self.layers
        tensors: dict[str, np.ndarray] = {
            "layers": np.array(layers, dtype=np.int64),
            "vectors": self.values,
        }
        for name in ("midpoint", "separation"):
            if given := getattr(self, name):
                tensors[name] = np.array([given[layer] for layer in layers], dtype=np.float64)
        told = {
            "version": VERSION,
            **{name: getattr(self, name) for name in _TEXTS},
            "layer_types": [self.layer_types[layer] for layer in layers],
            "provenance": dict(self.provenance),
        }
        # One key: the order in which safetensors writes several is not fixed.
        metadata = {_KEY: json.dumps(told, sort_keys=True, ensure_ascii=False)}
        write_file(Path(path), safetensors.numpy.save(tensors, metadata=metadata))


def load(path: str | PathLike[str]) -> TraitVector:
    """Read a trait vector that `TraitVector.save` or `olmo-stages export` wrote.

    Raises:
        DataError: there is no such file, it is damaged, holds something else, is of a later
            version, or has a vector that is zero or not finite.
    """
    path = Path(path).expanduser()
    metadata, tensors = _open(path)
    if _KEY not in metadata:
        raise DataError(
            f"{path} holds no trait vector; export one with: olmo-stages export RESULT_FOLDER"
        )
    try:
        told = json.loads(metadata[_KEY])
        version = int(told["version"])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged: {error!r}; export it again") from error
    if version != VERSION:
        raise DataError(
            f"{path} is a trait vector of version {version}, but this olmo-stages reads {VERSION}; "
            "update olmo-stages or export it again"
        )
    try:
        return _assemble(told, tensors)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged: {error!r}; export it again") from error


def check_fits(
    vector: TraitVector,
    *,
    d_model: int,
    layer_types: Mapping[int, str] | None = None,
    size: str | None = None,
    family: str | None = None,
) -> None:
    """Refuse a vector of another model.

    Args:
        vector: the vector.
        d_model: width of the model it is to be used in.
        layer_types: type of each of the model's blocks, or of those that are read; None = unknown.
        size: of the model; `custom`, empty or None = unknown.
        family: of the model, e.g. `olmo3`; empty or None = unknown.

    Raises:
        ConfigError: something that is known of both differs; names both values.
    """
    of = f"the vector of trait {vector.trait!r} is of {vector.told('stage') or 'another model'}"
    remedy = "extract it in a stage of this model"
    pairs: list[tuple[str, str | int, str | int]] = [
        ("family", vector.told("family"), family or ""),
        ("size", _known(vector.told("size")), _known(size or "")),
        ("d_model", vector.d_model, d_model),
    ]
    for layer in vector.layers:
        if layer_types is not None and layer in layer_types:
            pairs.append((f"layer {layer}", vector.layer_types[layer], layer_types[layer]))
    for what, theirs, ours in pairs:
        if theirs not in {"", ours} and ours:
            raise ConfigError(f"{of} with {what} {theirs}, but the model has {ours}; {remedy}")


def _known(size: str) -> str:
    return "" if size == "custom" else size


def _check_values(what: str, values: np.ndarray, d_model: int) -> None:
    if values.shape != (d_model,) or values.dtype != np.float32:
        raise DataError(f"{what}: {values.dtype} {values.shape} is not float32 ({d_model},)")
    if not np.isfinite(values).all():
        raise DataError(f"{what}: not finite; measure the vector again")
    if not values.any():
        raise DataError(f"{what}: zero, so it has no direction; leave the layer out")


def _open(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the file that olmo-stages export wrote")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            # Only of our own files: those of others may be gigabytes, or of types unknown to numpy.
            names = file.keys() if _KEY in metadata else ()
            return metadata, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} is damaged or no safetensors file ({reason}); export it again"
        ) from error


def _assemble(told: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> TraitVector:
    layers = [int(layer) for layer in tensors["layers"]]

    def by_layer(values: Any) -> dict[int, Any]:  # noqa: ANN401  (a list or an array)
        found = dict(zip(layers, values, strict=True))
        if len(found) < len(layers):
            raise ValueError(f"layers {layers} name one twice")
        return found

    def numbers(name: str) -> dict[int, float]:
        given: Float[np.ndarray, " layer"] | None = tensors.get(name)
        return {} if given is None else by_layer([float(it) for it in given])

    check_choice("site", told["site"], get_args(Site))
    check_choice("position", told["position"], get_args(PooledPosition))
    check_choice("scale", told["scale"], get_args(Scale))
    return TraitVector(
        trait=str(told["trait"]),
        vectors=by_layer(tensors["vectors"]),
        layer_types=by_layer([str(it) for it in told["layer_types"]]),
        site=cast("Site", told["site"]),
        position=cast("PooledPosition", told["position"]),
        kind=str(told["kind"]),
        midpoint=numbers("midpoint"),
        separation=numbers("separation"),
        scale=cast("Scale", told["scale"]),
        provenance=dict(told["provenance"]),
    )
