"""Mapping for other jobs: event names, the flag, constants, and profiles or events alone."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from config.fields import parse_fields
from records.identity import to_event_id, to_named_event_id
from records.mapping import RowMapping
from tests.support.golden import (
    SARAH,
    SARAHS_EVENT,
    SARAHS_EVENT_ID,
    SARAHS_HASHES,
    SARAHS_PROFILE,
    event_of,
    key_of,
    mapping_for,
    profile_of,
    reason_of,
    record_of,
    sarah,
    stored,
)


def fields(text: str) -> Any:
    return parse_fields(text, frozenset())


# Names


def test_the_shipped_jobs_bytes_and_hashes_are_as_before() -> None:
    record, key = record_of(SARAH), key_of(SARAH)
    assert record.profile == (
        b'{"email":"sarah.johnson@email.com","dataFields":{"first_name":"Sarah",'
        b'"last_name":"Johnson","plan_type":"pro","candidate":"yes","recent_page_view":true}}'
    )
    assert record.event == (
        b'{"email":"sarah.johnson@email.com","eventName":"page_view",'
        b'"id":"page-view-18db2e0f5d7874759551b6034289b2a8","createdAt":1768314645,'
        b'"dataFields":{"page":"pricing","browser":"desktop","location":"San Francisco, CA",'
        b'"candidate":"yes","timestamp":"2026-01-13 14:30:45"}}'
    )
    assert (key.profile_hash, key.event_hash) == SARAHS_HASHES


def test_the_default_name_and_flag_add_nothing_to_what_is_remembered() -> None:
    """Otherwise an upgrade would say that settings have changed."""
    named = mapping_for(SARAH, event_name="page_view", profile_flag="recent_page_view")
    assert set(named.hash_of_setting) == {
        *("USER_FIELDS", "EVENT_FIELDS", "SEND_NULLS", "DB_TIMEZONE")
    }
    other = mapping_for(SARAH, event_name="order", profile_flag="")
    assert set(other.hash_of_setting) - set(named.hash_of_setting) == {"EVENT_NAME", "PROFILE_FLAG"}
    assert other.profile_settings != named.profile_settings
    assert other.event_settings == named.event_settings  # another name is another event


def test_the_event_has_the_name_of_the_setting_and_an_id_of_its_own() -> None:
    event = event_of(SARAH, event_name="trial_ending")
    assert event["eventName"] == "trial_ending"
    assert event["id"] == to_event_id(
        SARAH["email"], "2026-01-13 14:30:45", "pricing", "trial_ending"
    )
    assert event["id"].startswith("trial-ending-")
    assert event["id"] != SARAHS_EVENT_ID
    assert key_of(SARAH, event_name="trial_ending").event_hash != SARAHS_HASHES[1]
    assert key_of(SARAH, event_name="trial_ending").profile_hash == SARAHS_HASHES[0]


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_a_row_can_have_an_event_name_of_its_own(empty: str | None) -> None:
    assert event_of(sarah(event_name=" order "))["eventName"] == "order"
    assert event_of(sarah(EVENT_NAME="order"))["eventName"] == "order"
    assert event_of(sarah(event_name=7))["eventName"] == "7"
    row = sarah(event_name=empty)
    assert event_of(row)["id"] == SARAHS_EVENT_ID
    assert event_of(row, event_name="order")["eventName"] == "order"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 256, "the event name has more than 255 characters"),
        ("a\nb", "the event name has control characters"),
        (b"abc" * 100, "the event name is binary: select CONVERT(... USING utf8mb4)"),
        ("\ud800", "the event name has control characters"),
    ],
)
def test_an_event_name_that_cannot_be_sent_makes_its_row_invalid(name: Any, reason: str) -> None:
    row = sarah(event_name=name)
    assert reason_of(row) == reason
    mapping = mapping_for(row)
    assert mapping.key(tuple(row.values())) is None
    assert mapping.invalid_column(tuple(row.values())) == list(row).index("event_name")


@pytest.mark.parametrize(
    "name",
    [
        "order",
        "Trial ending!",
        "x" * 255,
        "注文",
        "👩‍💻",
        "a\u00a0b",
        "a-b",
        "-id-",
        "page_view_id_x",
    ],
)
@pytest.mark.parametrize("event_id", [None, "4711", "a b", "x-id-1"])
def test_an_id_has_only_what_iterable_allows(name: str, event_id: str | None) -> None:
    row = SARAH if event_id is None else sarah(event_id=event_id)
    found = event_of(row, event_name=name)["id"]
    assert 1 <= len(found) <= 64
    assert found.isascii()
    assert found.replace("-", "").isalnum()


def test_events_of_two_names_never_have_one_id() -> None:
    names = ["a", "a_id", "a_id_b", "a-b", "a_b", "a b", "a_id_a", "b", "page_view", "page-view"]
    ids = ["1", "b-id-1", "id-1", "a-id-1", "b-1", "id-b-id-1"]
    found = {to_named_event_id(event_id, name) for name in names for event_id in ids}
    assert len(found) == len(names) * len(ids)


def test_a_named_id_is_readable_where_the_name_is_plain() -> None:
    assert to_named_event_id("4711", "order_placed") == "order-placed-id-4711"
    assert to_named_event_id("4711") == "page-view-id-4711"


def test_events_of_two_names_for_one_row_are_two_events() -> None:
    row = sarah(event_id=4711)
    assert event_of(row, event_name="order")["id"] != event_of(row, event_name="refund")["id"]


def test_the_flag_has_the_name_of_the_setting_or_is_missing() -> None:
    of_trial = profile_of(SARAH, profile_flag="on_trial")["dataFields"]
    assert of_trial["on_trial"] is True
    assert "recent_page_view" not in of_trial
    without = profile_of(SARAH, profile_flag="")["dataFields"]
    assert set(without) == {"first_name", "last_name", "plan_type", "candidate"}
    keys = {key_of(SARAH, profile_flag=flag).profile_hash for flag in ("", "a", "recent_page_view")}
    assert len(keys) == 3


# Constants


def test_a_constant_is_sent_with_every_row() -> None:
    user_fields, event_fields = fields('source:="mysql",x:=null'), fields('tags:=["a",1.5],page')
    options = {"user_fields": user_fields, "event_fields": event_fields}
    assert profile_of(SARAH, **options)["dataFields"] == {
        "source": "mysql",
        "recent_page_view": True,
    }
    assert profile_of(SARAH, send_nulls=True, **options)["dataFields"]["x"] is None
    assert event_of(SARAH, **options)["dataFields"] == {
        "tags": ["a", 1.5],
        "page": "pricing",
        "timestamp": "2026-01-13 14:30:45",
    }
    assert mapping_for(SARAH, **options).missing_columns == []


def test_another_constant_is_another_profile_and_another_setting_of_events() -> None:
    one, other = fields("a:=1"), fields("a:=2")
    first, second = key_of(SARAH, user_fields=one), key_of(SARAH, user_fields=other)
    assert first.profile_hash != second.profile_hash
    assert first.event_hash == second.event_hash
    settings = {mapping_for(SARAH, event_fields=each).event_settings for each in (one, other)}
    assert len(settings) == 2


# Profiles or events alone


def test_profiles_alone_need_no_column_of_the_event() -> None:
    row = {name: SARAH[name] for name in ("id", "email", "first_name", "last_name")}
    options: dict[str, Any] = {"sends_events": False, "user_fields": fields("first_name,last_name")}
    assert mapping_for(row, **options).missing_columns == []
    record, key = record_of(row, **options), key_of(row, **options)
    assert (record.event, record.event_id, key.event_hash) == (None, None, None)
    assert profile_of(row, **options)["dataFields"] == {
        "first_name": "Sarah",
        "last_name": "Johnson",
        "recent_page_view": True,
    }


def test_the_profile_alone_is_the_profile_of_the_whole_job() -> None:
    assert record_of(SARAH, sends_events=False).profile == record_of(SARAH).profile
    assert key_of(SARAH, sends_events=False).profile_hash == SARAHS_HASHES[0]
    assert profile_of(SARAH, sends_events=False)["dataFields"] == SARAHS_PROFILE["dataFields"]


@pytest.mark.parametrize("bad", [None, "soon", 5, b"x"])
def test_a_bad_event_column_makes_no_profile_invalid(bad: Any) -> None:
    row = sarah(event_time=bad, event_name="\n", event_id="", page=b"\0")
    assert record_of(row, sends_events=False).profile == record_of(SARAH).profile


def test_the_latest_row_still_wins_where_profiles_alone_have_a_time() -> None:
    times = [
        key_of(sarah(event_time=value), sends_events=False).event_at
        for value in (None, stored(1970, 1, 1), stored(2026, 1, 1))
    ]
    assert times == sorted(times)
    assert len(set(times)) == 3
    row = {"id": 1, "email": "a@b.com"}
    options: dict[str, Any] = {"sends_events": False, "user_fields": ()}
    assert key_of(row, **options) == key_of(row, **options)


def test_events_alone_need_no_column_of_the_profile() -> None:
    names = ("id", "email", "page", "device", "location", "candidate", "event_time")
    row = {name: SARAH[name] for name in names}
    mapping = mapping_for(row, sends_profiles=False)
    assert mapping.missing_columns == []
    record, key = record_of(row, sends_profiles=False), key_of(row, sends_profiles=False)
    assert (record.profile, key.profile_hash) == (None, None)
    assert record.event == record_of(SARAH).event
    assert key.event_hash == SARAHS_HASHES[1]
    assert {**event_of(row, sends_profiles=False), "id": None} == {**SARAHS_EVENT, "id": None}


def test_a_bad_profile_column_makes_no_event_invalid() -> None:
    assert record_of(sarah(first_name=b"\0"), sends_profiles=False).event == record_of(SARAH).event


def test_the_query_needs_a_page_only_where_it_is_sent() -> None:
    row = {"id": 1, "email": "a@b.com", "event_time": SARAH["event_time"]}
    mapping = RowMapping(tuple(row), user_fields=(), event_fields=())
    assert mapping.missing_columns == []
    assert event_of(row, user_fields=(), event_fields=())["id"] == to_event_id(
        "a@b.com", "2026-01-13 14:30:45", None
    )
    assert RowMapping(tuple(row), user_fields=()).missing_columns == [
        *("page", "device", "location", "candidate")
    ]


def test_two_columns_of_one_name_matter_only_where_they_are_used() -> None:
    names = ("id", "email", "page", "PAGE", "event_time", "Event_Time", "event_name", "event_name")
    both = RowMapping(names, user_fields=(), event_fields=())
    assert both.ambiguous_columns == ["page", "event_time", "event_name"]
    profiles = RowMapping(names, user_fields=(), sends_events=False)
    assert profiles.ambiguous_columns == ["event_time"]


def test_an_order_needs_its_number_and_its_time() -> None:
    row = {
        "id": 7,
        "email": "ann@example.com",
        "event_time": SARAH["event_time"],
        "event_id": "4711",
        "amount": Decimal("19.90"),
    }
    options: dict[str, Any] = {
        "sends_profiles": False,
        "event_name": "order",
        "event_fields": fields('amount,source:="shop"'),
    }
    assert event_of(row, **options) == {
        "email": "ann@example.com",
        "eventName": "order",
        "id": "order-id-4711",
        "createdAt": 1_768_314_645,
        "dataFields": {"amount": 19.9, "source": "shop", "timestamp": "2026-01-13 14:30:45"},
    }


# Options of the bodies


def test_options_stand_beside_the_fields_and_change_no_hash() -> None:
    options: dict[str, Any] = {
        "profile_options": {"mergeNestedObjects": True, "createNewFields": False},
        "event_options": {"createNewFields": False},
    }
    record = record_of(SARAH, **options)
    assert orjson.loads(record.profile or b"") == {
        **SARAHS_PROFILE,
        "mergeNestedObjects": True,
        "createNewFields": False,
    }
    assert orjson.loads(record.event or b"")["createNewFields"] is False
    key = key_of(SARAH, **options)
    assert (key.profile_hash, key.event_hash) == SARAHS_HASHES
