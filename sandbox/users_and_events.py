"""Stored users and events of the sandbox's project, and their form in Iterable's GET responses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import orjson

Fields = dict[str, Any]


@dataclass(slots=True)
class User:
    """A profile; `email` is spelled as first sent, times are unix seconds."""

    email: str
    created_at: float
    updated_at: float
    # JSON, because a million profiles as dicts take three times the memory.
    fields_json: str = "{}"
    applied_count: int = 0

    @property
    def data_fields(self) -> Fields:
        """The fields merged from all updates, as a new dict."""
        fields: Fields = orjson.loads(self.fields_json)
        return fields

    def to_profile(self) -> Fields:
        """Return the user in the form of GET users/getByEmail, with fields added by Iterable."""
        added = {
            "email": self.email,
            "signupDate": _iterable_time(self.created_at),
            "signupSource": "API",
            "profileUpdatedAt": _iterable_time(self.updated_at),
            "itblInternal": {
                "emailDomain": self.email.rpartition("@")[2].lower(),
                "documentCreatedAt": _iterable_time(self.created_at),
                "documentUpdatedAt": _iterable_time(self.updated_at),
            },
        }
        return {"email": self.email, "dataFields": {**added, **self.data_fields}}


@dataclass(slots=True)
class Event:
    """An event; `applied_count` counts how often its id was accepted, `created_at` is unix."""

    id: str
    email: str
    event_name: str
    created_at: int
    fields_json: str
    applied_count: int = 1

    @property
    def data_fields(self) -> Fields:
        """The fields of the last call, as a new dict."""
        fields: Fields = orjson.loads(self.fields_json)
        return fields

    def to_listed(self) -> Fields:
        """Return the event in the form of GET events/{email}."""
        return {
            "id": self.id,
            "email": self.email,
            "eventName": self.event_name,
            "eventType": "customEvent",
            "createdAt": _iterable_time(self.created_at),
            "dataFields": self.data_fields,
        }


def _iterable_time(unix_seconds: float) -> str:
    """Return a time in the format of Iterable's dates."""
    try:
        at = datetime.fromtimestamp(unix_seconds, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return str(unix_seconds)  # a createdAt in milliseconds is in the year 58000
    return f"{at:%Y-%m-%d %H:%M:%S} +00:00"
