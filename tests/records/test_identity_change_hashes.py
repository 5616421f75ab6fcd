"""Change detection: a row's hashes change exactly when its payloads do.

If a hash stayed, Iterable would miss the change; if it changed by itself, every run would send
the event again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from config.fields import EVENT_FIELDS, USER_FIELDS, parse_fields
from records.identity import to_user_key
from records.mapping import InvalidRow, RowMapping, SyncRecord
from tests.support.golden import (
    SARAH,
    SARAHS_HASHES,
    SARAHS_USER_KEY,
    key_of,
    mapping_for,
    record_of,
    sarah,
    stored,
)

ROOT = Path(__file__).resolve().parent.parent.parent
CHANGES_OF_BOTH = {"email": "sarah@example.com", "candidate": "no"}
CHANGES_OF_PROFILE = {"first_name": "Sally", "last_name": None, "plan_type": "Pro"}
CHANGES_OF_EVENT = {
    "page": "settings",
    "device": None,
    "location": "San Francisco",
    "event_time": stored(2026, 1, 13, 14, 30, 45, 1),
}
CHANGES_OF_NOTHING = {"id": 2}
CHANGES = {**CHANGES_OF_NOTHING, **CHANGES_OF_BOTH, **CHANGES_OF_PROFILE, **CHANGES_OF_EVENT}


@pytest.mark.parametrize("column", CHANGES)
def test_each_requests_hash_changes_with_the_columns_of_that_request(column: str) -> None:
    before, after = key_of(SARAH), key_of(sarah(**{column: CHANGES[column]}))
    changes_profile = column in CHANGES_OF_BOTH or column in CHANGES_OF_PROFILE
    changes_event = column in CHANGES_OF_BOTH or column in CHANGES_OF_EVENT
    assert (before.profile_hash != after.profile_hash) == changes_profile
    assert (before.event_hash != after.event_hash) == changes_event


def test_an_unmapped_column_changes_nothing() -> None:
    before = mapping_for(SARAH).key(tuple(SARAH.values()))
    assert key_of(sarah(browser="Firefox")) == before
    assert key_of(sarah(last_seen="2026-01-01", score=Decimal("0.5"))) == before
    assert key_of(dict(reversed(list(SARAH.items())))) == before


@pytest.mark.parametrize(
    ("row", "fields", "options", "profile_changes", "event_changes"),
    [
        ({}, "browser", {}, True, False),
        ({"browser": None}, "browser", {}, False, False),
        ({"browser": None}, "browser", {"send_nulls": True}, True, False),
        ({}, "", {"send_nulls": True}, False, False),
        ({}, "", {"zone": ZoneInfo("Europe/Berlin")}, False, True),
        ({"event_time": "2026-01-13T14:30:45Z"}, "", {"zone": ZoneInfo("UTC")}, False, False),
        ({}, "", {"event_fields": parse_fields("page", frozenset())}, False, True),
        ({}, "", {"event_fields": EVENT_FIELDS[::-1]}, False, False),
        ({}, "", {"user_fields": USER_FIELDS[::-1]}, False, False),
        ({"plan_type": "1"}, "", {"user_fields": USER_FIELDS}, True, False),
    ],
)
def test_a_setting_changes_the_hashes_of_those_payloads_that_become_different(
    row: dict[str, Any],
    fields: str,
    options: dict[str, Any],
    profile_changes: bool,
    event_changes: bool,
) -> None:
    before, after = key_of(SARAH), key_of(sarah(**row), fields, **options)
    assert (before.profile_hash != after.profile_hash) == profile_changes
    assert (before.event_hash != after.event_hash) == event_changes


def test_fields_that_swap_their_columns_change_the_hash() -> None:
    one, other = sarah(vip=1, gone=0), sarah(vip=0, gone=1)
    assert key_of(one, "vip,gone").profile_hash != key_of(other, "gone,vip").profile_hash


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Decimal("1.50"), Decimal("1.51")),
        (Decimal("2"), "2"),
        (Decimal("123456789012345678.91"), Decimal("123456789012345678.92")),
        (timedelta(seconds=1), timedelta(seconds=1, milliseconds=1)),
        (timedelta(hours=1), timedelta(hours=2)),
        ({"a"}, {"a", "b"}),
        (set(), None),
        ({"a": 1}, {"a": 2}),
        (1, True),
        (0.1, 0.2),
    ],
)
def test_different_values_of_every_type_have_different_hashes(
    before: object, after: object
) -> None:
    hashes = [key_of(sarah(extra=value), "extra").profile_hash for value in (before, after)]
    assert hashes[0] != hashes[1]


def test_the_event_hash_changes_with_the_column_event_id_and_the_page() -> None:
    def of(**row: object) -> int | None:
        return key_of(sarah(**row), event_fields=parse_fields("location", frozenset())).event_hash

    assert of(event_id=1) != of(event_id=2)
    assert of(page="pricing") != of(page="settings")


def test_the_settings_of_profiles_and_events_are_told_apart() -> None:
    plain = RowMapping(tuple(SARAH))
    page = parse_fields("page", frozenset())
    for fields, options, profile_differs, event_differs in (
        ("browser", {}, True, False),
        ("is_pro=plan_type:bool", {}, True, False),
        ("", {"send_nulls": True}, True, False),
        ("", {"event_fields": page}, False, True),
        ("", {"zone": ZoneInfo("Europe/Berlin")}, True, True),
        ("", {"user_fields": USER_FIELDS[::-1], "event_fields": EVENT_FIELDS[::-1]}, False, False),
    ):
        other = mapping_for(SARAH, fields, **options)
        assert (other.profile_settings != plain.profile_settings) == profile_differs
        assert (other.event_settings != plain.event_settings) == event_differs
    turned = RowMapping(tuple(reversed(list(SARAH))))
    assert (turned.profile_settings, turned.event_settings) == (
        plain.profile_settings,
        plain.event_settings,
    )


def test_a_key_holds_user_id_email_user_key_and_event_time() -> None:
    key = key_of(sarah(email=" Sarah.Johnson@Email.com "))
    assert (key.user_id, key.email) == (1, "Sarah.Johnson@Email.com")
    assert key.user_key == key_of(SARAH).user_key
    assert key.event_at == 1_768_314_645_000_000
    assert key_of(sarah(event_time=stored(2026, 1, 13, 14, 30, 45, 7))).event_at % 1_000_000 == 7


def test_hashes_are_the_same_in_every_release() -> None:
    """Another hash would send every row again after an upgrade."""
    key = key_of(SARAH)
    assert key.user_key == SARAHS_USER_KEY
    assert to_user_key("Müller@München.de") == 2961268501871219294
    assert (key.profile_hash, key.event_hash) == SARAHS_HASHES


@pytest.mark.parametrize("row", [{"email": None}, {"email": b"a@b.com"}, {"event_time": None}])
def test_a_row_that_cannot_be_valid_has_no_key(row: Mapping[str, Any]) -> None:
    changed = sarah(**row)
    assert mapping_for(changed).key(tuple(changed.values())) is None


def test_a_set_column_hashes_the_same_in_every_process() -> None:
    """The order of a set depends on Python's hash seed: every run sent such rows again."""
    program = (
        "from tests.support.golden import key_of, sarah\n"
        "print(key_of(sarah(tags={'a', 'b', 'c', 'd', 'e'}), 'tags').profile_hash)"
    )
    hashes = {
        subprocess.check_output(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )
        for seed in range(3)
    }
    assert len(hashes) == 1


