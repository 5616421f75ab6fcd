"""The query file, unchanged, on the real servers and the embedded one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from db_connection import DatabaseConnection, window_start
from source.query_plan import slow_steps
from tests.conftest import SAMPLE_DATA, SourceDatabase, numbers

COLUMNS = (
    *("id", "email", "first_name", "last_name", "plan_type", "candidate"),
    *("page", "device", "browser", "location", "event_time"),
)
START = datetime(2026, 1, 6, 14, 30, 0)  # noqa: DTZ001 - as DATETIME columns store it
INSIDE, OUTSIDE = "2026-01-10 09:00:00", "2026-01-06 14:29:59"

# No index but the foreign key's, TEXT, signed ids, DATETIME, no defaults: as others made them.
OTHER_SCHEMA = (
    "DROP TABLE page_views; DROP TABLE customers;"
    "CREATE TABLE customers (id BIGINT PRIMARY KEY, email TEXT, first_name TEXT, last_name TEXT,"
    " plan_type TEXT, candidate TEXT);"
    "CREATE TABLE page_views (id BIGINT PRIMARY KEY, user_id BIGINT, page TEXT, device TEXT,"
    " browser TEXT, location TEXT, event_time DATETIME,"
    " FOREIGN KEY (user_id) REFERENCES customers (id))"
)


@pytest.fixture(params=["our schema", "another schema"])
def tables(request: pytest.FixtureRequest, source: SourceDatabase) -> SourceDatabase:
    if request.param == "another schema":
        source.run_sql(OTHER_SCHEMA)
    return source


def add_customer(source: SourceDatabase, number: int, plan: str = "pro") -> None:
    source.run_sql(
        "INSERT INTO customers (id, email, first_name, plan_type)"
        f" VALUES ({number}, 'person{number}@example.com', 'Person {number}', '{plan}')"
    )


def add_view(
    source: SourceDatabase, number: int, customer: int, page: str, at: str, device: str = "desktop"
) -> None:
    source.run_sql(
        "INSERT INTO page_views (id, user_id, page, device, event_time)"
        f" VALUES ({number}, {customer}, '{page}', '{device}', '{at}')"
    )


def result(source: SourceDatabase, start: datetime = START) -> list[dict[str, Any]]:
    with (
        source.connection() as database,
        database.stream_pro_users_recent_engagement(start) as rows,
    ):
        assert rows.columns == COLUMNS
        return [dict(zip(rows.columns, row, strict=True)) for chunk in rows for row in chunk]


def test_only_pro_customers_are_returned(tables: SourceDatabase) -> None:
    for number, plan in enumerate(("free", "basic", "pro", "enterprise"), start=1):
        add_customer(tables, number, plan)
        add_view(tables, number, number, "pricing", INSIDE)
    assert [(row["id"], row["plan_type"]) for row in result(tables)] == [(3, "pro")]


def test_only_views_of_pricing_and_settings_count_in_any_letter_case(
    tables: SourceDatabase,
) -> None:
    pages = ["pricing", "Settings", "PRICING", "home", "pricing-old", "settings/billing"]
    for number, page in enumerate(pages, start=1):
        add_customer(tables, number)
        add_view(tables, number, number, page, INSIDE)
    assert [row["page"] for row in result(tables)] == ["pricing", "Settings", "PRICING"]


def test_a_customer_appears_once_with_the_latest_view_that_counts(tables: SourceDatabase) -> None:
    add_customer(tables, 1)
    add_view(tables, 1, 1, "pricing", "2026-01-08 10:00:00", "first")
    add_view(tables, 2, 1, "settings", "2026-01-09 10:00:00", "second, and latest")
    add_view(tables, 3, 1, "pricing", "2026-01-07 10:00:00", "third, but earlier")
    add_view(tables, 4, 1, "home", "2026-01-09 11:00:00", "another page")
    (row,) = result(tables)
    assert row["device"] == "second, and latest"
    assert str(row["event_time"]) == "2026-01-09 10:00:00"


def test_of_views_in_the_same_second_the_highest_id_wins(tables: SourceDatabase) -> None:
    add_customer(tables, 1)
    for number in (7, 9, 8):
        add_view(tables, number, 1, "pricing", INSIDE, f"view {number}")
    assert [row["device"] for row in result(tables)] == ["view 9"]


def test_the_window_includes_its_first_second_and_nothing_before(tables: SourceDatabase) -> None:
    for number, at in enumerate((OUTSIDE, str(START), INSIDE), start=1):
        add_customer(tables, number)
        add_view(tables, number, number, "pricing", at)
    assert [row["id"] for row in result(tables)] == [2, 3]


def test_a_later_start_of_the_window_leaves_views_out(tables: SourceDatabase) -> None:
    add_customer(tables, 1)
    add_view(tables, 1, 1, "pricing", INSIDE)
    assert len(result(tables)) == 1
    assert result(tables, START + timedelta(days=5)) == []


def test_rows_come_in_the_order_of_customer_ids(tables: SourceDatabase) -> None:
    for number in (30, 2, 11):
        add_customer(tables, number)
        add_view(tables, number, number, "pricing", INSIDE)
    assert [row["id"] for row in result(tables)] == [2, 11, 30]


def test_columns_that_are_null_arrive_as_none(tables: SourceDatabase) -> None:
    tables.run_sql("INSERT INTO customers (id, plan_type) VALUES (1, 'pro')")
    tables.run_sql(
        "INSERT INTO page_views (id, user_id, page, event_time)"
        f" VALUES (1, 1, 'pricing', '{INSIDE}')"
    )
    (row,) = result(tables)
    assert {name for name, value in row.items() if value is None} == {
        *("email", "first_name", "last_name", "candidate", "device", "browser", "location")
    }


def test_get_pro_users_recent_engagement_uses_the_window_that_ends_now(
    source: SourceDatabase,
) -> None:
    def days_ago(days: float) -> str:
        return f"{datetime.now(timezone.utc) - timedelta(days=days):%Y-%m-%d %H:%M:%S}"

    for number, days in enumerate((0.01, 6.99, 7.01), start=1):
        add_customer(source, number)
        add_view(source, number, number, "pricing", days_ago(days))
    with source.connection() as database:
        assert [row["id"] for row in database.get_pro_users_recent_engagement()] == [1, 2]
    with source.connection(window_days=8) as database:
        assert len(database.get_pro_users_recent_engagement()) == 3


def test_another_query_file_is_used_as_it_is(source: SourceDatabase, tmp_path: Path) -> None:
    # With a byte order mark, a semicolon at the end, and without the parameter.
    (tmp_path / "own.sql").write_text(
        "\ufeff-- 100%% mine\nSELECT id, email FROM customers ORDER BY id;\n", encoding="utf-8"
    )
    add_customer(source, 1, "free")
    with source.connection(query_file=tmp_path / "own.sql") as database:
        assert database.get_pro_users_recent_engagement() == [
            {"id": 1, "email": "person1@example.com"}
        ]


def test_the_sample_data_gives_the_same_26_rows_on_every_server(source: SourceDatabase) -> None:
    source.run_sql(SAMPLE_DATA.read_text(encoding="utf-8"))
    with source.connection() as database:
        rows = database.get_pro_users_recent_engagement()
    assert [row["id"] for row in rows] == list(range(1, 27))
    event_time = rows[0].pop("event_time")
    assert rows[0] == {
        "id": 1,
        "email": "sarah.johnson@email.com",
        "first_name": "Sarah",
        "last_name": "Johnson",
        "plan_type": "pro",
        "candidate": "yes",
        "page": "pricing",
        "device": "desktop",
        "browser": "Chrome",
        "location": "San Francisco, CA",
    }
    two_hours_ago = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(hours=2)
    assert abs(event_time - two_hours_ago) < timedelta(minutes=5)
    # The tie of customer 17, and what follows customer 24's later view.
    assert (rows[16]["browser"], rows[23]["page"]) == ("Edge", "settings")


class TestTheStartOfTheWindow:
    NOW = datetime(2026, 1, 13, 14, 30, 45, 999_999, tzinfo=timezone.utc)

    @pytest.mark.parametrize(
        ("zone", "days", "start"),
        [
            ("UTC", 7, "2026-01-06 14:30:45"),
            ("America/Los_Angeles", 7, "2026-01-06 06:30:45"),
            ("Asia/Kolkata", 7, "2026-01-06 20:00:45"),
            ("UTC", 0.5, "2026-01-13 02:30:45"),
        ],
    )
    def test_is_local_time_without_a_zone(self, zone: str, days: float, start: str) -> None:
        assert str(window_start(self.NOW, days, zone)) == start

    def test_counts_days_of_24_hours_across_a_change_of_clocks(self) -> None:
        now = datetime(2026, 3, 30, 12, 0, tzinfo=timezone.utc)  # clocks went forward on the 29th
        assert str(window_start(now, 7, "Europe/Berlin")) == "2026-03-23 13:00:00"

    def test_refuses_a_naive_datetime(self) -> None:
        with pytest.raises(ValueError, match="aware"):
            window_start(self.NOW.replace(tzinfo=None), 7, "UTC")

    def test_follows_the_time_zone_of_the_connection(self, real: SourceDatabase) -> None:
        utc = real.connection().window_start_now()
        tokyo = real.connection(time_zone="Asia/Tokyo").window_start_now()
        assert timedelta(hours=8, minutes=59) < tokyo - utc < timedelta(hours=9, minutes=1)


def plan_of(database: DatabaseConnection) -> list[dict[str, Any]]:
    return database.explain_query_file()


def test_an_index_that_mysql_has_to_read_from_end_to_end_is_not_counted_as_available() -> None:
    step = {
        **{"id": 2, "select_type": "DERIVED", "table": "page_views", "type": "index"},
        **{"possible_keys": "page_views_user", "key": "page_views_user", "rows": 19_249},
    }
    [(what, cure)] = slow_steps([step])
    assert what.endswith("because no index fits the query")
    assert cure == "CREATE INDEX page_views_recent ON page_views (page, event_time, user_id)"
    [(what, _)] = slow_steps([{**step, "possible_keys": "page_views_recent,page_views_user"}])
    assert what.endswith("although an index is available (page_views_recent)")
    # It exists, so it is not to be made again.
    own = {"possible_keys": "page_views_recent", "key": "page_views_recent"}
    [(_, cure)] = slow_steps([{**step, **own}])
    assert cure.startswith("ANALYZE TABLE page_views")


def fill(real: SourceDatabase, customers: int, views: int) -> None:
    real.run_sql(
        "INSERT INTO customers (id, email, plan_type) SELECT seq, CONCAT('p', seq, '@example.com'),"
        f" ELT(1 + seq % 4, 'pro', 'free', 'basic', 'enterprise') FROM {numbers(customers)};"
        "INSERT INTO page_views (id, user_id, page, event_time)"
        f" SELECT seq, 1 + seq * 7919 % {customers},"
        " ELT(1 + seq % 5, 'pricing', 'settings', 'home', 'docs', 'blog'),"
        " NOW() - INTERVAL (seq * 104729 % 7776000) SECOND"
        f" FROM {numbers(views)}; ANALYZE TABLE customers; ANALYZE TABLE page_views"
    )


def test_views_are_ranked_from_the_covering_index_once(real: SourceDatabase) -> None:
    fill(real, 5_000, 20_000)
    with real.connection() as database:
        (ranking,) = [step for step in plan_of(database) if step["select_type"] != "PRIMARY"]
    assert ranking["select_type"] == "DERIVED"
    assert ranking["key"] == "page_views_recent"
    assert "Using index" in ranking["Extra"]


def test_views_are_not_ranked_per_customer_where_indexes_are_missing(
    real: SourceDatabase,
) -> None:
    real.run_sql(OTHER_SCHEMA)
    fill(real, 5_000, 20_000)
    with real.connection() as database:
        assert "LATERAL DERIVED" not in [step["select_type"] for step in plan_of(database)]
