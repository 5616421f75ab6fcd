"""Syntax, defaults and reserved names of `USER_FIELDS` and `EVENT_FIELDS`.

The two settings say which column of a row is sent as which field, and which fields have the same
value in every row.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

DEFAULT_USER_FIELDS = "first_name,last_name,plan_type,candidate"
DEFAULT_EVENT_FIELDS = "page,browser=device,location,candidate"
DEFAULT_EVENT_NAME, DEFAULT_PROFILE_FLAG = "page_view", "recent_page_view"
MAX_EVENT_NAME_CHARACTERS = 255  # our own limit: Iterable documents none

# Profile fields that Iterable sets (support.iterable.com, "User profile fields used by Iterable")
# or that this program sets.
RESERVED_USER_FIELDS = frozenset(
    {
        *("email", "emailListIds", "itblInternal", "itblDS", "itblUserId", "devices"),
        *("profileUpdatedAt", "signupDate", "signupSource", "phoneNumberDetails"),
        *("subscribedMessageTypeIds", "unsubscribedMessageTypeIds", "unsubscribedChannelIds"),
    }
)
RESERVED_EVENT_FIELDS = frozenset(
    {"email", "userId", "eventName", "createdAt", "itblInternal", "timestamp"}
)
USER_ID_FIELD = "userId"  # allowed among the profile fields with IDENTIFY_BY=email
CONVERSIONS = ("bool", "json", "utc")
_ABOUT_NAMES = "a field name cannot contain a dot"

# Control characters, the ends of lines and paragraphs, halves of surrogate pairs.
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# The beginning of a constant. A column stands behind a plain "=", so it cannot begin like this.
_CONSTANT = re.compile(r"([^=:,]*):=\s*")


class Field(NamedTuple):
    """A field with the value of a column: `target=column:cast`."""

    target: str
    column: str
    cast: str = ""  # one of CONVERSIONS; "": none


class Constant(NamedTuple):
    """A field with the same value in every row: `target:=JSON`."""

    target: str
    value: Any


AnyField = Field | Constant


def parse_fields(text: str, reserved: frozenset[str]) -> tuple[AnyField, ...]:
    """Parse a list such as `name,target=column,target=column:bool,target:=["a","b"]`.

    Raises ValueError with all problems, one on each line.
    """
    fields: list[AnyField] = []
    problems: list[str] = []
    position = 0
    while position < len(text):
        start, position = position, _end_of_entry(text, position)
        entry = text[start:position].strip()
        position += 1  # the comma
        if not entry:
            continue
        try:
            field = _parse_entry(entry)
            if field.target in reserved:
                raise ValueError(
                    f"cannot contain the field {field.target!r}: Iterable or this program sets it"
                )
            if any(other.target == field.target for other in fields):
                raise ValueError(f"names the field {field.target!r} twice")
        except ValueError as problem:
            problems.append(str(problem))
        else:
            fields.append(field)
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(fields)


def has_control_characters(text: str) -> bool:
    """Return whether a text has characters that no name should have."""
    return _CONTROL.search(text) is not None


def columns_of(fields: Iterable[AnyField]) -> Iterator[Field]:
    """Yield the fields that have the value of a column."""
    return (field for field in fields if isinstance(field, Field))


def _end_of_entry(text: str, start: int) -> int:
    """Return where the entry ends: at the next comma, but not at one inside JSON."""
    constant = _CONSTANT.match(text, start)
    if constant:
        start = constant.end()
        with suppress(ValueError, RecursionError):  # not JSON, which `_parse_constant` says
            _value, start = json.JSONDecoder().raw_decode(text, start)
    end = text.find(",", start)
    return len(text) if end < 0 else end


def _parse_entry(entry: str) -> AnyField:
    constant = _CONSTANT.match(entry)
    if constant:
        return _parse_constant(constant[1].strip(), entry[constant.end() :].strip(), _short(entry))
    target, has_column, column = (part.strip() for part in entry.partition("="))
    column, _, cast = (part.strip() for part in (column if has_column else target).partition(":"))
    if not has_column:
        target = column
    text = _short(entry)
    if not column or not _is_field_name(target):
        raise ValueError(f"{text} is not field=column ({_ABOUT_NAMES})")
    if cast and cast not in CONVERSIONS:
        raise ValueError(f"{text} has the unknown conversion ':{cast}': use :bool, :json or :utc")
    if cast and target == USER_ID_FIELD:
        raise ValueError(f"{text} cannot convert the {USER_ID_FIELD}, which is always a text")
    return Field(target, column, cast)


def _short(entry: str) -> str:
    return repr(entry if len(entry) <= 60 else f"{entry[:60]}...")


def _is_field_name(target: str) -> bool:
    return bool(target) and "." not in target


def _parse_constant(target: str, json_text: str, text: str) -> Constant:
    """Parse a constant; `text` is the entry for messages. Raises ValueError."""
    if not _is_field_name(target):
        raise ValueError(f"{text} is not field:=JSON ({_ABOUT_NAMES})")
    if target == USER_ID_FIELD:
        raise ValueError(f"{text} would give every user the same {USER_ID_FIELD}")
    import orjson  # no package is needed before there is a constant

    try:
        value = json.loads(json_text, parse_float=_finite, parse_constant=_finite)
        orjson.dumps(value)  # no integer over 64 bits, no half of a surrogate pair
    except (ValueError, TypeError, RecursionError):
        raise ValueError(
            f'{text} is not field:=JSON: a text stands in double quotes, as in source:="mysql", '
            "and a number has at most 64 bits"
        ) from None
    return Constant(target, value)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


USER_FIELDS = parse_fields(DEFAULT_USER_FIELDS, RESERVED_USER_FIELDS)
EVENT_FIELDS = parse_fields(DEFAULT_EVENT_FIELDS, RESERVED_EVENT_FIELDS)
