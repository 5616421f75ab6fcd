"""The whole program against servers with strict or unusual settings.

On MariaDB, and on MySQL where MYSQLD names one: TLS demanded and verified, a user who may read two
tables, another time zone, character set and SQL mode, small packets, a global row limit.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SCHEMA, SourceDatabase
from tests.source.test_query import OTHER_SCHEMA
from tests.source.test_tls import TlsServer
from tests.support.certificates import make_ca, make_certificate
from tests.support.mysql_server import PrivateMySQL
from tests.support.private_server import PrivateServer
from tests.support.program import Program, counts_of
from tests.support.program_files import PROJECT_FOLDER
from tests.support.users import add_users, check_project, email_of

pytestmark = pytest.mark.slow
PASSWORD = "a password of one's own"
STRICT = (
    "--require-secure-transport=ON",
    "--default-time-zone=-05:30",
    "--lower-case-table-names=1",
    "--sql-mode=ANSI,TRADITIONAL,NO_BACKSLASH_ESCAPES",
    "--character-set-server=latin1",
    "--collation-server=latin1_swedish_ci",
    "--transaction-isolation=SERIALIZABLE",
    "--autocommit=OFF",
    # Less than one wide row; the query with its remarks has to go through.
    "--max-allowed-packet=8K",
    "--net-buffer-length=1K",
    "--max-connections=10",
)
STRICT_MYSQL = ("--sql-require-primary-key=ON", "--tls-version=TLSv1.3")
SCHEMAS = ("our schema", "another schema")


@pytest.fixture(scope="module")
def strict_server(
    real_server: PrivateServer,  # it skips or fails if there is no server
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TlsServer]:
    folder = tmp_path_factory.mktemp("strict")
    ca = make_ca(folder / "ca")
    certificate, key = make_certificate(ca, "DNS:localhost")
    only_mysql = STRICT_MYSQL if isinstance(real_server, PrivateMySQL) else ()
    options = [f"--ssl-cert={certificate}", f"--ssl-key={key}", *STRICT, *only_mysql]
    with type(real_server)(folder, options) as server:
        server.run_sql("SET GLOBAL sql_select_limit = 2")
        yield TlsServer(server, ca)


@pytest.fixture(params=SCHEMAS)
def shop(request: pytest.FixtureRequest, strict_server: TlsServer) -> SourceDatabase:
    """Return a database with 30 customers, for the user of `deploy/grant_select.sql`."""
    server = strict_server.server

    def run_sql(script: str) -> None:
        # Times are written as UTC, and everything is kept.
        server.run_sql(f"SET time_zone = '+00:00', autocommit = ON; {script}", "shop")

    server.create_database("shop", SCHEMA)
    if request.param == "another schema":
        run_sql(
            OTHER_SCHEMA.replace("page_views (id BIGINT", "page_views (id BIGINT AUTO_INCREMENT")
        )
    add_users(run_sql, range(1, 31))
    grant = (PROJECT_FOLDER / "deploy" / "grant_select.sql").read_text(encoding="utf-8")
    quoted = PASSWORD.replace("'", "''")
    run_sql("DROP USER IF EXISTS iterable_sync")
    run_sql(grant.replace("your_database_password_here", quoted))
    return SourceDatabase(
        "localhost", server.port, "iterable_sync", PASSWORD, "shop", run_sql, server.unix_socket
    )


@pytest.mark.parametrize(
    ("shop", "mode"),
    [("our schema", "per-user"), ("another schema", "bulk")],
    indirect=["shop"],
)
def test_every_command_works_on_a_strict_server(
    shop: SourceDatabase,
    strict_server: TlsServer,
    iterable: IterableSandbox,
    tmp_path: Path,
    mode: str,
) -> None:
    ca = str(strict_server.ca)
    program = Program.between(tmp_path, shop, iterable, SYNC_MODE=mode, DB_SSL_CA=ca)
    for flags in (["--check"], ["--dry-run"], [], ["--verify", "30"], ["--export", "rows.csv"]):
        ending = program.run(*flags)
        assert ending.status == 0, ending.output
        if flags == []:
            assert counts_of(program.results) == {"successful": 30}
    check_project(iterable.project, range(1, 31))
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as exported:
        assert [row["email"] for row in csv.DictReader(exported)] == [
            email_of(n) for n in range(1, 31)
        ]
    assert program.run().status == 0
    assert counts_of(program.results) == {"unchanged": 30}


def test_a_row_wider_than_the_servers_packet_arrives(
    shop: SourceDatabase, strict_server: TlsServer, use_pure: bool
) -> None:
    shop.run_sql(
        "UPDATE customers SET first_name = REPEAT('a', 250), last_name = REPEAT('b', 250),"
        " candidate = REPEAT('c', 250) WHERE id = 7"
    )
    many = ", ".join(f"candidate AS c{n}, first_name AS f{n}" for n in range(20))
    source = replace(shop, user=strict_server.server.user, password=strict_server.server.password)
    with source.connection(ssl_ca=strict_server.ca, use_pure=use_pure) as database:
        (row,) = database.execute_query(f"SELECT {many} FROM customers WHERE id = 7")
    assert sum(map(len, row.values())) == 10_000


def test_every_command_reports_a_host_name_that_is_not_in_the_certificate(
    shop: SourceDatabase, strict_server: TlsServer, iterable: IterableSandbox, tmp_path: Path
) -> None:
    elsewhere = replace(shop, host="127.0.0.1")
    ca = str(strict_server.ca)
    program = Program.between(tmp_path, elsewhere, iterable, DB_SSL_CA=ca)
    for flags, status in (([], 1), (["--check"], 2), (["--export", "rows.csv"], 1)):
        ending = program.run(*flags)
        assert ending.status == status, ending.output
        assert "not for the name 127.0.0.1" in ending.output
    assert not iterable.project.users
