"""Which entries a job uses, so that nobody removes them meanwhile."""

from contextlib import ExitStack
from pathlib import Path

from olmo_stages.activations.store import Store
from olmo_stages.leases import Lease
from olmo_stages.looking import is_looking


class Using:
    """Holds the entries that are read or written, until it is closed.

    Args:
        store: where they lie.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._leases: dict[Path, Lease] = {}
        self._held = ExitStack()

    def __call__(self, folder: Path) -> bool:
        """Hold an entry; whether it was not held before, and so may have been removed by now."""
        held = self._leases.get(folder)
        if is_looking() or (held is not None and not held.lost):
            return False
        lease = self._leases[folder] = self._store.user(folder)
        self._held.enter_context(lease.use())
        return True

    def close(self) -> None:
        """Hold nothing any more."""
        self._leases.clear()
        self._held.close()
