"""The database that a benchmark reads: filled, measured with, and gone at the end.

Owns loading and changing the people's rows, and the settings that lead the program to them.
Refuses to know what is measured. No server runs in this process: its memory would count as the
program's (see `processes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.people import Row, customers, page_views
from tests.mariadb import PrivateMariaDB

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
_DATABASE = "benchmark"
# Room for a million rows of both tables and their indexes: what is measured is the program.
_MARIADB_OPTIONS = (
    "--innodb-buffer-pool-size=512M",
    "--innodb-log-file-size=256M",
    "--sort-buffer-size=64M",
)


@dataclass(frozen=True)
class MariaDBSource:
    """A filled database on a private MariaDB."""

    server: PrivateMariaDB
    rows: int

    def settings(self) -> dict[str, str]:
        """Return the settings that lead the program here."""
        return {
            "DB_HOST": self.server.host,
            "DB_PORT": str(self.server.port),
            "DB_USER": self.server.user,
            "DB_PASSWORD": self.server.password,
            "DB_NAME": _DATABASE,
        }

    def change(self, every: int) -> int:
        """Give every `every`th customer another name, and return how many that are."""
        self.server.run_sql(
            "UPDATE customers SET first_name = CONCAT(first_name, ' changed')"
            f" WHERE id % {every} = 0",
            _DATABASE,
        )
        return self.rows // every


@contextmanager
def mariadb(rows: int) -> Iterator[MariaDBSource]:
    """Start a private MariaDB with `rows` people."""
    with PrivateMariaDB(options=_MARIADB_OPTIONS) as server:
        server.create_database(_DATABASE, PROJECT_FOLDER / "sql" / "schema.sql")
        _load(server, "customers", customers(rows))
        _load(server, "page_views", page_views(rows))
        server.run_sql("ANALYZE TABLE customers, page_views", _DATABASE)
        yield MariaDBSource(server, rows)


def _load(server: PrivateMariaDB, table: str, rows: Iterator[Row]) -> None:
    """Take rows in at the speed of a file."""
    path = server.folder / f"{table}.tsv"
    with path.open("w", encoding="utf-8") as file:
        file.writelines("\t".join(map(str, row)) + "\n" for row in rows)
    server.run_sql(
        "SET unique_checks = 0; SET foreign_key_checks = 0; SET time_zone = '+00:00';"
        f" LOAD DATA INFILE '{path}' INTO TABLE {table} CHARACTER SET utf8mb4",
        _DATABASE,
    )
    path.unlink()
