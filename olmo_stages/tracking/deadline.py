"""A limit on how long something may take that has no limit of its own."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def within(seconds: float | int, task: Callable[[], Any]) -> Any:  # noqa: ANN401  (what the task returns)
    """Return what a task returns, or raise what it raises.

    A task that takes longer goes on in a thread that does not keep the process alive.

    Raises:
        TimeoutError: it takes longer.
    """
    outcome: Future[Any] = Future()

    def work() -> None:
        try:
            outcome.set_result(task())
        except BaseException as error:  # noqa: BLE001  (raised again for the caller)
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return outcome.result(timeout=seconds)
    except TimeoutError as error:
        if outcome.done():
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from error
