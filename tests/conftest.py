"""What many tests stand on: a private MariaDB, the embedded server, the Iterable sandbox.

Nothing of ours is patched: tests meet real servers on loopback. A machine without MariaDB skips
the tests that need it, and says so; under `CI=true` that is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from db_connection import DatabaseConnection
from tests.mariadb import MariaDBUnavailable, PrivateMariaDB

if TYPE_CHECKING:
    from sandbox.iterable_api import IterableSandbox

SQL_FOLDER = Path(__file__).resolve().parent.parent / "sql"
SCHEMA = SQL_FOLDER / "schema.sql"
SAMPLE_DATA = SQL_FOLDER / "sample_data.sql"
# Three people with what text can hold: apostrophe, Chinese, emoji, NULL.
PEOPLE = (
    "INSERT INTO customers (id, email, first_name, last_name, plan_type, candidate) VALUES "
    "(1, 'Ann@Example.com', 'Ann', 'O''Hara', 'pro', NULL),"
    "(2, 'li@example.com', '小龙', 'Amélie 🚀', 'free', 'yes'),"
    "(3, NULL, NULL, NULL, 'pro', 'no')"
)


@dataclass(frozen=True)
class SourceDatabase:
    """One database with the schema and no rows, on either server; `run_sql` changes it."""

    host: str
    port: int
    user: str
    password: str
    database: str
    run_sql: Callable[[str], None]
    unix_socket: str | None = None

    def connection(self, **options: Any) -> DatabaseConnection:
        """Return a connection that is not open yet; `options` replace or add arguments."""
        arguments: dict[str, Any] = {
            "host": self.host,
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "port": self.port,
        }
        return DatabaseConnection(**{**arguments, **options})

    def settings(self) -> dict[str, str]:
        """Return the settings that lead the program to this database."""
        return {
            "DB_HOST": self.host,
            "DB_PORT": str(self.port),
            "DB_USER": self.user,
            "DB_PASSWORD": self.password,
            "DB_NAME": self.database,
        }


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateMariaDB]:
    """A MariaDB of this test run only."""
    try:
        server = PrivateMariaDB(tmp_path_factory.mktemp("mariadb")).__enter__()
    except MariaDBUnavailable as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI needs MariaDB: {error}")
        pytest.skip(f"needs MariaDB: {error}")
    yield server
    server.__exit__(None, None, None)


@pytest.fixture
def mariadb(mariadb_server: PrivateMariaDB) -> Iterator[SourceDatabase]:
    """A fresh database with the schema on the private MariaDB."""
    name = "sync_test"
    mariadb_server.create_database(name, SCHEMA)
    yield SourceDatabase(
        host=mariadb_server.host,
        port=mariadb_server.port,
        user=mariadb_server.user,
        password=mariadb_server.password,
        database=name,
        unix_socket=mariadb_server.unix_socket,
        run_sql=lambda script: mariadb_server.run_sql(script, name),
    )
    mariadb_server.run_sql(f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture
def embedded() -> Iterator[SourceDatabase]:
    """The embedded MySQL server with the schema."""
    from sandbox.mysql_server import MySQLSandbox

    with MySQLSandbox([SCHEMA]) as server:
        yield SourceDatabase(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            database=server.database,
            run_sql=server.run_sql,
        )


@pytest.fixture(params=["mariadb", "embedded"])
def source(request: pytest.FixtureRequest) -> SourceDatabase:
    """Each of the two servers in turn."""
    chosen: SourceDatabase = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(params=["C extension", "pure Python"])
def use_pure(request: pytest.FixtureRequest) -> bool:
    """Each of the connector's two drivers in turn."""
    pure: bool = request.param == "pure Python"
    return pure


@pytest.fixture
def database(source: SourceDatabase, use_pure: bool) -> Iterator[DatabaseConnection]:
    """An open connection to a database with `PEOPLE`: each server, each driver."""
    source.run_sql(PEOPLE)
    with source.connection(use_pure=use_pure) as connection:
        yield connection


@pytest.fixture
def on_mariadb(mariadb: SourceDatabase, use_pure: bool) -> Iterator[DatabaseConnection]:
    """An open connection to an empty database of the private MariaDB: each driver."""
    with mariadb.connection(use_pure=use_pure) as connection:
        yield connection


@pytest.fixture
def iterable() -> Iterator[IterableSandbox]:
    """An Iterable API that accepts any key and fails nothing."""
    from sandbox.iterable_api import IterableSandbox

    with IterableSandbox() as api:
        yield api
