"""The source server: where it is, how a session with it is opened, and what its errors mean.

Owns the login, TLS, time-outs and settings of a session, and one table from MySQL's error numbers
to a line in the operator's words. The server's own message is quoted only where it names nothing
but tables, columns and syntax; a password or a value from a row never is.
Refuses to know what is read through the session.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass, field
from typing import Any

import mysql.connector
from mysql.connector import errorcode
from mysql.connector.plugins import caching_sha2_password

from source.errors import SourceError, to_source_error

# At lower levels the connector logs its own workings, of no use to an operator.
logging.getLogger("mysql.connector").setLevel(logging.WARNING)
# How long the server waits for us to read on. Its default, 60 s, is less than a stalled disk under
# the outbox may take.
NET_WRITE_TIMEOUT_SECONDS = 600
# The most that sql_select_limit takes: "no limit". Where an administrator has set one for all
# sessions the server leaves the rest of the rows out without a word.
NO_ROW_LIMIT = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Source:
    """Which server and database, as whom, and how. See `DatabaseConnection` for the meanings."""

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
        """`HOST:PORT`, or the socket's path."""
        return self.unix_socket or f"{self.host}:{self.port}"

    @property
    def facts(self) -> dict[str, object]:
        """The names that the messages of `source.errors` use."""
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
        # What never leaves the machine needs no TLS.
        options: dict[str, Any] = {"unix_socket": source.unix_socket, "ssl_disabled": True}
    else:
        options = {"host": source.host, "port": source.port}
        if source.ssl_ca:
            _check_ca_file(source.ssl_ca)
            options |= {"ssl_ca": source.ssl_ca}
            options |= {"ssl_verify_cert": True, "ssl_verify_identity": True}
    is_pure = source.use_pure or not mysql.connector.HAVE_CEXT
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
            # A collation that MySQL 8 and MariaDB both know; the connector's own is MySQL 8's.
            charset="utf8mb4",
            collation="utf8mb4_general_ci",
            time_zone="+00:00",
            autocommit=True,
            # One statement a call: what follows a semicolon in a query file is an error.
            client_flags=[-mysql.connector.ClientFlag.MULTI_STATEMENTS],
            connection_timeout=source.connect_timeout_seconds,
            read_timeout=source.read_timeout_seconds,
            write_timeout=source.read_timeout_seconds,
            **options,
        )
        cursor = connection.cursor()
        cursor.execute(f"SET SESSION net_write_timeout = {NET_WRITE_TIMEOUT_SECONDS}")
        cursor.execute(f"SET SESSION sql_select_limit = {NO_ROW_LIMIT}")
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
    except Exception as error:  # what is no MySQL makes the pure driver raise anything
        raise to_source_error(error, source.facts) from error
    return connection


def _check_ca_file(path: str) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise SourceError(f"Cannot use the CA file {path} ({reason}): check DB_SSL_CA.") from error


class _NoPasswordWithoutTLS(caching_sha2_password.MySQLCachingSHA2PasswordAuthPlugin):  # type: ignore[misc]
    """The login method, without the one step that shows the password to a network."""

    def auth_response(self, auth_data: bytes, **options: Any) -> bytes | None:
        asks_for_password = auth_data == bytes([self.perform_full_authentication])
        if asks_for_password and not self._ssl_enabled:
            raise mysql.connector.InterfaceError(
                "Authentication requires secure connection", errno=errorcode.CR_AUTH_PLUGIN_ERR
            )
        response: bytes | None = super().auth_response(auth_data, **options)
        return response


# The driver looks for a class beside its own, by name.
setattr(caching_sha2_password, _NoPasswordWithoutTLS.__name__, _NoPasswordWithoutTLS)


class _PureConnection(mysql.connector.MySQLConnection):  # type: ignore[misc]
    """A connection over TCP; the arguments are the driver's own."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._auth_plugin_class = _NoPasswordWithoutTLS.__name__  # there is no option for it
        self.connect(**options)
