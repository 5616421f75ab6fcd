"""What a project keeps: users and events, in little memory, and how Iterable shows them.

Refuses to know how they come to be (`project` does).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import orjson

Fields = dict[str, Any]


@dataclass(slots=True)
class User:
    """One profile; `email` as first sent, times in unix seconds."""

    email: str
    created_at: float
    updated_at: float
    # Kept as JSON: a million profiles take a third of the memory that dicts would.
    fields_json: str = "{}"
    applied_count: int = 0

    @property
    def data_fields(self) -> Fields:
        """The fields as merged from every update, as a new dict."""
        fields: Fields = orjson.loads(self.fields_json)
        return fields

    def to_profile(self) -> Fields:
        """Give the user as GET users/getByEmail shows it, with the fields that Iterable adds."""
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
    """One event; `applied_count` says how often its id was accepted, `created_at` is unix."""

    id: str
    email: str
    event_name: str
    created_at: int
    fields_json: str
    applied_count: int = 1

    @property
    def data_fields(self) -> Fields:
        """The fields as sent last, as a new dict."""
        fields: Fields = orjson.loads(self.fields_json)
        return fields

    def to_listed(self) -> Fields:
        """Give the event as GET events/{email} shows it."""
        return {
            "id": self.id,
            "email": self.email,
            "eventName": self.event_name,
            "eventType": "customEvent",
            "createdAt": _iterable_time(self.created_at),
            "dataFields": self.data_fields,
        }


def _iterable_time(unix_seconds: float) -> str:
    """Format a time the way Iterable shows dates."""
    try:
        at = datetime.fromtimestamp(unix_seconds, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return str(unix_seconds)  # a createdAt in milliseconds lands in the year 58000
    return f"{at:%Y-%m-%d %H:%M:%S} +00:00"
