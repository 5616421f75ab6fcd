"""Formatting: counts; for the report external text, times, shares and settings. Pure functions."""

from __future__ import annotations

import re
from datetime import datetime
from enum import Enum
from typing import Any

import orjson

from config.fields import AnyField, Constant
from logger_config import redact
from reporting.measurements import clock_time

_MAX_CHARACTERS = 2_000  # of one external text

# Lone surrogates and noncharacters: XML does not allow them, and `redact` leaves them.
_NOT_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, which takes an s in the plural: 1 file, 1,200 files."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def safe_text(value: object) -> str:
    """Return a redacted text that XML allows, shortened if it is very long.

    Markup is not escaped: the template does that.
    """
    text = redact(str(value))
    if len(text) > _MAX_CHARACTERS:
        text = text[:_MAX_CHARACTERS] + "..."
    return _NOT_XML.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def setting_text(value: Any) -> str:
    """Write a setting's value as `.env` has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(_field_text(each) for each in value)
    return "" if value is None else str(value)


def _field_text(field: AnyField | str) -> str:
    if isinstance(field, str):
        return field
    if isinstance(field, Constant):
        return f"{field.target}:={orjson.dumps(field.value).decode()}"
    text = field.target if field.target == field.column else f"{field.target}={field.column}"
    return f"{text}:{field.cast}" if field.cast else text


def utc_time(iso: str) -> str:
    """Write an ISO 8601 time in UTC as 2026-01-13 14:30:45 UTC."""
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M:%S} UTC"


def percentage(share: float) -> str:
    """Write a share (0 to 1) in percent; only exactly 0 and 1 are written as 0 % and 100 %."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "< 0.1\u00a0%"
    if 99.9 < percent < 100:
        return "> 99.9\u00a0%"
    digits = 1 if 0 < percent < 10 or 99 < percent < 100 else 0
    return f"{percent:.{digits}f}\u00a0%"


def duration(seconds: float) -> str:
    """Write a duration as 310 ms, 4.1 s or 2:05 min."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.3g}\u00a0ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}\u00a0ms"
    if seconds < 99.5:
        return f"{seconds:.3g}\u00a0s"
    return f"{clock_time(seconds)}\u00a0{'min' if seconds < 3600 else 'h'}"


def rounded_duration(seconds: float, at_most: float) -> str:
    """Write a duration that is only known to two digits; `at_most` limits rounding up."""
    return duration(min(float(f"{seconds:.2g}"), at_most))
