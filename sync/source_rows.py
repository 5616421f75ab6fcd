"""The query's rows: column names, column types, the row mapping, then the rows in chunks.

A separate thread connects, runs the query and fetches rows. So the main thread can react to a stop
signal while the server works, and can write rows to the outbox while the next ones arrive. The
thread closes the connection after the last row, or soon after `SourceRows` is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from queue import Full, Queue
from typing import Any, Generic, NamedTuple, TypeVar

from config.settings import Settings
from db_connection import DatabaseConnection, window_start
from errors import ConfigError
from records.mapping import RowMapping

Item = TypeVar("Item")
Chunk = Sequence[Sequence[Any]]

_CHUNK_ROWS = 2_500
_PREFETCHED_ITEMS = 2


def to_database(settings: Settings) -> DatabaseConnection:
    """Build the connection to the source database; it is not open yet."""
    return DatabaseConnection(
        settings.db_host,
        settings.db_user,
        settings.db_password,
        settings.db_name,
        port=settings.db_port,
        unix_socket=settings.db_unix_socket or None,
        ssl_ca=settings.db_ssl_ca or None,
        time_zone=str(settings.db_timezone),
        window_days=settings.engagement_window_days,
        query_file=settings.query_file,
    )


class Columns(NamedTuple):
    """The columns of the query's result, in order."""

    names: Sequence[str]
    type_codes: Sequence[int]  # MYSQL_TYPE_... of MySQL's protocol


class SourceRows:
    """The rows of the query file for the window that ends at `now` (aware; None: now).

    A context manager that can be iterated once. Its properties and its iteration raise SourceError.
    """

    def __init__(
        self, settings: Settings, *, now: datetime | None = None, limit: int | None = None
    ) -> None:
        self._settings = settings
        self._now = now or datetime.now(timezone.utc)
        self._limit = limit
        self._prefetcher: Prefetcher[Any] = Prefetcher(self._fetch)
        self._items = iter(self._prefetcher)
        self._columns: Columns | None = None

    def __enter__(self) -> SourceRows:
        return self

    def __exit__(self, *exception: object) -> None:
        self._prefetcher.close()

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns; the first access waits for the database."""
        return self._result_columns().names

    @property
    def type_codes(self) -> Sequence[int]:
        """The type of each column, as a number of MySQL's protocol."""
        return self._result_columns().type_codes

    @property
    def mapping(self) -> RowMapping:
        """The mapping of these rows. Raises ConfigError if the query lacks a needed column."""
        settings = self._settings
        mapping = RowMapping(
            self.columns,
            user_fields=settings.user_fields,
            event_fields=settings.event_fields,
            zone=settings.db_timezone,
            send_nulls=settings.send_nulls,
        )
        if mapping.missing_columns:
            names = ", ".join(map(repr, mapping.missing_columns))
            raise ConfigError(
                [
                    f"{settings.query_file} returns no column {names}: add it to the query, or "
                    "take it out of USER_FIELDS and EVENT_FIELDS"
                ]
            )
        return mapping

    def __iter__(self) -> Iterator[Chunk]:
        self._result_columns()  # the columns come before the rows
        yield from self._items

    def _result_columns(self) -> Columns:
        if self._columns is None:
            self._columns = next(self._items)
        return self._columns

    def _fetch(self) -> Iterator[Columns | Chunk]:
        """Yield the columns, then the rows; runs in the prefetcher's thread."""
        settings, rows_left = self._settings, self._limit
        start = window_start(self._now, settings.engagement_window_days, str(settings.db_timezone))
        chunk_rows = min(_CHUNK_ROWS, rows_left or _CHUNK_ROWS)
        with (
            to_database(settings) as database,
            database.stream_pro_users_recent_engagement(start, chunk_rows) as stream,
        ):
            yield Columns(stream.columns, stream.type_codes)
            for chunk in stream:
                yield chunk if rows_left is None else chunk[:rows_left]
                if rows_left is not None:
                    rows_left -= len(chunk)
                    if rows_left <= 0:
                        return


class Prefetcher(Generic[Item]):
    """Iterates `source()` in a daemon thread, a few items ahead of the consumer.

    An exception of the source is raised in the consumer, after the items that came before it.
    `close` does not wait for the thread, which ends once the source yields its next item.
    """

    def __init__(self, source: Callable[[], Iterator[Item]]) -> None:
        self._source = source
        self._queue: Queue[Item | _End] = Queue(_PREFETCHED_ITEMS)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="prefetcher", daemon=True)
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
        except BaseException as raised:  # noqa: BLE001 - raised again in `__iter__`
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


class _End(NamedTuple):
    """The end of the items, with the exception that ended them, if any."""

    error: BaseException | None
