"""Layers in threads: order, errors, and how much is alive at a time."""

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from olmo_stages import parallel
from olmo_stages.parallel import in_threads


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    known = [{"user_api": "blas", "num_threads": request.param}]
    monkeypatch.setattr(parallel, "threadpool_info", lambda: known)
    return request.param


def blas_threads():
    return [it["num_threads"] for it in threadpool_info() if it["user_api"] == "blas"]


@pytest.mark.usefixtures("threads")
def test_results_keep_the_order_of_the_items():
    def slower_at_first(i):
        time.sleep(0.01 * (5 - i))
        return i * i

    assert list(in_threads(slower_at_first, range(6))) == [0, 1, 4, 9, 16, 25]


@pytest.mark.usefixtures("threads")
def test_no_item_gives_no_result():
    assert list(in_threads(abs, [])) == []


@pytest.mark.usefixtures("threads")
def test_an_error_in_the_work_reaches_the_caller():
    def work(i):
        if i == 2:
            raise ValueError(f"layer {i}")
        return i

    found = in_threads(work, range(10))
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="layer 2"):
        list(found)


@pytest.mark.usefixtures("threads")
def test_an_error_of_the_items_reaches_the_caller():
    def items():
        yield 0
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        list(in_threads(abs, items()))


def test_items_are_taken_as_they_are_needed(threads):
    taken = []

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    for number, _ in enumerate(in_threads(abs, items())):
        assert len(taken) <= number + threads + 1
    assert len(taken) == 20


def test_nothing_is_taken_before_the_first_result_is_asked_for(threads):
    taken = []
    found = in_threads(abs, (taken.append(i) or i for i in range(5)))
    assert taken == []
    next(found)
    assert len(taken) == threads + 1


def test_as_many_at_a_time_as_there_are_threads(threads):
    lock, running, most = threading.Lock(), [0], [0]

    def work(_):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1

    list(in_threads(work, range(9)))
    assert most[0] == threads


def test_matrix_products_have_one_thread_meanwhile_and_theirs_again_after():
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        meanwhile = list(in_threads(lambda _: blas_threads(), range(3)))
        assert blas_threads() == before
    assert all(set(found) == {1} for found in meanwhile)


def test_matrix_products_have_their_threads_again_after_an_error():
    def fail(_):
        raise ValueError

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with pytest.raises(ValueError):  # noqa: PT011  (its own)
            list(in_threads(fail, range(3)))
        assert blas_threads() == before


def test_matrix_products_have_their_threads_again_if_the_caller_stops():
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        found = in_threads(abs, range(50))
        next(found)
        found.close()
        assert blas_threads() == before


def test_inside_one_another():
    def row(i):
        return list(in_threads(lambda j: i * j, range(3)))

    assert list(in_threads(row, range(3))) == [[0, 0, 0], [0, 1, 2], [0, 2, 4]]


@pytest.mark.usefixtures("threads")
def test_arrays_come_back_whole():
    layers = np.random.default_rng(0).normal(size=(7, 20, 20))
    found = np.stack(list(in_threads(lambda layer: layer @ layer.T, layers)))
    np.testing.assert_allclose(found, layers @ layers.transpose(0, 2, 1))
