"""Layers in parallel threads, each with matrix products of one thread.

Matrix products use all cores by themselves, but the passes over memory around them do not; with a
layer a thread both do.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_info, threadpool_limits

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_threads(work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """Do `work` on each item, in order, as many at a time as there are threads for products.

    Items are taken as they are needed: no more than threads + 1 are alive.

    Args:
        work: must release the interpreter's lock to gain anything, as numpy does.
        items: e.g. activations, one layer at a time.

    Yields:
        The results, in the order of the items.
    """
    pools = threadpool_info()
    n = max((it["num_threads"] for it in pools if it["user_api"] == "blas"), default=1)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n) as pool:
        pending: deque[Future[Found]] = deque()
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > n:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
