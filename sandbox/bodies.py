"""The documented request bodies, and what Iterable says of a body that does not fit.

Owns the schemas of the four POST calls (Iterable's OpenAPI document: ApiUserUpdateRequest,
BulkUpdateUsersRequest, TrackRequest, BulkTrackRequest) and the addresses of a problem in Iterable's
style (`obj.users[1].preferUserId`). Refuses to know what a project does with a valid body.

Simplified: projects are e-mail based, so `email` is required in every row; null counts as a value
of the wrong type; keys that are not documented are ignored, as Iterable does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The e-mail based sandbox requires `email`; `eventName` is required by the document.
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

# Per endpoint: the schema of the body and its required keys; of the bulk ones also the key of the
# rows, the schema of a row and its required keys.
_SCHEMAS: dict[str, tuple[dict[str, type], tuple[str, ...]]] = {
    "users/update": (_SINGLE_USER, ("email",)),
    "events/track": (_EVENT, ("email", "eventName")),
    "users/bulkUpdate": (_USER_BATCH, ("users",)),
    "events/trackBulk": (_EVENT_BATCH, ("events",)),
}
_ROW_SCHEMAS: dict[str, tuple[str, dict[str, type], tuple[str, ...]]] = {
    "users/bulkUpdate": ("users", _USER, ("email",)),
    "events/trackBulk": ("events", _EVENT, ("email", "eventName")),
}
_EXPECTED = {
    str: "String value expected",
    bool: "Boolean value expected",
    int: "Number value expected",
    dict: "Object value expected",
    list: "Array value expected",
}


def rows_of(endpoint: str, body: object) -> list[Any]:
    """Give the rows that a body carries: its batch, or the body itself."""
    if not isinstance(body, dict):
        return []
    if endpoint not in _ROW_SCHEMAS:
        return [body]
    rows = body.get(_ROW_SCHEMAS[endpoint][0])
    return rows if isinstance(rows, list) else []


def body_problems(endpoint: str, body: object) -> dict[str, str]:
    """Name every value that does not fit the documented schema, by its address in the body."""
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
    # Exact types: bool is an int to isinstance, and orjson makes no subclasses.
    if type(value) is not dict:
        return False
    for key, inner in value.items():
        expected = schema.get(key)
        if expected is not None and type(inner) is not expected:
            return False
    # No all(): its generator costs as much as the rest, 1,000 times a batch.
    for key in required:  # noqa: SIM110
        if key not in value:
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
        if (key in value or key in required) and type(value.get(key)) is not expected:
            problems[f"{address}.{key}"] = _EXPECTED[expected]
