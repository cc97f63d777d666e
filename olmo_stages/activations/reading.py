"""Reading an entry layer by layer, without ever holding a whole shard."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.activations import files
from olmo_stages.activations.entry import Entry, read_entry
from olmo_stages.activations.files import Checked
from olmo_stages.errors import StoreError
from olmo_stages.models.captures import Capture, Key


@dataclass(frozen=True, eq=False)
class Opened:
    """One capture of an entry whose files were all undamaged when it was opened.

    Args:
        entry: the entry.
        capture: site and position.
        shards: its files, in order.
        token_ids: per example, in the order of the entry's `ids`.
        owners: at position `tokens`, for each row the index of its example in `ids`, ascending.
        token_index: at position `tokens`, for each row the index of its token in `token_ids`.
        places: for each row of the shards, one shard after another, its row in the data set's
            order.
    """

    entry: Entry
    capture: Capture
    shards: tuple[Checked, ...]
    token_ids: tuple[tuple[int, ...], ...]
    owners: Int[np.ndarray, " row"] | None
    token_index: Int[np.ndarray, " row"] | None
    places: Int[np.ndarray, " row"]

    def values(self, layers: Sequence[int]) -> Float[np.ndarray, "layer row d_model"]:
        """Read these layers and nothing else, in the data set's order.

        Raises:
            StoreError: a file has been removed or changed since the entry was opened.
        """
        names = [Key(*self.capture, layer).tensor_name for layer in layers]
        d_model = self.shards[0].shape(names[0])[1]
        values = np.empty((len(names), len(self.places), d_model), dtype=np.float32)
        for found, name in zip(values, names, strict=True):
            self._fill(found, name)
        return values

    def _fill(self, found: Float[np.ndarray, "row d_model"], name: str) -> None:
        n_rows = [shard.shape(name)[0] for shard in self.shards]
        if sum(n_rows) != len(self.places):
            raise StoreError(
                f"{self.entry.folder} holds {sum(n_rows)} rows of {name} where its manifest has "
                f"{len(self.places)}; delete the folder to have it computed again"
            )
        ends = np.cumsum(n_rows)
        for shard, places in zip(self.shards, np.split(self.places, ends[:-1]), strict=True):
            found[places] = shard.tensor(name)


def open_entry(entry: Entry, capture: Capture) -> Opened:
    """Check every file of an entry and lay out the rows of one capture.

    Raises:
        StoreError: a file is damaged or missing.
    """
    tokens_file, *shards = (files.check(entry.folder / name) for name in entry.file_names)
    lengths = tokens_file.tensor("lengths")
    ends = np.cumsum(lengths)[:-1]
    rows = np.split(tokens_file.tensor("token_ids"), ends)
    counts, owners, token_index = np.ones(len(lengths), dtype=np.int64), None, None
    if capture.position == "tokens":
        counts = tokens_file.tensor("row_counts")
        owners = np.repeat(np.arange(len(counts)), counts)
        token_index = tokens_file.tensor("row_tokens").astype(np.int64)
    rows_of = np.split(np.arange(int(counts.sum())), np.cumsum(counts)[:-1])
    places = np.concatenate([rows_of[i] for i in entry.manifest["order"]])
    return Opened(
        entry=entry,
        capture=capture,
        shards=tuple(shards),
        token_ids=tuple(tuple(row.tolist()) for row in rows),
        owners=owners,
        token_index=token_index,
        places=places,
    )


class Reader:
    """Reads an entry, and finds or makes it again if another process's cleaning removes it.

    Every file is checked once, at the first layer, and again only if the entry was made again.

    Args:
        entry: what to read first.
        capture: site and position.
        again: finds the entry again, or makes it.
    """

    def __init__(self, entry: Entry, capture: Capture, again: Callable[[], Entry]) -> None:
        self._entry = entry
        self._capture = capture
        self._again = again
        self._opened: Opened | None = None

    def read(self, layers: Sequence[int]) -> tuple[Opened, Float[np.ndarray, "layer row d_model"]]:
        """Read these layers.

        Returns:
            The entry they come from, and their values.

        Raises:
            StoreError: a file is damaged, or the entry was removed twice.
        """
        try:
            return self._read(layers)
        except StoreError:
            if self._is_still_there():
                raise
        self._entry, self._opened = self._again(), None
        return self._read(layers)

    def _read(self, layers: Sequence[int]) -> tuple[Opened, Float[np.ndarray, "layer row d_model"]]:
        if self._opened is None:
            self._opened = open_entry(self._entry, self._capture)
        return self._opened, self._opened.values(layers)

    def _is_still_there(self) -> bool:
        found = read_entry(self._entry.folder)
        return found is not None and found.file_names == self._entry.file_names
