"""The parameters of the query file, and percent signs: on each real server, with each driver."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from db_connection import DatabaseConnection, SourceError, window_start
from errors import ConfigError
from source.query_parameters import WindowStart, insert_window_start, to_window_start
from tests.conftest import SourceDatabase

START = WindowStart(
    datetime(2026, 1, 6, 14, 30),  # noqa: DTZ001 - as stored
    datetime(2026, 1, 6, 15, 30),  # noqa: DTZ001
)
BERLIN = ZoneInfo("Europe/Berlin")
USERS = (
    "INSERT INTO customers (id, email, first_name, plan_type, candidate) VALUES"
    " (1, 'ann@example.com', '100%% Ann', 'pro', 'gold (vip) member'),"
    " (2, 'bob@example.com', '100% Bob', 'pro', 'no')"
)


def rows_of(
    source: SourceDatabase, folder: Path, query: str, **options: Any
) -> list[dict[str, Any]]:
    """Return the rows of a query file with this text."""
    (folder / "own.sql").write_text(query, encoding="utf-8")
    with source.connection(query_file=folder / "own.sql", **options) as database:
        return database.get_pro_users_recent_engagement()


class TestPercentSigns:
    @pytest.mark.parametrize(
        ("condition", "ids"),
        [
            ("candidate LIKE '%(vip)%'", [1]),
            ("candidate NOT LIKE '%(test)%'", [1, 2]),
            ("candidate NOT LIKE '%(none)d%'", [1, 2]),
            ("candidate LIKE '%(vip)s%'", []),
            ("first_name LIKE '100\\%% %'", [1, 2]),
            ("first_name LIKE '100\\%\\% %'", [1]),
            ("id % 2 = 0", [2]),
            ("id %(2) = 1", [1]),
        ],
    )
    def test_percent_before_a_parenthesis_was_a_parameter_in_like(
        self, real: SourceDatabase, use_pure: bool, tmp_path: Path, condition: str, ids: list[int]
    ) -> None:
        real.run_sql(USERS)
        query = (
            "-- uses %(since)s no more, 100 %, %% and it's fine\n"
            f"SELECT id, %(window_start)s AS start FROM customers WHERE {condition} ORDER BY id"
        )
        rows = rows_of(real, tmp_path, query, use_pure=use_pure)
        assert [row["id"] for row in rows] == ids

    def test_doubled_percent_signs_were_not_those_of_the_file(
        self, real: SourceDatabase, use_pure: bool, tmp_path: Path
    ) -> None:
        query = (
            "SELECT DATE_FORMAT('2026-01-13', '%Y-%m-%d') AS once,"
            " DATE_FORMAT('2026-01-13', '%%Y-%%m') AS twice, '50 %% %s' AS text,"
            " %(window_start)s > '2020' AS started"
        )
        (row,) = rows_of(real, tmp_path, query, use_pure=use_pure)
        assert row == {"once": "2026-01-13", "twice": "%Y-%m", "text": "50 %% %s", "started": 1}

    def test_with_parameters_of_a_python_caller_two_are_one(
        self, real: SourceDatabase, use_pure: bool
    ) -> None:
        with real.connection(use_pure=use_pure) as database:
            by_name = database.execute_query(
                "SELECT '%%Y %%(a)s %% %' AS text, %(a)s AS a, %(b)s AS b",
                {"a": "it's \\ %(b)s %%", "b": 5},
            )
            by_position = database.execute_query("SELECT '%%s %%' AS text, %s AS a", ["é %s %%"])
            plain = database.execute_query("SELECT '%%s %% %s %(a)s' AS text")
        assert by_name == [{"text": "%Y %(a)s % %", "a": "it's \\ %(b)s %%", "b": 5}]
        assert by_position == [{"text": "%s %", "a": "é %s %%"}]
        assert plain == [{"text": "%%s %% %s %(a)s"}]

    def test_parameters_keep_their_types(self, real: SourceDatabase, use_pure: bool) -> None:
        values = [None, 7, 2.5, Decimal("1.50"), "it's \\ \" \n", "🚀"]
        query = "SELECT %s AS a, %s AS b, %s AS c, %s AS d, %s AS e, %s AS f"
        with real.connection(use_pure=use_pure) as database:
            (row,) = database.execute_query(query, values)
            database.execute_query("SELECT %s AS a", [datetime(2026, 1, 13)])  # noqa: DTZ001
            for bad in ([1], [1, 2, 3], [object(), 1]):
                with pytest.raises(SourceError, match="do not fit the query"):
                    database.execute_query("SELECT %s AS a, %s AS b", bad)
        assert [*row.values()][:2] + [*row.values()][3:] == values[:2] + values[3:]
        assert float(row["c"]) == 2.5  # MySQL calls 2.5 a DECIMAL


class TestTheStartOfTheWindow:
    @pytest.mark.parametrize(
        ("text", "becomes"),
        [
            ("a >= %(window_start)s", "a >= '2026-01-06 15:30:00'"),
            ("a >= %(window_start_local)s", "a >= '2026-01-06 15:30:00'"),
            ("a >= %(window_start_utc)s", "a >= '2026-01-06 14:30:00'"),
            # With quotes of its own, or in a longer text.
            ("a >= '%(window_start)s'", "a >= '2026-01-06 15:30:00'"),
            ("'it''s \\' since %(window_start_utc)s'", "'it''s \\' since 2026-01-06 14:30:00'"),
            ('"%(window_start)s"', '"2026-01-06 15:30:00"'),
            # Comments stay, also with an apostrophe.
            ("-- it's %(window_start)s\n%(window_start)s", None),
            ("/* it's %(window_start)s */ %(window_start)s", None),
            ("# it's %(window_start)s\n%(window_start)s", None),
            # These are none.
            ("5--1 %(window_start)s", "5--1 '2026-01-06 15:30:00'"),
            ("/*!50000 %(window_start)s */", "/*!50000 '2026-01-06 15:30:00' */"),
            ("`%(window_start)s`", "`%(window_start)s`"),
            ("%(window_starts)s %(other)s", "%(window_starts)s %(other)s"),
        ],
    )
    def test_is_quoted_and_stays_out_of_comments(self, text: str, becomes: str | None) -> None:
        if becomes is None:
            before, _, _ = text.rpartition("%(window_start)s")
            becomes = f"{before}'2026-01-06 15:30:00'"
        assert insert_window_start(text, START, in_utc=False) == becomes

    def test_is_in_utc_if_the_result_says_so(self) -> None:
        start = insert_window_start("%(window_start)s", START, in_utc=True)
        assert start == "'2026-01-06 14:30:00'"

    @pytest.mark.parametrize(
        ("start", "local"),
        [
            ("2026-10-24 23:59:59", "2026-10-25 01:59:59"),
            # 02:45 for the first time: 02:00 is still to come a second time.
            ("2026-10-25 00:45:00", "2026-10-25 01:45:00"),
            ("2026-10-25 01:45:00", "2026-10-25 02:45:00"),  # for the second time
            ("2026-03-29 00:30:00", "2026-03-29 01:30:00"),
            ("2026-03-29 01:00:00", "2026-03-29 03:00:00"),
        ],
    )
    def test_in_an_hour_that_repeats_left_out_rows_of_the_second(
        self, start: str, local: str
    ) -> None:
        moment = datetime.fromisoformat(f"{start}+00:00")
        assert str(to_window_start(moment, BERLIN).local) == local
        assert str(to_window_start(moment, BERLIN).utc) == start
        for minutes in range(0, 300, 5):  # nothing later is stored before it
            later = (moment + timedelta(minutes=minutes)).astimezone(BERLIN).replace(tzinfo=None)
            assert later >= datetime.fromisoformat(local)

    @pytest.mark.parametrize(
        ("local", "utc"),
        [
            ("2026-10-25 02:45:00", "2026-10-25 00:45:00"),  # the first of two
            ("2026-03-29 02:30:00", "2026-03-29 00:30:00"),  # does not exist
            ("2026-06-01 12:00:00", "2026-06-01 10:00:00"),
        ],
    )
    def test_that_is_local_is_the_earlier_of_two_moments(self, local: str, utc: str) -> None:
        start = to_window_start(datetime.fromisoformat(local), BERLIN)
        assert (str(start.local), str(start.utc)) == (local, utc)

    def test_with_a_zone_or_without_is_the_same(self) -> None:
        now = datetime(2026, 1, 13, 14, 30, tzinfo=timezone.utc)
        local = window_start(now, 7, "Europe/Berlin")
        assert to_window_start(local, BERLIN) == to_window_start(now - timedelta(days=7), BERLIN)


# Half an hour inside and outside of the window that starts at 14:30 UTC, 15:30 in Berlin.
MOMENTS = (
    "CREATE TABLE moments (id INT PRIMARY KEY, ts TIMESTAMP NULL, dt DATETIME NULL, txt TEXT);"
    "INSERT INTO moments VALUES (1, '2026-01-06 14:00:00', '2026-01-06 15:00:00', 'x'),"
    " (2, '2026-01-06 15:00:00', '2026-01-06 16:00:00', 'x')"
)
INSTANT = datetime(2026, 1, 6, 14, 30, tzinfo=timezone.utc)


class TestTheTimeZoneOfTheStart:
    @pytest.fixture
    def database(self, real: SourceDatabase, use_pure: bool, tmp_path: Path) -> DatabaseConnection:
        real.run_sql(f"SET time_zone = '+00:00'; {MOMENTS}")
        return real.connection(
            use_pure=use_pure, query_file=tmp_path / "own.sql", time_zone="Europe/Berlin"
        )

    def found(self, database: DatabaseConnection, query: str) -> list[int]:
        database.query_file.write_text(query, encoding="utf-8")
        with (
            database,
            database.stream_pro_users_recent_engagement(INSTANT) as stream,
        ):
            ids = [row[0] for chunk in stream for row in chunk]
            assert database.explain_query_file()
            return ids

    @pytest.mark.parametrize(
        "query",
        [
            "SELECT id, ts AS event_time FROM moments WHERE ts >= %(window_start)s",
            "SELECT id, ts AS EVENT_TIME FROM moments WHERE ts >= '%(window_start)s'",
            "SELECT id, MAX(ts) AS event_time FROM moments GROUP BY id"
            " HAVING event_time >= %(window_start)s",
            "SELECT id, dt AS event_time FROM moments WHERE dt >= %(window_start)s",
            "SELECT id, DATE(dt) AS event_time FROM moments WHERE dt >= %(window_start)s",
            # The event time is local, and another column decides.
            "SELECT id, dt AS event_time FROM moments WHERE ts >= %(window_start_utc)s",
            "SELECT id, ts AS event_time FROM moments WHERE dt >= %(window_start_local)s",
            # A DATETIME expression that is UTC.
            "SELECT id, FROM_UNIXTIME(UNIX_TIMESTAMP(ts)) AS event_time_utc FROM moments"
            " WHERE ts >= %(window_start)s",
            "SELECT id, txt AS event_time FROM moments WHERE dt >= %(window_start_local)s"
            " -- not %(window_start)s",
        ],
    )
    def test_was_db_timezone_for_timestamps_too(
        self, database: DatabaseConnection, query: str
    ) -> None:
        assert self.found(database, query) == [2]

    def test_that_was_guessed_wrong_is_mended_in_a_big_result_too(
        self, database: DatabaseConnection, real: SourceDatabase
    ) -> None:
        real.run_sql(
            "CREATE TABLE many AS SELECT m.* FROM moments m, information_schema.collations a,"
            " information_schema.collations b LIMIT 20000"
        )
        query = "SELECT id, ts AS event_time FROM many WHERE ts >= %(window_start)s"
        assert set(self.found(database, query)) == {2}

    @pytest.mark.parametrize(
        "event_time", ["txt AS event_time", "ts AS seen", "NULL AS event_time"]
    )
    def test_of_a_text_or_nothing_is_asked_for(
        self, database: DatabaseConnection, event_time: str
    ) -> None:
        query = f"SELECT id, {event_time} FROM moments WHERE dt >= %(window_start)s"
        with pytest.raises(
            ConfigError, match=r"%\(window_start_utc\)s or %\(window_start_local\)s"
        ):
            self.found(database, query)
        database.time_zone = "UTC"  # where the two are the same
        assert self.found(database, query) == [1, 2]
