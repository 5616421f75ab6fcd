"""Worker pool of daemon threads, which are started on demand.

Why not `ThreadPoolExecutor`: at exit the interpreter waits for its threads, so a hanging call would
keep a stopped program alive until the time-out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")
_Task = tuple[Callable[..., Any], Sequence[Any], Callable[[Any], None]]


class WorkerPool:
    """Runs functions in up to `max_threads` threads, in the order in which they are submitted.

    A thread is started only when all others are busy. Call `submit` and `close` from one thread.
    """

    def __init__(self, name: str, max_threads: int) -> None:
        self._name = name
        self._max_threads = max_threads
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread_count = 0
        self._unfinished_count = 0  # functions that are queued or running
        self._lock = threading.Lock()

    def start(
        self, function: Callable[..., Result], *arguments: Any, then: Callable[[Result], None]
    ) -> None:
        """Queue `then(function(*arguments))`; neither may raise an exception.

        Cheaper than `submit`: per-user delivery would pay for a future's locks with each row.
        """
        with self._lock:
            self._unfinished_count += 1
            needs_thread = self._thread_count < min(self._unfinished_count, self._max_threads)
        self._tasks.put((function, arguments, then))
        if needs_thread:
            self._thread_count += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Queue `function(*arguments)`; the future gets its result or exception."""
        future: Future[Result] = Future()
        self.start(_call, future, function, arguments, then=partial(_resolve, future))
        return future

    def close(self) -> None:
        """Let the threads end after the functions submitted so far, without waiting for them."""
        for _ in range(self._thread_count):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            function, arguments, then = task
            result = function(*arguments)
            with self._lock:
                # Before the result is passed on: whoever waits for it may then use this thread.
                self._unfinished_count -= 1
            then(result)
            del task, function, arguments, then, result  # not kept while the thread waits


def _call(
    future: Future[Result], function: Callable[..., Result], arguments: Sequence[Any]
) -> tuple[Result | None, BaseException | None] | None:
    """Return result or exception; None if the future was cancelled."""
    if not future.set_running_or_notify_cancel():
        return None
    try:
        return function(*arguments), None
    except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
        return None, error


def _resolve(future: Future[Any], outcome: tuple[Any, BaseException | None] | None) -> None:
    if outcome is None:
        return
    result, error = outcome
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
