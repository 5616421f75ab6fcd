"""Source databases of a benchmark: started, filled and removed again.

No server runs in this process, because its memory would be counted as the program's (`processes`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import mysql.connector

from benchmarks.processes import PROJECT_FOLDER, background
from benchmarks.users import Row, customers, generating_query, page_views
from config.settings import DEFAULTS
from tests.support.mariadb import PrivateMariaDB

SCHEMA = PROJECT_FOLDER / "sql" / "schema.sql"
_DATABASE = "benchmark"
# Enough memory for a million rows with indexes, so that the database is not what is measured.
_MARIADB_OPTIONS = (
    "--innodb-buffer-pool-size=512M",
    "--innodb-log-file-size=256M",
    "--sort-buffer-size=64M",
)


@dataclass(frozen=True)
class Source:
    """A database with users; `settings` connect the program to it, `kind` is its key in SOURCES.

    `change(every)` changes the first name of every `every`th user.
    """

    name: str
    kind: str
    settings: dict[str, str] = field(repr=False)
    change: Callable[[int], None]


@contextmanager
def mariadb(rows: int) -> Iterator[Source]:
    """Start a private MariaDB with this many users in its tables."""
    with _mariadb_server() as (server, settings):
        server.run_sql(SCHEMA.read_text(encoding="utf-8"), _DATABASE)
        _load(server, "customers", customers(rows))
        _load(server, "page_views", page_views(rows))
        server.run_sql("ANALYZE TABLE customers, page_views", _DATABASE)
        yield Source(
            f"MariaDB {_version(settings)}",
            "mariadb",
            settings,
            lambda every: _change(settings, every),
        )


@contextmanager
def generated(rows: int) -> Iterator[Source]:
    """Start a private MariaDB whose query generates the rows, without tables.

    Nothing has to be loaded, and the figures contain nearly no time of the database.
    """
    with _mariadb_server() as (_server, settings), TemporaryDirectory() as folder:
        query_file = Path(folder) / "users.sql"
        settings["QUERY_FILE"] = str(query_file)
        query_file.write_text(generating_query(rows), encoding="utf-8")

        def change(every: int) -> None:
            query_file.write_text(generating_query(rows, every), encoding="utf-8")

        yield Source(f"MariaDB {_version(settings)}, generated rows", "generated", settings, change)


@contextmanager
def embedded(rows: int) -> Iterator[Source]:
    """Start the sandbox's MySQL server with this many users: thousands, not millions."""
    command = [sys.executable, "-m", "benchmarks.embedded_mysql", str(rows)]
    with background(command) as first_line:
        settings = dict(part.split("=", 1) for part in first_line.split())
        yield Source(
            "the embedded server", "embedded", settings, lambda every: _change(settings, every)
        )


SOURCES: dict[str, Callable[[int], AbstractContextManager[Source]]] = {
    "mariadb": mariadb,
    "embedded": embedded,
    "generated": generated,
}


def query_text(settings: Mapping[str, str]) -> str:
    """Return the SQL that the program would run, for other programs."""
    path = settings.get("QUERY_FILE", PROJECT_FOLDER / "sql" / "pro_users_recent_engagement.sql")
    text = Path(path).read_text(encoding="utf-8").strip().rstrip(";")
    # Comments could contain anything, and the query is put into another one.
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    start = datetime.now(timezone.utc) - timedelta(days=int(DEFAULTS["ENGAGEMENT_WINDOW_DAYS"]))
    return "\n".join(lines).replace("%(window_start)s", f"'{start:%Y-%m-%d %H:%M:%S}'")


@contextmanager
def _mariadb_server() -> Iterator[tuple[PrivateMariaDB, dict[str, str]]]:
    with PrivateMariaDB(options=_MARIADB_OPTIONS) as server:
        server.create_database(_DATABASE)
        yield (
            server,
            {
                "DB_HOST": server.host,
                "DB_PORT": str(server.port),
                "DB_USER": server.user,
                "DB_PASSWORD": server.password,
                "DB_NAME": _DATABASE,
            },
        )


def _load(server: PrivateMariaDB, table: str, rows: Iterator[Row]) -> None:
    """Load rows from a file: a million take ten seconds, with INSERT they take minutes."""
    path = server.folder / f"{table}.tsv"
    with path.open("w", encoding="utf-8") as file:
        file.writelines("\t".join(map(str, row)) + "\n" for row in rows)
    server.run_sql(
        "SET unique_checks = 0; SET foreign_key_checks = 0; SET time_zone = '+00:00';"
        f" LOAD DATA INFILE '{path}' INTO TABLE {table} CHARACTER SET utf8mb4",
        _DATABASE,
    )
    path.unlink()


def _change(settings: dict[str, str], every: int) -> None:
    run_statement(
        settings,
        "UPDATE customers SET first_name = CONCAT(first_name, ' II') "  # noqa: S608 - a number
        f"WHERE id % {int(every)} = 0",
    )


def _version(settings: dict[str, str]) -> str:
    found = re.match(r"[\d.]+", run_statement(settings, "SELECT VERSION()"))
    return found.group() if found else "?"


def run_statement(settings: dict[str, str], statement: str) -> str:
    """Run a statement and return the first value of its result, or an empty text."""
    connection = mysql.connector.connect(
        host=settings["DB_HOST"],
        port=int(settings["DB_PORT"]),
        user=settings["DB_USER"],
        password=settings["DB_PASSWORD"],
        database=settings["DB_NAME"],
        collation="utf8mb4_general_ci",
        autocommit=True,
    )
    try:
        cursor = connection.cursor()
        cursor.execute(statement)
        return str(cursor.fetchone()[0]) if cursor.with_rows else ""
    finally:
        connection.close()
