"""Behaviour that only a real MySQL has: logins, JSON columns, its collation, the whole program.

Skipped where the environment variable MYSQLD names no `mysqld`; see `tests/README.md`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mysql.connector import Error, errorcode

from db_connection import DatabaseConnection, SourceError
from sandbox.iterable_api import IterableSandbox
from source.errors import to_source_error
from source.query_plan import is_table_form
from tests.conftest import SAMPLE_DATA, SCHEMA, SourceDatabase
from tests.source.test_query import OTHER_SCHEMA, fill, plan_of
from tests.support.mysql_server import PrivateMySQL
from tests.support.program import Program, counts_of
from tests.support.users import add_users, check_project

# Without character sets and collations: the tables have MySQL's defaults.
DEFAULT_SCHEMA = re.sub(
    r" (DEFAULT CHARSET = \w+ )?COLLATE (= )?\w+", "", SCHEMA.read_text("utf-8")
)


class TestTheLogin:
    def test_is_at_a_mysql_of_8_4_or_later(self, mysql: SourceDatabase) -> None:
        with mysql.connection() as database:
            (row,) = database.execute_query("SELECT VERSION() AS version")
        version = row["version"]
        assert "MariaDB" not in version
        assert tuple(map(int, version.split("-")[0].split(".")))[:2] >= (8, 4)

    def test_is_with_caching_sha2_password_over_tls_known_or_not(
        self, mysql: SourceDatabase, use_pure: bool
    ) -> None:
        mysql.run_sql("FLUSH PRIVILEGES")  # the server forgets the passwords that it knows
        for _ in range(2):
            with mysql.connection(use_pure=use_pure) as database:
                (tls,) = database.execute_query("SHOW STATUS LIKE 'Ssl_cipher'")
                (login,) = database.execute_query(
                    f"SELECT plugin AS name FROM mysql.user WHERE user = '{mysql.user}'"
                )
            assert tls["Value"]
            assert login["name"] == "caching_sha2_password"

    def test_works_through_the_socket_with_a_password_that_is_not_known_yet(
        self, mysql: SourceDatabase, use_pure: bool
    ) -> None:
        mysql.run_sql("FLUSH PRIVILEGES")
        by_socket = mysql.connection(unix_socket=mysql.unix_socket, use_pure=use_pure)
        with by_socket as database:
            assert database.execute_query("SELECT 1 AS one") == [{"one": 1}]

    def test_that_demands_tls_is_possible_without_a_ca(
        self, mysql: SourceDatabase, use_pure: bool
    ) -> None:
        mysql.run_sql(
            "DROP USER IF EXISTS careful@'%';"
            "CREATE USER careful@'%' IDENTIFIED BY 'pass-word' REQUIRE SSL;"
            f"GRANT SELECT ON {mysql.database}.* TO careful@'%'"
        )
        careful = mysql.connection(user="careful", password="pass-word", use_pure=use_pure)
        with careful as database:
            assert database.execute_query("SELECT id FROM customers") == []


@pytest.mark.usefixtures("mysql_server")  # where there is none this one decides: skip
def test_without_tls_the_message_recommends_tls_or_the_socket() -> None:
    with PrivateMySQL(options=["--tls-version="]) as server:
        where = (server.host, server.user, server.password, "mysql")
        with pytest.raises(SourceError, match="needs TLS on the server, or DB_UNIX_SOCKET"):
            DatabaseConnection(*where, port=server.port).open()
        with DatabaseConnection(*where, unix_socket=server.unix_socket) as database:
            assert database.execute_query("SELECT 1 AS one") == [{"one": 1}]


def test_the_message_for_a_login_that_needs_tls_does_not_recommend_the_plugin_in_use(
    embedded: SourceDatabase,
) -> None:
    error = Error("Authentication requires secure connection.", errorcode.CR_AUTH_PLUGIN_ERR)
    source_error = to_source_error(error, embedded.connection().source.facts)
    assert "Authentication requires secure connection). An account with" in str(source_error)
    assert not source_error.transient


def test_json_columns_arrive_as_objects(mysql: SourceDatabase, use_pure: bool) -> None:
    mysql.run_sql(
        "CREATE TABLE notes (id INT PRIMARY KEY, note JSON);"
        """INSERT INTO notes VALUES (1, '{"tags": ["é", 1.5, null]}'), (2, NULL), (3, '7')"""
    )
    query = "SELECT id, note FROM notes ORDER BY id"
    with mysql.connection(use_pure=use_pure) as database, database.stream(query) as rows:
        assert rows.type_codes[1] == 245
        assert next(rows) == [(1, {"tags": ["é", 1.5, None]}), (2, None), (3, 7)]


def test_columns_of_the_default_collation_match_in_any_letter_case_by_the_index(
    mysql: SourceDatabase,
) -> None:
    mysql.run_sql(f"DROP TABLE page_views; DROP TABLE customers; {DEFAULT_SCHEMA}")
    fill(mysql, 5_000, 20_000)
    mysql.run_sql("UPDATE page_views SET page = UPPER(page) WHERE id % 2; ANALYZE TABLE page_views")
    with mysql.connection() as database:
        (collation,) = database.execute_query(
            "SELECT collation_name AS name FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND column_name = 'page'"
        )
        pages = {row["page"] for row in database.get_pro_users_recent_engagement()}
        (ranking,) = [step for step in plan_of(database) if step["select_type"] != "PRIMARY"]
    assert collation == {"name": "utf8mb4_0900_ai_ci"}
    assert {page.lower() for page in pages} == {"pricing", "settings"}
    assert any(page.isupper() for page in pages)
    assert ranking["key"] == "page_views_recent"
    assert "Using index" in ranking["Extra"]


@pytest.mark.parametrize("explain_format", ["TRADITIONAL", "TREE", "JSON"])
def test_the_plan_is_table_form_whatever_form_the_server_prefers(
    mysql: SourceDatabase, mysql_server: PrivateMySQL, explain_format: str
) -> None:
    mysql_server.run_sql(f"SET GLOBAL explain_format = '{explain_format}'")
    try:
        with mysql.connection() as database:
            assert is_table_form(plan_of(database))
    finally:
        mysql_server.run_sql("SET GLOBAL explain_format = DEFAULT")


@pytest.mark.parametrize("mode", ["per-user", "bulk"])
@pytest.mark.parametrize("schema", ["our schema", "MySQL's defaults", "another schema"])
class TestTheWholeProgram:
    @pytest.fixture
    def shop(self, mysql: SourceDatabase, schema: str) -> SourceDatabase:
        if schema == "another schema":
            mysql.run_sql(
                OTHER_SCHEMA.replace(
                    "page_views (id BIGINT", "page_views (id BIGINT AUTO_INCREMENT"
                )
            )
        elif schema == "MySQL's defaults":
            mysql.run_sql(f"DROP TABLE page_views; DROP TABLE customers; {DEFAULT_SCHEMA}")
        return mysql

    def test_delivers_everyone_once(
        self, shop: SourceDatabase, iterable: IterableSandbox, tmp_path: Path, mode: str
    ) -> None:
        add_users(shop.run_sql, range(1, 31))
        program = Program.between(tmp_path, shop, iterable, SYNC_MODE=mode)
        checked = program.run("--check")
        assert checked.status == 0, checked.output
        first = program.run()
        assert first.status == 0, first.output
        assert counts_of(program.results) == {"successful": 30}
        check_project(iterable.project, range(1, 31))
        calls = len(iterable.calls)
        second = program.run()
        assert second.status == 0, second.output
        assert counts_of(program.results) == {"unchanged": 30}
        assert len(iterable.calls) == calls

    def test_takes_the_sample_data_as_the_demo_does(
        self, shop: SourceDatabase, iterable: IterableSandbox, tmp_path: Path, mode: str
    ) -> None:
        shop.run_sql(SAMPLE_DATA.read_text(encoding="utf-8"))
        program = Program.between(
            tmp_path, shop, iterable, SYNC_MODE=mode, ENGAGEMENT_WINDOW_DAYS="7"
        )
        assert program.run().status == 3
        assert counts_of(program.results) == {"successful": 23, "invalid": 2, "duplicates": 1}
