"""MySQL server inside this process, for the demo and the tests: MySQL's protocol, run by SQLite.

mysql-mimic speaks the protocol, so the program's own connector can connect; `sql_engine` runs the
SQL in memory. It listens on loopback only and is made for hundreds of rows, not for millions.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlglot
from mysql_mimic import (
    ColumnType,
    IdentityProvider,
    MysqlServer,
    NativePasswordAuthPlugin,
    ResultColumn,
    Session,
    User,
)
from mysql_mimic.errors import ErrorCode, MysqlError
from sqlglot import expressions as exp

from sandbox.sql_engine import JsonText, SqlEngine, SqlError

SQL_FOLDER = Path(__file__).resolve().parent.parent / "sql"
SAMPLE_FILES = (SQL_FOLDER / "schema.sql", SQL_FOLDER / "sample_data.sql")
_START_SECONDS = 10.0

# Clients receive their errors; logging them too would only clutter the console of the demo.
logging.getLogger("mysql_mimic").setLevel(logging.CRITICAL)


_Server = TypeVar("_Server", bound="MySQLServerThread")  # typing.Self is of Python 3.11


class MySQLServerThread:
    """A server of MySQL's protocol in a daemon thread; a context manager.

    It listens on a free port of 127.0.0.1 and knows one user. A subclass says in `sessions` what
    its sessions do.
    """

    host = "127.0.0.1"

    def __init__(self, user: str, password: str, database: str) -> None:
        self.user = user
        self.password = password
        self.database = database
        self.port = 0
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="mysql-sandbox", daemon=True)

    def __enter__(self: _Server) -> _Server:
        self._thread.start()
        self._started.result(_START_SECONDS)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_SECONDS)
        self._loop = None

    @property
    def settings(self) -> dict[str, str]:
        """The settings, as in `.env`, that connect to this server."""
        return {
            "DB_HOST": self.host,
            "DB_PORT": str(self.port),
            "DB_USER": self.user,
            "DB_PASSWORD": self.password,
            "DB_NAME": self.database,
        }

    def sessions(self) -> AbstractContextManager[Callable[[], Session]]:
        """Return what makes a session for each client; entered and left in the server's thread."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for the start
            if not self._started.done():
                self._started.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Ignore clients that disconnect without closing (killed processes).
        self._loop.set_exception_handler(lambda loop, context: None)  # noqa: ARG005
        self._stop = asyncio.Event()
        with self.sessions() as to_session:
            server = MysqlServer(
                session_factory=to_session,
                identity_provider=_OneUser(self.user, self.password),
            )
            await server.start_server(host=self.host, port=0)
            self.port = server.sockets()[0].getsockname()[1]
            self._started.set_result(None)
            await self._stop.wait()
            server.close()


class MySQLSandbox(MySQLServerThread):
    """A MySQL server whose tables are in SQLite.

    `sql_files` (in MySQL's dialect) are run in order at the start. `rows` are then added: table
    name -> rows, with the values in the order of the table's columns.
    """

    def __init__(
        self,
        sql_files: Sequence[Path] = SAMPLE_FILES,
        *,
        rows: Mapping[str, Sequence[Sequence[Any]]] | None = None,
        user: str = "sandbox",
        password: str = "sandbox-password",  # noqa: S107 - guards sample data on loopback
        database: str = "sandbox",
    ) -> None:
        super().__init__(user, password, database)
        self._sql_files = tuple(sql_files)
        self._rows = dict(rows or {})
        self._engine: SqlEngine | None = None

    def run_sql(self, script: str) -> None:
        """Run statements in MySQL's dialect, without a client, e.g. to add rows in a test."""
        loop, engine = self._loop, self._engine
        if loop is None or engine is None:
            raise RuntimeError("the MySQL sandbox is not running")

        async def run_in_loop() -> None:
            engine.run_script(script)

        asyncio.run_coroutine_threadsafe(run_in_loop(), loop).result(_START_SECONDS)

    @contextmanager
    def sessions(self) -> Iterator[Callable[[], Session]]:
        # Created here because SQLite requires that a connection stays in one thread.
        self._engine = engine = SqlEngine()
        for path in self._sql_files:
            engine.run_script(path.read_text(encoding="utf-8"))
        for table, rows in self._rows.items():
            engine.insert(table, rows)
        yield lambda: _SandboxSession(engine, self.database)
        engine.close()


class _OneUser(IdentityProvider):  # type: ignore[misc]
    """Login of one user; every other name is rejected."""

    def __init__(self, name: str, password: str) -> None:
        self._name = name
        self._auth_string = NativePasswordAuthPlugin.create_auth_string(password)

    async def get_user(self, username: str) -> Any:
        known = username == self._name
        return User(
            name=username,
            auth_string=self._auth_string if known else "00" * 20,
            auth_plugin=NativePasswordAuthPlugin.name,
        )


class _SandboxSession(Session):  # type: ignore[misc]
    """A client's session; mysql-mimic itself handles SET, SHOW and SELECT without FROM."""

    def __init__(self, engine: SqlEngine, database: str) -> None:
        super().__init__()
        self._engine = engine
        self._only_database = database

    async def handle_query(self, sql: str, attrs: dict[str, str]) -> Any:
        if self.database != self._only_database:
            # mysql-mimic cannot reject a database at login, so the first query is rejected.
            raise _mysql_error(1049, f"Unknown database '{self.database}'")
        return await super().handle_query(sql, attrs)

    def _parse(self, sql: str) -> list[Any]:
        try:
            statements = super()._parse(sql)
        except sqlglot.ParseError as error:
            near = error.errors[0].get("highlight", "") if error.errors else ""
            raise _mysql_error(
                1064, f"You have an error in your SQL syntax near '{near}'"
            ) from error
        if len(statements) > 1:
            raise _mysql_error(1064, "You have an error in your SQL syntax near ';'")
        return list(statements)

    async def query(self, expression: Any, sql: str, attrs: dict[str, str]) -> Any:  # noqa: ARG002
        reads = isinstance(expression, exp.Query | exp.Describe)
        if not reads and self.variables.get("transaction_read_only"):
            raise _mysql_error(1792, "Cannot execute statement in a READ ONLY transaction")
        try:
            rows, names = self._engine.run(expression)
        except SqlError as error:
            raise _mysql_error(error.mysql_errno, str(error)) from error
        # mysql-mimic infers all other types from the values.
        return rows, [
            ResultColumn(name, ColumnType.JSON)
            if any(isinstance(row[i], JsonText) for row in rows)
            else name
            for i, name in enumerate(names)
        ]


def _mysql_error(errno: int, message: str) -> Exception:
    """Return mysql-mimic's exception for an error number that its enumeration lacks."""
    code = int.__new__(ErrorCode, errno)
    code._name_, code._value_ = f"ER_{errno}", errno
    error: Exception = MysqlError(message, code=code)
    return error
