"""Reads an iterator in a thread of its own, a few items ahead.

For the query: while the database thinks, the main thread stays free to hear a stop signal, and
while rows are written to the outbox the next ones are fetched. Knows nothing of what it reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Full, Queue
from typing import Generic, TypeVar

Item = TypeVar("Item")
_AHEAD_ITEMS = 2


class Prefetcher(Generic[Item]):
    """Iterate `source()`, called and read in a daemon thread.

    What it raises is raised here, in its place in the order. `close` leaves it alone: the
    thread ends when its source lets it.
    """

    def __init__(self, source: Callable[[], Iterator[Item]]) -> None:
        self._source = source
        self._queue: Queue[Item | _End] = Queue(_AHEAD_ITEMS)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                self._thread.join()
                if item.error is not None:
                    raise item.error
                return
            yield item

    def close(self) -> None:
        """Take no more items."""
        self._closed.set()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._source():
                if not self._put(item):
                    return
        except BaseException as raised:  # noqa: BLE001 - raised again where it is awaited
            error = raised
        self._put(_End(error))

    def _put(self, item: Item | _End) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except Full:
                continue
        return False


class _End:
    """The end of the items, and the error that it came with."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
