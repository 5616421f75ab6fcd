"""Types of data fields, fixed by the first value that a project receives, as in Iterable.

Types are string, long, double, boolean, object and date. A list has the type of its elements; the
members of an object are typed by their dotted names. null and empty lists fit every type and fix
none. A long fits a double; nothing else is converted. A field is a `date` only if that is preset;
it accepts `yyyy-MM-dd`, `yyyy-MM-dd HH:mm:ss` with or without a zone, and the form with `T` only
with milliseconds and a zone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIELD_TYPES = ("string", "long", "double", "boolean", "object", "date")
TEXT_LIMIT = 32_000  # characters in one value; Iterable's limit on a data field

# Fields that every Iterable project has from the start.
BUILT_IN_USER_FIELDS = {
    "email": "string",
    "userId": "string",
    "signupDate": "date",
    "signupSource": "string",
    "profileUpdatedAt": "date",
}

_TYPE_OF: dict[type, str] = {
    str: "string",
    int: "long",
    float: "double",
    bool: "boolean",
    dict: "object",
}
_SCALARS = frozenset({"long", "double", "boolean"})
_ZONE = r"(?:Z|[+-]\d\d:?\d\d)"
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d"
    rf"(?: \d\d:\d\d:\d\d(?: {_ZONE})?|T\d\d:\d\d:\d\d\.\d{{3}}{_ZONE})?"
)


@dataclass(frozen=True, slots=True)
class TypeMismatch:
    """A value that does not fit the type of its field."""

    field: str
    expected_type: str
    incoming_types: tuple[str, ...]
    offending_value: object

    def to_validation_error(self, category: str) -> dict[str, object]:
        """Return the entry of `params.validationErrors`, as recorded from api.iterable.com."""
        return {
            "incomingTypes": list(self.incoming_types),
            "expectedType": self.expected_type,
            "_type": "UnexpectedType",
            "offendingValue": self.offending_value,
            "category": category,
        }


@dataclass(frozen=True, slots=True)
class TextTooLong:
    """A text longer than TEXT_LIMIT."""

    field: str
    character_count: int


class FieldTypes:
    """Types learned by one project; `presets` are known before the first value.

    A preset `NAME` sets the type of that field in the profile and in all events; `EVENT:NAME` sets
    it in events of that name only.
    """

    def __init__(self, presets: Mapping[str, str] | None = None) -> None:
        self._event_presets: dict[str, str] = {}
        self.of_users: dict[str, str] = dict(BUILT_IN_USER_FIELDS)
        self._of_events: dict[str, dict[str, str]] = {}
        for name, type_name in (presets or {}).items():
            if type_name not in FIELD_TYPES:
                known = ", ".join(FIELD_TYPES)
                raise ValueError(f"field type {name}={type_name}: the types are {known}")
            event_name, separator, field = name.rpartition(":")
            if separator:
                self.of_events(event_name)[field] = type_name
            else:
                self.of_users[name] = type_name
                self._event_presets[name] = type_name
        for known_types in self._of_events.values():
            for name, type_name in self._event_presets.items():
                known_types.setdefault(name, type_name)

    def of_events(self, event_name: str) -> dict[str, str]:
        """Return the field types of one event name, as a live dict."""
        types = self._of_events.get(event_name)
        if types is None:
            types = self._of_events[event_name] = dict(self._event_presets)
        return types


class FieldTypeCheck:
    """Type check of the rows of one call; new types are kept only if all rows fit."""

    def __init__(self, creates_fields: bool) -> None:
        self.creates_fields = creates_fields
        self.problems: list[tuple[str, TypeMismatch | TextTooLong]] = []
        self.filtered_out_fields: set[str] = set()
        self._learned: dict[str, tuple[dict[str, str], dict[str, str]]] = {}

    def accept(
        self, category: str, known: dict[str, str], row: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the fields of the row that the project accepts, and note their problems."""
        fields: dict[str, Any] = row.get("dataFields") or {}
        if not self.creates_fields and not fields.keys() <= known.keys():
            self.filtered_out_fields |= fields.keys() - known.keys()
            fields = {name: value for name, value in fields.items() if name in known}
        types = self._learned.get(category)
        if types is None:
            types = self._learned[category] = (known, {})
        problems = find_field_problems(known, fields, types[1])
        if problems:
            self.problems += [(category, problem) for problem in problems]
        return fields

    def commit(self) -> list[str]:
        """Keep the types of the new fields; return their names."""
        created: dict[str, None] = {}
        for known, learned in self._learned.values():
            known.update(learned)
            created.update(dict.fromkeys(learned))
        return list(created)


def find_field_problems(
    known: Mapping[str, str], fields: Mapping[str, Any], learned: dict[str, str]
) -> list[TypeMismatch | TextTooLong]:
    """Check the fields of one row; add the types of new fields to `learned`, not to `known`."""
    problems: list[TypeMismatch | TextTooLong] = []
    for name, value in fields.items():
        # Fast path for nearly every value: a known scalar, or a text that fits.
        expected = known.get(name)
        type_name = _TYPE_OF.get(type(value))
        if type_name == "string" == expected:
            if len(value) <= TEXT_LIMIT:
                continue
        elif type_name == expected and expected in _SCALARS:
            continue
        _find_value_problems(name, value, known, learned, problems)
    return problems


def _find_value_problems(
    name: str,
    value: Any,
    known: Mapping[str, str],
    learned: dict[str, str],
    problems: list[TypeMismatch | TextTooLong],
) -> None:
    if value is None:
        return
    if type(value) is list:
        for element in value:
            _find_value_problems(name, element, known, learned, problems)
        return
    type_name = _TYPE_OF[type(value)]
    expected = known.get(name) or learned.setdefault(name, type_name)
    if not _fits(expected, type_name, value):
        incoming = ("string", "keyword") if type_name == "string" else (type_name,)
        problems.append(TypeMismatch(name, expected, incoming, value))
    elif type_name == "string" and len(value) > TEXT_LIMIT:
        problems.append(TextTooLong(name, len(value)))
    elif type_name == "object":
        for member, inner in value.items():
            _find_value_problems(f"{name}.{member}", inner, known, learned, problems)


def _fits(expected: str, type_name: str, value: Any) -> bool:
    if expected == "date":
        return type_name == "string" and _DATE.fullmatch(value) is not None
    return type_name == expected or (expected == "double" and type_name == "long")
