"""MySQL server for tests: every query returns the rows, and the column types, that are set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mysql_mimic import ColumnType, ResultColumn, Session

from sandbox.mysql_server import MySQLServerThread


class RowServer(MySQLServerThread):
    """`columns` are (name, type of MySQL's protocol such as "DATETIME"), `rows` their values.

    Both may be replaced at any time. A query must have a FROM clause.
    """

    def __init__(self) -> None:
        super().__init__("reader", "password", "shop")
        self.columns: Sequence[tuple[str, str]] = ()
        self.rows: Sequence[Sequence[Any]] = ()

    @contextmanager
    def sessions(self) -> Iterator[Callable[[], Session]]:
        yield lambda: _RowSession(self)


class _RowSession(Session):  # type: ignore[misc]
    """A client's session; mysql-mimic itself handles SET, SHOW and SELECT without FROM."""

    def __init__(self, server: RowServer) -> None:
        super().__init__()
        self._server = server

    async def query(self, expression: Any, sql: str, attrs: dict[str, str]) -> Any:  # noqa: ARG002
        columns = [ResultColumn(name, ColumnType[kind]) for name, kind in self._server.columns]
        return [tuple(row) for row in self._server.rows], columns
