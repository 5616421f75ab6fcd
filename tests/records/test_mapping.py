"""Mapping a row: the two payloads, the event id, and the reasons why a row is invalid."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import orjson
import pytest

from config.fields import EVENT_FIELDS, parse_fields
from records.mapping import RowMapping, needed_columns
from tests.support.golden import (
    SARAH,
    SARAHS_EVENT,
    SARAHS_EVENT_ID,
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

# The payloads


def test_the_documented_row_gives_exactly_the_two_documented_payloads() -> None:
    assert profile_of(SARAH) == SARAHS_PROFILE
    assert event_of(SARAH) == {**SARAHS_EVENT, "id": SARAHS_EVENT_ID}


def test_the_record_has_the_user_id_the_email_and_the_event_id() -> None:
    record = record_of(SARAH)
    assert (record.user_id, record.email) == (1, "sarah.johnson@email.com")
    assert record.event_id == SARAHS_EVENT_ID


@pytest.mark.parametrize(
    "email", ["sarah@example.com", " Sarah@EXAMPLE.com\t", "straße@example.com"]
)
def test_the_user_key_alone_is_that_of_the_whole_key(email: str) -> None:
    row = sarah(email=email)
    assert mapping_for(row).user_key_of(tuple(row.values())) == key_of(row).user_key


@pytest.mark.parametrize("email", [None, b"sarah@example.com", 1])
def test_a_row_whose_email_is_no_text_has_no_user_key(email: object) -> None:
    row = sarah(email=email)
    assert mapping_for(row).user_key_of(tuple(row.values())) is None


def test_the_order_of_the_columns_does_not_matter() -> None:
    turned = dict(reversed(list(SARAH.items())))
    assert record_of(turned) == record_of(SARAH)


def test_a_null_column_is_left_out_of_both_payloads() -> None:
    row = sarah(first_name=None, candidate=None, device=None, location=None)
    assert set(profile_of(row)["dataFields"]) == {"last_name", "plan_type", "recent_page_view"}
    assert set(event_of(row)["dataFields"]) == {"page", "timestamp"}


def test_with_send_nulls_a_null_clears_the_profile_field_but_never_goes_into_an_event() -> None:
    row = sarah(first_name=None, candidate=None)
    fields = profile_of(row, send_nulls=True)["dataFields"]
    assert fields["first_name"] is None
    assert fields["candidate"] is None
    assert fields["last_name"] == "Johnson"
    assert "candidate" not in event_of(row, send_nulls=True)["dataFields"]


@pytest.mark.parametrize(
    "name",
    ["Zoë", "小龙", "🚀 Amélie", "O'Hara", 'a "b" \\ c', "مريم", "👩‍👩‍👧", "", "tab\tline\nend"],
)
def test_text_is_sent_unchanged(name: str) -> None:
    assert profile_of(sarah(first_name=name))["dataFields"]["first_name"] == name
    assert event_of(sarah(location=name))["dataFields"]["location"] == name


@pytest.mark.parametrize("letter", ["x", "小", "🚀"])
def test_a_text_may_have_32000_characters_and_no_more(letter: str) -> None:
    assert profile_of(sarah(first_name=letter * 32_000))["dataFields"]["first_name"][-1] == letter
    assert reason_of(sarah(first_name=letter * 32_001)) == (
        "field 'first_name' is longer than 32,000 characters"
    )
    assert reason_of(sarah(location=letter * 32_001)) == (
        "field 'location' is longer than 32,000 characters"
    )


@pytest.mark.parametrize(
    ("value", "in_json"),
    [
        (Decimal("12.50"), 12.5),
        (Decimal("12"), 12),
        (7, 7),
        (1, 1),
        (0.25, 0.25),
        (date(2026, 1, 13), "2026-01-13"),
        (stored(2026, 1, 13, 14, 30, 45), "2026-01-13 14:30:45 +00:00"),
        (timedelta(hours=26, minutes=3, seconds=4), "26:03:04"),
        ({"b", "a"}, ["a", "b"]),
        ({"plan": ["pro", 1, None]}, {"plan": ["pro", 1, None]}),
    ],
)
def test_an_additional_profile_field_has_the_json_form_of_its_type(
    value: object, in_json: object
) -> None:
    field = profile_of(sarah(extra=value), "extra")["dataFields"]["extra"]
    assert field == in_json
    assert type(field) is type(in_json)


def test_a_tinyint_becomes_a_boolean_only_with_the_cast_bool() -> None:
    row = sarah(vip=1, churned=0)
    fields = profile_of(row, "vip,is_vip=vip:bool,is_gone=churned:bool")["dataFields"]
    assert fields["vip"] == 1
    assert type(fields["vip"]) is int
    assert (fields["is_vip"], fields["is_gone"]) == (True, False)
    assert type(fields["is_vip"]) is bool


def test_json_text_becomes_an_object_only_with_the_cast_json() -> None:
    row = sarah(tags='{"a": [1, 2]}')
    fields = profile_of(row, "tags,parsed=tags:json")["dataFields"]
    assert (fields["tags"], fields["parsed"]) == ('{"a": [1, 2]}', {"a": [1, 2]})


BINARY = "is binary, which JSON cannot represent: select HEX(...) or CONVERT(... USING utf8mb4)"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"\x00\x01", BINARY),
        (bytearray(b"x"), BINARY),
        (float("nan"), "is nan, which JSON cannot represent"),
        (float("inf"), "is inf, which JSON cannot represent"),
        (Decimal("NaN"), "is NaN, which JSON cannot represent"),
        (2**64, "is a whole number that does not fit into 64 bits"),
        (object(), "is of type object, which JSON cannot represent"),
    ],
)
def test_a_value_without_json_form_makes_the_row_invalid(value: object, why: str) -> None:
    assert reason_of(sarah(extra=value), "extra") == f"field 'extra' {why}"


def test_text_that_is_not_unicode_makes_the_row_invalid() -> None:
    assert reason_of(sarah(first_name="\ud800")) == "a text is not valid Unicode"
    assert reason_of(sarah(page="\ud800")) == "a text is not valid Unicode"
    assert mapping_for(SARAH).key(tuple(sarah(first_name="\ud800").values())) is None


@pytest.mark.parametrize("depth", [101, 300, 990, 1_000])
def test_json_nested_too_deep_is_an_invalid_row_not_a_crash(depth: int) -> None:
    row = sarah(deep="[" * depth + "]" * depth)
    assert reason_of(row, "deep:json") == "field 'deep' is nested more than 100 levels deep"


def test_json_as_deep_as_mysql_allows_is_sent() -> None:
    text = "[" * 100 + "]" * 100
    assert orjson.dumps(profile_of(sarah(deep=text), "deep:json")["dataFields"]["deep"]) == (
        text.encode()
    )


# The column event_id


@pytest.mark.parametrize(
    ("event_id", "expected"),
    [
        (77, "page-view-id-77"),
        ("a-B-09", "page-view-id-a-B-09"),
        (Decimal(5), "page-view-id-5"),
        ("x" * 51, "page-view-id-" + "x" * 51),  # 64 characters
    ],
)
def test_the_column_event_id_becomes_part_of_the_event_id(event_id: object, expected: str) -> None:
    assert event_of(sarah(event_id=event_id))["id"] == expected


def test_with_a_column_event_id_neither_page_nor_user_change_the_event_id() -> None:
    one = event_of(sarah(event_id=77))
    other = event_of(sarah(event_id=77, id=2, page="settings"))
    assert one["id"] == other["id"]


def test_a_query_with_event_ids_needs_no_page() -> None:
    row = {key: value for key, value in sarah(event_id=77).items() if key != "page"}
    events = parse_fields("location", frozenset())
    assert mapping_for(row, event_fields=events).missing_columns == []
    assert event_of(row, event_fields=events)["id"] == "page-view-id-77"


# Columns


def test_column_names_are_matched_without_regard_to_case() -> None:
    upper = {name.upper(): value for name, value in SARAH.items()}
    assert mapping_for(upper).missing_columns == []
    assert profile_of(upper) == profile_of(SARAH)
    assert event_of(upper) == event_of(SARAH)
    lower = parse_fields("First_Name", frozenset())
    assert profile_of(SARAH, user_fields=lower)["dataFields"]["First_Name"] == "Sarah"


@pytest.mark.parametrize(
    ("columns", "ambiguous"),
    [
        ([*SARAH, "id"], ["id"]),
        ([*SARAH, "EMAIL", "Page"], ["email", "page"]),
        ([*SARAH, "browser"], []),  # nobody needs it
        ([*SARAH, "event_id", "event_id"], ["event_id"]),
    ],
)
def test_columns_of_one_name_are_ambiguous_where_the_mapping_needs_them(
    columns: list[str], ambiguous: list[str]
) -> None:
    assert RowMapping(columns).ambiguous_columns == ambiguous


@pytest.mark.parametrize(("send_nulls", "expected"), [(False, {}), (True, {"extra": None})])
def test_a_json_text_null_cleared_the_field(send_nulls: bool, expected: dict[str, None]) -> None:
    row = sarah(extra="null")
    fields = parse_fields("extra:json", frozenset())
    sent = profile_of(row, user_fields=fields, send_nulls=send_nulls)["dataFields"]
    assert sent == {**expected, "recent_page_view": True}
    assert "extra" not in event_of(row, event_fields=fields)["dataFields"]


@pytest.mark.parametrize(
    "number",
    [
        *("123456789012345678.91", "0.1234567890123456789", "-99999999999999999999.99"),
        *("123456789012345678901234567890", "1.50", "2", "0"),
    ],
)
def test_a_decimal_is_sent_with_every_digit(number: str) -> None:
    record = record_of(sarah(extra=Decimal(number)), "extra")
    sent = (record.profile or b"").decode().partition('"extra":')[2].partition(",")[0].rstrip("}")
    assert Decimal(sent) == Decimal(number)


def test_mapped_columns_that_the_query_lacks_are_missing() -> None:
    row = {"id": 1, "email": "a@b.com", "first_name": "A", "event_time": None}
    assert mapping_for(row).missing_columns == [
        "last_name",
        "plan_type",
        "candidate",
        "page",
        "device",
        "location",
    ]
    assert mapping_for(SARAH).missing_columns == []
    assert needed_columns(["event_id"], (), ()) == ["id", "email", "event_time"]
    assert needed_columns([], (), (), sends_events=False) == ["id", "email"]


def test_a_row_without_a_mapped_column_raises_an_exception() -> None:
    row = {name: value for name, value in SARAH.items() if name != "plan_type"}
    with pytest.raises(IndexError):
        mapping_for(row).to_record(tuple(row.values()))


def test_a_query_without_any_mapped_column_crashed() -> None:
    """It was a TypeError and exit status 70."""
    assert RowMapping(("uid", "mail")).missing_columns == needed_columns(())


def test_a_profile_field_can_be_added_under_the_columns_or_another_name() -> None:
    assert profile_of(sarah(city="Kyiv"), "city")["dataFields"]["city"] == "Kyiv"
    assert profile_of(sarah(city="Kyiv"), "home=city")["dataFields"]["home"] == "Kyiv"


def test_a_mapping_without_profile_and_event_fields_works() -> None:
    row = {"id": 1, "email": "a@b.com", "page": "p", "event_time": SARAH["event_time"]}
    mapping = RowMapping(tuple(row), user_fields=(), event_fields=())
    assert mapping.missing_columns == []
    assert mapping.key(tuple(row.values())) is not None
    assert event_of(row, user_fields=(), event_fields=())["dataFields"] == {
        "timestamp": "2026-01-13 14:30:45"
    }


def test_a_profile_without_fields_changes_only_with_the_email() -> None:
    def of(**row: object) -> int | None:
        return key_of(sarah(**row), user_fields=()).profile_hash

    assert of(email="ann@example.com") != of()
    assert of(first_name="Sally") == of()


def test_the_default_fields_are_the_documented_ones() -> None:
    assert [tuple(field) for field in EVENT_FIELDS] == [
        ("page", "page", ""),
        ("browser", "device", ""),
        ("location", "location", ""),
        ("candidate", "candidate", ""),
    ]
