"""Shared fixtures: a private MariaDB, the embedded MySQL server, and the Iterable sandbox.

Tests use real servers on loopback and patch nothing of the program. Without MariaDB the tests that
need it are skipped; with `CI=true` they fail. If the environment variable MYSQLD is the path of a
`mysqld`, the tests of the database side also run on a private MySQL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings

from db_connection import DatabaseConnection
from tests.support.mariadb import MariaDBUnavailable, PrivateMariaDB
from tests.support.mysql_server import PrivateMySQL
from tests.support.private_server import PrivateServer

if TYPE_CHECKING:
    from sandbox.iterable_api import IterableSandbox

SQL_FOLDER = Path(__file__).resolve().parent.parent / "sql"
SCHEMA = SQL_FOLDER / "schema.sql"
SAMPLE_DATA = SQL_FOLDER / "sample_data.sql"
REAL_SERVERS = ("mariadb", "mysql") if os.environ.get("MYSQLD") else ("mariadb",)
# Three users whose columns have an apostrophe, Chinese, an emoji and NULL.
INSERT_THREE_USERS = (
    "INSERT INTO customers (id, email, first_name, last_name, plan_type, candidate) VALUES "
    "(1, 'Ann@Example.com', 'Ann', 'O''Hara', 'pro', NULL),"
    "(2, 'li@example.com', '小龙', 'Amélie 🚀', 'free', 'yes'),"
    "(3, NULL, NULL, NULL, 'pro', 'no')"
)

# No deadline: on a busy machine a single example may take long.
hypothesis_settings.register_profile("patient", deadline=None, max_examples=50)
hypothesis_settings.register_profile("fast", deadline=None, max_examples=10)
hypothesis_settings.load_profile("patient")


# Tests in these folders start the program as a process.
PROCESS_FOLDERS = ("end_to_end", "benchmarks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts processes by its folder, or a database server by its fixtures."""
    for item in items:
        if item.path.parent.name in PROCESS_FOLDERS or uses_real_server(item):
            item.add_marker(pytest.mark.slow)


def uses_real_server(item: pytest.Item) -> bool:
    """Return whether a test needs MariaDB or MySQL, and not only the embedded server."""
    assert isinstance(item, pytest.Function)
    if {"mariadb_server", "mysql_server", "real_server"} & set(item.fixturenames):
        return True
    return hasattr(item, "callspec") and item.callspec.params.get("source") in REAL_SERVERS


def numbers(count: int) -> str:
    """Return a table for a FROM clause, in SQL of both MySQL and MariaDB.

    Its column `seq` counts from 1 to `count`, in this order.
    """
    return (
        f"JSON_TABLE(CONCAT('[1', REPEAT(',1', {count - 1}), ']'), '$[*]'"
        " COLUMNS (seq FOR ORDINALITY)) AS numbers"
    )


@dataclass(frozen=True)
class SourceDatabase:
    """A database with the schema and no rows, on any of the servers."""

    host: str
    port: int
    user: str
    password: str
    database: str
    run_sql: Callable[[str], None]
    unix_socket: str | None = None

    def connection(self, **options: Any) -> DatabaseConnection:
        """Return a connection that is not open yet; `options` replace or extend its arguments."""
        arguments: dict[str, Any] = {
            "host": self.host,
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "port": self.port,
        }
        return DatabaseConnection(**{**arguments, **options})

    def settings(self) -> dict[str, str]:
        """Return the settings for this database."""
        return {
            "DB_HOST": self.host,
            "DB_PORT": str(self.port),
            "DB_USER": self.user,
            "DB_PASSWORD": self.password,
            "DB_NAME": self.database,
        }


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateMariaDB]:
    """A private MariaDB for this test process."""
    try:
        server = PrivateMariaDB(tmp_path_factory.mktemp("mariadb")).__enter__()
    except MariaDBUnavailable as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI needs MariaDB: {error}")
        pytest.skip(f"needs MariaDB: {error}")
    yield server
    server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def mysql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateMySQL]:
    """A private MySQL for this test process. It is an error if MYSQLD is set and does not start."""
    if not os.environ.get("MYSQLD"):
        pytest.skip("needs a MySQL: MYSQLD names no mysqld (see tests/README.md)")
    with PrivateMySQL(tmp_path_factory.mktemp("mysql")) as server:
        yield server


@pytest.fixture(scope="session", params=REAL_SERVERS)
def real_server(request: pytest.FixtureRequest) -> PrivateServer:
    """MariaDB, and MySQL if there is one, in turn."""
    chosen: PrivateServer = request.getfixturevalue(f"{request.param}_server")
    return chosen


@contextmanager
def fresh_database(server: PrivateServer) -> Iterator[SourceDatabase]:
    """Create a database with the schema, and drop it after the block."""
    name = "sync_test"
    server.create_database(name, SCHEMA)
    yield SourceDatabase(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=name,
        unix_socket=server.unix_socket,
        run_sql=lambda script: server.run_sql(script, name),
    )
    server.run_sql(f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture
def mariadb(mariadb_server: PrivateMariaDB) -> Iterator[SourceDatabase]:
    """A fresh database with the schema on the private MariaDB."""
    with fresh_database(mariadb_server) as database:
        yield database


@pytest.fixture
def mysql(mysql_server: PrivateMySQL) -> Iterator[SourceDatabase]:
    """A fresh database with the schema on the private MySQL."""
    with fresh_database(mysql_server) as database:
        yield database


@pytest.fixture
def real(real_server: PrivateServer) -> Iterator[SourceDatabase]:
    """A fresh database with the schema on each of the real servers in turn."""
    with fresh_database(real_server) as database:
        yield database


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


@pytest.fixture(params=[*REAL_SERVERS, "embedded"])
def source(request: pytest.FixtureRequest) -> SourceDatabase:
    """A fresh database on each of the servers in turn."""
    chosen: SourceDatabase = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(params=["C extension", "pure Python"])
def use_pure(request: pytest.FixtureRequest) -> bool:
    """Each of the connector's two drivers in turn."""
    pure: bool = request.param == "pure Python"
    return pure


@pytest.fixture
def database(source: SourceDatabase, use_pure: bool) -> Iterator[DatabaseConnection]:
    """An open connection to a database with `INSERT_THREE_USERS`: each server, each driver."""
    source.run_sql(INSERT_THREE_USERS)
    with source.connection(use_pure=use_pure) as connection:
        yield connection


@pytest.fixture
def on_real(real: SourceDatabase, use_pure: bool) -> Iterator[DatabaseConnection]:
    """An open connection to an empty database: each real server, each driver."""
    with real.connection(use_pure=use_pure) as connection:
        yield connection


@pytest.fixture
def iterable() -> Iterator[IterableSandbox]:
    """An Iterable sandbox that accepts any key and has no faults."""
    from sandbox.iterable_api import IterableSandbox

    with IterableSandbox() as api:
        yield api
