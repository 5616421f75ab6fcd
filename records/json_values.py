"""Conversion of MySQL values to JSON values, within Iterable's limits for one value.

The text of every ValueError completes "field 'x' ...".
"""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import orjson

MAX_TEXT_CHARACTERS = 32_000  # Iterable's limit for one field
MAX_DECIMAL_DIGITS = 65  # of MySQL's DECIMAL
MAX_NESTING = 100  # levels of JSON: MySQL's limit, lower than those of orjson and Python
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64 - 1  # the integers that orjson writes


def to_json_value(value: Any, zone: tzinfo = timezone.utc, depth: int = 0) -> Any:
    """Return the JSON value for a value from MySQL's driver.

    `zone` is the time zone of naive datetimes, `depth` the nesting level. Raises ValueError for a
    value that JSON cannot represent or that exceeds one of Iterable's limits.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _checked_text(value)
    if isinstance(value, int):
        return _checked_integer(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"is {value}, which JSON cannot represent")
        return value
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"is {value}, which JSON cannot represent")
        return _to_exact_number(value)
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=zone)
        try:
            in_utc = aware.astimezone(timezone.utc).replace(tzinfo=None)
        except OverflowError:
            raise ValueError("is outside the years 1 to 9999 in UTC") from None
        return f"{in_utc.isoformat(' ', 'seconds')} +00:00"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return to_clock_time(value)
    if isinstance(value, (set, frozenset)):
        return sorted(to_json_value(item, zone) for item in value)
    if isinstance(value, (list, tuple, dict)) and depth >= MAX_NESTING:
        raise ValueError(f"is nested more than {MAX_NESTING} levels deep")
    if isinstance(value, (list, tuple)):
        return [to_json_value(item, zone, depth + 1) for item in value]
    if isinstance(value, dict):
        return {
            _checked_text(str(key)): to_json_value(item, zone, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise ValueError(
            "is binary, which JSON cannot represent: select HEX(...) or CONVERT(... USING utf8mb4)"
        )
    raise ValueError(f"is of type {type(value).__name__}, which JSON cannot represent")


def cast_value(value: Any, cast: str) -> Any:
    """Apply a field's cast, "bool", "json" or "utc"; with "" return the value unchanged."""
    if value is None or not cast:
        return value
    if cast == "bool":
        if value not in (0, 1):
            raise ValueError("is neither 0 nor 1, so :bool cannot convert it")
        return bool(value)
    if cast == "json":
        try:
            return orjson.loads(value) if isinstance(value, (str, bytes, bytearray)) else value
        except orjson.JSONDecodeError:
            raise ValueError("is not valid JSON, so :json cannot convert it") from None
    if not isinstance(value, datetime):
        raise ValueError("is not a DATETIME, so :utc cannot convert it")
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def to_clock_time(span: timedelta) -> str:
    """Return a TIME value as MySQL writes it, `-HH:MM:SS.ffffff`; it may exceed 24 hours.

    Trailing zeros of the fraction are left out.
    """
    sign = "-" if span < timedelta(0) else ""
    span = abs(span)
    seconds = span // timedelta(seconds=1)
    text = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{span.microseconds:06}".rstrip("0") if span.microseconds else text


def _checked_text(text: str) -> str:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"is longer than {MAX_TEXT_CHARACTERS:,} characters")
    return text


def _checked_integer(number: int) -> int:
    if not _MIN_INTEGER <= number <= _MAX_INTEGER:
        raise ValueError("is a whole number that does not fit into 64 bits")
    return number


def _to_exact_number(value: Decimal) -> Any:
    """Return an int or float, or the JSON of a number with more digits than a float has."""
    if value.as_tuple().exponent == 0 and _MIN_INTEGER <= value <= _MAX_INTEGER:
        return int(value)
    if abs(value.adjusted()) > MAX_DECIMAL_DIGITS:  # the exponent; MySQL has no such numbers
        raise ValueError(f"has more than {MAX_DECIMAL_DIGITS} digits")
    number = float(value)
    if Decimal(repr(number)) == value:
        return number
    return orjson.Fragment(f"{value:f}")