# Any value that the driver returns

ADDRESSES = st.sampled_from(
    ["ann@example.com", " Ann@Example.com", "bo@", "", "ü@ü.de", "a" * 70 + "@b.de"]
)
MOMENTS = st.datetimes() | st.datetimes(
    min_value=stored(2026, 3, 28), max_value=stored(2026, 3, 30)
)
TEXT_TIMES = st.sampled_from(
    ["", "2026-01-13 14:30:45", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "now"]
)
JSON_TEXTS = st.sampled_from(['{"a": [1, null]}', "[" * 300 + "]" * 300, "{", "1e999", "null"])
CELLS = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.just("x" * 32_001),
    JSON_TEXTS,
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0, 1, True]),
    st.floats(),
    st.decimals(),
    st.datetimes(),
    st.datetimes(timezones=st.just(timezone(timedelta(hours=14)))),
    st.dates(),
    st.timedeltas(),
    st.binary(max_size=8),
    st.binary(max_size=8).map(bytearray),
    st.sets(st.text(max_size=3), max_size=3),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.none() | st.floats(), max_size=3),
)
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | CELLS,
        "email": ADDRESSES | st.emails() | CELLS,
        **dict.fromkeys(("first_name", "last_name", "plan_type", "candidate"), CELLS),
        **dict.fromkeys(("page", "device", "location"), CELLS),
        "event_time": MOMENTS | TEXT_TIMES | st.dates() | CELLS,
        "extra": CELLS,
    },
    optional={"event_id": CELLS},
)
FIELDS = (*USER_FIELDS, *parse_fields("extra,flag=extra:bool,tree=extra:json", frozenset()))
FEWER_FIELDS = (*USER_FIELDS, *parse_fields("extra", frozenset()))
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Kiritimati", "America/Lima"])


