"""One entry of the store: a folder of shards and the manifest that makes them readable."""

import datetime
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from olmo_stages.activations import files
from olmo_stages.activations.identity import PassIdentity, digest
from olmo_stages.activations.rows import Rows
from olmo_stages.atomic import CACHE, write_file
from olmo_stages.errors import StoreError
from olmo_stages.looking import is_looking
from olmo_stages.models.captures import Capture, Key
from olmo_stages.types import Stage

MANIFEST = "manifest.json"
FORMAT_VERSION = 2
"""Raise it when the manifest or the tokens file changes, so that entries of another layout miss."""
SHARD_VERSION = 1
"""Raise it when the layout of a shard changes; while it stays, shards of older entries are used."""
_PACKAGES = ("olmo-stages", "torch", "transformers", "safetensors", "numpy")


@dataclass(frozen=True)
class Entry:
    """A complete entry.

    Args:
        folder: where it lies.
        manifest: content of its manifest.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def layers(self) -> tuple[int, ...]:
        """Block indices, ascending; -1 = embeddings."""
        return tuple(self.manifest["layers"])

    @property
    def captures(self) -> tuple[Capture, ...]:
        """Sites and positions."""
        return tuple(Capture(*capture) for capture in self.manifest["captures"])

    @property
    def layer_types(self) -> dict[int, str]:
        """Type of each layer."""
        return dict(zip(self.layers, self.manifest["layer_types"], strict=True))

    @property
    def ids(self) -> tuple[str, ...]:
        """Example ids, in the order of the data set."""
        return tuple(self.manifest["ids"])

    @property
    def file_names(self) -> tuple[str, ...]:
        """Every file but the manifest; of activations the token ids first."""
        tokens = [self.manifest["tokens"]] if "tokens" in self.manifest else []
        return (*tokens, *(shard["name"] for shard in self.manifest["shards"]))

    def covers(self, captures: Sequence[Capture], layers: Sequence[int]) -> bool:
        """Whether a request can be served from it."""
        return set(captures) <= set(self.captures) and set(layers) <= set(self.layers)

    def touch(self) -> None:
        """Note that it was used, for `gc`, which removes what was not used for longest."""
        if is_looking():
            return
        with suppress(OSError):  # a store that can only be read is still a store
            os.utime(self.folder / MANIFEST)


def read_entry(folder: Path) -> Entry | None:
    """Read an entry's manifest.

    Returns:
        The entry; None where there is no manifest, or one of another layout.

    Raises:
        StoreError: the manifest is damaged.
    """
    path = folder / MANIFEST
    remedy = f"delete the folder {folder} to have it computed again"
    try:
        manifest = json.loads(path.read_bytes())
        recorded = manifest.pop("digest")
        version_read = manifest["format_version"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise StoreError(f"{path} is damaged ({error}); {remedy}") from error
    if recorded != digest(manifest):
        raise StoreError(f"{path} is damaged: its content does not fit its digest; {remedy}")
    return Entry(folder, manifest) if version_read == FORMAT_VERSION else None


@dataclass(frozen=True)
class Writer:
    """Writes one entry, shard by shard, manifest last.

    Args:
        folder: where the entry goes.
        identity: of the forward pass.
        captures: sites and positions.
        layers: block indices.
        key: digest of the pass and of what it may keep; an entry holds no more.
    """

    folder: Path
    identity: PassIdentity
    captures: tuple[Capture, ...]
    layers: tuple[int, ...]
    key: str

    def fits(self, name: str, part: int, ids: Sequence[str], *, whole: bool) -> bool:
        """Whether a file of the entry is the shard of these examples.

        Args:
            name: of the file.
            part: number of the shard.
            ids: its examples.
            whole: read all of it; else its head and its length.
        """
        look = files.is_sound if whole else files.is_complete
        return look(self.folder / name, self._metadata(part, ids))

    def add(self, part: int, ids: Sequence[str], found: Mapping[Key, Any]) -> str:
        """Write one shard.

        Args:
            part: its number.
            ids: its examples.
            found: activations, torch tensors with one row per example or, at position `tokens`,
                per token.

        Returns:
            Name of its file.

        Raises:
            StoreError: it cannot be written.
        """
        from safetensors.torch import save

        named = {key.tensor_name: tensor.contiguous() for key, tensor in found.items()}
        content = save(named, metadata=dict(self._metadata(part, ids)))
        return files.write_digested(self.folder, _stem(part), content)

    def publish(
        self,
        stage: Stage,
        rows: Rows,
        layer_types: Sequence[str],
        shards: Sequence[str],
        ran_on: Mapping[str, str],
    ) -> Entry:
        """Write token ids and manifest, which makes the entry readable.

        Args:
            stage: for people who look into the store.
            rows: the examples.
            layer_types: one per layer.
            shards: names of the shards, in order.
            ran_on: what was on each device; no part of the identity.

        Returns:
            The entry.

        Raises:
            StoreError: something cannot be written, or a shard was removed meanwhile.
        """
        manifest = {
            "format_version": FORMAT_VERSION,
            "pass": asdict(self.identity),
            "pass_key": self.identity.key,
            "entry_key": self.key,
            "stage": {"label": stage.label, "size": stage.size, "source": stage.source},
            "ran_on": dict(ran_on),
            "captures": [list(capture) for capture in self.captures],
            "layers": list(self.layers),
            "layer_types": list(layer_types),
            "ids": list(rows.ids),
            "order": list(rows.order),
            "n_truncated": rows.n_truncated,
            "n_joined": rows.n_joined,
            "positions": rows.positions(),
            "tokens": files.write_digested(self.folder, "tokens", _tokens(rows)),
        }
        return publish(self.folder, manifest, shards)

    def _metadata(self, part: int, ids: Sequence[str]) -> Mapping[str, str]:
        return {
            "format_version": str(SHARD_VERSION),
            "entry": self.key,
            "part": str(part),
            "ids": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        }


def publish(folder: Path, manifest: Mapping[str, Any], shards: Sequence[str]) -> Entry:
    """Write a manifest, which makes an entry readable.

    Args:
        folder: of the entry.
        manifest: what is known of it; shards, versions and time are added.
        shards: names of the shards, in order.

    Returns:
        The entry.

    Raises:
        StoreError: it cannot be written, or a shard was removed meanwhile.
    """
    whole = {
        **manifest,
        "shards": [_shard(folder, name) for name in shards],
        "versions": {package: _version(package) for package in _PACKAGES},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(whole | {"digest": digest(whole)}, indent=1)
    write_file(folder / MANIFEST, text.encode(), CACHE)
    return Entry(folder, whole)


def _shard(folder: Path, name: str) -> dict[str, Any]:
    try:
        return {"name": name, "bytes": (folder / name).stat().st_size}
    except OSError as error:
        raise StoreError(
            f"{folder / name} was removed while its entry was written; run again"
        ) from error


def _tokens(rows: Rows) -> bytes:
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    arrays["token_ids"], arrays["lengths"] = _flat(rows.token_ids)
    if chosen := rows.chosen.get("tokens"):
        arrays["row_tokens"], arrays["row_counts"] = _flat(chosen.tokens)
    return save(arrays)


def _flat(
    rows: Sequence[Sequence[int]],
) -> tuple[Int[np.ndarray, " token"], Int[np.ndarray, " example"]]:
    """The numbers of all rows one after another, and how many each row has."""
    lengths = np.asarray([len(row) for row in rows], dtype=np.int64)
    return np.asarray([number for row in rows for number in row], dtype=np.int32), lengths


def _stem(part: int) -> str:
    return f"part-{part:05d}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
