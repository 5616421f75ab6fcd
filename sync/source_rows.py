"""The query's rows: column names, column types, the row mapping, then the rows in chunks.

A separate thread connects, runs the query and fetches rows. So the main thread can react to a stop
signal while the server works, and can write rows to the outbox while the next ones arrive. The
thread closes the connection after the last row, or soon after `SourceRows` is closed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from difflib import get_close_matches
from queue import Empty, Full, Queue
from typing import Any, Generic, NamedTuple, TypeVar

from config.fields import columns_of
from config.settings import Settings
from db_connection import DatabaseConnection, window_start_in_utc
from errors import ConfigError
from records.mapping import RowMapping, needed_columns
from source import column_types

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Chunk = Sequence[Sequence[Any]]

# What others call the columns that are always needed, the most probable first.
USUAL_NAMES = {
    "id": ("user_id", "customer_id", "account_id", "uid", "uuid"),
    "email": ("mail", "e_mail", "email_address", "user_email", "customer_email"),
    "event_time": ("created_at", "occurred_at", "viewed_at", "event_at", "timestamp", "time"),
    "page": ("page_name", "page_path", "path", "url"),
}
# For commands that can do without the remaining rows.
MAX_READ_SECONDS = 5.0
# How long to wait for the database until the log says so, and how long until it says so again.
WAIT_SECONDS, NEXT_WAIT_SECONDS = 5.0, 60.0
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

    A context manager that can be iterated once. Its properties and its iteration raise SourceError,
    and ConfigError if the query does not fit the settings. `database` is a connection to use
    instead of a new one; it is closed after the last row. With `max_seconds` the iteration ends
    that long after the start, even if there are more rows; it always has the first chunk, and a
    fifth of the time for the next ones. Where nothing comes for `wait_seconds`, the log says so.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        now: datetime | None = None,
        limit: int | None = None,
        max_seconds: float | None = None,
        database: DatabaseConnection | None = None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._settings = settings
        self._now = now or datetime.now(timezone.utc)
        self._limit = limit
        self._max_seconds = max_seconds
        self._database = database or to_database(settings)
        self._warning: str | None = None
        self._started_at = time.monotonic()
        self._prefetcher: Prefetcher[Any] = Prefetcher(
            self._fetch, on_wait=self._log_wait, wait_seconds=wait_seconds
        )
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
    def is_complete(self) -> bool:
        """Whether the iteration has reached the last row."""
        return self._prefetcher.is_exhausted

    @property
    def warning(self) -> str | None:
        """What the server warned of, as one sentence; known after the last row."""
        return self._warning

    @property
    def mapping(self) -> RowMapping:
        """The mapping of these rows.

        Raises ConfigError if the query lacks a needed column or returns two of its name.
        """
        settings = self._settings
        columns, type_codes = self._result_columns()
        mapping = RowMapping(
            columns,
            user_fields=settings.user_fields,
            event_fields=settings.event_fields,
            event_name=settings.event_name,
            profile_flag=settings.profile_flag,
            sends_profiles=settings.sends_profiles,
            sends_events=settings.sends_events,
            zone=settings.db_timezone,
            send_nulls=settings.send_nulls,
            identify_by=settings.identify_by,
            user_id_column=settings.user_id_column,
            profile_options=profile_options(settings),
            event_options=_new_fields_option(settings),
            timestamp_columns=[
                index for index, code in enumerate(type_codes) if code == column_types.TIMESTAMP
            ],
        )
        problems = [self._ambiguous(name) for name in mapping.ambiguous_columns]
        problems += [self._missing(name) for name in mapping.missing_columns]
        if problems:
            raise ConfigError(problems)
        return mapping

    def _ambiguous(self, name: str) -> str:
        return (
            f"{self._settings.query_file} returns more than one column {name!r}: leave one out, or "
            f"give it a name of its own (TABLE.{name} AS other_{name})"
        )

    def _missing(self, name: str) -> str:
        settings = self._settings
        fields_of = {
            "USER_FIELDS": list(columns_of(settings.sent_user_fields)),
            "EVENT_FIELDS": list(columns_of(settings.sent_event_fields)),
        }
        always_needed = needed_columns(
            self.columns,
            (),
            (),
            sends_events=settings.sends_events,
            identify_by=settings.identify_by,
            user_id_column=settings.user_id_column,
        )
        mapped = (field.column.lower() for fields in fields_of.values() for field in fields)
        used = {*always_needed, *mapped}
        # For the column of user ids as for `id`, its usual name.
        usual = "id" if name == settings.user_id_column else name
        near = near_name(usual, [column for column in self.columns if column.lower() not in used])
        problem = f"{settings.query_file} returns no column {name!r}: "
        if name == settings.user_id_column:
            near = near or "COLUMN"
            problem += f"write {near} AS {name} in the query, or set USER_ID_COLUMN={near}"
        elif near is not None:
            problem += f"write {near} AS {name} in the query"
        else:
            problem += f"add it to the query, or write COLUMN AS {name} for the column that has it"
        named_by = [
            setting
            for setting, fields in fields_of.items()
            if any(field.column == name for field in fields)
        ]
        if named_by and name.lower() not in always_needed:
            problem += f", or take it out of {' and '.join(named_by)}"
        return problem

    def __iter__(self) -> Iterator[Chunk]:
        self._result_columns()  # the columns come before the rows
        for number, chunk in enumerate(self._items):
            if number == 0 and self._max_seconds is not None:
                waited_seconds = time.monotonic() - self._started_at
                left_seconds = max(self._max_seconds - waited_seconds, self._max_seconds / 5)
                self._prefetcher.end_after(left_seconds)
            yield chunk

    def _log_wait(self, seconds: float) -> None:
        logger.info(
            "Waiting for the database on %s: no answer for %.0f s. It may be running the query or "
            "waiting for a lock; SHOW FULL PROCESSLIST there says which.",
            self._database.source.place,
            seconds,
        )

    def _result_columns(self) -> Columns:
        if self._columns is None:
            self._columns = next(self._items)
        return self._columns

    def _fetch(self) -> Iterator[Columns | Chunk]:
        """Yield the columns, then the rows; runs in the prefetcher's thread."""
        rows_left = self._limit
        start = window_start_in_utc(self._now, self._settings.engagement_window_days)
        chunk_rows = min(_CHUNK_ROWS, rows_left or _CHUNK_ROWS)
        with (
            self._database as database,
            database.stream_pro_users_recent_engagement(start, chunk_rows) as stream,
        ):
            yield Columns(stream.columns, stream.type_codes)
            for chunk in stream:
                yield chunk if rows_left is None else chunk[:rows_left]
                if rows_left is not None:
                    rows_left -= len(chunk)
                    if rows_left <= 0:
                        return
            self._warning = stream.warning


