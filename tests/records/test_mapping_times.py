"""Times of a row: the stored value, its time zone, and what is sent to Iterable."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from tests.support.golden import (
    SARAHS_EVENT,
    SARAHS_EVENT_ID,
    event_of,
    mapping_for,
    profile_of,
    reason_of,
    sarah,
    stored,
)

BERLIN = ZoneInfo("Europe/Berlin")


def test_a_stored_time_is_read_in_the_database_zone_and_shown_as_stored() -> None:
    row = sarah(event_time=stored(2026, 7, 1, 12, 0, 0))
    event = event_of(row, zone=BERLIN)
    assert event["createdAt"] == datetime(2026, 7, 1, 10, tzinfo=timezone.utc).timestamp()
    assert event["dataFields"]["timestamp"] == "2026-07-01 12:00:00"


def test_other_datetimes_are_sent_in_utc() -> None:
    row = sarah(joined_at=stored(2026, 7, 1, 12, 0, 0))
    fields = profile_of(row, "joined_at", zone=BERLIN)["dataFields"]
    assert fields["joined_at"] == "2026-07-01 10:00:00 +00:00"


@pytest.mark.parametrize(
    ("moment", "in_utc"),
    [
        # Summer time begins: 02:30 does not exist, and is read with the offset before the gap.
        (stored(2026, 3, 29, 1, 59, 59), stored(2026, 3, 29, 0, 59, 59)),
        (stored(2026, 3, 29, 2, 30, 0), stored(2026, 3, 29, 1, 30, 0)),
        (stored(2026, 3, 29, 3, 0, 0), stored(2026, 3, 29, 1, 0, 0)),
        # It ends: 02:30 is there twice, and is read as the first.
        (stored(2026, 10, 25, 2, 30, 0), stored(2026, 10, 25, 0, 30, 0)),
        (stored(2026, 10, 25, 3, 0, 0), stored(2026, 10, 25, 2, 0, 0)),
    ],
)
def test_the_hours_of_a_clock_change_have_one_meaning(moment: datetime, in_utc: datetime) -> None:
    row = sarah(event_time=moment)
    expected = in_utc.replace(tzinfo=timezone.utc).timestamp()
    assert event_of(row, zone=BERLIN)["createdAt"] == expected
    key = mapping_for(row, zone=BERLIN).key(tuple(row.values()))
    assert key is not None
    assert key.event_at == expected * 1_000_000


def test_microseconds_change_the_event_id_but_not_the_time_sent() -> None:
    exact = sarah(event_time=stored(2026, 1, 13, 14, 30, 45, 123456))
    event = event_of(exact)
    assert event["createdAt"] == SARAHS_EVENT["createdAt"]
    assert event["dataFields"]["timestamp"] == "2026-01-13 14:30:45"
    assert event["id"] != SARAHS_EVENT_ID


@pytest.mark.parametrize(
    ("moment", "created_at", "shown"),
    [
        ("2026-01-13 14:30:45", 1_768_314_645, "2026-01-13 14:30:45"),
        (" 2026-01-13T14:30:45 ", 1_768_314_645, "2026-01-13 14:30:45"),
        ("2026-01-13T14:30:45.250000", 1_768_314_645, "2026-01-13 14:30:45"),
        ("2026-01-13T14:30:45Z", 1_768_314_645, "2026-01-13 14:30:45"),
        ("2026-01-13T16:30:45+02:00", 1_768_314_645, "2026-01-13 14:30:45"),
        ("2026-01-13", 1_768_262_400, "2026-01-13 00:00:00"),
        (date(2026, 1, 13), 1_768_262_400, "2026-01-13 00:00:00"),
        (stored(2040, 1, 1), 2_208_988_800, "2040-01-01 00:00:00"),  # after 2038
        (stored(1969, 12, 31, 23, 59, 59, 500_000), -1, "1969-12-31 23:59:59"),
    ],
)
def test_an_event_time_may_be_text_or_a_date(moment: object, created_at: int, shown: str) -> None:
    event = event_of(sarah(event_time=moment))
    assert event["createdAt"] == created_at
    assert event["dataFields"]["timestamp"] == shown


def test_a_text_and_a_datetime_of_the_same_moment_give_the_same_event_id() -> None:
    assert event_of(sarah(event_time="2026-01-13T14:30:45Z"))["id"] == SARAHS_EVENT_ID


@pytest.mark.parametrize("moment", [None, ""])
def test_a_row_without_event_time_is_invalid(moment: object) -> None:
    assert reason_of(sarah(event_time=moment)) == "no event time"


@pytest.mark.parametrize(
    "moment", ["yesterday", "0000-00-00 00:00:00", "2026-02-30", "2026-W03-2", timedelta(1)]
)
def test_a_value_that_is_not_a_time_is_an_invalid_event_time(moment: object) -> None:
    assert reason_of(sarah(event_time=moment)) == "the event time is not a date and time"


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (
            1768314645,
            "the event time is a number: select FROM_UNIXTIME(...) AS event_time_utc instead",
        ),
        (b"2026", "the event time is binary: select CONVERT(... USING utf8mb4)"),
    ],
)
def test_the_reason_says_how_to_select_another_kind_of_event_time(
    moment: object, reason: str
) -> None:
    assert reason_of(sarah(event_time=moment)) == reason


def test_a_timestamp_column_was_moved_by_the_time_zone_of_datetimes() -> None:
    row = sarah(ts=stored(2026, 1, 13, 14, 30, 45), dt=stored(2026, 1, 13, 14, 30, 45))
    columns = list(row)
    options = {"zone": BERLIN, "timestamp_columns": [columns.index("ts")]}
    fields = profile_of(row, "ts,dt,as_utc=dt:utc", **options)["dataFields"]
    assert fields["ts"] == "2026-01-13 14:30:45 +00:00"
    assert fields["dt"] == "2026-01-13 13:30:45 +00:00"
    assert fields["as_utc"] == "2026-01-13 14:30:45 +00:00"


def test_the_event_time_is_utc_as_a_timestamp_or_under_the_name_event_time_utc() -> None:
    as_timestamp = event_of(sarah(), zone=BERLIN, timestamp_columns=[len(sarah()) - 1])
    assert as_timestamp == event_of(sarah())
    renamed = {key.replace("event_time", "Event_Time_UTC"): value for key, value in sarah().items()}
    assert event_of(renamed, zone=BERLIN) == event_of(sarah())


def test_a_field_from_event_time_utc_was_moved_by_the_time_zone_of_datetimes() -> None:
    row = sarah(event_time_utc=stored(2026, 1, 13, 14, 30, 45))
    expected = "2026-01-13 14:30:45 +00:00"
    assert profile_of(row, "seen=event_time_utc", zone=BERLIN)["dataFields"]["seen"] == expected
    del row["event_time"]
    assert profile_of(row, "seen=event_time_utc", zone=BERLIN)["dataFields"]["seen"] == expected


def test_utc_converts_datetimes_only() -> None:
    assert "extra" not in profile_of(sarah(extra=None), "extra:utc")["dataFields"]
    expected = "field 'extra' is not a DATETIME, so :utc cannot convert it"
    assert reason_of(sarah(extra="2026-01-13"), "extra:utc") == expected


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_beyond_the_calendar_is_an_invalid_row_not_a_crash(moment: str) -> None:
    row = sarah(event_time=moment)
    assert reason_of(row) == "the event time is not a date and time"
    assert mapping_for(row).key(tuple(row.values())) is None
