"""Sample rows of the query with their expected payloads, ids and hashes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from config.fields import EVENT_FIELDS, USER_FIELDS, parse_fields
from records.identity import RowKey
from records.mapping import InvalidRow, RowMapping, SyncRecord


def stored(*parts: int) -> datetime:
    """Return a DATETIME as MySQL's driver gives it: year, month, day, ..., without a zone."""
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001


# The sample row of the documentation and its two payloads.
SARAH: Mapping[str, Any] = {
    "id": 1,
    "email": "sarah.johnson@email.com",
    "first_name": "Sarah",
    "last_name": "Johnson",
    "plan_type": "pro",
    "candidate": "yes",
    "page": "pricing",
    "device": "desktop",
    "browser": "Chrome",
    "location": "San Francisco, CA",
    "event_time": stored(2026, 1, 13, 14, 30, 45),
}
SARAHS_PROFILE = {
    "email": "sarah.johnson@email.com",
    "dataFields": {
        "first_name": "Sarah",
        "last_name": "Johnson",
        "plan_type": "pro",
        "recent_page_view": True,
        "candidate": "yes",
    },
}
SARAHS_EVENT = {
    "email": "sarah.johnson@email.com",
    "eventName": "page_view",
    "createdAt": 1_768_314_645,
    "dataFields": {
        "page": "pricing",
        "browser": "desktop",
        "location": "San Francisco, CA",
        "timestamp": "2026-01-13 14:30:45",
        "candidate": "yes",
    },
}
# Event ids must never change: an event that is sent again with another id is a duplicate.
SARAHS_EVENT_ID = "page-view-18db2e0f5d7874759551b6034289b2a8"
# If these change, the next run sends every row again.
SARAHS_HASHES = (2372109399269204740, 2267576865680863392)
SARAHS_USER_KEY = 1674961954042688616


def sarah(**changes: Any) -> dict[str, Any]:
    """Return the sample row with these columns changed or added."""
    return {**SARAH, **changes}


def mapping_for(row: Mapping[str, Any], fields: str = "", **options: Any) -> RowMapping:
    """Return a mapping of this row's columns; `fields` are added to USER_FIELDS."""
    if fields:
        options["user_fields"] = (*USER_FIELDS, *parse_fields(fields, frozenset()))
    return RowMapping(tuple(row), **{"event_fields": EVENT_FIELDS, **options})


def record_of(row: Mapping[str, Any], fields: str = "", **options: Any) -> SyncRecord:
    """Map a row; fails if it is invalid."""
    record = mapping_for(row, fields, **options).to_record(tuple(row.values()))
    assert isinstance(record, SyncRecord), record
    return record


def reason_of(row: Mapping[str, Any], fields: str = "", **options: Any) -> str:
    """Map an invalid row and return the reason; fails if it is valid."""
    record = mapping_for(row, fields, **options).to_record(tuple(row.values()))
    assert isinstance(record, InvalidRow), record
    return record.reason


def key_of(row: Mapping[str, Any], fields: str = "", **options: Any) -> RowKey:
    """Return the key of a row; fails if it has none."""
    key = mapping_for(row, fields, **options).key(tuple(row.values()))
    assert key is not None
    return key


def profile_of(row: Mapping[str, Any], fields: str = "", **options: Any) -> dict[str, Any]:
    """Return the body of users/update."""
    body: dict[str, Any] = orjson.loads(record_of(row, fields, **options).profile or b"")
    return body


def event_of(row: Mapping[str, Any], fields: str = "", **options: Any) -> dict[str, Any]:
    """Return the body of events/track."""
    body: dict[str, Any] = orjson.loads(record_of(row, fields, **options).event or b"")
    return body
