"""The connection to the source database: connect, run the query, stream its rows in chunks.

Works with MySQL 8 and MariaDB 10.6 or newer. Every failure is a `SourceError`. Nothing is retried.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from contextlib import closing, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from errors import ConfigError
from source import column_types
from source.errors import SourceError, may_be_time_out, no_response_in_time, to_source_error
from source.query_parameters import (
    Parameters,
    has_zoneless_window_start,
    insert_parameters,
    insert_window_start,
    to_window_start,
)
from source.server_warnings import read_warnings
from source.session import HAS_C_EXTENSION, Source, open_session

__all__ = ["DatabaseConnection", "RowStream", "SourceError", "window_start"]

logger = logging.getLogger(__name__)

QUERY_FILE = Path(__file__).resolve().parent / "sql" / "pro_users_recent_engagement.sql"
# Time zones that always equal UTC, in any letter case.
_UTC_NAMES = ("utc", "etc/utc", "uct", "etc/uct", "zulu", "etc/zulu", "universal", "etc/universal")


def window_start(now: datetime, window_days: float, time_zone: str) -> datetime:
    """Return the time `window_days` x 24 hours before `now`, as DATETIME columns would store it.

    `now` is aware. The result is naive, in `time_zone` (IANA name), in whole seconds, rounded down.
    In an hour that the clocks repeat it may be up to an hour earlier: see `to_window_start`.
    """
    return to_window_start(window_start_in_utc(now, window_days), ZoneInfo(time_zone)).local


def window_start_in_utc(now: datetime, window_days: float) -> datetime:
    """Return the time `window_days` x 24 hours before `now`, aware, in whole seconds."""
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime")
    start = now.astimezone(timezone.utc) - timedelta(days=window_days)
    return start.replace(microsecond=0)


class RowStream:
    """The rows of one query, in its order, as chunks (lists of tuples).

    Holds one chunk in memory. Iterate once, then `close()`, or use it as a context manager.
    Iterating raises `SourceError` on a failure; if it ends without one, every row was read.
    `warning` says after the last row what the server warned of; None if of nothing.
    """

    def __init__(self, database: DatabaseConnection, cursor: Any, chunk_rows: int) -> None:
        self.columns: tuple[str, ...] = tuple(str(column[0]) for column in cursor.description)
        # The number of each column's type, see `source.column_types`.
        self.type_codes: tuple[int, ...] = tuple(int(column[1]) for column in cursor.description)
        self._json_indexes = [
            i for i, column in enumerate(cursor.description) if column[1] == column_types.JSON
        ]
        self._database = database
        self._cursor = cursor
        self._chunk_rows = chunk_rows
        self._finished = False
        self.warning: str | None = None

    def __iter__(self) -> RowStream:
        return self

    def __next__(self) -> list[tuple[Any, ...]]:
        if self._finished:
            raise StopIteration
        asked_at = time.monotonic()
        try:
            rows: list[tuple[Any, ...]] = self._cursor.fetchmany(self._chunk_rows)
            if self._json_indexes:
                rows = [self._decode_json(row) for row in rows]
        except Exception as error:
            # The driver raises ReferenceError after the connection was closed, and exceptions of
            # many types for a malformed packet or for a value that Python cannot represent.
            self._finished = True
            raise self._database.failed(error, time.monotonic() - asked_at) from error
        if not rows:
            self._finished = True
            # The number comes with the end of the rows, so most queries need no second one.
            if self._cursor.warning_count:
                self.warning = self._database.read_warnings()
            raise StopIteration
        return rows

    def _decode_json(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for i in self._json_indexes:
            if isinstance(values[i], str | bytes | bytearray):
                values[i] = orjson.loads(values[i])
        return tuple(values)

    def close(self) -> None:
        """Discard the remaining rows without reading them. May be called twice."""
        if not self._finished:
            self._finished = True
            self._database.discard_unread_rows()

    def __enter__(self) -> RowStream:
        return self

    def __exit__(self, *ending: object) -> None:
        self.close()


class DatabaseConnection:
    """A read-only session with the source database: one thread, one open stream at a time.

    `time_zone` (IANA name) is the zone of stored DATETIME values; the session always uses UTC.
    With `ssl_ca` (a PEM file) the server's certificate must be issued by that CA, for `host`;
    without it TLS is used if the server offers it, but not verified. `unix_socket` replaces host
    and port. `read_timeout_seconds` limits each wait for the server, including the wait for the
    first row. `use_pure` selects the slower driver even if the C extension is available.
    """

    def __init__(
        self,
        host: str,
        user: str,
        password: str,
        database: str,
        *,
        port: int = 3306,
        unix_socket: str | None = None,
        ssl_ca: str | Path | None = None,
        time_zone: str = "UTC",
        window_days: float = 7,
        query_file: str | Path = QUERY_FILE,
        connect_timeout_seconds: int = 10,
        read_timeout_seconds: int = 300,
        use_pure: bool = False,
    ) -> None:
        self.source = Source(
            host=host,
            port=port,
            user=user,
            password=password,
            database=database,
            unix_socket=unix_socket or None,
            ssl_ca=str(ssl_ca) if ssl_ca else None,
            connect_timeout_seconds=connect_timeout_seconds,
            read_timeout_seconds=read_timeout_seconds,
            use_pure=use_pure,
        )
        self.time_zone = time_zone
        self.window_days = window_days
        self.query_file = Path(query_file)
        self._connection: Any = None
        # Whether `%(window_start)s` is in UTC: a guess until the first result is known.
        self._window_in_utc = False
        # In a comment in every query of this object, to find its session on the server.
        self._tag = f"mysql-to-iterable {secrets.token_hex(8)}"

    def __enter__(self) -> DatabaseConnection:
        self.open()
        return self

    def __exit__(self, *ending: object) -> None:
        self.disconnect()

    def __repr__(self) -> str:
        return f"DatabaseConnection({self.source.user}@{self.source.place}/{self.source.database})"

    @property
    def driver(self) -> str:
        """`C extension`, or `pure Python` if that cannot be loaded (a fifth of the speed)."""
        return "C extension" if HAS_C_EXTENSION and not self.source.use_pure else "pure Python"

    def open(self) -> None:
        """Connect, if not connected yet; raises `SourceError`."""
        if self._connection is None:
            self._connection = open_session(self.source)

    def connect(self) -> bool:
        """Connect and log it. On a failure log the reason and return False."""
        try:
            self.open()
        except SourceError as error:
            logger.error("%s", error)
            return False
        logger.info("Connected to MySQL database %s on %s", self.source.database, self.source.place)
        return True

    def execute_query(self, query: str, params: Parameters | None = None) -> list[dict[str, Any]]:
        """Return all rows of a small query as dicts; raises `SourceError`.

        Without `params` the query is plain SQL. With them it refers to them as `%(name)s`
        (mapping) or `%s` (sequence), and `%%` is a percent sign. Two columns of one name are an
        error, as a dict would hold the value of one of them only. Times are naive: TIMESTAMP
        columns are in UTC, DATETIME columns are as stored.
        """
        return _all_as_dicts(self.stream(query, params))

    def get_pro_users_recent_engagement(self) -> list[dict[str, Any]]:
        """Return the rows of the query file for the window that ends now.

        TIMESTAMP columns are in UTC, DATETIME columns in this connection's time zone. Raises
        `SourceError`, and `ConfigError` as `stream_pro_users_recent_engagement` does. What the
        server warned of is logged.
        """
        stream = self.stream_pro_users_recent_engagement()
        rows = _all_as_dicts(stream)
        if stream.warning:
            logger.warning("%s", stream.warning)
        return rows

    def stream_pro_users_recent_engagement(
        self, window_start: datetime | None = None, chunk_rows: int = 5000
    ) -> RowStream:
        """Stream the rows of the query file, from `window_start` on.

        `window_start` is aware, or naive in this connection's time zone; None: the window ends
        now. `%(window_start)s` is in UTC if the event time is a TIMESTAMP or is called
        `event_time_utc`, else in this connection's time zone. The result decides this: if the
        first guess was wrong, the query runs again. Raises `SourceError`, and `ConfigError` if
        the event time is of no such type and the time zone matters.
        """
        query = self.query_text()
        stream = self.stream(self._with_window_start(query, window_start), None, chunk_rows)
        if self._is_utc or not has_zoneless_window_start(query):
            return stream
        in_utc = column_types.event_time_is_utc(stream.columns, stream.type_codes)
        if in_utc == self._window_in_utc:
            return stream
        _discard(stream)
        if in_utc is None:
            raise ConfigError(
                [
                    f"{self.query_file} returns no event_time that is a TIMESTAMP, DATETIME or "
                    f"DATE, so %(window_start)s could mean UTC or {self.time_zone}: write "
                    "%(window_start_utc)s or %(window_start_local)s instead"
                ]
            )
        self._window_in_utc = in_utc
        self._open_again()
        return self.stream(self._with_window_start(query, window_start), None, chunk_rows)

    def _open_again(self) -> None:
        """Connect if `_discard` has closed the session, which the server may still count."""
        try:
            self.open()
        except SourceError as error:
            if not error.transient:
                raise
            time.sleep(1.0)
            self.open()

    @property
    def _is_utc(self) -> bool:
        return self.time_zone.lower() in _UTC_NAMES

    def _with_window_start(self, query: str, start: datetime | None) -> str:
        if start is None:
            start = window_start_in_utc(datetime.now(timezone.utc), self.window_days)
        times = to_window_start(start, ZoneInfo(self.time_zone))
        return insert_window_start(query, times, in_utc=self._window_in_utc)

    def window_start_now(self) -> datetime:
        """Return the start of the window that ends now, in this connection's time zone."""
        return window_start(datetime.now(timezone.utc), self.window_days, self.time_zone)

    def query_text(self) -> str:
        """Return the text of the query file; raises `SourceError` if it cannot be read."""
        try:
            return self.query_file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise SourceError(
                f"Cannot read the query file {self.query_file} ({reason}): check QUERY_FILE."
            ) from error

    def explain_query_file(self) -> list[dict[str, Any]]:
        """Return the server's plan for the query file and the window that ends now.

        Raises `SourceError`.
        """
        return self.explain(self._with_window_start(self.query_text(), None))

    def explain(self, query: str, params: Parameters | None = None) -> list[dict[str, Any]]:
        """Return the server's plan for a query, one dict per step; raises `SourceError`."""
        # The default format of MySQL 9 is a tree.
        return self.execute_query(f"EXPLAIN FORMAT=TRADITIONAL {query}", params)

    def stream(
        self, query: str, params: Parameters | None = None, chunk_rows: int = 5000
    ) -> RowStream:
        """Run one SELECT and return its rows as chunks of `chunk_rows`; raises `SourceError`.

        `params` are those of `execute_query`. No other query can run on this connection until the
        stream is read or closed.
        """
        if self._connection is None:
            raise SourceError("Not connected to MySQL: call connect() first.")
        if self._connection.unread_result:
            raise SourceError(
                "The last query still has unread rows: read them all or close its stream first."
            )
        text = f"/* {self._tag} */ {query.strip().rstrip(';')}"
        statement = self._insert_parameters(text, params) if params else text
        asked_at = time.monotonic()
        try:
            cursor = self._connection.cursor()
            cursor.execute(statement)
        except Exception as error:  # of many types, as in `RowStream`
            raise self.failed(error, time.monotonic() - asked_at) from error
        if cursor.description is None:
            raise SourceError(
                "The query returns no rows and columns: it must be one SELECT statement."
            )
        return RowStream(self, cursor, chunk_rows)

    def _insert_parameters(self, text: str, params: Parameters) -> bytes:
        try:
            return insert_parameters(text, params, self._connection)
        except KeyError as error:
            raise SourceError(
                f"The query uses an unknown parameter, %({error.args[0]})s. Give its value, or "
                "write %% for a percent sign."
            ) from error
        except Exception as error:  # of many types, for a value without a form in SQL
            raise SourceError(
                f"The parameters do not fit the query ({type(error).__name__}): it needs one value "
                "of a type that MySQL has for each %s, and %% for a percent sign."
            ) from error

    def disconnect(self) -> None:
        """Close the connection without reading remaining rows. May be called twice."""
        self.discard_unread_rows()
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # the connection may be lost already
                connection.close()

    def discard_unread_rows(self) -> None:
        """Replace a connection that has unread rows by a new one.

        The C extension reads all remaining rows before it closes a connection, however many they
        are. To avoid that, a new session first tells the server to end the old one.
        """
        busy = self._connection
        if busy is None or not busy.unread_result:
            return
        self._connection = None
        with suppress(Exception):
            self._connection = open_session(self.source)
            self._kill_our_query(self._connection)
        with suppress(Exception):
            busy.close()

    def read_warnings(self) -> str | None:
        """Return what the server warned of in the last query; None if that cannot be read."""
        try:
            return read_warnings(self._connection)
        except Exception as error:  # noqa: BLE001 - all rows were read; of many types
            logger.debug("The warnings of the query were not read: %r", type(error).__name__)
            return None

    def failed(self, error: Exception, waited_seconds: float) -> SourceError:
        """Convert an exception of the connector; disconnect if the connection may be lost.

        `waited_seconds` is how long the call waited for the server.
        """
        facts = self.source.facts
        source_error = to_source_error(error, facts, logged_in=True)
        if not source_error.transient:
            self.discard_unread_rows()
            return source_error
        lost, self._connection = self._connection, None
        found: list[str] | None = None  # None: the server cannot be asked
        # After a time-out the server would go on running the query.
        with suppress(Exception), closing(open_session(self.source)) as second:
            found = self._kill_our_query(second)
        with suppress(Exception):
            lost.close()
        if may_be_time_out(error) and waited_seconds >= self.source.read_timeout_seconds:
            return no_response_in_time(facts, waited_seconds, found)
        return source_error

    def _kill_our_query(self, second: Any) -> list[str]:
        """End our session from a second one with KILL, as the `mysql` client does on Ctrl-C.

        Return its state, as the list of processes had it, or nothing if it had ended before. The
        session is found by the tag in its query, not by its number: behind a load balancer the
        second connection may reach another server, where the same number is another session's.
        """
        cursor = second.cursor()
        cursor.execute("SHOW FULL PROCESSLIST")
        ours = [s for s in cursor.fetchall() if f"/* {self._tag} */" in str(s[7])]
        for session in ours:
            cursor.execute(f"KILL {int(session[0])}")
        return [str(session[6] or "") for session in ours]


def _discard(stream: RowStream) -> None:
    """End a stream whose rows are not needed.

    Two chunks are read first: a small result then is at its end, which saves a new session.
    """
    with stream:
        for _chunk in zip(range(2), stream, strict=False):
            pass


def _all_as_dicts(stream: RowStream) -> list[dict[str, Any]]:
    with stream as rows:
        repeated = [name for name, count in Counter(rows.columns).items() if count > 1]
        if repeated:
            raise SourceError(
                f"The query returns more than one column {', '.join(map(repr, repeated))}: give "
                "each a name of its own (orders.email AS order_email)."
            )
        return [dict(zip(rows.columns, row, strict=True)) for chunk in rows for row in chunk]
