"""The connection to the source database: connect, run the query, stream its rows in chunks.

Works with MySQL 8 and MariaDB 10.6 or newer. Every failure is a `SourceError`. Nothing is retried.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import mysql.connector
import orjson

from source import column_types
from source.errors import SourceError, to_source_error
from source.session import Source, open_session

__all__ = ["DatabaseConnection", "RowStream", "SourceError", "window_start"]

logger = logging.getLogger(__name__)

QUERY_FILE = Path(__file__).resolve().parent / "sql" / "pro_users_recent_engagement.sql"

Parameters = Mapping[str, Any] | Sequence[Any]


def window_start(now: datetime, window_days: float, time_zone: str) -> datetime:
    """Return the time `window_days` x 24 hours before `now`, as DATETIME columns would store it.

    `now` is aware. The result is naive, in `time_zone` (IANA name), in whole seconds, rounded down.
    """
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime")
    start = now.astimezone(timezone.utc) - timedelta(days=window_days)
    return start.astimezone(ZoneInfo(time_zone)).replace(microsecond=0, tzinfo=None)


class RowStream:
    """The rows of one query, in its order, as chunks (lists of tuples).

    Holds one chunk in memory. Iterate once, then `close()`, or use it as a context manager.
    Iterating raises `SourceError` on a failure; if it ends without one, every row was read.
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

    def __iter__(self) -> RowStream:
        return self

    def __next__(self) -> list[tuple[Any, ...]]:
        if self._finished:
            raise StopIteration
        try:
            rows: list[tuple[Any, ...]] = self._cursor.fetchmany(self._chunk_rows)
            if self._json_indexes:
                rows = [self._decode_json(row) for row in rows]
        except Exception as error:
            # The driver raises ReferenceError after the connection was closed, and exceptions of
            # many types for a malformed packet or for a value that Python cannot represent.
            self.close()
            raise self._database.failed(error) from error
        if not rows:
            self._finished = True
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
        has_extension: bool = mysql.connector.HAVE_CEXT
        return "C extension" if has_extension and not self.source.use_pure else "pure Python"

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

        The query refers to parameters as `%(name)s` (mapping) or `%s` (sequence).
        """
        return _all_as_dicts(self.stream(query, params))

    def get_pro_users_recent_engagement(self) -> list[dict[str, Any]]:
        """Return the rows of the query file for the window that ends now; raises `SourceError`."""
        return _all_as_dicts(self.stream_pro_users_recent_engagement())

    def stream_pro_users_recent_engagement(
        self, window_start: datetime | None = None, chunk_rows: int = 5000
    ) -> RowStream:
        """Stream the rows of the query file, from `window_start` (naive, see `window_start()`) on.

        Without it the window ends now. Raises `SourceError`.
        """
        start = window_start or self.window_start_now()
        return self.stream(self.query_text(), {"window_start": start}, chunk_rows)

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

    def explain(self, query: str, params: Parameters | None = None) -> list[dict[str, Any]]:
        """Return the server's plan for a query, one dict per step; raises `SourceError`."""
        # The default format of MySQL 9 is a tree.
        return self.execute_query(f"EXPLAIN FORMAT=TRADITIONAL {query}", params)

    def stream(
        self, query: str, params: Parameters | None = None, chunk_rows: int = 5000
    ) -> RowStream:
        """Run one SELECT and return its rows as chunks of `chunk_rows`; raises `SourceError`.

        No other query can run on this connection until the stream is read or closed.
        """
        if self._connection is None:
            raise SourceError("Not connected to MySQL: call connect() first.")
        if self._connection.unread_result:
            raise SourceError(
                "The last query still has unread rows: read them all or close its stream first."
            )
        text = f"/* {self._tag} */ {query.strip().rstrip(';')}"
        try:
            cursor = self._connection.cursor()
            cursor.execute(text, params if params is not None else ())
        except KeyError as error:
            name = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
            raise SourceError(
                f"The query uses an unknown parameter, %({name})s. The only parameter of the query "
                "file is %(window_start)s."
            ) from error
        except Exception as error:  # of many types, as in `RowStream`
            raise self.failed(error) from error
        if cursor.description is None:
            raise SourceError(
                "The query returns no rows and columns: it must be one SELECT statement."
            )
        return RowStream(self, cursor, chunk_rows)

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

    def failed(self, error: Exception) -> SourceError:
        """Convert an exception of the connector; disconnect if the connection may be lost."""
        source_error = to_source_error(error, self.source.facts)
        if source_error.transient:
            self.disconnect()
            # After a time-out the server would go on running the query.
            with (
                suppress(Exception),
                closing(open_session(self.source)) as second,
            ):
                self._kill_our_query(second)
        return source_error

    def _kill_our_query(self, second: Any) -> None:
        """End our session from a second one with KILL, as the `mysql` client does on Ctrl-C.

        The session is found by the tag in its query, not by its number: behind a load balancer the
        second connection may reach another server, where the same number is another session's.
        """
        cursor = second.cursor()
        cursor.execute("SHOW FULL PROCESSLIST")
        sessions = cursor.fetchall()
        for number in [s[0] for s in sessions if f"/* {self._tag} */" in str(s[7])]:
            cursor.execute(f"KILL {int(number)}")


def _all_as_dicts(stream: RowStream) -> list[dict[str, Any]]:
    with stream as rows:
        return [dict(zip(rows.columns, row, strict=True)) for chunk in rows for row in chunk]
