"""Extraction of a model that is read block by block, into the same entries of the store."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from olmo_stages.activations.entry import Entry, Writer
from olmo_stages.activations.extracting import Extraction, Found
from olmo_stages.activations.held_model import HeldModel
from olmo_stages.activations.identity import digest
from olmo_stages.activations.kept import KEPT_VERSION, Kept, Shard, left_over
from olmo_stages.activations.request import Work
from olmo_stages.activations.store import Store
from olmo_stages.atomic import CACHE, scratch
from olmo_stages.models.compute import Compute
from olmo_stages.progress import progress, say
from olmo_stages.types import Position, Stage

MOST_SHARDS = 256
"""Shards of one reading of the weights: a process has a thread for each lease that it holds."""


class Streamed(Extraction):
    """The same for a model that is never in memory whole: all shards in one reading of its weights.

    Args:
        work: the stage's.
        writer: of the entry.
        store: how shards are cut.
        compute: device, dtype and batches.
        count: called with the stage after each reading.
        asked: positions without which it is of no use.

    Raises:
        DataError: examples that cannot be read.
        ModelError: a tokenizer that cannot be used.
    """

    at_once = MOST_SHARDS
    shows_examples = False

    def __init__(
        self,
        work: Work,
        writer: Writer,
        store: Store,
        compute: Compute,
        count: Callable[[Stage], None],
        asked: Collection[Position],
    ) -> None:
        super().__init__(work, writer, store, HeldModel(compute), count, asked)
        self._compute = compute
        self._skeleton: Any = None
        self._ran_on: dict[str, str] = {}

    def ready(self) -> None:
        """Build the model without its weights.

        Raises:
            ModelError: the checkpoint cannot be used.
        """
        import torch

        from olmo_stages.models.loading import skeleton

        if self._skeleton is not None:
            return
        if self._compute.threads is not None:
            torch.set_num_threads(self._compute.threads)
        self._skeleton = skeleton(
            self._work.stage,
            self._work.checkpoint,
            dtype=self._work.identity.dtype,
            device=self._compute.resolve_device(),
        )

    def compute(
        self, parts: Sequence[int], advance: Callable[[], None]
    ) -> Iterator[tuple[int, Found]]:
        """Send the examples of shards through one block after another.

        Yields:
            The number of a shard and its activations.

        Raises:
            ModelError: the checkpoint cannot be used.
            StoreError: what does not fit into memory cannot be written either.
        """
        from olmo_stages.models import layer_major
        from olmo_stages.models.memory import TokenBudget

        del advance  # it counts examples, and here all are done at once
        label = self._work.stage.label
        budget = TokenBudget(self._compute.token_budget, lambda line: say(f"{label}: {line}"))
        shards = [self._items(part) for part in parts]
        kept = Kept(
            self.folder,
            f"{label}: activations block by block",
            [Shard(part, self._identity(part, it)) for part, it in zip(parts, shards, strict=True)],
            self._here(),
        )
        root = self.folder.parents[2]  # of the store; what an entry's folder holds belongs to it
        with (
            scratch(root, CACHE) as place,
            progress(kept.label, max(self._writer.layers) + 2) as advance_block,
        ):
            found = layer_major.pooled(
                self._skeleton,
                shards,
                self._writer.captures,
                self._writer.layers,
                layer_major.Memory(budget, place, kept),
                advance_block,
            )
            self._ran_on = kept.ran_on
            self._count(self._work.stage)
            for part, rows in zip(parts, found, strict=True):
                yield part, rows
                kept.drop(part)

    def publish(self, names: Sequence[str]) -> Entry:
        """Write token ids and manifest, and remove what was kept on the way.

        Raises:
            ModelError: the checkpoint cannot be used.
            StoreError: something cannot be written, or a shard was removed meanwhile.
        """
        entry = super().publish(names)
        for path in left_over(self.folder):
            with suppress(OSError):
                path.unlink()
        return entry

    def _identity(self, part: int, items: Sequence[Any]) -> dict[str, str]:
        """All that must be the same where somebody goes on with a shard half done."""
        given = [[it.id, it.token_ids, sorted(it.tokens.items())] for it in items]
        return {
            "kept_version": str(KEPT_VERSION),
            "entry": self._writer.key,
            "reads": digest([self._writer.captures, self._writer.layers]),
            "part": str(part),
            "examples": digest(given),
            **{package: version(package) for package in ("torch", "transformers")},
        }

    def _here(self) -> dict[str, str]:
        from olmo_stages.models.placement import name

        device = self._compute.resolve_device()
        return {device: name(device)}

    def _made(self) -> tuple[tuple[str, ...], dict[str, str]]:
        return tuple(self._skeleton.layer_types), self._ran_on or self._here()
