"""The tables and columns that were chosen, and the fields that are sent of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from commands.init.proposals import looks_secret
from commands.init.schema import (
    LOCAL_TIME_TYPES,
    NUMBER_TYPES,
    SHORT_TEXT_TYPES,
    TIME_TYPES,
    Column,
    Events,
    Users,
)
from config.fields import RESERVED_EVENT_FIELDS, RESERVED_USER_FIELDS, USER_ID_FIELD

MAX_USER_FIELDS, MAX_EVENT_FIELDS = 50, 10
_PLAIN_TYPES = NUMBER_TYPES | SHORT_TEXT_TYPES | TIME_TYPES | {"time"}
_USER_TYPES = _PLAIN_TYPES | {"tinytext", "text"}
# Columns of the result that have a meaning of their own.
_PROGRAM_COLUMNS = frozenset(
    ("id", "email", "event_time", "event_time_utc", "event_id", "event_name", "page")
)


class SentColumn(NamedTuple):
    """A column that is sent as a field."""

    name: str  # in its table
    alias: str  # in the query's result
    field: str  # in Iterable
    cast: str  # "bool" or ""

    @property
    def entry(self) -> str:
        """The entry of USER_FIELDS or EVENT_FIELDS."""
        cast = f":{self.cast}" if self.cast else ""
        source = self.alias if self.field == self.alias else f"{self.field}={self.alias}"
        return f"{source}{cast}"


class Selection(NamedTuple):
    """What the query reads."""

    users: Users
    events: Events | None  # None: only profiles are sent

    @property
    def user_columns(self) -> list[SentColumn]:
        """The fields of the profile."""
        users = self.users
        used = {users.id, users.email}
        return _sent(
            (column for column in users.table.columns if column.name not in used),
            _USER_TYPES,
            RESERVED_USER_FIELDS | {USER_ID_FIELD},
            set(_PROGRAM_COLUMNS),
            "user",
        )[:MAX_USER_FIELDS]

    @property
    def event_columns(self) -> list[SentColumn]:
        """The fields of the event."""
        if self.events is None:
            return []
        table = self.events.table
        used = {self.events.time, *(name for name, _other in self.events.reference.pairs)}
        used |= {column.name for column in table.primary_key}
        taken = _PROGRAM_COLUMNS - {"page"} | {each.alias.lower() for each in self.user_columns}
        return _sent(
            (column for column in table.columns if column.name not in used),
            _PLAIN_TYPES,
            RESERVED_EVENT_FIELDS,
            set(taken),
            "event",
        )[:MAX_EVENT_FIELDS]

    @property
    def has_local_times(self) -> bool:
        """Whether a time that is used has no time zone, so that DB_TIMEZONE matters."""
        types = {self.users.table.column(each.name).type for each in self.user_columns}
        events = self.events
        if events is None:
            return "datetime" in types
        types |= {events.table.column(each.name).type for each in self.event_columns}
        return "datetime" in types or events.table.column(events.time).type in LOCAL_TIME_TYPES


def _sent(
    columns: Iterable[Column],
    types: Collection[str],
    reserved: Collection[str],
    taken: set[str],
    prefix: str,
) -> list[SentColumn]:
    """Return the plain columns; each gets an alias that is not `taken`, in lower case, yet.

    An alias has only characters that need no quotes in USER_FIELDS, and a field has its name.
    """
    sent: list[SentColumn] = []
    fields: set[str] = set()
    for column in columns:
        field = re.sub(r"[^\w-]+", "_", column.name).strip("_")
        if column.type not in types or looks_secret(column) or not field:
            continue
        if field in reserved or field in fields:
            continue
        fields.add(field)
        alias = next(name for name in _aliases(field, prefix) if name.lower() not in taken)
        taken.add(alias.lower())
        is_flag = column.full_type.startswith(("tinyint(1)", "bit(1)"))
        sent.append(SentColumn(column.name, alias, field, "bool" if is_flag else ""))
    return sent


def _aliases(name: str, prefix: str) -> Iterator[str]:
    yield name
    yield f"{prefix}_{name}"
    number = 2
    while True:
        yield f"{prefix}_{name}_{number}"
        number += 1
