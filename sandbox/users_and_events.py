"""Stored users and events of the sandbox's project, and their form in Iterable's GET responses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import orjson

Fields = dict[str, Any]


@dataclass(slots=True)
class User:
    """A profile; `email` is spelled as first sent, times are unix seconds.

    `key` is its key in `Project.users`: the identifier that named the user first.
    """

    key: str
    email: str | None
    user_id: str | None
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

    @property
    def is_bare(self) -> bool:
        """Whether only an event has created the user, so that there is no profile."""
        return not self.applied_count

    def to_profile(self) -> Fields:
        """Return the user in the form of GET users/getByEmail, with fields added by Iterable."""
        identifiers: Fields = {} if self.email is None else {"email": self.email}
        if self.user_id is not None:
            identifiers["userId"] = self.user_id
        added = {
            **identifiers,
            "signupDate": _iterable_time(self.created_at),
            "signupSource": "API",
            "profileUpdatedAt": _iterable_time(self.updated_at),
            "itblInternal": {
                "emailDomain": (self.email or "").rpartition("@")[2].lower(),
                "documentCreatedAt": _iterable_time(self.created_at),
                "documentUpdatedAt": _iterable_time(self.updated_at),
            },
        }
        return {**identifiers, "dataFields": {**added, **self.data_fields}}


@dataclass(slots=True)
class Event:
    """An event; `applied_count` counts how often its id was accepted, `created_at` is unix.

    `email` or `user_id` names its user. `user` is None while nobody is so named: then it is an
    event of nobody.
    """

    id: str
    email: str | None
    user_id: str | None
    user: User | None
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
        named = {"email": self.email} if self.user_id is None else {"userId": self.user_id}
        return {
            "id": self.id,
            **named,
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
