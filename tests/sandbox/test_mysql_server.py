"""The embedded MySQL server, seen through the plain connector; and the demo's settings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import mysql.connector
import pytest
import requests

from sandbox.demo import EVENT_FAILS_ONCE, FORGOTTEN, MALFORMED_FOR_ITERABLE, demo_servers
from sandbox.mysql_server import MySQLSandbox
from sandbox.sql_engine import SqlEngine, SqlError
from tests.conftest import SCHEMA


@pytest.fixture
def server() -> Iterator[MySQLSandbox]:
    with MySQLSandbox() as server:
        yield server


def connect(server: MySQLSandbox, **options: Any) -> Any:
    arguments: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "database": server.database,
    }
    return mysql.connector.connect(**{**arguments, **options})


def ask(server: MySQLSandbox, query: str, **options: Any) -> list[tuple[Any, ...]]:
    connection = connect(server, **options)
    try:
        cursor = connection.cursor()
        cursor.execute(query)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
    finally:
        connection.close()


class TestTheServer:
    def test_holds_the_sample_data(self, server: MySQLSandbox) -> None:
        assert ask(server, "SELECT COUNT(*) FROM customers") == [(32,)]
        assert ask(server, "SELECT first_name, last_name FROM customers WHERE id IN (4, 5)") == [
            ("Siobhán", "O'Brien"),
            ("小龙", "李"),
        ]

    def test_gives_each_type_as_mysql_does(self, server: MySQLSandbox) -> None:
        query = (
            "SELECT id, email, event_time FROM customers JOIN page_views USING (id) WHERE id = 1"
        )
        ((number, email, event_time),) = ask(server, query)
        assert (number, email) == (1, "sarah.johnson@email.com")
        assert isinstance(event_time, datetime)

    @pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"password": ""}, {"user": "root"}])
    def test_refuses_a_wrong_user_or_password(
        self, server: MySQLSandbox, wrong: dict[str, str]
    ) -> None:
        with pytest.raises(mysql.connector.Error) as caught:
            connect(server, **wrong)
        assert caught.value.errno == 1045

    def test_knows_one_database(self, server: MySQLSandbox) -> None:
        with pytest.raises(mysql.connector.Error) as caught:
            connect(server, database="other")
        assert caught.value.errno == 1049

    @pytest.mark.parametrize(
        ("statement", "errno"),
        [
            ("SELECT id FROM nowhere", 1146),
            ("SELECT nickname FROM customers", 1054),
            ("SELECT id FROM customers JOIN page_views", 1052),
            ("SELECT FROM WHERE", 1064),
            ("SELECT NO_SUCH_FUNCTION(id) FROM customers", 1305),
        ],
    )
    def test_gives_the_error_numbers_of_mysql(
        self, server: MySQLSandbox, statement: str, errno: int
    ) -> None:
        with pytest.raises(mysql.connector.Error) as caught:
            ask(server, statement)
        assert caught.value.errno == errno

    def test_explains_a_query(self, server: MySQLSandbox) -> None:
        assert "customers" in str(ask(server, "EXPLAIN SELECT id FROM customers"))

    def test_serves_several_clients_at_once(self, server: MySQLSandbox) -> None:
        counts: list[Any] = []
        clients = [
            threading.Thread(
                target=lambda: counts.append(ask(server, "SELECT COUNT(*) FROM customers"))
            )
            for _ in range(5)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert counts == 5 * [[(32,)]]

    def test_a_client_that_may_write_can(self, server: MySQLSandbox) -> None:
        ask(server, "DELETE FROM page_views")
        assert ask(server, "SELECT COUNT(*) FROM page_views") == [(0,)]

    def test_takes_rows_instead_of_files(self) -> None:
        seen_at = datetime(2026, 1, 13, 14, 30, 45)  # noqa: DTZ001 - a DATETIME has no zone
        rows: dict[str, list[tuple[Any, ...]]] = {
            "customers": [(1, "ann@example.com", "Ann", None, "pro", None)],
            "page_views": [(1, 1, "pricing", None, None, None, seen_at)],
        }
        with MySQLSandbox([SCHEMA], rows=rows, user="ann", password="pass-word") as server:
            assert ask(server, "SELECT email, last_name FROM customers") == [
                ("ann@example.com", None)
            ]
            assert ask(server, "SELECT event_time FROM page_views") == [(seen_at,)]

    def test_a_mistake_in_a_file_shows_when_it_starts(self, tmp_path: Path) -> None:
        (tmp_path / "bad.sql").write_text("INSERT INTO nowhere VALUES (1)", encoding="utf-8")
        with pytest.raises(SqlError, match="nowhere"), MySQLSandbox([tmp_path / "bad.sql"]):
            pytest.fail("it must not start")

    def test_is_gone_after_the_block(self) -> None:
        before = threading.active_count()
        with MySQLSandbox([SCHEMA]) as server:
            left_open = connect(server)
        assert threading.active_count() == before
        with pytest.raises(mysql.connector.Error):
            connect(server)
        left_open.close()
        with pytest.raises(RuntimeError, match="not running"):
            server.run_sql("SELECT 1")


class TestTheTables:
    @pytest.mark.parametrize(
        ("moment", "age"),
        [
            ("CURRENT_TIMESTAMP", timedelta()),
            ("CURRENT_TIMESTAMP - INTERVAL 90 MINUTE", timedelta(minutes=90)),
            ("CURRENT_TIMESTAMP - INTERVAL 2 DAY - INTERVAL 3 HOUR", timedelta(days=2, hours=3)),
            ("CURRENT_TIMESTAMP + INTERVAL 1 WEEK", -timedelta(weeks=1)),
        ],
    )
    def test_relative_times_are_worked_out(self, moment: str, age: timedelta) -> None:
        tables = SqlEngine()
        tables.run_script(f"CREATE TABLE t (seen DATETIME); INSERT INTO t VALUES ({moment})")
        ((seen,),) = tables.execute("SELECT seen FROM t")
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        assert abs(now - seen - age) < timedelta(minutes=1)
        tables.close()

    def test_a_moment_may_be_written_out(self) -> None:
        tables = SqlEngine()
        tables.run_script(
            "CREATE TABLE t (seen DATETIME);"
            "INSERT INTO t VALUES ('2026-01-13 14:30:45' + INTERVAL 20 SECOND)"
        )
        ((seen,),) = tables.execute("SELECT seen FROM t")
        assert str(seen) == "2026-01-13 14:31:05"
        tables.close()

    @pytest.mark.parametrize(
        "moment", ["CURRENT_TIMESTAMP - INTERVAL 1 MONTH", "'x' + INTERVAL 1 DAY"]
    )
    def test_an_interval_it_cannot_work_out_is_an_error(self, moment: str) -> None:
        tables = SqlEngine()
        with pytest.raises(SqlError):
            tables.run_script(f"SELECT {moment} FROM t")
        tables.close()

    def test_numbers_stay_numbers_and_sums_stay_sums(self) -> None:
        tables = SqlEngine()
        tables.run_script(
            "CREATE TABLE t (id INT PRIMARY KEY, price DOUBLE); INSERT INTO t (price) VALUES (1.5)"
        )
        assert tables.execute("SELECT id + 1, price - 1 FROM t") == [(2, 0.5)]
        tables.close()

    def test_texts_are_compared_as_their_collation_says(self) -> None:
        tables = SqlEngine()
        tables.run_script(
            "CREATE TABLE t (usual VARCHAR(9), strict VARCHAR(9) COLLATE utf8mb4_bin);"
            "INSERT INTO t VALUES ('Pro', 'Pro')"
        )
        assert tables.execute("SELECT usual = 'PRO', strict = 'PRO' FROM t") == [(1, 0)]
        tables.close()

    def test_keys_count_up_and_references_hold(self) -> None:
        tables = SqlEngine()
        tables.run_script(SCHEMA.read_text(encoding="utf-8"))
        tables.run_script("INSERT INTO customers (email) VALUES ('a@example.com'), (NULL)")
        assert tables.execute("SELECT id, plan_type FROM customers") == [(1, "free"), (2, "free")]
        with pytest.raises(SqlError, match="FOREIGN KEY"):
            tables.run_script("INSERT INTO page_views (user_id, page) VALUES (99, 'pricing')")
        tables.close()


class TestTheNeighbours:
    def test_their_settings_lead_to_both_servers(self) -> None:
        with demo_servers() as settings:
            connection = mysql.connector.connect(
                host=settings["DB_HOST"],
                port=int(settings["DB_PORT"]),
                user=settings["DB_USER"],
                password=settings["DB_PASSWORD"],
                database=settings["DB_NAME"],
            )
            cursor = connection.cursor()
            cursor.execute("SELECT email FROM customers")
            emails = {row[0] for row in cursor.fetchall()}
            connection.close()
            assert {FORGOTTEN, MALFORMED_FOR_ITERABLE, EVENT_FAILS_ONCE["email"]} <= emails

            def update(email: str, key: str = settings["ITERABLE_API_KEY"]) -> int:
                url = settings["ITERABLE_API_BASE_URL"] + "/api/users/update"
                headers = {"Api-Key": key}
                return requests.post(
                    url, json={"email": email}, headers=headers, timeout=10
                ).status_code

            assert update("sarah.johnson@email.com") == 200
            assert update(FORGOTTEN) == 409
            assert update(MALFORMED_FOR_ITERABLE) == 400
            assert update("sarah.johnson@email.com", "another-key") == 401

    def test_an_event_fails_once_and_then_succeeds(self) -> None:
        with demo_servers() as settings:
            url = settings["ITERABLE_API_BASE_URL"] + "/api/events/track"
            headers = {"Api-Key": settings["ITERABLE_API_KEY"]}
            body = {"email": EVENT_FAILS_ONCE["email"], "eventName": "page_view"}
            statuses = [
                requests.post(url, json=body, headers=headers, timeout=10).status_code
                for _ in range(3)
            ]
        assert statuses == [502, 200, 200]
