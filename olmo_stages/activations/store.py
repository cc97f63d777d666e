"""The content-addressed store: `ROOT/PASS[:2]/PASS/ENTRY/`, safe for several processes.

An entry holds what was kept of one forward pass over one data set; its folder is named by the
digest of everything that changes a number. The manifest is written last, and readers ignore a
folder without one. Because content and name go together and files appear whole, two writers of the
same entry are wasteful but never wrong; leases only save their time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmo_stages.activations.entry import Entry, Writer, read_entry
from olmo_stages.activations.identity import PassIdentity, entry_key
from olmo_stages.leases import Lease
from olmo_stages.models.captures import Capture

SHARD_EXAMPLES = 512
"""Examples of one shard; independent of batch size, so that a later run can reuse it."""

SHARD_ROWS = 4096
"""Most rows of position `tokens` in a shard, all captures together; in all layers of a 7B model in
bfloat16 about a gigabyte, of which a writer holds a few copies."""

LEASES = ".leases"
"""End of the name of the folder of an entry's leases, which lies beside the entry's."""

REMOVED = ".removed"
"""End of the name of a folder that is being removed."""


def leases_of(folder: Path) -> Path:
    """Folder of the leases of an entry."""
    return folder.with_name(f"{folder.name}{LEASES}")


def lock_path(folder: Path) -> Path:
    """Path of the lease of those who use an entry."""
    return leases_of(folder) / "use"


def default_store(cache: Path) -> "Store":
    """The store inside a cache folder."""
    return Store(cache / "activations")


def is_entry_folder(folder: Path) -> bool:
    """Whether a folder is an entry, not its leases or something that is being removed."""
    # Earlier versions had `.rw`.
    return folder.is_dir() and not folder.name.endswith((LEASES, REMOVED, ".rw"))


@dataclass(frozen=True)
class Store:
    """A store of activations.

    Args:
        root: its folder, made on first use.
        heartbeat_s: how often a writer shows that it is alive; one that has been silent for three
            heartbeats counts as dead, on whatever machine it was.
        lock_timeout_s: how long to wait for living writers who finish no shard, before computing
            all the same.
        shard_examples: examples of one shard.
        shard_rows: most rows of position `tokens` in a shard.
    """

    root: Path
    heartbeat_s: float = 10.0
    lock_timeout_s: float = 6 * 3600.0
    shard_examples: int = SHARD_EXAMPLES
    shard_rows: int = SHARD_ROWS

    def find(
        self, identity: PassIdentity, captures: Sequence[Capture], layers: Sequence[int]
    ) -> Entry | None:
        """Find a complete entry that holds the captures in these layers, and maybe more.

        Raises:
            StoreError: a manifest of this forward pass is damaged.
        """
        for folder in sorted(self._pass_folder(identity).glob("*/")):
            entry = read_entry(folder) if is_entry_folder(folder) else None
            if entry is not None and entry.covers(captures, layers):
                entry.touch()
                return entry
        return None

    def writer(
        self, identity: PassIdentity, captures: Sequence[Capture], layers: Sequence[int]
    ) -> Writer:
        """Writer of the entry of these captures and layers."""
        key = entry_key(identity, captures, layers)
        folder = self._pass_folder(identity) / key
        chosen = tuple(sorted(set(captures))), tuple(sorted(set(layers)))
        return Writer(folder, identity, *chosen, key)

    def folder(self, key: str, name: str) -> Path:
        """Folder of the entry `name` of what `key` identifies."""
        return self.root / key[:2] / key / name

    def lease(self, folder: Path, name: str) -> Lease:
        """A lease of this name, of an entry's folder."""
        return Lease(leases_of(folder) / name, heartbeat_s=self.heartbeat_s)

    def user(self, folder: Path) -> Lease:
        """The lease that everyone holds who reads or writes an entry, and who removes it alone."""
        return Lease(lock_path(folder), heartbeat_s=self.heartbeat_s)

    def _pass_folder(self, identity: PassIdentity) -> Path:
        return self.root / identity.key[:2] / identity.key
