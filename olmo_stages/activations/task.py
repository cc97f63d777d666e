"""What several processes can do together: work that is cut into shards in the same way by each."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from olmo_stages.activations.entry import Entry


@runtime_checkable
class Task(Protocol):
    """What is to be computed, cut into shards in the same way by every process."""

    @property
    def label(self) -> str:
        """What it is, naming the stage."""
        ...

    @property
    def folder(self) -> Path:
        """Of the entry."""
        ...

    @property
    def parts(self) -> Sequence[Sequence[str]]:
        """Ids of the examples of each shard."""
        ...

    @property
    def at_once(self) -> int:
        """Most shards that are computed in one go."""
        ...

    @property
    def shows_examples(self) -> bool:
        """Whether progress is counted in examples; else the computation shows its own."""
        ...

    def fits(self, name: str, part: int, *, whole: bool) -> bool:
        """Whether a file holds a shard, by its head or, `whole`, after reading all of it."""
        ...

    def ready(self) -> None:
        """Load what computing needs."""
        ...

    def compute(
        self, parts: Sequence[int], advance: Callable[[], None]
    ) -> Iterator[tuple[int, Any]]:
        """Compute shards, calling `advance` after each example."""
        ...

    def add(self, part: int, found: Any) -> str:  # noqa: ANN401 (what `compute` gave)
        """Write one shard and return the name of its file."""
        ...

    def publish(self, names: Sequence[str]) -> Entry:
        """Write the manifest."""
        ...
