"""Mapping of a row to the JSON bodies of its two requests, or to an `InvalidRow` with the reason.

Pure: no network, no disk. An invalid row is returned, not raised.

`RowMapping.key` is called for every row. At 50,000 rows/s a row has 20 microseconds, MySQL and
SQLite included. So the results are named tuples (a frozen dataclass takes three times as long to
create), and payloads are built only for the rows that need a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime, timezone, tzinfo
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from config.fields import EVENT_FIELDS, USER_FIELDS, Field
from records.identity import (
    EVENT_NAME,
    MAX_EMAIL_CHARACTERS,
    ChangeHash,
    RowKey,
    is_email,
    to_event_id,
    to_user_key,
)
from records.json_values import MAX_TEXT_CHARACTERS, cast_value, to_json_value

# Increase it when a release builds a different payload from the same row: it resends all rows.
PAYLOAD_VERSION = 1

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EPOCH_NAIVE = _EPOCH.replace(tzinfo=None)


class SyncRecord(NamedTuple):
    """A valid row and its two request bodies; single and bulk calls use the same JSON bytes."""

    user_id: int | str | None
    email: str
    profile: bytes
    event: bytes
    event_id: str


class InvalidRow(NamedTuple):
    """A row that cannot be sent. The reason contains no personal data."""

    user_id: int | str | None
    email: str | None
    reason: str


class RowMapping:
    """The mapping for a query result with these columns.

    Rows are sequences in the order of `columns`. Check `missing_columns` first; to map a row all
    the same, append one value to it, which is used for each missing column.
    `zone` is the time zone of naive datetimes; with `send_nulls` a NULL clears the profile field.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        user_fields: Sequence[Field] = USER_FIELDS,
        event_fields: Sequence[Field] = EVENT_FIELDS,
        zone: tzinfo = timezone.utc,
        send_nulls: bool = False,
    ) -> None:
        needed = needed_columns(columns, user_fields, event_fields)
        self.missing_columns = [column for column in needed if column not in columns]
        self._zone = zone
        self._send_nulls = send_nulls
        self.fingerprint = repr((PAYLOAD_VERSION, tuple(user_fields), tuple(event_fields)))
        self._change_hash = ChangeHash(f"{self.fingerprint} {zone} {send_nulls}")
        position = {column: index for index, column in enumerate(columns)}
        position |= dict.fromkeys(self.missing_columns, len(columns))  # the appended value
        self._id, self._email = position["id"], position["email"]
        self._event_time = position["event_time"]
        self._page, self._event_id = position.get("page"), position.get("event_id")
        self._user_fields = [(f.target, position[f.column], f.cast) for f in user_fields]
        self._event_fields = [(f.target, position[f.column], f.cast) for f in event_fields]
        profile_columns = ["email", *(field.column for field in user_fields)]
        event_columns = ["email", "id", "event_time", "page", "event_id"]
        event_columns += [field.column for field in event_fields]
        self._pick_profile_values = _picker(position[name] for name in profile_columns)
        self._pick_event_values = _picker(
            position[name] for name in event_columns if name in position
        )

    def key(self, row: Sequence[Any]) -> RowKey | None:
        """Return the row's key for change detection, None for a row that `to_record` rejects."""
        email = row[self._email]
        if type(email) is not str:
            return None
        try:
            event_time = _to_datetime(row[self._event_time], self._zone)
            return RowKey(
                _to_user_id(row[self._id]),
                email.strip(),
                to_user_key(email),
                _to_microseconds(event_time, self._zone),
                self._change_hash.of(self._pick_profile_values(row)),
                self._change_hash.of(self._pick_event_values(row)),
            )
        except (ValueError, TypeError):  # no event time, or text that is not Unicode
            return None

    def to_record(self, row: Sequence[Any]) -> SyncRecord | InvalidRow:
        """Validate one row and build its payloads."""
        user_id = _to_user_id(row[self._id])
        email = row[self._email]
        try:
            email = _to_valid_email(email)
            event_time = _to_datetime(row[self._event_time], self._zone)
            event_at = _to_microseconds(event_time, self._zone)
            stored_time = event_time.isoformat(" ")
            event_id = to_event_id(
                user_id,
                stored_time,
                None if self._page is None else row[self._page],
                None if self._event_id is None else row[self._event_id],
            )
            profile_fields = self._to_fields(row, self._user_fields, self._send_nulls)
            profile_fields["recent_page_view"] = True
            event_fields = self._to_fields(row, self._event_fields, False)
            event_fields["timestamp"] = stored_time[:19]
            profile = orjson.dumps({"email": email, "dataFields": profile_fields})
            event = orjson.dumps(
                {
                    "email": email,
                    "eventName": EVENT_NAME,
                    "id": event_id,
                    "createdAt": event_at // 1_000_000,
                    "dataFields": event_fields,
                }
            )
        except ValueError as error:
            return InvalidRow(user_id, _to_reported_email(email), str(error))
        except TypeError:  # from orjson: text that is not Unicode
            return InvalidRow(user_id, _to_reported_email(email), "a text is not valid Unicode")
        return SyncRecord(user_id, email, profile, event, event_id)

    def _to_fields(
        self, row: Sequence[Any], fields: list[tuple[str, int, str]], keep_nulls: bool
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for target, index, cast in fields:
            value = row[index]
            if value is None:
                if keep_nulls:
                    values[target] = None
            elif type(value) is str and not cast and len(value) <= MAX_TEXT_CHARACTERS:
                values[target] = value
            else:
                try:
                    values[target] = to_json_value(cast_value(value, cast), self._zone)
                except ValueError as error:
                    raise ValueError(f"field {target!r} {error}") from None
        return values


def needed_columns(
    columns: Sequence[str],
    user_fields: Sequence[Field] = USER_FIELDS,
    event_fields: Sequence[Field] = EVENT_FIELDS,
) -> list[str]:
    """Return the columns that the query must return. With `event_id` it needs no `page`."""
    always = ["id", "email", "event_time", *([] if "event_id" in columns else ["page"])]
    mapped = [field.column for field in (*user_fields, *event_fields)]
    return list(dict.fromkeys([*always, *mapped]))


def _picker(positions: Iterable[int]) -> Callable[[Sequence[Any]], Any]:
    """Return a function that takes the values at these positions out of a row, each once."""
    return itemgetter(*dict.fromkeys(positions))  # runs in C


def _to_user_id(value: object) -> int | str | None:
    if type(value) is int and -(2**63) <= value < 2**63:  # the range of SQLite's integers
        return value
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()


def _to_valid_email(value: object) -> str:
    if value is None:
        raise ValueError("no e-mail address")
    if not isinstance(value, str):
        raise ValueError("the e-mail address is not text")
    email = value.strip()
    if not email:
        raise ValueError("no e-mail address")
    if not is_email(email):
        raise ValueError("malformed e-mail address")
    return email


def _to_reported_email(value: object) -> str | None:
    """Return the e-mail to report for an invalid row: any text, as valid Unicode."""
    if not isinstance(value, str):
        return None
    return value[:MAX_EMAIL_CHARACTERS].encode("utf-8", "replace").decode()


def _to_datetime(value: object, zone: tzinfo) -> datetime:
    """Return the stored time as a naive datetime in `zone`, from DATETIME, DATE or text."""
    if value is None or value == "":
        raise ValueError("no event time")
    if isinstance(value, str):
        with suppress(ValueError):  # Python 3.10 does not read the Z
            value = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
    if isinstance(value, datetime):
        try:
            return value.astimezone(zone).replace(tzinfo=None) if value.tzinfo else value
        except OverflowError:  # the offset moves it out of the years 1 to 9999
            raise ValueError("the event time is not a date and time") from None
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - as stored, without a zone
    raise ValueError("the event time is not a date and time")


def _to_microseconds(moment: datetime, zone: tzinfo) -> int:
    """Return the exact microseconds since 1970 (UTC) of a naive datetime in `zone`.

    A time that the zone skips or repeats is read as `zoneinfo` does with fold=0.
    """
    since = (
        moment - _EPOCH_NAIVE  # the usual case; three times as fast
        if zone is timezone.utc
        else moment.replace(tzinfo=zone) - _EPOCH
    )
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
