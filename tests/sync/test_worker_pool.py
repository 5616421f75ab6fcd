"""The worker pool: its number of threads, results and exceptions."""

from __future__ import annotations

import threading
import time

import pytest

from sync.worker_pool import WorkerPool
from tests.support.rows import wait_until


def test_each_function_gets_its_own_result() -> None:
    pool = WorkerPool("test", 4)
    futures = [pool.submit(pow, number, 2) for number in range(100)]
    assert [future.result(30) for future in futures] == [number**2 for number in range(100)]
    pool.close()


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_an_exception_is_raised_where_the_result_is_awaited(kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind

    pool = WorkerPool("test", 1)
    with pytest.raises(kind):
        pool.submit(fail).result(30)
    assert pool.submit(pow, 2, 2).result(30) == 4  # the thread is still there
    pool.close()


def test_a_free_thread_is_used_before_another_is_started() -> None:
    pool = WorkerPool("test", 10)
    threads = {pool.submit(threading.get_ident).result(30) for _ in range(200)}
    assert len(threads) == 1
    pool.close()


def test_no_more_than_the_allowed_threads_run_at_once() -> None:
    pool = WorkerPool("test", 3)
    running: list[int] = []
    most: list[int] = []

    def work() -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()

    for future in [pool.submit(work) for _ in range(30)]:
        future.result(30)
    assert max(most) == 3
    pool.close()


def test_a_cancelled_function_is_not_called() -> None:
    pool = WorkerPool("test", 1)
    may_end = threading.Event()
    first = pool.submit(may_end.wait, 30)
    calls: list[int] = []
    second = pool.submit(calls.append, 1)
    assert second.cancel()
    may_end.set()
    assert first.result(30)
    pool.submit(calls.append, 2).result(30)
    assert calls == [2]
    pool.close()


def test_the_threads_are_daemons_and_end_after_closing() -> None:
    pool = WorkerPool("test", 1)
    thread = pool.submit(threading.current_thread).result(30)
    assert thread.daemon  # a hanging call does not keep the program alive
    pool.close()
    assert wait_until(lambda: not thread.is_alive())