def _new_fields_option(settings: Settings) -> dict[str, bool]:
    """Return what the body of a request says of fields that the project does not have."""
    option = settings.creates_new_fields
    return {} if option is None else {"createNewFields": option}


def profile_options(settings: Settings) -> dict[str, bool]:
    """Return the members that the body of each profile has beside its fields.

    A bulk body says only once what is to become of new fields, see `iterable_client.bulk_body`.
    """
    options = {} if settings.sync_mode == "bulk" else _new_fields_option(settings)
    return {**options, "mergeNestedObjects": True} if settings.merge_nested_objects else options


def near_name(name: str, columns: Sequence[str]) -> str | None:
    """Return the column that is probably meant by `name`; None if no name is like it."""
    usual = USUAL_NAMES.get(name.lower(), ())
    others = {column.lower(): column for column in columns}
    near = [other for other in usual if other in others]
    near += get_close_matches(name.lower(), list(others), n=1, cutoff=0.75)
    return others[near[0]] if near else None


class Prefetcher(Generic[Item]):
    """Iterates `source()` in a daemon thread, a few items ahead of the consumer.

    An exception of the source is raised in the consumer, after the items that came before it.
    `close` does not wait for the thread, which ends once the source yields its next item.
    `on_wait(seconds)` is called in the consumer when it has waited for an item for `wait_seconds`,
    and then once a minute.
    """

    def __init__(
        self,
        source: Callable[[], Iterator[Item]],
        *,
        on_wait: Callable[[float], None] = lambda _seconds: None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._source = source
        self._on_wait = on_wait
        self._wait_seconds = wait_seconds
        self._queue: Queue[Item | _End] = Queue(_PREFETCHED_ITEMS)
        self._closed = threading.Event()
        self._ends_at: float | None = None  # `time.monotonic`
        self.is_exhausted = False  # whether the consumer has received the last item
        self._thread = threading.Thread(target=self._read, name="prefetcher", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while True:
            try:
                item = self._next_item()
            except Empty:
                return
            if isinstance(item, _End):
                self._thread.join()
                if item.error is not None:
                    raise item.error
                self.is_exhausted = True
                return
            yield item

    def _next_item(self) -> Item | _End:
        """Wait for the next item; raises Empty at the time that `end_after` set."""
        began_at = time.monotonic()
        says_at = began_at + self._wait_seconds
        while True:
            now = time.monotonic()
            if self._ends_at is not None and now >= self._ends_at:
                raise Empty  # although items may be waiting
            if now >= says_at:
                self._on_wait(now - began_at)
                says_at = now + NEXT_WAIT_SECONDS
            with suppress(Empty):
                return self._queue.get(timeout=min(says_at, self._ends_at or says_at) - now)

    def end_after(self, seconds: float) -> None:
        """Let the iteration end this long from now, even if the source has more items."""
        self._ends_at = time.monotonic() + seconds

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
