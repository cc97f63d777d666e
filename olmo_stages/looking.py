"""Looking without touching: what a dry run or a launcher finds out about jobs it does not run.

Whatever is about to train, download, compute or write asks `make` first. While somebody only looks,
that is refused with `NotHere`, so that a job is described by the code that runs it and nothing is
left behind.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from olmo_stages.errors import NotHere

_looking: ContextVar[bool] = ContextVar("_looking", default=False)


@contextmanager
def looking() -> Iterator[None]:
    """Make, download, compute and write nothing.

    Yields:
        Nothing; it holds within the context and its thread.
    """
    token = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(token)


def is_looking() -> bool:
    """Whether somebody only looks."""
    return _looking.get()


def make(what: str) -> None:
    """Say that something is about to be made.

    Args:
        what: what is not here yet, e.g. `the weights of think_sft`.

    Raises:
        NotHere: somebody only looks.
    """
    if is_looking():
        raise NotHere(f"{what}: not here yet")
