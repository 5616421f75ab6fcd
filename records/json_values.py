"""The JSON form of every value that a MySQL column can hold.

Owns types and Iterable's limits on a single value: what cannot be said in JSON, or would not be
taken, is a ValueError whose text completes "field 'x' ...". Knows no rows and no payloads.
"""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import orjson

MAX_TEXT_CHARACTERS = 32_000  # Iterable's limit for one field
MAX_NESTING = 100  # of JSON in JSON: MySQL's own limit, well under those of `orjson` and Python
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64 - 1  # what JSON numbers may hold in `orjson`


def to_json_value(value: Any, zone: tzinfo = timezone.utc, depth: int = 0) -> Any:
    """Return the JSON form of a value that MySQL's driver returns.

    `zone` is what naive datetimes mean, `depth` how deep in another value this one is. Raises
    ValueError, saying what the value is, where there is no JSON form or Iterable would not
    take it.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _checked_text(value)
    if isinstance(value, int):
        return _checked_integer(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"is {value}, which JSON cannot say")
        return value
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"is {value}, which JSON cannot say")
        if value.as_tuple().exponent == 0:
            return _checked_integer(int(value))
        return to_json_value(float(value))
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=zone)
        try:
            in_utc = aware.astimezone(timezone.utc).replace(tzinfo=None)
        except OverflowError:
            raise ValueError("is a time that cannot be told in UTC") from None
        return f"{in_utc.isoformat(' ', 'seconds')} +00:00"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _clock_time(value)
    if isinstance(value, (set, frozenset)):
        return sorted(to_json_value(item, zone) for item in value)
    if isinstance(value, (list, tuple, dict)) and depth >= MAX_NESTING:
        raise ValueError(f"is nested more than {MAX_NESTING} deep")
    if isinstance(value, (list, tuple)):
        return [to_json_value(item, zone, depth + 1) for item in value]
    if isinstance(value, dict):
        return {
            _checked_text(str(key)): to_json_value(item, zone, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise ValueError("is binary, which JSON cannot say")
    raise ValueError(f"is of type {type(value).__name__}, which JSON cannot say")


def cast_value(value: Any, cast: str) -> Any:
    """Apply the `:bool` or `:json` of a mapping; "" leaves the value as it is."""
    if cast == "bool":
        if value not in (0, 1):
            raise ValueError("is neither 0 nor 1, so it has no :bool form")
        return bool(value)
    if cast == "json":
        try:
            return orjson.loads(value) if isinstance(value, (str, bytes, bytearray)) else value
        except orjson.JSONDecodeError:
            raise ValueError("is not JSON, so it has no :json form") from None
    return value


def _checked_text(text: str) -> str:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"is a text of over {MAX_TEXT_CHARACTERS:,} characters")
    return text


def _checked_integer(number: int) -> int:
    if not _MIN_INTEGER <= number <= _MAX_INTEGER:
        raise ValueError("is a whole number of over 64 bits")
    return number


def _clock_time(span: timedelta) -> str:
    """Return a TIME column's value as MySQL writes it, `-HH:MM:SS`; it may exceed a day."""
    seconds = abs(span) // timedelta(seconds=1)
    sign = "-" if span < timedelta(0) else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
