"""Event times from a database column to Iterable: time zones, clock changes, microseconds.

Expected unix seconds come from `date -d` and not from the program's own code.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import product
from pathlib import Path

import pytest

from db_connection import window_start
from records.mapping import RowMapping, SyncRecord
from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import Program, counts_of
from tests.support.users import add_users, email_of

EVER = {"ENGAGEMENT_WINDOW_DAYS": "36500"}


def with_times(source: SourceDatabase, kind: str, *times: str) -> SourceDatabase:
    """Give user n a single page view at the n-th time, in a column of this type."""
    add_users(source.run_sql, range(1, len(times) + 1))
    source.run_sql(f"ALTER TABLE page_views MODIFY event_time {kind} NOT NULL")
    for number, moment in enumerate(times, start=1):
        source.run_sql(f"UPDATE page_views SET event_time = '{moment}' WHERE user_id = {number}")
    return source


def sent_times(iterable: IterableSandbox, user_count: int) -> list[tuple[int, str]]:
    """Return `createdAt` and `timestamp` of each user's event."""
    events = {event.email: event for event in iterable.project.events.values()}
    assert len(events) == len(iterable.project.events) == user_count
    found = [events[email_of(number)] for number in range(1, user_count + 1)]
    return [(event.created_at, event.data_fields["timestamp"]) for event in found]


def run_twice(program: Program, user_count: int) -> None:
    """Run, run again with nothing to send, and verify what Iterable has."""
    assert program.run().status == 0
    assert counts_of(program.results) == {"successful": user_count}
    assert program.run().status == 0
    assert counts_of(program.results) == {"unchanged": user_count}
    read_back = program.run("--verify", "99")
    assert read_back.status == 0, read_back.output
    s = "" if user_count == 1 else "s"
    assert (
        read_back.stdout == f"Result: {user_count} profile{s} and {user_count} event{s} as sent\n"
    )


# Clock changes and zones


@pytest.mark.parametrize(
    ("zone", "times", "created_at"),
    [
        (  # 02:00 becomes 03:00 on 29 March 2026, 03:00 becomes 02:00 on 26 October 2025
            "Europe/Berlin",
            [
                *("2026-03-29 01:59:59", "2026-03-29 02:30:00", "2026-03-29 03:00:00"),
                *("2025-10-26 01:59:59", "2025-10-26 02:30:00", "2025-10-26 03:00:00"),
            ],
            [1774745999, 1774747800, 1774746000, 1761436799, 1761438600, 1761444000],
        ),
        (  # clocks change by half an hour, in the southern year
            "Australia/Lord_Howe",
            ["2026-04-05 01:29:59", "2026-04-05 01:45:00", "2026-04-05 02:00:00"],
            [1775312999, 1775313900, 1775316600],
        ),
        (  # 44 minutes and 30 seconds behind, until 1972
            "Africa/Monrovia",
            ["1960-01-01 00:00:00", "1972-01-06 23:59:59", "1972-01-07 00:44:30"],
            [-315616530, 63593069, 63593070],
        ),
        ("America/St_Johns", ["2026-01-13 14:30:45"], [1768327245]),
    ],
)
def test_local_times_are_read_in_their_zone_through_clock_changes(
    mariadb: SourceDatabase,
    iterable: IterableSandbox,
    tmp_path: Path,
    zone: str,
    times: list[str],
    created_at: list[int],
) -> None:
    with_times(mariadb, "DATETIME", *times)
    program = Program.between(tmp_path, mariadb, iterable, DB_TIMEZONE=zone)
    program.settings |= EVER
    run_twice(program, len(times))
    assert sent_times(iterable, len(times)) == list(zip(created_at, times, strict=True))


