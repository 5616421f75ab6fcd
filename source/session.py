"""Sessions with the source database: login, TLS, time-outs and session variables."""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import mysql.connector
from mysql.connector import errorcode
from mysql.connector.plugins import caching_sha2_password

from source.errors import SourceError, to_source_error

HAS_C_EXTENSION: bool = mysql.connector.HAVE_CEXT
# At lower levels the connector logs its internals.
logging.getLogger("mysql.connector").setLevel(logging.WARNING)
# How long the server waits for this program to read the next rows. Its default, 60 s, is too short
# if the disk of the outbox stalls.
NET_WRITE_TIMEOUT_SECONDS = 600
# The maximum of sql_select_limit: no limit. If an administrator has set a global limit, the server
# silently leaves out the remaining rows.
NO_ROW_LIMIT = 2**64 - 1
# How many warnings of a query the server keeps. MySQL's default; that of MariaDB is 64.
MAX_ERROR_COUNT = 1024


@dataclass(frozen=True, slots=True)
class Source:
    """The server, the database and the options of a session; see `DatabaseConnection`."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    unix_socket: str | None
    ssl_ca: str | None
    connect_timeout_seconds: int
    read_timeout_seconds: int
    use_pure: bool

    @property
    def place(self) -> str:
        """`HOST:PORT`, or the path of the socket."""
        return self.unix_socket or f"{self.host}:{self.port}"

    @property
    def facts(self) -> dict[str, object]:
        """The values that the messages of `source.errors` insert."""
        return {
            "place": self.place,
            "place_settings": "DB_UNIX_SOCKET" if self.unix_socket else "DB_HOST and DB_PORT",
            "host": self.host,
            "user": self.user,
            "database": self.database,
            "ssl_ca": self.ssl_ca or "DB_SSL_CA",
            "read_timeout_seconds": self.read_timeout_seconds,
        }


def open_session(source: Source) -> Any:
    """Return a new connector connection: UTC, utf8mb4, read only; raises `SourceError`."""
    if source.unix_socket:
        # No TLS: the data does not leave the machine.
        options: dict[str, Any] = {"unix_socket": source.unix_socket, "ssl_disabled": True}
    else:
        options = {"host": source.host, "port": source.port}
        if source.ssl_ca:
            _check_ca_file(source.ssl_ca)
            options |= {"ssl_ca": source.ssl_ca}
            options |= {"ssl_verify_cert": True, "ssl_verify_identity": True}
    is_pure = source.use_pure or not HAS_C_EXTENSION
    connect: Any = mysql.connector.connect
    if source.unix_socket:
        options["use_pure"] = is_pure
    elif is_pure:
        connect = _PureConnection
    try:
        connection: Any = connect(
            user=source.user,
            password=source.password,
            database=source.database,
            # Known to MySQL 8 and MariaDB; the connector's default collation is MySQL 8's only.
            charset="utf8mb4",
            collation="utf8mb4_general_ci",
            time_zone="+00:00",
            autocommit=True,
            # With one statement per call, text after a semicolon in the query file is an error.
            client_flags=[-mysql.connector.ClientFlag.MULTI_STATEMENTS],
            connection_timeout=source.connect_timeout_seconds,
            read_timeout=source.read_timeout_seconds,
            write_timeout=source.read_timeout_seconds,
            **options,
        )
        cursor = connection.cursor()
        cursor.execute(
            f"SET SESSION net_write_timeout = {NET_WRITE_TIMEOUT_SECONDS},"
            f" SESSION sql_select_limit = {NO_ROW_LIMIT}"
        )
        with suppress(mysql.connector.Error):  # the embedded server does not have them
            cursor.execute(
                f"SET SESSION max_error_count = {MAX_ERROR_COUNT},"
                # Less than our own time-out, so that the server says that it waits for a lock.
                f" SESSION lock_wait_timeout = {max(1, source.read_timeout_seconds - 1)}"
            )
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
    except Exception as error:  # if the server is not MySQL, the pure driver raises any type
        raise to_source_error(error, source.facts) from error
    return connection


def _check_ca_file(path: str) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        reason = "it contains no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise SourceError(f"Cannot use the CA file {path} ({reason}): check DB_SSL_CA.") from error


class _NoPasswordWithoutTLS(caching_sha2_password.MySQLCachingSHA2PasswordAuthPlugin):  # type: ignore[misc]
    """A `caching_sha2_password` login that never sends the password without TLS.

    If the server has not cached the account it asks for the password itself. Over TCP without TLS
    the C extension refuses; the pure Python driver 9.7.0 sends the password as plain text.
    """

    def auth_response(self, auth_data: bytes, **options: Any) -> bytes | None:
        asks_for_password = auth_data == bytes([self.perform_full_authentication])
        if asks_for_password and not self._ssl_enabled:
            raise mysql.connector.InterfaceError(
                "Authentication requires secure connection", errno=errorcode.CR_AUTH_PLUGIN_ERR
            )
        response: bytes | None = super().auth_response(auth_data, **options)
        return response


# The driver looks the class up by name, in the module of its own class.
setattr(caching_sha2_password, _NoPasswordWithoutTLS.__name__, _NoPasswordWithoutTLS)


class _PureConnection(mysql.connector.MySQLConnection):  # type: ignore[misc]
    """A connection of the pure Python driver over TCP, with the safer login method."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._auth_plugin_class = _NoPasswordWithoutTLS.__name__  # no option sets it
        self.connect(**options)
