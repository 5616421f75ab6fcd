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
from typing import Any, TypeVar, cast

Result = TypeVar("Result")


class WorkerPool:
    """Runs functions in up to `max_threads` threads, in the order in which they are submitted.

    A thread is started only when all others are busy. Call `submit` and `close` from one thread.
    """

    def __init__(self, name: str, max_threads: int) -> None:
        self._name = name
        self._max_threads = max_threads
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread_count = 0
        self._unfinished_count = 0  # functions that are queued or running
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Queue `function(*arguments)`; the future gets its result or exception."""
        future: Future[Result] = Future()
        with self._lock:
            self._unfinished_count += 1
            needs_thread = self._thread_count < min(self._unfinished_count, self._max_threads)
        self._tasks.put(partial(self._run, future, function, arguments))
        if needs_thread:
            self._thread_count += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads end after the functions submitted so far, without waiting for them."""
        for _ in range(self._thread_count):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def _run(
        self, future: Future[Result], function: Callable[..., Result], arguments: Sequence[Any]
    ) -> None:
        result: Result | None = None
        error: BaseException | None = None
        is_cancelled = not future.set_running_or_notify_cancel()
        if not is_cancelled:
            try:
                result = function(*arguments)
            except BaseException as raised:  # noqa: BLE001 - raised again where it is awaited
                error = raised
        with self._lock:
            # Before the future is done: whoever waits for it may then submit to this thread.
            self._unfinished_count -= 1
        if error is not None:
            future.set_exception(error)
        elif not is_cancelled:
            future.set_result(cast(Result, result))
