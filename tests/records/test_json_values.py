"""The JSON form of every value that a MySQL column can hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.json_values import MAX_NESTING, MAX_TEXT_CHARACTERS, cast_value, to_json_value
from tests.support.golden import stored


def refusal_of(value: Any) -> str:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is what is tested
        to_json_value(value)
    return str(raised.value)


BINARY = "is binary, which JSON cannot represent: select HEX(...) or CONVERT(... USING utf8mb4)"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (0, 0),
        (-(2**63), -(2**63)),
        (2**64 - 1, 2**64 - 1),
        (-0.5, -0.5),
        ("", ""),
        ("x" * MAX_TEXT_CHARACTERS, "x" * MAX_TEXT_CHARACTERS),
        (Decimal("0"), 0),
        (Decimal("-3"), -3),
        (Decimal("19.90"), 19.9),
        (Decimal("12345678901234567890"), 12345678901234567890),
        (Decimal("1E+2"), 100.0),
        (date(1, 1, 1), "0001-01-01"),
        (timedelta(0), "00:00:00"),
        (timedelta(hours=-1, minutes=-2, seconds=-3), "-01:02:03"),
        (timedelta(hours=838, minutes=59, seconds=59), "838:59:59"),
        (timedelta(seconds=1.75), "00:00:01.75"),
        (timedelta(seconds=-1.75), "-00:00:01.75"),
        (timedelta(microseconds=20), "00:00:00.00002"),
        (set(), []),
        (frozenset({"c", "a", "b"}), ["a", "b", "c"]),
        ([1, None, Decimal("1.5")], [1, None, 1.5]),
        ((date(2026, 1, 2),), ["2026-01-02"]),
        ({"a": {"b": [True]}}, {"a": {"b": [True]}}),
        ({1: 2}, {"1": 2}),
    ],
)
def test_a_value_has_one_json_form(value: Any, expected: Any) -> None:
    converted = to_json_value(value)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "zone", "expected"),
    [
        (stored(2026, 1, 13, 14, 30, 45), "UTC", "2026-01-13 14:30:45 +00:00"),
        (stored(2026, 1, 13, 14, 30, 45, 999_999), "UTC", "2026-01-13 14:30:45 +00:00"),
        (stored(2026, 1, 13, 14, 30, 45), "Europe/Berlin", "2026-01-13 13:30:45 +00:00"),
        (stored(2026, 7, 13, 14, 30, 45), "Europe/Berlin", "2026-07-13 12:30:45 +00:00"),
        (stored(2026, 3, 29, 2, 30), "Europe/Berlin", "2026-03-29 01:30:00 +00:00"),  # skipped
        (stored(2026, 10, 25, 2, 30), "Europe/Berlin", "2026-10-25 00:30:00 +00:00"),  # twice
        (stored(2026, 1, 1), "Pacific/Kiritimati", "2025-12-31 10:00:00 +00:00"),
        (stored(999, 1, 1), "UTC", "0999-01-01 00:00:00 +00:00"),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-5))), "Europe/Berlin",
         "2026-01-01 05:00:00 +00:00"),
    ],
)  # fmt: skip
def test_a_datetime_is_written_in_utc_in_iterables_format(
    value: datetime, zone: str, expected: str
) -> None:
    assert to_json_value(value, ZoneInfo(zone)) == expected
    assert to_json_value([value], ZoneInfo(zone)) == [expected]


def test_a_datetime_outside_the_years_of_utc_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^is outside the years 1 to 9999 in UTC$"):
        to_json_value(stored(1, 1, 1), ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("x" * (MAX_TEXT_CHARACTERS + 1), "is longer than 32,000 characters"),
        (["x" * (MAX_TEXT_CHARACTERS + 1)], "is longer than 32,000 characters"),
        ({"x" * (MAX_TEXT_CHARACTERS + 1): 1}, "is longer than 32,000 characters"),
        (2**64, "is a whole number that does not fit into 64 bits"),
        (-(2**63) - 1, "is a whole number that does not fit into 64 bits"),
        (math.nan, "is nan, which JSON cannot represent"),
        (-math.inf, "is -inf, which JSON cannot represent"),
        (Decimal("Infinity"), "is Infinity, which JSON cannot represent"),
        (Decimal("1E+400"), "has more than 65 digits"),
        (b"", BINARY),
        (memoryview(b"a"), BINARY),
        ([[b"a"]], BINARY),
        (1j, "is of type complex, which JSON cannot represent"),
    ],
)
def test_a_value_without_json_form_is_refused_with_the_reason(value: Any, why: str) -> None:
    assert refusal_of(value) == why


@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 5_000])
def test_values_nested_too_deep_are_refused(depth: int) -> None:
    nested: Any = 1
    for _ in range(depth):
        nested = [nested]
    assert refusal_of(nested) == "is nested more than 100 levels deep"
    assert refusal_of({"a": nested}) == "is nested more than 100 levels deep"


@pytest.mark.parametrize("wrap", [lambda value: {"a": value}, lambda value: [value]])
def test_the_deepest_allowed_value_can_be_written_as_json(wrap: Callable[[Any], Any]) -> None:
    nested: Any = 1
    for _ in range(MAX_NESTING):
        nested = wrap(nested)
    assert to_json_value(nested) == nested
    assert orjson.loads(orjson.dumps({"dataFields": {"deep": nested}}))


# Casts


@pytest.mark.parametrize(
    ("value", "expected"), [(1, True), (0, False), (True, True), (Decimal(1), True)]
)
def test_the_cast_bool_accepts_zero_and_one(value: Any, expected: bool) -> None:
    assert cast_value(value, "bool") is expected


@pytest.mark.parametrize("value", [2, -1, "1", "", b"\x01", "yes", math.nan, [], {}])
def test_the_cast_bool_refuses_anything_else(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^is neither 0 nor 1, so :bool cannot convert it$"):
        cast_value(value, "bool")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        (b"[1, 2]", [1, 2]),
        (bytearray(b'"x"'), "x"),
        ("null", None),
        ({"a": 1}, {"a": 1}),
        (7, 7),
    ],
)
def test_the_cast_json_parses_text_and_keeps_other_values(value: Any, expected: Any) -> None:
    assert cast_value(value, "json") == expected


@pytest.mark.parametrize("value", ["", "{", "{'a': 1}", "NaN", b"\xff", "[" * 2_000])
def test_what_is_not_json_has_no_json_form(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^is not valid JSON, so :json cannot convert it$"):
        cast_value(value, "json")


def test_without_a_cast_a_value_is_unchanged() -> None:
    value = object()
    assert cast_value(value, "") is value


# Any value

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.decimals(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_every_value_is_converted_to_json_or_refused_with_a_reason(value: Any) -> None:
    try:
        converted = to_json_value(value)
    except ValueError:
        assert refusal_of(value).startswith("is ")
        return
    assert orjson.dumps(converted)


@given(st.datetimes(), st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/Lima"]))
def test_every_datetime_is_written_as_the_same_moment(value: datetime, zone: str) -> None:
    try:
        text = to_json_value(value, ZoneInfo(zone))
    except ValueError:
        assert value.year in (1, 9999)
    else:
        parsed = datetime.strptime(text, "%Y-%m-%d %H:%M:%S %z")
        aware = value.replace(tzinfo=ZoneInfo(zone))
        assert timedelta(0) <= aware.astimezone(timezone.utc) - parsed < timedelta(seconds=1)


@given(st.timedeltas(min_value=timedelta(hours=-838), max_value=timedelta(hours=838)))
def test_every_time_column_reads_back_as_the_same_span(span: timedelta) -> None:
    text = to_json_value(span)
    hours, minutes, seconds = text.lstrip("-").split(":")
    parsed = timedelta(hours=int(hours), minutes=int(minutes))
    parsed += timedelta(microseconds=round(float(seconds) * 1e6))
    assert parsed == abs(span)
    assert text.startswith("-") == (span < timedelta(0))
