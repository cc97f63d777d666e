"""One bar for work that several entries take turns in."""

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from olmo_stages.progress import progress


class Bar:
    """The progress of one crew at a time.

    Attributes:
        advance: counts an example.
        counted: the shards that have been counted.
    """

    def __init__(self) -> None:
        self.advance: Callable[[], None] = lambda: None
        self.counted: set[int] = set()
        self._of: object | None = None
        self._opened = ExitStack()

    def open(self, crew: object, label: str, n_examples: int) -> None:
        """Show this crew and no other."""
        if self._of is crew:
            return
        self._opened.close()
        self.counted = set()
        self.advance = self._opened.enter_context(progress(label, n_examples))
        self._of = crew

    def shows(self, crew: object) -> bool:
        """Whether it shows this crew."""
        return self._of is crew

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, trace)
