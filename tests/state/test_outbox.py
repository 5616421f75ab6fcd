"""Filling the outbox: which requests are pending, which rows are unchanged or invalid."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from config.fields import USER_FIELDS, parse_fields
from db_connection import SourceError
from records.mapping import RowMapping
from records.outcomes import Verdict
from records.rows import PendingRow, RequestKind
from state.outbox import FillSummary, Outbox
from tests.support.golden import SARAHS_EVENT, SARAHS_EVENT_ID, SARAHS_PROFILE
from tests.support.rows import (
    COLUMNS,
    MAPPING,
    Row,
    deliver_all,
    email_of,
    fill,
    finished,
    later,
    outcomes_of,
    row,
    rows,
)


def pending_requests(outbox: Outbox) -> dict[str, str]:
    """Return the pending requests by e-mail."""
    return {
        str(each.email): f"{'profile ' * bool(each.profile)}{'event' * bool(each.event)}".strip()
        for each in outbox.pending()
    }


# New, changed, unchanged


def test_a_new_row_is_pending_with_both_payloads(outbox: Outbox) -> None:
    sarah = row(1, email=SARAHS_PROFILE["email"], first_name="Sarah")
    assert fill(outbox, [sarah]) == FillSummary(total=1, to_send=1, in_the_future=0, rows_read=1)
    (waiting,) = outbox.pending()
    assert (waiting.user_id, waiting.email) == (1, "sarah.johnson@email.com")
    assert orjson.loads(waiting.profile or b"") == SARAHS_PROFILE
    assert orjson.loads(waiting.event or b"") == {**SARAHS_EVENT, "id": SARAHS_EVENT_ID}
    assert outcomes_of(outbox) == {waiting.email: "not_attempted"}


def test_pending_rows_are_in_the_order_of_the_query(outbox: Outbox) -> None:
    fill(outbox, rows(5, 3, 9, 1, 7))
    assert [waiting.user_id for waiting in outbox.pending()] == [5, 3, 9, 1, 7]


def test_a_row_delivered_with_the_same_content_is_unchanged(outbox: Outbox) -> None:
    fill(outbox, rows(1, 2, 3))
    deliver_all(outbox)
    assert outcomes_of(outbox) == dict.fromkeys(map(email_of, (1, 2, 3)), "successful")
    assert fill(outbox, rows(1, 2, 3, 4)).to_send == 1
    assert pending_requests(outbox) == {email_of(4): "profile event"}
    assert outcomes_of(outbox) == {
        **dict.fromkeys(map(email_of, (1, 2, 3)), "unchanged"),
        email_of(4): "not_attempted",
    }


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"first_name": "Another"}, "profile"),
        ({"candidate": "no"}, "profile event"),
        ({"location": None}, "event"),
        ({"page": "settings"}, "event"),
        ({"event_time": later(1)}, "event"),
        ({"email": email_of(1).upper()}, "profile event"),
        ({"browser": "Firefox"}, ""),
    ],
    ids=str,
)
def test_only_the_request_that_changed_is_sent(
    outbox: Outbox, changes: dict[str, Any], parts: str
) -> None:
    fill(outbox, rows(1))
    deliver_all(outbox)
    fill(outbox, [row(1, **changes)])
    assert list(pending_requests(outbox).values()) == ([parts] if parts else [])


def test_a_request_that_was_not_delivered_is_sent_alone_with_the_newest_values(
    outbox: Outbox,
) -> None:
    fill(outbox, rows(1, 2))
    first, second = outbox.pending()
    outbox.record(finished([first], RequestKind.PROFILE))
    outbox.record(finished([first], RequestKind.EVENT, Verdict.UNAVAILABLE))
    outbox.record(finished([second], RequestKind.PROFILE))
    outbox.record(finished([second], RequestKind.EVENT))
    fill(outbox, [row(1, location="Oslo"), row(2, first_name="Another")])
    assert pending_requests(outbox) == {email_of(1): "event", email_of(2): "profile"}
    one, two = outbox.pending()
    assert orjson.loads(one.event or b"")["dataFields"]["location"] == "Oslo"
    assert orjson.loads(two.profile or b"")["dataFields"]["first_name"] == "Another"


def test_a_row_that_changes_back_is_sent_again(outbox: Outbox) -> None:
    for name in ("Ann", "Anne", "Ann"):
        fill(outbox, [row(1, first_name=name)])
        assert "profile" in pending_requests(outbox)[email_of(1)]
        deliver_all(outbox)


def test_a_full_refresh_sends_unchanged_rows_too(outbox: Outbox) -> None:
    fill(outbox, rows(1, 2))
    deliver_all(outbox)
    assert fill(outbox, rows(1, 2), full_refresh=True).to_send == 2
    assert set(pending_requests(outbox).values()) == {"profile event"}
    deliver_all(outbox)
    assert fill(outbox, rows(1, 2)).to_send == 0


# The mapping


def test_changed_settings_send_only_the_profiles_that_become_different_and_no_event(
    outbox: Outbox,
) -> None:
    found = [row(1), row(2, browser=None)]
    fill(outbox, found)
    deliver_all(outbox)
    other = RowMapping(COLUMNS, user_fields=(*USER_FIELDS, *parse_fields("browser", frozenset())))
    filled = fill(outbox, found, other)
    assert (filled.changed_by_settings, filled.to_send) == (1, 1)
    assert pending_requests(outbox) == {email_of(1): "profile"}
    deliver_all(outbox)
    filled = fill(outbox, found, other)
    assert (filled.changed_by_settings, filled.to_send) == (0, 0)


BERLIN_MAPPING = RowMapping(COLUMNS, zone=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    "mapping",
    [BERLIN_MAPPING, RowMapping(COLUMNS, event_fields=parse_fields("page", frozenset()))],
    ids=["zone", "fields"],
)
def test_an_event_that_other_settings_change_is_kept_and_compared_with_its_new_form(
    outbox: Outbox, mapping: RowMapping
) -> None:
    fill(outbox, rows(1, 2))
    deliver_all(outbox)
    filled = fill(outbox, rows(1, 2), mapping)
    assert (filled.kept_events, filled.to_send) == (2, 0)
    assert set(outcomes_of(outbox).values()) == {"unchanged"}
    outbox.begin_delivery()
    filled = fill(outbox, rows(1, 2), mapping)
    assert (filled.kept_events, filled.to_send) == (0, 0)
    # From now on a change of the row itself sends the event again.
    fill(outbox, [row(1, page="settings")], mapping)
    assert pending_requests(outbox) == {email_of(1): "event"}


def test_a_fill_without_a_delivery_keeps_no_event_in_its_new_form(outbox: Outbox) -> None:
    fill(outbox, rows(1))
    deliver_all(outbox)
    for _ in range(2):
        assert fill(outbox, rows(1), BERLIN_MAPPING).kept_events == 1
    assert fill(outbox, rows(1)).kept_events == 0


def test_a_change_of_the_row_was_lost_after_a_change_of_settings_without_effect(
    outbox: Outbox,
) -> None:
    """With a TIMESTAMP another DB_TIMEZONE changes nothing in the payloads."""
    as_timestamp: dict[str, Any] = {"timestamp_columns": [COLUMNS.index("event_time")]}
    fill(outbox, rows(1), RowMapping(COLUMNS, **as_timestamp))
    deliver_all(outbox)
    in_berlin = RowMapping(COLUMNS, zone=ZoneInfo("Europe/Berlin"), **as_timestamp)
    filled = fill(outbox, rows(1), in_berlin)
    assert (filled.to_send, filled.kept_events) == (0, 0)
    outbox.begin_delivery()
    filled = fill(outbox, [row(1, location="Rome")], in_berlin)
    assert (filled.to_send, filled.kept_events) == (1, 0)


def test_a_new_view_is_sent_although_the_settings_changed(outbox: Outbox) -> None:
    fill(outbox, rows(1))
    deliver_all(outbox)
    filled = fill(outbox, [row(1, event_time=later(60))], BERLIN_MAPPING)
    assert filled.kept_events == 0
    assert pending_requests(outbox) == {email_of(1): "event"}


def test_a_full_refresh_sends_events_that_other_settings_change(outbox: Outbox) -> None:
    fill(outbox, rows(1))
    deliver_all(outbox)
    assert fill(outbox, rows(1), BERLIN_MAPPING, full_refresh=True).kept_events == 0
    assert pending_requests(outbox) == {email_of(1): "profile event"}


def test_another_order_of_columns_is_not_a_change(outbox: Outbox) -> None:
    fill(outbox, rows(1))
    deliver_all(outbox)
    turned = [tuple(reversed(row(1)))]
    assert fill(outbox, turned, RowMapping(COLUMNS[::-1])).to_send == 0


# Invalid rows and future events


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"email": None}, "no e-mail address"),
        ({"email": "nobody"}, "malformed e-mail address"),
        ({"event_time": None}, "no event time"),
        ({"last_name": float("nan")}, "field 'last_name' is nan, which JSON cannot represent"),
    ],
)
def test_an_invalid_row_is_kept_with_its_reason_and_never_sent(
    outbox: Outbox, changes: dict[str, Any], reason: str
) -> None:
    filled = fill(outbox, [row(1, **changes), row(2)])
    assert (filled.total, filled.to_send) == (2, 1)
    assert [waiting.user_id for waiting in outbox.pending()] == [2]
    invalid, _valid = outbox.settled()
    assert (invalid.user_id, invalid.state.outcome.value) == (1, "invalid")
    assert invalid.reason == reason


def test_events_in_the_future_are_counted_and_sent(outbox: Outbox) -> None:
    now = datetime(2026, 1, 13, 14, 30, 45, tzinfo=timezone.utc)
    soon = {"event_time": later(1)}
    found = [row(1), row(2, **soon), row(3, event_time=later(3600)), row(4, **soon, id=None)]
    found += [row(5, **soon, id=2), row(6, event_time=later(-1))]
    filled = fill(outbox, found, now=now)
    assert (filled.in_the_future, filled.to_send) == (4, 6)
    assert set(outcomes_of(outbox).values()) == {"not_attempted"}


# All or nothing


def test_a_read_that_fails_midway_leaves_the_previous_rows(outbox: Outbox) -> None:
    fill(outbox, rows(1, 2))

    def breaking() -> Iterator[list[tuple[Any, ...]]]:
        yield rows(3, 4)
        yield rows(5)
        raise SourceError("The connection was lost.")

    with pytest.raises(SourceError, match="The connection was lost"):
        outbox.fill(breaking(), MAPPING)
    assert [waiting.user_id for waiting in outbox.pending()] == [1, 2]


def test_a_fill_replaces_the_rows_of_the_run_before(outbox: Outbox) -> None:
    fill(outbox, rows(1, 2, 3))
    assert fill(outbox, []) == FillSummary(total=0, to_send=0, in_the_future=0)
    assert list(outbox.pending()) == []
    assert outcomes_of(outbox) == {}


# Taking rows out


def test_thousands_of_rows_come_a_page_at_a_time_while_results_are_recorded(
    outbox: Outbox,
) -> None:
    numbers = list(range(5_000, 2_500, -1))
    outbox.fill([rows(*numbers)], MAPPING)
    taken: list[PendingRow] = []
    for waiting in outbox.pending():
        taken.append(waiting)
        if len(taken) % 700 == 0:
            outbox.record(finished(taken[-700:], RequestKind.PROFILE))
    assert [waiting.user_id for waiting in taken] == numbers
    assert [waiting.user_id for waiting in outbox.pending()] == numbers[2_100:]


@pytest.mark.parametrize("kind", RequestKind)
def test_a_row_with_a_recorded_result_is_no_longer_pending(
    outbox: Outbox, kind: RequestKind
) -> None:
    fill(outbox, rows(1, 2, 3))
    one, two, three = outbox.pending()
    outbox.record(finished([one], kind))
    outbox.record(finished([two], kind, Verdict.REJECTED))
    assert list(outbox.pending()) == [three]


def test_the_events_of_rows_can_be_read_without_the_profiles(outbox: Outbox) -> None:
    fill(outbox, rows(5, 9, 2, 7))
    _one, two, three, four = outbox.pending()
    assert outbox.events_of([four.seq, three.seq, two.seq]) == [
        two._replace(profile=None),
        three._replace(profile=None),
        four._replace(profile=None),
    ]


def test_the_first_row_to_send_is_announced_once_while_rows_are_still_read(
    outbox: Outbox,
) -> None:
    fill(outbox, rows(1, 2))
    deliver_all(outbox)
    read: list[int] = []
    announced_after: list[int] = []

    def reading() -> Iterator[list[Row]]:
        for number in (1, 2, 3, 4):
            read.append(number)
            yield rows(number)

    outbox.fill(reading(), MAPPING, on_first_to_send=lambda: announced_after.append(len(read)))
    assert announced_after == [3]
    outbox.fill([rows(1, 2)], MAPPING, on_first_to_send=lambda: announced_after.append(0))
    assert announced_after == [3]
