"""The query's rows, fetched ahead in a thread: columns first, then chunks.

Owns the joint between `db_connection` and `read_ahead`: while the database thinks, the main
thread hears a stop signal. The connection is closed when the last row is read, or when nobody
wants more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from config.settings import Settings
from db_connection import window_start
from sync.read_ahead import Prefetcher
from sync.wiring import to_database

_CHUNK_ROWS = 2_500


class SourceRows:
    """The rows of the query file for the window that ends at `now` (aware; None: now).

    A context manager; iterate once, after `columns`. Raises SourceError, from either.
    """

    def __init__(
        self, settings: Settings, *, now: datetime | None = None, limit: int | None = None
    ) -> None:
        self._settings = settings
        self._now = now or datetime.now(timezone.utc)
        self._limit = limit
        self._reading = Prefetcher(self._read)
        self._items = iter(self._reading)
        self._columns: Sequence[str] | None = None

    def __enter__(self) -> SourceRows:
        return self

    def __exit__(self, *ending: object) -> None:
        self._reading.close()

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns; the first call waits for the database."""
        if self._columns is None:
            self._columns = next(self._items)
        return self._columns

    def __iter__(self) -> Iterator[Sequence[Sequence[Any]]]:
        _ = self.columns
        yield from self._items

    def _read(self) -> Iterator[Sequence[Any]]:
        settings, left = self._settings, self._limit
        start = window_start(self._now, settings.engagement_window_days, str(settings.db_timezone))
        chunk_rows = min(_CHUNK_ROWS, left or _CHUNK_ROWS)
        with (
            to_database(settings) as database,
            database.stream_pro_users_recent_engagement(start, chunk_rows) as stream,
        ):
            yield stream.columns
            for chunk in stream:
                yield chunk if left is None else chunk[:left]
                if left is not None:
                    left -= len(chunk)
                    if left <= 0:
                        return
