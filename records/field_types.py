"""Iterable's field types: the type of a value, which types fit a field, and what to do if not.

Sources: Iterable's article "Field Data Types", and its error code `RequestFieldsTypesMismatched`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from config.fields import Constant
from config.settings import Settings

# Iterable's type of a field -> the types of values that fit. A value's type is one of Iterable's;
# "date" is a text in a date format. Two types exist for columns only: "text" (may or may not hold
# dates) and "decimal" (may or may not hold whole numbers).
_FITTING: Mapping[str, frozenset[str]] = {
    "string": frozenset({"string", "date", "text"}),
    "long": frozenset({"long", "decimal"}),
    "double": frozenset({"double", "long", "decimal"}),
    "boolean": frozenset({"boolean"}),
    "date": frozenset({"date", "text"}),
    "object": frozenset({"object"}),
    "nested": frozenset({"object"}),
    "geo_location": frozenset({"object"}),
}
# Iterable's type of a field -> the types of values that it certainly refuses. Fewer than those that
# do not fit: whether a number passes for a text, for example, depends on the project.
_REFUSED: Mapping[str, frozenset[str]] = {
    "string": frozenset({"boolean", "object"}),
    "long": frozenset({"boolean", "object", "string", "date"}),
    "double": frozenset({"boolean", "object", "string", "date"}),
    "boolean": frozenset({"object", "string", "date", "long", "double"}),
    "date": frozenset({"boolean", "object", "string"}),
    "object": frozenset({"boolean"}),
    "nested": frozenset({"boolean"}),
    "geo_location": frozenset({"boolean"}),
}
_DISPLAY_NAMES = {"text": "string", "decimal": "double"}

# "yyyy-MM-dd HH:mm:ss", with or without a zone; with a T only with milliseconds and a zone.
_ZONE = r"(?:Z|[+-]\d\d:?\d\d)"
_DATE = re.compile(
    rf"\d{{4}}-\d\d-\d\d(?: \d\d:\d\d:\d\d(?: ?{_ZONE})?|T\d\d:\d\d:\d\d\.\d{{3}}{_ZONE})?"
)


def types_in(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (field, type) for each value; members of an object have dotted names.

    null and empty lists have no type; a list has the types of its elements.
    """
    for name, value in fields.items():
        yield from types_of(name, value)


def types_of(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield what `types_in` yields for one field."""
    if isinstance(value, bool):
        yield name, "boolean"
    elif isinstance(value, int):
        yield name, "long"
    elif isinstance(value, float):
        yield name, "double"
    elif isinstance(value, str):
        yield name, "date" if _DATE.fullmatch(value) else "string"
    elif isinstance(value, list):
        for element in value:
            yield from types_of(name, element)
    elif isinstance(value, dict):
        yield name, "object"
        for member, inner in value.items():
            yield from types_of(f"{name}.{member}", inner)


def fits(iterable_type: str, our_type: str) -> bool:
    """Return whether a value of our type fits a field; every value fits an unknown type."""
    fitting = _FITTING.get(iterable_type.lower())
    return fitting is None or our_type in fitting


def refuses(iterable_type: str, our_type: str) -> bool:
    """Return whether a field certainly refuses a value; an unknown type refuses none."""
    return our_type in _REFUSED.get(iterable_type.lower(), ())


def display_type(our_type: str, iterable_type: str) -> str:
    """Return the type of a value as it is named in messages."""
    if iterable_type.lower() == "date" and our_type == "string":
        return "string (not in a date format)"
    return _DISPLAY_NAMES.get(our_type, our_type)


def advice(field: str, iterable_type: str, our_type: str, settings: Settings) -> str:
    """Return what to change so that the value fits: the query, a setting or the project."""
    expected = iterable_type.lower()
    if field == settings.profile_flag:  # always true
        return (
            "set PROFILE_FLAG to a field that is boolean in Iterable or does not exist yet, or to "
            "nothing"
        )
    if any(isinstance(each, Constant) and each.target == field for each in settings.user_fields):
        return f"write another value behind {field}:= in USER_FIELDS"
    if "." in field:
        return f"change {field} in the JSON that the query returns"
    if our_type == "boolean":
        return f"remove :bool from {field} in USER_FIELDS"
    if expected == "boolean" and our_type in ("long", "decimal"):
        return f"write {field}=COLUMN:bool in USER_FIELDS"
    if expected in ("object", "nested") and our_type in ("string", "text"):
        return f"write {field}=COLUMN:json in USER_FIELDS"
    expression = {
        "string": "CAST(... AS CHAR)",
        "long": "CAST(... AS SIGNED)",
        "double": "CAST(... AS DOUBLE)",
        "date": "a DATE or DATETIME column",
    }.get(expected)
    if expression:
        return f"select {expression} in the query"
    return f"send it under another field name: write NAME=COLUMN instead of {field} in USER_FIELDS"
