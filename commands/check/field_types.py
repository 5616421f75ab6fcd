"""Iterable's field types: which ones a value can have, and which value fits which field.

Owns the names of the types, the forms of a date, and what MySQL's column types become. Sources:
Iterable's article "Field Data Types", and its `RequestFieldsTypesMismatched`. Sends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from source.column_types import VALUE_TYPES

# The types of what is sent, by field; members of an object have dotted names.
FieldTypes = Mapping[str, frozenset[str]]

# The types of values: Iterable's own, "date" for a text in the form of one; and two that only a
# column can have: "text" may or may not hold dates, "decimal" may or may not hold whole numbers.
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
_SHOWN = {"text": "string", "decimal": "double"}

# "yyyy-MM-dd HH:mm:ss" with or without a zone; with a T only with milliseconds and a zone.
_ZONE = r"(?:Z|[+-]\d\d:?\d\d)"
_DATE = re.compile(
    rf"\d{{4}}-\d\d-\d\d(?: \d\d:\d\d:\d\d(?: ?{_ZONE})?|T\d\d:\d\d:\d\d\.\d{{3}}{_ZONE})?"
)


def types_in(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (field, type) for each value; members of an object have dotted names.

    null and empty lists have no type; a list has the types of its elements.
    """
    for name, value in fields.items():
        yield from _types_of(name, value)


def _types_of(name: str, value: Any) -> Iterator[tuple[str, str]]:
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
            yield from _types_of(name, element)
    elif isinstance(value, dict):
        yield name, "object"
        for member, inner in value.items():
            yield from _types_of(f"{name}.{member}", inner)


def type_of_column(type_code: int, cast: str) -> str | None:
    """Return the type that a column's values have, None where only a value can tell.

    `cast` is that of the mapping, "" for none.
    """
    if cast == "bool":
        return "boolean"
    value_type = None if cast else VALUE_TYPES.get(type_code)
    return "long" if value_type == "integer" else value_type


def fits(iterable_type: str, our_type: str) -> bool:
    """Say whether Iterable takes such a value for such a field; unknown types take all."""
    fitting = _FITTING.get(iterable_type.lower())
    return fitting is None or our_type in fitting


def shown_type(our_type: str, iterable_type: str) -> str:
    """Name the type of a value as the operator knows it."""
    if iterable_type.lower() == "date" and our_type == "string":
        return "string (not in the form of a date)"
    return _SHOWN.get(our_type, our_type)


def advice(field: str, iterable_type: str, our_type: str) -> str:
    """Say how a value of ours could be made to fit, in the terms of query and mapping."""
    expected = iterable_type.lower()
    if our_type == "boolean":
        return f"take :bool away from {field} in USER_FIELDS"
    if expected == "boolean" and our_type in ("long", "decimal"):
        return f"write {field}=COLUMN:bool in USER_FIELDS"
    if expected in ("object", "nested") and our_type in ("string", "text"):
        return f"write {field}=COLUMN:json in USER_FIELDS"
    made_by = {
        "string": "CAST(... AS CHAR)",
        "long": "CAST(... AS SIGNED)",
        "double": "CAST(... AS DOUBLE)",
        "date": "a DATE or DATETIME",
    }.get(expected)
    if made_by:
        return f"select {made_by} in the query"
    return f"send it as a field of another name: write NAME=COLUMN in place of {field}"
