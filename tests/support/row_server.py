"""MySQL server for tests: every query returns the rows, and the column types, that are set."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from mysql_mimic import (
    ColumnType,
    IdentityProvider,
    MysqlServer,
    NativePasswordAuthPlugin,
    ResultColumn,
    Session,
    User,
)

_START_SECONDS = 10.0
# Clients receive their errors.
logging.getLogger("mysql_mimic").setLevel(logging.CRITICAL)


class RowServer:
    """The server in a daemon thread; a context manager.

    `columns` are (name, type of MySQL's protocol such as "DATETIME"), `rows` their values; both may
    be replaced at any time. A query must have a FROM clause.
    """

    def __init__(self) -> None:
        self.columns: Sequence[tuple[str, str]] = ()
        self.rows: Sequence[Sequence[Any]] = ()
        self._port: Future[int] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="row-server", daemon=True)

    def __enter__(self) -> RowServer:
        self._thread.start()
        self._port.result(_START_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_SECONDS)

    @property
    def settings(self) -> dict[str, str]:
        """The settings that connect to this server."""
        return {
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(self._port.result(_START_SECONDS)),
            "DB_USER": "reader",
            "DB_PASSWORD": "password",
            "DB_NAME": "shop",
        }

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for the start
            if not self._port.done():
                self._port.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Ignore clients that disconnect without closing (killed processes).
        self._loop.set_exception_handler(lambda loop, context: None)  # noqa: ARG005
        self._stop = asyncio.Event()
        server = MysqlServer(
            session_factory=lambda: _RowSession(self), identity_provider=_AnyUser()
        )
        await server.start_server(host="127.0.0.1", port=0)
        self._port.set_result(server.sockets()[0].getsockname()[1])
        await self._stop.wait()
        server.close()


class _AnyUser(IdentityProvider):  # type: ignore[misc]
    async def get_user(self, username: str) -> Any:
        return User(
            name=username,
            auth_string=NativePasswordAuthPlugin.create_auth_string("password"),
            auth_plugin=NativePasswordAuthPlugin.name,
        )


class _RowSession(Session):  # type: ignore[misc]
    """A client's session; mysql-mimic itself handles SET, SHOW and SELECT without FROM."""

    def __init__(self, server: RowServer) -> None:
        super().__init__()
        self._server = server

    async def query(self, expression: Any, sql: str, attrs: dict[str, str]) -> Any:  # noqa: ARG002
        columns = [ResultColumn(name, ColumnType[kind]) for name, kind in self._server.columns]
        return [tuple(row) for row in self._server.rows], columns