def test_a_timestamp_column_is_in_utc_whatever_zone_the_server_has(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    with_times(mariadb, "TIMESTAMP", "2026-01-13 14:30:45")
    mariadb.run_sql("SET GLOBAL time_zone = '-05:00'")
    try:
        run_twice(Program.between(tmp_path, mariadb, iterable), 1)
    finally:
        mariadb.run_sql("SET GLOBAL time_zone = 'SYSTEM'")
    ((created_at, timestamp),) = sent_times(iterable, 1)
    # The statement that stored it was of a session in the machine's zone.
    assert timestamp == f"{datetime.fromtimestamp(created_at, timezone.utc):%F %T}"
    assert created_at == datetime(2026, 1, 13, 14, 30, 45).astimezone().timestamp()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_future_events_are_counted_in_the_database_time_zone_and_reported_once(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path, zone: str
) -> None:
    """A time five hours ahead in UTC is four hours ago in Tokyo."""
    now = datetime.now(timezone.utc)
    times = [f"{now + timedelta(hours=hours):%F %T}" for hours in (5, 30, -30)]
    with_times(mariadb, "DATETIME", *times)
    program = Program.between(tmp_path, mariadb, iterable, DB_TIMEZONE=zone)
    ending = program.run("--verbose")
    assert ending.status == 0
    count = 2 if zone == "UTC" else 1
    lines = [line for line in program.log.splitlines() if "in the future" in line]
    assert len(lines) == 1
    assert lines[0].endswith(f"{count} events lie in the future: is DB_TIMEZONE={zone} right?")
    assert len(iterable.project.events) == 3


# Far years


@pytest.mark.parametrize(
    ("kind", "times", "created_at"),
    [
        ("TIMESTAMP", ["2038-01-19 03:14:07", "1970-01-02 00:00:00"], [2**31 - 1, 86_400]),
        (
            "DATETIME(6)",
            [
                *("2038-01-19 03:14:07.999999", "2038-01-19 03:14:08", "2106-02-07 06:28:16"),
                *("9999-12-31 23:59:59.999999", "1969-12-31 23:59:59", "1930-01-01 00:00:00"),
            ],
            [2**31 - 1, 2**31, 2**32, 253402300799, -1, -1262304000],
        ),
    ],
)
def test_dates_far_in_past_and_future_are_sent_and_verified(
    mariadb: SourceDatabase,
    iterable: IterableSandbox,
    tmp_path: Path,
    kind: str,
    times: list[str],
    created_at: list[int],
) -> None:
    with_times(mariadb, kind, *times)
    program = Program.between(tmp_path, mariadb, iterable)
    program.settings |= EVER
    run_twice(program, len(times))
    expected = [(at, moment[:19]) for at, moment in zip(created_at, times, strict=True)]
    assert sent_times(iterable, len(times)) == expected


@pytest.mark.parametrize("kind", ["TIMESTAMP", "DATETIME(6)"])
def test_the_server_accepts_the_start_of_any_window(
    real: SourceDatabase, use_pure: bool, kind: str
) -> None:
    """A TIMESTAMP column cannot hold a time before 1970 or after 2038."""
    times = ("1970-01-02 00:00:00", "2026-01-13 14:30:45")
    with_times(real, kind, *times)
    with real.connection(use_pure=use_pure) as database:
        for year, days in product((1970, 2026, 2039, 2110), (0, 0.5, 7, 20_800, 36_500)):
            now = datetime(year, 2, 1, tzinfo=timezone.utc)
            start = window_start(now, days, "Europe/Amsterdam")
            with database.stream_pro_users_recent_engagement(start) as stream:
                found = [str(row[-1]) for chunk in stream for row in chunk]
            assert found == [moment for moment in times if moment >= str(start)]
            assert database.execute_query("SHOW WARNINGS") == []


# Parts of a second


def test_microseconds_decide_the_latest_event_and_its_id(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    with_times(mariadb, "DATETIME(6)", "2026-01-13 14:30:45.250000")
    # Earlier in the same second, though entered later.
    mariadb.run_sql(
        "INSERT INTO page_views (user_id, page, event_time)"
        " VALUES (1, 'settings', '2026-01-13 14:30:45.249999')"
    )
    program = Program.between(tmp_path, mariadb, iterable)
    run_twice(program, 1)
    assert sent_times(iterable, 1) == [(1768314645, "2026-01-13 14:30:45")]
    (event,) = iterable.project.events.values()
    assert event.data_fields["page"] == "pricing"
    # Later in the same second: another event, which is sent; the profile is not.
    mariadb.run_sql(
        "INSERT INTO page_views (user_id, page, event_time)"
        " VALUES (1, 'pricing', '2026-01-13 14:30:45.250001')"
    )
    calls = len(iterable.calls)
    assert program.run().status == 0
    assert [call.endpoint for call in iterable.calls[calls:]] == ["events/track"]
    assert len(iterable.project.events) == 2


def test_both_drivers_read_the_same_time_to_the_microsecond(
    real: SourceDatabase, use_pure: bool
) -> None:
    with_times(real, "DATETIME(6)", "2026-01-13 14:30:45.000001")
    with real.connection(use_pure=use_pure) as database:
        start = datetime(2026, 1, 1)  # noqa: DTZ001 - as stored
        with database.stream_pro_users_recent_engagement(start) as stream:
            ((row,),) = list(stream)
            mapping = RowMapping(stream.columns)
    key, record = mapping.key(row), mapping.to_record(row)
    assert key is not None
    assert key.event_at == 1_768_314_645_000_001
    assert isinstance(record, SyncRecord)
    assert record.event_id == "page-view-ca68134922a5880bde120ff2881bc10c"  # for ever