@given(row=ROWS, zone=ZONES, send_nulls=st.booleans(), with_casts=st.booleans())
def test_no_row_raises_an_exception(
    row: dict[str, Any], zone: str, send_nulls: bool, with_casts: bool
) -> None:
    mapping = RowMapping(
        tuple(row),
        user_fields=FIELDS if with_casts else FEWER_FIELDS,
        zone=ZoneInfo(zone),
        send_nulls=send_nulls,
    )
    key = mapping.key(tuple(row.values()))
    record = mapping.to_record(tuple(row.values()))
    if isinstance(record, InvalidRow):
        assert record.reason
        return
    assert key is not None
    assert (key.user_id, key.email) == (record.user_id, record.email)
    # SQLite's integers have 64 bits.
    assert all(-(2**63) <= number < 2**63 for number in key if isinstance(number, int))
    check_payloads(record)


def check_payloads(record: SyncRecord) -> None:
    profile, event = orjson.loads(record.profile or b""), orjson.loads(record.event or b"")
    assert profile["email"] == event["email"] == record.email
    assert profile["dataFields"]["recent_page_view"] is True
    assert re.fullmatch(r"[A-Za-z0-9-]{1,64}", event["id"])
    assert event["id"] == record.event_id
    assert isinstance(event["createdAt"], int)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", event["dataFields"]["timestamp"])
    assert None not in event["dataFields"].values()


@given(ROWS)
def test_the_reason_of_an_invalid_row_holds_no_personal_data(row: dict[str, Any]) -> None:
    secret = "Xyzzy-4711"
    marked = {
        name: value + secret if isinstance(value, str) else value for name, value in row.items()
    }
    record = RowMapping(tuple(marked), user_fields=FIELDS).to_record(tuple(marked.values()))
    assert not isinstance(record, InvalidRow) or secret not in record.reason


# Few values, so that equal ones meet; of the types that one column gives, one a column.
FEW_ROWS = st.fixed_dictionaries(
    {
        "id": st.sampled_from([1, 2]),
        "email": st.sampled_from(["ann@example.com", "bo@example.com", "Bo@example.com"]),
        "first_name": st.sampled_from(["Ann", "Bo", "", None]),
        "last_name": st.sampled_from(["1", '"', '","', None]),
        "plan_type": st.sampled_from(["pro", "pro,yes"]),
        "candidate": st.sampled_from(["yes", None]),
        "page": st.sampled_from(["pricing", "settings", None]),
        "device": st.sampled_from(["desktop", None]),
        "location": st.sampled_from(["x", None]),
        "event_time": st.sampled_from([stored(2026, 1, 1), stored(2026, 1, 1, 0, 0, 0, 1)]),
        "extra": st.sampled_from([0, 1, None]) | st.sampled_from([{"a"}, {"a", "b"}]),
        "browser": st.sampled_from(["Chrome", "Safari"]),
    }
)


@given(
    one=FEW_ROWS,
    another=FEW_ROWS,
    columns=st.sets(st.sampled_from([*sorted(SARAH), "extra"]), max_size=3),
    send_nulls=st.booleans(),
)
def test_rows_have_the_same_hash_if_and_only_if_their_payloads_are_equal(
    one: dict[str, Any], another: dict[str, Any], columns: set[str], send_nulls: bool
) -> None:
    other = {**one, **{column: another[column] for column in columns}}
    first, second = (key_of(row, "extra", send_nulls=send_nulls) for row in (one, other))
    sent, again = (record_of(row, "extra", send_nulls=send_nulls) for row in (one, other))
    assert (first.profile_hash == second.profile_hash) == (sent.profile == again.profile)
    assert (first.event_hash == second.event_hash) == (sent.event == again.event)


@given(row=ROWS, column=st.sampled_from(sorted(SARAH)), value=CELLS)
def test_a_changed_payload_is_a_changed_hash(
    row: dict[str, Any], column: str, value: object
) -> None:
    changed = {**row, column: value}
    assume(list(changed) == list(row))
    mapping = RowMapping(tuple(row), user_fields=FEWER_FIELDS)
    before, after = (mapping.to_record(tuple(cells.values())) for cells in (row, changed))
    keys = [mapping.key(tuple(cells.values())) for cells in (row, changed)]
    if isinstance(before, InvalidRow) or isinstance(after, InvalidRow):
        return
    assert keys[0] is not None
    assert keys[1] is not None
    if before.profile != after.profile:
        assert keys[0].profile_hash != keys[1].profile_hash
    if before.event != after.event:
        assert keys[0].event_hash != keys[1].event_hash
