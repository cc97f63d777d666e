"""The shards of one entry: examples through the model, and who did it."""

import importlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from olmo_stages.activations import files, prompts
from olmo_stages.activations.entry import Entry, Writer
from olmo_stages.activations.held_model import HeldModel
from olmo_stages.activations.request import Work
from olmo_stages.activations.rows import Rows, lay_out
from olmo_stages.activations.store import Store
from olmo_stages.errors import StoreError
from olmo_stages.models.captures import Key
from olmo_stages.types import Position, Stage

Found = dict[Key, Any]
"""Activations of a shard, torch tensors."""

_MADE, _JSON = "made", "json"


class Extraction:
    """What one forward pass over one data set has to give; a `Task` of `sharing`.

    Args:
        work: the stage's.
        writer: of the entry.
        store: how shards are cut.
        model: loads the model when the first shard is due.
        count: called with the stage after each batch.
        asked: positions without which it is of no use; the others of the writer are kept where
            every example has them.

    Raises:
        DataError: examples that cannot be read.
        ModelError: a tokenizer that cannot be used.
    """

    at_once = 1
    shows_examples = True

    def __init__(
        self,
        work: Work,
        writer: Writer,
        store: Store,
        model: HeldModel,
        count: Callable[[Stage], None],
        asked: Collection[Position],
    ) -> None:
        self.label = f"{work.stage.label}: activations of examples"
        self.folder = writer.folder
        self._work = work
        self._model = model
        self._count = count
        # Before any lease is held: loading a library may keep Python's lock for long.
        importlib.import_module("torch")
        # Before the model, since a wrong tokenizer or position is found in a second.
        made = prompts.make(work.dataset, work.checkpoint, work.identity.max_length)
        also: set[Position] = {it.position for it in writer.captures if it.position not in asked}
        self._rows: Rows = lay_out(made, asked, also)
        kept = tuple(it for it in writer.captures if it.position in self._rows.chosen)
        self._writer = replace(writer, captures=kept)
        n_tokens = sum(capture.position == "tokens" for capture in kept)
        cut = self._rows.shards(store.shard_examples, store.shard_rows // max(n_tokens, 1))
        self._cut = tuple(cut)
        self.parts = tuple(tuple(self._rows.ids[i] for i in part) for part in self._cut)
        self._signed = False

    def fits(self, name: str, part: int, *, whole: bool) -> bool:
        """Whether a file is this shard, by its head or after reading all of it."""
        return self._writer.fits(name, part, self.parts[part], whole=whole)

    def ready(self) -> None:
        """Load the model.

        Raises:
            ModelError: the checkpoint cannot be used.
        """
        self._model.of(self._work)

    def compute(
        self, parts: Sequence[int], advance: Callable[[], None]
    ) -> Iterator[tuple[int, Found]]:
        """Send the examples of shards through the model.

        Yields:
            The number of a shard and its activations.

        Raises:
            ModelError: the checkpoint cannot be used.
        """
        from olmo_stages.models.forward import pooled

        loaded, budget = self._model.of(self._work)

        def on_batch(n_examples: int) -> None:
            self._count(self._work.stage)
            for _ in range(n_examples):
                advance()

        for part in parts:
            found = pooled(
                loaded.decoder,
                self._items(part),
                self._writer.captures,
                self._writer.layers,
                token_budget=budget,
                on_batch=on_batch,
            )
            yield part, found

    def add(self, part: int, found: Found) -> str:
        """Write one shard, and beforehand who computes.

        Returns:
            Name of its file.

        Raises:
            StoreError: it cannot be written.
        """
        if not self._signed:
            self._sign()
            self._signed = True
        return self._writer.add(part, self.parts[part], found)

    def publish(self, names: Sequence[str]) -> Entry:
        """Write token ids and manifest.

        Raises:
            ModelError: the checkpoint cannot be used.
            StoreError: something cannot be written, or a shard was removed meanwhile.
        """
        signed = self._signatures()
        if not signed:  # the shards of an earlier version
            self.ready()
            self._sign()
            signed = self._signatures()
        types = (*signed[0]["layer_types"], "embedding")  # index -1 is the last of a tuple
        kinds = [types[i] for i in self._writer.layers]
        ran_on = _together([it["ran_on"] for it in signed])
        return self._writer.publish(self._work.stage, self._rows, kinds, names, ran_on)

    def _items(self, part: int) -> list[Any]:
        from olmo_stages.models.forward import Item

        rows = self._rows
        return [Item(rows.ids[i], rows.token_ids[i], rows.tokens(i)) for i in self._cut[part]]

    def _made(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """The type of each block, and what is on each device."""
        from olmo_stages.models.placement import where

        loaded, _ = self._model.of(self._work)
        return tuple(loaded.decoder.layer_types), where(loaded.model)

    def _sign(self) -> None:
        types, ran_on = self._made()
        content = json.dumps({"layer_types": types, "ran_on": ran_on}, sort_keys=True)
        files.write_digested(self.folder, _MADE, content.encode(), _JSON)

    def _signatures(self) -> list[dict[str, Any]]:
        """What everyone who computed wrote of it."""
        found: list[dict[str, Any]] = []
        for path in sorted(Path(self.folder).glob(f"{_MADE}.*.{_JSON}")):
            try:
                found.append(json.loads(files.read_whole(path)))
            except StoreError:  # half of a file: its writer signs again
                continue
        return found


def _together(ran_on: Sequence[dict[str, str]]) -> dict[str, str]:
    """What was on each device, of several processes."""
    devices = sorted({device for it in ran_on for device in it})
    return {
        device: "; ".join(dict.fromkeys(it[device] for it in ran_on if device in it))
        for device in devices
    }
