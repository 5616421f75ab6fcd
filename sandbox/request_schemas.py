"""Schemas of the POST bodies, and the check of a body against its schema.

Source: Iterable's OpenAPI document (ApiUserUpdateRequest, BulkUpdateUsersRequest, TrackRequest,
BulkTrackRequest, UpdateEmailRequest). Problems are addressed in Iterable's style:
`obj.users[1].preferUserId`. Every row names its user, by `email` or `userId`.

Simplifications: null is a value of the wrong type; undocumented keys are ignored, as Iterable does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_USER: dict[str, type] = {
    "email": str,
    "userId": str,
    "dataFields": dict,
    "mergeNestedObjects": bool,
    "preferUserId": bool,
}
_SINGLE_USER: dict[str, type] = {**_USER, "createNewFields": bool}
_EVENT: dict[str, type] = {
    "email": str,
    "userId": str,
    "eventName": str,
    "id": str,
    "createdAt": int,
    "dataFields": dict,
    "campaignId": int,
    "templateId": int,
    "createNewFields": bool,
}
_USER_BATCH: dict[str, type] = {"users": list, "createNewFields": bool}
_EVENT_BATCH: dict[str, type] = {"events": list}
_EMAIL_CHANGE: dict[str, type] = {"currentEmail": str, "currentUserId": str, "newEmail": str}

_IDENTIFIER = "email"  # required, unless there is a userId
# Endpoint -> schema of the body, required keys.
_SCHEMAS: dict[str, tuple[dict[str, type], tuple[str, ...]]] = {
    "users/update": (_SINGLE_USER, (_IDENTIFIER,)),
    "events/track": (_EVENT, (_IDENTIFIER, "eventName")),
    "users/bulkUpdate": (_USER_BATCH, ("users",)),
    "events/trackBulk": (_EVENT_BATCH, ("events",)),
    "users/updateEmail": (_EMAIL_CHANGE, ("newEmail",)),
}
# Bulk endpoint -> key of the rows, schema of a row, required keys of a row.
_ROW_SCHEMAS: dict[str, tuple[str, dict[str, type], tuple[str, ...]]] = {
    "users/bulkUpdate": ("users", _USER, (_IDENTIFIER,)),
    "events/trackBulk": ("events", _EVENT, (_IDENTIFIER, "eventName")),
}
_EXPECTED = {
    str: "String value expected",
    bool: "Boolean value expected",
    int: "Number value expected",
    dict: "Object value expected",
    list: "Array value expected",
}


def rows_of(endpoint: str, body: object) -> list[Any]:
    """Return the rows of a body: the batch of a bulk body, or the body itself."""
    if not isinstance(body, dict):
        return []
    if endpoint not in _ROW_SCHEMAS:
        return [body]
    rows = body.get(_ROW_SCHEMAS[endpoint][0])
    return rows if isinstance(rows, list) else []


def body_problems(endpoint: str, body: object) -> dict[str, str]:
    """Return what is wrong with the body by address (`obj.email`); empty when it fits."""
    schema, required = _SCHEMAS[endpoint]
    problems: dict[str, str] = {}
    if not isinstance(body, dict):
        return {"obj": _EXPECTED[dict]}
    if not _fits(body, schema, required):
        _name_problems("obj", body, schema, required, problems)
    if endpoint in _ROW_SCHEMAS:
        name, schema, required = _ROW_SCHEMAS[endpoint]
        for index, row in enumerate(rows_of(endpoint, body)):
            if not _fits(row, schema, required):
                _name_problems(f"obj.{name}[{index}]", row, schema, required, problems)
    return problems


def _fits(value: object, schema: Mapping[str, type], required: tuple[str, ...]) -> bool:
    # Exact types: isinstance would accept a bool as an int, and orjson creates no subclasses.
    if type(value) is not dict:
        return False
    for key, inner in value.items():
        expected = schema.get(key)
        if expected is not None and type(inner) is not expected:
            return False
    # Not all(): this runs 1,000 times a batch, and a generator would double its cost.
    for key in required:
        if key not in value and not (key == _IDENTIFIER and "userId" in value):
            return False
    return True


def _name_problems(
    address: str,
    value: object,
    schema: Mapping[str, type],
    required: tuple[str, ...],
    problems: dict[str, str],
) -> None:
    if not isinstance(value, dict):
        problems[address] = _EXPECTED[dict]
        return
    for key, expected in schema.items():
        is_required = key in required and not (key == _IDENTIFIER and "userId" in value)
        if (key in value or is_required) and type(value.get(key)) is not expected:
            problems[f"{address}.{key}"] = _EXPECTED[expected]
