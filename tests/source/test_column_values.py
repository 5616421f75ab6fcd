"""Values of each column type, streams, and errors while reading, with both drivers."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from db_connection import DatabaseConnection, RowStream, SourceError
from source import column_types
from tests.conftest import INSERT_THREE_USERS, SourceDatabase
from tests.support.private_server import PrivateServer

EVERY_PERSON = "SELECT id, email, first_name, last_name, candidate FROM customers ORDER BY id"


def all_rows(stream: RowStream) -> list[tuple[Any, ...]]:
    with stream:
        return [row for chunk in stream for row in chunk]


class TestReading:
    def test_rows_are_dicts_in_the_order_of_the_query(self, database: DatabaseConnection) -> None:
        rows = database.execute_query(EVERY_PERSON)
        assert [list(row) for row in rows] == 3 * [
            ["id", "email", "first_name", "last_name", "candidate"]
        ]
        assert rows[0] == {
            "id": 1,
            "email": "Ann@Example.com",
            "first_name": "Ann",
            "last_name": "O'Hara",
            "candidate": None,
        }

    def test_emoji_and_chinese_text_is_not_changed(self, database: DatabaseConnection) -> None:
        row = database.execute_query(EVERY_PERSON)[1]
        assert (row["first_name"], row["last_name"]) == ("小龙", "Amélie 🚀")

    def test_a_column_with_a_binary_collation_is_text(self, database: DatabaseConnection) -> None:
        assert isinstance(database.execute_query(EVERY_PERSON)[0]["email"], str)

    def test_parameters_are_passed_by_name_or_by_position(
        self, database: DatabaseConnection
    ) -> None:
        by_name = "SELECT id FROM customers WHERE last_name = %(name)s"
        by_place = "SELECT id FROM customers WHERE last_name = %s"
        assert database.execute_query(by_name, {"name": "O'Hara"}) == [{"id": 1}]
        assert database.execute_query(by_place, ["O'Hara"]) == [{"id": 1}]

    def test_a_stream_gives_chunks_of_tuples(self, database: DatabaseConnection) -> None:
        with database.stream("SELECT id, plan_type FROM customers ORDER BY id", None, 2) as rows:
            assert rows.columns == ("id", "plan_type")
            assert list(rows) == [[(1, "pro"), (2, "free")], [(3, "pro")]]
            assert list(rows) == []

    def test_a_stream_of_no_rows_still_has_columns(self, database: DatabaseConnection) -> None:
        with database.stream("SELECT id, email FROM customers WHERE id > 99") as rows:
            assert rows.columns == ("id", "email")
            assert list(rows) == []

    def test_json_columns_arrive_as_objects(self, embedded: SourceDatabase, use_pure: bool) -> None:
        embedded.run_sql(
            "CREATE TABLE notes (id INT PRIMARY KEY, note JSON);"
            """INSERT INTO notes VALUES (1, '{"tags": ["é", 1.5, null]}'), (2, NULL), (3, '7')"""
        )
        with embedded.connection(use_pure=use_pure) as database:
            rows = all_rows(database.stream("SELECT id, note FROM notes ORDER BY id"))
        assert rows == [(1, {"tags": ["é", 1.5, None]}), (2, None), (3, 7)]

    def test_every_type_of_mysql_arrives_as_its_python_type(
        self, real: SourceDatabase, on_real: DatabaseConnection
    ) -> None:
        real.run_sql(
            "CREATE TABLE kinds (price DECIMAL(10,2), big BIGINT UNSIGNED, flag TINYINT(1),"
            " ratio DOUBLE, born DATE, seen DATETIME(6), raw VARBINARY(9), story TEXT,"
            " latin VARCHAR(9) CHARACTER SET latin1);"
            "INSERT INTO kinds VALUES (1.50, 18446744073709551615, 1, 2.5, '2026-01-13',"
            " '2026-01-13 14:30:45.123456', 'ab', '🚀', 'é')"
        )
        (row,) = all_rows(on_real.stream("SELECT * FROM kinds"))
        assert row == (
            Decimal("1.50"),
            18446744073709551615,
            1,
            2.5,
            date(2026, 1, 13),
            datetime(2026, 1, 13, 14, 30, 45, 123456),  # noqa: DTZ001 - a DATETIME has no zone
            b"ab",
            "🚀",
            "é",
        )

    def test_digits_and_fractions_were_lost(
        self, real: SourceDatabase, on_real: DatabaseConnection
    ) -> None:
        real.run_sql(
            "CREATE TABLE exact (d20 DECIMAL(20,2), d65 DECIMAL(65,30), zip INT(5) ZEROFILL,"
            " price DECIMAL(8,2) ZEROFILL, t3 TIME(3), t6 TIME(6), tn TIME(1));"
            "INSERT INTO exact VALUES (123456789012345678.91, 1e-29, 123, 12.5, '10:00:00.250',"
            " '-838:59:58.999999', '-00:00:00.5')"
        )
        (row,) = all_rows(on_real.stream("SELECT * FROM exact"))
        assert row == (
            Decimal("123456789012345678.91"),
            Decimal("0.000000000000000000000000000010"),
            123,
            Decimal("12.5"),
            timedelta(hours=10, milliseconds=250),
            -timedelta(hours=838, minutes=59, seconds=58, microseconds=999_999),
            -timedelta(milliseconds=500),
        )
        assert [type(value) for value in row] == 2 * [Decimal] + [int, Decimal] + 3 * [timedelta]

    def test_only_timestamps_are_of_type_timestamp(
        self, real: SourceDatabase, on_real: DatabaseConnection
    ) -> None:
        real.run_sql("CREATE TABLE moments (ts TIMESTAMP(3) NULL, dt DATETIME)")
        types = on_real.stream(
            "SELECT ts, MAX(ts), dt, UTC_TIMESTAMP(), NOW(), FROM_UNIXTIME(1), MAX(dt),"
            " CAST('2026-01-13 14:30:45' AS DATETIME), ts + INTERVAL 1 HOUR"
            " FROM moments GROUP BY ts, dt"
        ).type_codes
        assert [code == column_types.TIMESTAMP for code in types] == 2 * [True] + 7 * [False]

    def test_zero_dates_arrive_as_none(
        self, real: SourceDatabase, on_real: DatabaseConnection
    ) -> None:
        real.run_sql(
            "SET sql_mode = ''; CREATE TABLE days (id INT, d DATE, t DATETIME, s TIMESTAMP NULL);"
            "INSERT INTO days VALUES (1, '0000-00-00', '0000-00-00', '0000-00-00'),"
            " (2, '2026-02-00', '2026-00-10', NULL)"
        )
        rows = all_rows(on_real.stream("SELECT * FROM days ORDER BY id"))
        assert rows == [(1, None, None, None), (2, None, None, None)]

    def test_a_timestamp_is_utc_whatever_the_time_zone_of_the_server(
        self, real: SourceDatabase, real_server: PrivateServer
    ) -> None:
        real.run_sql(
            "SET time_zone = '-08:00'; CREATE TABLE moments (seen TIMESTAMP);"
            "INSERT INTO moments VALUES ('2026-01-13 06:30:45')"
        )
        real_server.run_sql("SET GLOBAL time_zone = '-08:00'")
        try:
            with real.connection() as database:
                (row,) = database.execute_query("SELECT seen FROM moments")
        finally:
            real_server.run_sql("SET GLOBAL time_zone = 'SYSTEM'")
        assert str(row["seen"]) == "2026-01-13 14:30:45"


class TestErrorsWhenReading:
    def test_not_connected(self, source: SourceDatabase) -> None:
        with pytest.raises(SourceError, match="Not connected"):
            source.connection().execute_query("SELECT 1 AS one")
        with pytest.raises(SourceError, match="Not connected"):
            source.connection().get_pro_users_recent_engagement()

    @pytest.mark.parametrize(
        ("query", "reason"),
        [
            ("SELECT email FROM nowhere", "nowhere' doesn't exist"),
            ("SELECT nickname FROM customers", "Unknown column 'nickname'"),
            ("SELECT FROM customers WHERE", "SQL syntax"),
        ],
    )
    def test_a_bad_query_is_explained_and_not_transient(
        self, database: DatabaseConnection, query: str, reason: str
    ) -> None:
        with pytest.raises(SourceError) as caught:
            database.execute_query(query)
        assert reason in str(caught.value)
        assert "QUERY_FILE" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not caught.value.transient
        assert len(database.execute_query(EVERY_PERSON)) == 3

    def test_a_parameter_that_is_not_given_is_named(self, database: DatabaseConnection) -> None:
        query = "SELECT id FROM customers WHERE email > %(other)s"
        with pytest.raises(
            SourceError, match=r"unknown parameter, %\(other\)s\. Give its value, or write %%"
        ):
            database.execute_query(query, {"window_start": "2026-01-01"})

    def test_two_columns_of_one_name_lost_one_value(
        self, real: SourceDatabase, on_real: DatabaseConnection
    ) -> None:
        real.run_sql(INSERT_THREE_USERS)
        query = "SELECT id, email, 'x' AS email, 1 AS n, 2 AS n FROM customers WHERE id = 1"
        with pytest.raises(SourceError, match="more than one column 'email', 'n': give each"):
            on_real.execute_query(query)
        assert all_rows(on_real.stream(query)) == [(1, "Ann@Example.com", "x", 1, 2)]

    def test_a_doubled_percent_sign_is_a_literal_one(self, database: DatabaseConnection) -> None:
        query = "SELECT id FROM customers WHERE email LIKE '%%@example.com' AND id > %(least)s"
        assert database.execute_query(query, {"least": 1}) == [{"id": 2}]

    def test_a_statement_without_rows_is_explained(self, on_real: DatabaseConnection) -> None:
        with pytest.raises(SourceError, match="returns no rows and columns"):
            on_real.execute_query("DO 1")

    def test_a_missing_grant_on_a_table_is_reported(
        self, real: SourceDatabase, real_server: PrivateServer
    ) -> None:
        real_server.run_sql(
            "DROP USER IF EXISTS reader@'%'; CREATE USER reader@'%' IDENTIFIED BY 'pass-word';"
            f"GRANT SELECT ON {real.database}.page_views TO reader@'%'"
        )
        with real.connection(user="reader", password="pass-word") as database:
            with pytest.raises(
                SourceError, match=r"SELECT command denied .* GRANT SELECT"
            ) as caught:
                database.execute_query("SELECT * FROM customers")
            assert not caught.value.transient

    def test_one_stream_at_a_time(self, real: SourceDatabase, use_pure: bool) -> None:
        real.run_sql(INSERT_THREE_USERS)
        with real.connection(use_pure=use_pure) as database:
            with database.stream(EVERY_PERSON, chunk_rows=1) as rows:
                next(rows)
                with pytest.raises(SourceError, match="still has unread rows"):
                    database.execute_query(EVERY_PERSON)
            assert len(database.execute_query(EVERY_PERSON)) == 3

    def test_a_missing_query_file_is_named(self, real: SourceDatabase, tmp_path: Path) -> None:
        with real.connection(query_file=tmp_path / "gone.sql") as database:
            with pytest.raises(SourceError, match=r"gone\.sql .*check QUERY_FILE"):
                database.get_pro_users_recent_engagement()
            (tmp_path / "gone.sql").write_bytes(b"SELECT '\xff'")
            with pytest.raises(SourceError, match="not UTF-8"):
                database.get_pro_users_recent_engagement()


def test_closing_the_connection_while_streams_are_open_is_harmless(
    database: DatabaseConnection,
) -> None:
    rows = database.stream(EVERY_PERSON, chunk_rows=1)
    next(rows)
    database.disconnect()
    with suppress(SourceError):
        next(rows)
    rows.close()
    rows.close()
