"""Reading profiles and events back from Iterable: many at once, at a bounded rate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Generic, TypeVar

from config.identity import IdentifyBy
from iterable_api.comparison import lookup_of
from iterable_api.rate_limiter import RateLimiter, backoff_seconds
from iterable_api.responses import ApiResponse
from records.rows import RequestKind
from sync.worker_pool import WorkerPool

# Iterable allows 100 a second for each endpoint, but delays in the network can bunch requests up.
READ_RPS = 90.0
THREADS = 32  # 100 responses a second at 300 ms each
_MAX_FAILURES_IN_A_ROW = 20  # then the rest is not read

Item = TypeVar("Item")
Get = Callable[[str, Mapping[str, str | int]], ApiResponse]  # of a path with a query


class ReadBack(Generic[Item]):
    """Reads with `get`, in worker threads, with a rate limiter for each kind. Close it.

    `name_of` says what to read for an item: the kind, and the user's identifier.
    """

    def __init__(
        self,
        get: Get,
        name_of: Callable[[Item], tuple[RequestKind, str]],
        identify_by: IdentifyBy,
        stop: threading.Event,
    ) -> None:
        self._get = get
        self._name_of = name_of
        self._identify_by = identify_by
        self._stop = stop
        self._rate_limiters = {kind: RateLimiter(READ_RPS) for kind in RequestKind}
        self._pool = WorkerPool("read-back", THREADS)

    def close(self) -> None:
        """Start no more requests, and do not wait for those in progress."""
        self._pool.close()

    def read(self, items: Sequence[Item]) -> Iterator[tuple[Item, ApiResponse]]:
        """Yield the responses in the order of the items.

        Ends early when `stop` is set, or when many in a row have failed.
        """
        failures_in_a_row = 0
        futures = [self._pool.submit(self._read, *self._name_of(item)) for item in items]
        try:
            for item, future in zip(items, futures, strict=True):
                response = self._result(future)
                if response is None:
                    return
                yield item, response
                status = response.status
                has_failed = status is None or status >= 500 or status in (401, 403)
                failures_in_a_row = failures_in_a_row + 1 if has_failed else 0
                if failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
                    return
        finally:
            for future in futures:
                future.cancel()

    def _result(self, future: Future[ApiResponse | None]) -> ApiResponse | None:
        """Wait for a response; return None when stopped."""
        while not self._stop.is_set():
            try:
                return future.result(timeout=0.2)
            except FutureTimeoutError:
                continue
        return None

    def _read(self, kind: RequestKind, identifier: str) -> ApiResponse | None:
        """Send a request, again after each 429; return None when stopped."""
        rate_limiter = self._rate_limiters[kind]
        while rate_limiter.acquire(self._stop.wait):
            response = self._get(*lookup_of(kind, identifier, self._identify_by))
            if response.status != 429:
                return response
            wait_seconds = response.requested_wait_seconds or 1.0
            rate_limiter.slow_down(wait_seconds)
            if self._stop.wait(backoff_seconds(1, wait_seconds)):
                break
        return None
