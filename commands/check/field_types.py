"""Field types of `--check`: profile fields of the first rows compared with those in Iterable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from commands.check.line import CheckLine, failed, passed, warned
from config.fields import Field, columns_of
from config.settings import Settings
from records.field_types import advice, display_type, fits, types_in, types_of
from source.column_types import SQL_NAMES, VALUE_TYPES

_MAX_VALUE_CHARACTERS = 20


class SentField(NamedTuple):
    """What the first rows say of a profile field."""

    kinds: frozenset[str]  # the types of its values, of its column if it has none
    origin: str = ""  # the type of its column, in SQL
    values: Sequence[Any] = ()  # up to three different ones that are not null, the first one first
    bool_mapping: str = ""  # what to write in USER_FIELDS if it should be a boolean


SentFields = Mapping[str, SentField]  # by name; members of an object have dotted names


def sent_fields(
    profiles: Sequence[bytes],
    settings: Settings,
    columns: Sequence[str],
    type_codes: Sequence[int],
) -> SentFields:
    """Collect the types of each field's values, or its column's type if it has none."""
    code_of = {name.lower(): code for name, code in zip(columns, type_codes, strict=True)}
    mapped = {field.target: field for field in columns_of(settings.user_fields)}
    kinds: dict[str, set[str]] = {}
    values: dict[str, list[Any]] = {}
    if settings.profile_flag:  # also where there are no rows
        kinds[settings.profile_flag], values[settings.profile_flag] = {"boolean"}, [True]
    for profile in profiles:
        data_fields: dict[str, Any] = orjson.loads(profile)["dataFields"]
        for name, kind in types_in(data_fields):
            kinds.setdefault(name, set()).add(kind)
        for name, value in data_fields.items():
            known = values.setdefault(name, [])
            if value is not None and len(known) < 3 and value not in known:
                known.append(value)
    for name, field in mapped.items():
        column_type = _type_of_column(code_of.get(field.column.lower()), field.cast)
        if name not in kinds and column_type is not None:
            kinds[name] = {column_type}
    return {
        name: SentField(
            frozenset(of_field),
            origin := _origin(mapped.get(name), code_of),
            values.get(name, ()),
            _bool_mapping(mapped.get(name), origin, values.get(name, ())),
        )
        for name, of_field in kinds.items()
    }


def _type_of_column(type_code: int | None, cast: str) -> str | None:
    """Return the type of a column's values; None if it depends on the value.

    `cast` is the cast of USER_FIELDS, "" for none.
    """
    if cast == "bool":
        return "boolean"
    value_type = None if cast or type_code is None else VALUE_TYPES.get(type_code)
    return "long" if value_type == "integer" else value_type


def _origin(field: Field | None, code_of: Mapping[str, int]) -> str:
    return "" if field is None else SQL_NAMES.get(code_of.get(field.column.lower(), -1), "")


def _bool_mapping(field: Field | None, origin: str, values: Sequence[Any]) -> str:
    """Return the entry of USER_FIELDS for a boolean, if all values are 0 and 1."""
    are_flags = values and all(type(value) is int and value in (0, 1) for value in values)
    if field is None or origin not in ("TINYINT", "BIT") or not are_flags:
        return ""
    name = field.target if field.target == field.column else f"{field.target}={field.column}"
    return f"{name}:bool"


def check_field_types(
    sent: SentFields, iterable_types: Mapping[str, str], settings: Settings
) -> Iterator[CheckLine]:
    """Compare the types of the profile fields; Iterable would reject rows of another type."""
    name = "field types"
    clashing = new = 0
    for field, found in sorted(sent.items()):
        expected = iterable_types.get(field)
        if expected is None:
            new += 1
            yield _new_field_line(field, found, settings)
            continue
        unfit = [kind for kind in sorted(found.kinds) if not fits(expected, kind)]
        clashing += len(unfit)
        for kind in unfit:
            fix = advice(field, expected, kind, settings)
            text = (
                f"{field} is {expected} in Iterable but sent as {display_type(kind, expected)}: "
                f"such rows would be rejected. To fix it: {fix}"
            )
            # Where some values fit, a run sends all rows.
            yield failed(name, text) if len(unfit) == len(found.kinds) else warned(name, text)
    if not clashing:
        yield passed(
            name,
            f"the {len(sent):,} profile fields match, {new:,} of them new to Iterable (event "
            "fields are not checked: the API does not list them)",
        )


def _new_field_line(field: str, found: SentField, settings: Settings) -> CheckLine:
    """Return the line for a field whose type is fixed by the first value that is sent."""
    if settings.creates_new_fields is False:
        return warned(
            "new field",
            f"{field} is not in Iterable, which drops it (CREATE_NEW_FIELDS=false): a run would "
            "end with status 3",
        )
    if len(found.kinds) > 1 and not _can_share_a_field(found.kinds):
        types = " and as ".join(sorted(display_type(kind, "") for kind in found.kinds))
        return warned(
            "field types",
            f"{field} is new to Iterable and is sent as {types}: the first value that "
            "Iterable receives fixes the type, and the other type is rejected",
        )
    first = next((kind for value in found.values for _name, kind in types_of(field, value)), None)
    kind = _type_of_new_field(first or min(found.kinds))
    text = " ".join(part for part in (found.origin, _shown_value(found.values)) if part)
    line = f"{field}  {text} -> {kind}" if text else f"{field} -> {kind}"
    if found.bool_mapping:
        return warned("new field", f"{line}; write {found.bool_mapping} if it is one")
    return passed("new field", line)


def _shown_value(values: Sequence[Any]) -> str:
    """Return the first value if it is a number or a boolean: texts can be personal data."""
    if not values or type(values[0]) not in (int, float, bool):
        return ""
    return orjson.dumps(values[0]).decode()[:_MAX_VALUE_CHARACTERS]


def _can_share_a_field(kinds: frozenset[str]) -> bool:
    """Return whether one field can take values of all these types, whichever comes first."""
    return all(fits(_type_of_new_field(first), kind) for first in kinds for kind in kinds)


def _type_of_new_field(kind: str) -> str:
    """Return the type that a new field gets from a first value of this type."""
    return "string" if kind in ("date", "text") else "double" if kind == "decimal" else kind
