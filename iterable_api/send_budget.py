"""Send budget: how many bytes of large request bodies may be on their way at the same time.

Bulk mode has up to 40 batches of up to 4 MB in flight. Sent all at once over a slow line, each of
them would get so little of it that all time out.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

# The largest body that Iterable accepts. A line of 2 Mbit/s needs 16 s for it, half of the time
# that a response may take.
SEND_BUDGET_BYTES = 4_000_000
PIECE_BYTES = 16_384  # what TLS encrypts at a time; a body that is not larger needs no budget
_STOP_CHECK_SECONDS = 0.1


class Share:
    """A body's share of the budget, returned when the body is sent or the `with` block ends."""

    def __init__(self, give_back: Callable[[], None] | None) -> None:
        self._give_back = give_back

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def release(self) -> None:
        """Return the share; a second call changes nothing."""
        if self._give_back is not None:
            self._give_back()
            self._give_back = None

    def pieces(self, body: bytes) -> Iterator[memoryview]:
        """Yield the body in pieces; return the share when the last piece has been sent."""
        view = memoryview(body)
        for start in range(0, len(view), PIECE_BYTES):
            yield view[start : start + PIECE_BYTES]
        self.release()


NO_SHARE = Share(None)  # of a small body


class SendBudget:
    """Shares of `limit_bytes`, first come, first served. Thread-safe.

    A body larger than the limit is sent while no other has a share.
    """

    def __init__(self, limit_bytes: int = SEND_BUDGET_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, body_bytes: int, stop: threading.Event) -> Share | None:
        """Wait for a share of this size and take it; return None if `stop` is set first."""
        if body_bytes <= PIECE_BYTES:
            return NO_SHARE
        size = min(body_bytes, self._limit_bytes)
        place = object()
        with self._changed:
            self._waiting.append(place)
            try:
                while self._waiting[0] is not place or self._used_bytes + size > self._limit_bytes:
                    self._changed.wait(_STOP_CHECK_SECONDS)
                    if stop.is_set():
                        return None
                self._used_bytes += size
            finally:  # also after Ctrl-C at a Python prompt
                self._waiting.remove(place)
                self._changed.notify_all()
        return Share(lambda: self._free(size))

    def _free(self, size: int) -> None:
        with self._changed:
            self._used_bytes -= size
            self._changed.notify_all()
