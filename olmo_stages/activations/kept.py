"""How far a pass block by block is, kept in the folder of its entry for whoever goes on with it.

One file a shard, with the digest of its content in its name, so that a torn one is found out, and
with all in its head that must agree. It lies with the shards it becomes, is cleaned with them, and
goes when its shard is written.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import xxhash

from olmo_stages.activations import files
from olmo_stages.atomic import CACHE, sync_folder, writing
from olmo_stages.errors import StoreError
from olmo_stages.progress import say
from olmo_stages.stopping import told

KEPT_VERSION = 1
"""Raise it when a snapshot of an earlier version must not be gone on with."""

EVERY_S = 300.0
"""Seconds between two times that snapshots are kept; a pass that is shorter keeps none."""

SHARE = 0.05
"""Of the time of a pass, that keeping snapshots may take."""

_STEM = "kept"
_FACTS = "facts"


@dataclass(frozen=True)
class Shard:
    """What a snapshot is of.

    Args:
        part: number of the shard.
        identity: all that must be the same where somebody goes on with it.
    """

    part: int
    identity: Mapping[str, str]


@dataclass(eq=False)
class Kept:
    """Snapshots of the shards of one pass; a `Keep` of `olmo_stages.models.under_way`.

    Args:
        folder: of the entry.
        label: names the stage, for messages.
        shards: what the pass is of.
        ran_on: what is on each device.

    Attributes:
        ran_on: the same, and what was on those of earlier processes.
    """

    folder: Path
    label: str
    shards: Sequence[Shard]
    ran_on: dict[str, str]
    _last: float = field(default_factory=lambda: monotonic())
    _took_s: float = 0.0
    _is_able: bool = True
    _told: set[str] = field(default_factory=set)

    def found(self, shard: int) -> Any:  # noqa: ANN401 (a Snapshot, whose type would import torch)
        """Where an earlier process left a shard; None where none can be gone on with."""
        it = self.shards[shard]
        known = [found for path in _paths(self.folder, it.part) if (found := self._read(path, it))]
        best = max(known, key=lambda found: found.done, default=None)
        if best is not None:
            block = max(best.done + 1, 0)
            self._tell(f"going on at block {block}, where an earlier process was ended")
            for device, name in best.facts["ran_on"].items():
                names = [str(name), *self.ran_on.get(device, str(name)).split("; ")]
                self.ran_on[device] = "; ".join(dict.fromkeys(names))
        return best

    def pause(self, fleet: Any) -> None:  # noqa: ANN401 (a Fleet, likewise)
        """Keep snapshots, if it is time.

        Raises:
            Stopped: this process was told to stop; what is kept then is for `leave`.
        """
        if (stop := told()) is not None:
            raise stop
        if monotonic() - self._last >= max(EVERY_S, self._took_s / SHARE):
            self.leave(fleet)

    def leave(self, fleet: Any) -> None:  # noqa: ANN401
        """Keep snapshots; where there is no room for them, say so once and go on without."""
        start = monotonic()
        try:
            for i, shard in enumerate(self.shards if self._is_able else ()):
                snapshot = fleet.snapshot(i)
                if snapshot is not None:
                    self._check_room(snapshot.n_bytes, fleet.n_row_bytes)
                    self._write(snapshot, shard)
        except StoreError as error:
            self._is_able = False
            say(f"{self.label}: {error}; going on without keeping how far it is")
        self._last = monotonic()
        self._took_s = self._last - start

    def drop(self, part: int) -> None:
        """Remove what was kept of a shard, which is written now."""
        for path in _paths(self.folder, part):
            with suppress(OSError):
                path.unlink()

    def _read(self, path: Path, shard: Shard) -> Any:  # noqa: ANN401
        """A snapshot, unless it is torn or of something else."""
        from olmo_stages.models.under_way import Snapshot

        why = "it is damaged"
        with suppress(StoreError):
            facts = dict(files.check(path).metadata)
            kept = json.loads(facts.pop(_FACTS, "null"))
            other = [key for key in shard.identity if facts.get(key) != shard.identity[key]]
            if not other:
                return Snapshot(kept, _Tensors(path))
            why = f"{other[0]} was {facts.get(other[0])} and is {shard.identity[other[0]]}"
        # It stays until there is a better one, for whoever has the version that made it.
        self._tell(f"not going on with {path.name}: {why}")
        return None

    def _tell(self, line: str) -> None:
        """Say something of one shard, and not of all the others too."""
        kind = line.split()[0]
        if kind not in self._told:
            say(f"{self.label}: {line}")
        self._told.add(kind)

    def _check_room(self, n_bytes: int, n_row_bytes: int) -> None:
        """Leave room for the shards, which would be lost otherwise.

        Raises:
            StoreError: there is too little.
        """
        free = shutil.disk_usage(self.folder).free
        if free < n_bytes + n_row_bytes:
            raise StoreError(
                f"{self.folder} has {free / 1e9:.1f} GB free, too little for "
                f"{n_bytes / 1e9:.1f} GB of hidden states beside the results"
            )

    def _write(self, snapshot: Any, shard: Shard) -> None:  # noqa: ANN401
        from safetensors.torch import save_file

        facts = json.dumps({**snapshot.facts, "ran_on": self.ran_on}, sort_keys=True)
        temporary = self.folder / f".{_STEM}.{uuid.uuid4().hex[:8]}.tmp"
        before = list(_paths(self.folder, shard.part))
        with writing(self.folder, CACHE):
            try:
                # From where they are: a copy of them would not fit into memory.
                save_file(dict(snapshot.tensors), temporary, {**shard.identity, _FACTS: facts})
                with temporary.open("rb") as file:
                    digest = hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
                    os.fsync(file.fileno())
                name = f"{_stem(shard.part)}.{digest}.{files.TENSORS}"
                temporary.replace(self.folder / name)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
            sync_folder(self.folder)
        for path in before:
            if path.name != name:
                with suppress(OSError):
                    path.unlink()


class _Tensors(Mapping[str, Any]):
    """Tensors of a file that stays open, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._opened = safe_open(path, framework="pt")
        self._names = tuple(self._opened.keys())

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 (a torch tensor)
        return self._opened.get_tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def left_over(folder: Path) -> Iterator[Path]:
    """Files of snapshots in the folder of an entry; of a complete one nobody needs them."""
    yield from sorted(folder.glob(f"{_STEM}-*.*.{files.TENSORS}"))


def _paths(folder: Path, part: int) -> list[Path]:
    return sorted(folder.glob(f"{_stem(part)}.*.{files.TENSORS}"))


def _stem(part: int) -> str:
    return f"{_STEM}-{part:05d}"
