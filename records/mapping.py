"""What a row becomes: pure functions from a database row to Iterable's two payloads.

Owns validation, the event id, the two bodies, and what tells whether a row is new. Touches
neither the network nor the disk; a bad row is a value (`InvalidRow`), never an exception.

Every row passes `RowMapping.key`, and 50,000 rows a second leave 20 microseconds each for
everything, MySQL and SQLite included: hence named tuples (a frozen dataclass takes three times
as long to make), and payloads that are rendered only for the rows that need them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime, timezone, tzinfo
from hashlib import blake2b
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from config.fields import EVENT_FIELDS, USER_FIELDS, Field
from records.json_values import MAX_TEXT_CHARACTERS, cast_value, to_json_value

EVENT_NAME = "page_view"
PAYLOAD_VERSION = 1  # to be raised when the same row makes another payload: all count as changed
MAX_EMAIL_CHARACTERS = 254
MAX_EVENT_ID_CHARACTERS = 64  # Iterable: letters, digits and hyphens, unique in the project

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EPOCH_NAIVE = _EPOCH.replace(tzinfo=None)

# The everyday address. The library below knows the rest (quoted parts, other alphabets), at
# 20 microseconds an address instead of 0.4.
_PLAIN_EMAIL = re.compile(
    r"(?=.{6,254}\Z)(?=[^@]{1,64}@)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
)
_EVENT_ID = re.compile(r"[A-Za-z0-9-]+")


class SyncRecord(NamedTuple):
    """A valid row, ready to send. Bodies are JSON bytes, the same for single and bulk calls."""

    user_id: int | str | None
    email: str
    profile: bytes
    event: bytes
    event_id: str


class RowKey(NamedTuple):
    """What tells whether a row is new: enough to leave an unchanged one alone, unrendered.

    The hashes are of the values that a payload is made of, of the mapping and of the settings
    that shape it: the payload differs only where they do, and a million unchanged rows need
    not be written as JSON to find out.
    """

    user_id: int | str | None
    email: str
    person: int  # 64-bit hash of the folded e-mail: rows with the same one are one person
    event_at: int  # microseconds since 1970, UTC
    profile_hash: int
    event_hash: int


class InvalidRow(NamedTuple):
    """A row that is never sent, and why. The reason holds no personal data."""

    user_id: int | str | None
    email: str | None
    reason: str


def hash64(content: bytes) -> int:
    """Hash to a signed 64-bit integer, as SQLite stores it.

    Two of ten million people share a hash with a probability of 3 in a million.
    """
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big", signed=True)


def user_key_of(email: str) -> int:
    """Return the number that stands for a person: e-mails are compared trimmed and folded."""
    return hash64(email.strip().casefold().encode("utf-8", "surrogatepass"))


def is_email(text: str) -> bool:
    """Say whether `text` is an e-mail address by its syntax alone; no look-up is made."""
    if _PLAIN_EMAIL.fullmatch(text):
        return True
    if len(text) > MAX_EMAIL_CHARACTERS or "@" not in text:
        return False
    from email_validator import validate_email  # 50 ms to import, rarely needed

    try:
        validate_email(text, check_deliverability=False, strict=True)
    except ValueError:  # as its EmailNotValidError is
        return False
    return True


def to_event_id(user_id: object, event_time: str, page: object, event_id: object = None) -> str:
    """Name an event, the same way in every run, in Iterable's alphabet and 64 characters.

    `event_id`, where the query returns one, takes the place of the other three.
    """
    prefix = EVENT_NAME.replace("_", "-")
    if event_id is None:
        named = [user_id, EVENT_NAME, event_time, page]
    else:
        plain = f"{prefix}-id-{event_id}"
        if len(plain) <= MAX_EVENT_ID_CHARACTERS and _EVENT_ID.fullmatch(str(event_id)):
            return plain
        named = [EVENT_NAME, event_id]
    digest = blake2b(orjson.dumps(named, default=str), digest_size=16).hexdigest()
    return f"{prefix}-{digest}"


class RowMapping:
    """Turns rows of a query's result into `SyncRecord`s.

    Made once for a result's columns; `to_record` then takes each row as a tuple in that order.
    `missing_columns` must be empty before the first row is mapped, or a row has one value more,
    which stands for all of them.
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
        self._seed = blake2b(f"{self.fingerprint} {zone} {send_nulls}".encode(), digest_size=8)
        position = {column: index for index, column in enumerate(columns)}
        position |= dict.fromkeys(self.missing_columns, len(columns))  # behind a row's end
        self._id, self._email = position["id"], position["email"]
        self._event_time = position["event_time"]
        self._page, self._event_id = position.get("page"), position.get("event_id")
        self._user_fields = [(f.target, position[f.column], f.cast) for f in user_fields]
        self._event_fields = [(f.target, position[f.column], f.cast) for f in event_fields]
        of_profile = ["email", *(field.column for field in user_fields)]
        of_event = ["email", "id", "event_time", "page", "event_id"]
        of_event += [field.column for field in event_fields]
        self._of_profile = _picker(position[name] for name in of_profile)
        self._of_event = _picker(position[name] for name in of_event if name in position)

    def key(self, row: Sequence[Any]) -> RowKey | None:
        """Return what tells whether this row is new, or None where it cannot be valid."""
        email = row[self._email]
        if type(email) is not str:
            return None
        try:
            event_time = _to_datetime(row[self._event_time], self._zone)
            return RowKey(
                _to_user_id(row[self._id]),
                email.strip(),
                user_key_of(email),
                _to_microseconds(event_time, self._zone),
                self._hash(self._of_profile(row)),
                self._hash(self._of_event(row)),
            )
        except (ValueError, TypeError):  # no time; text that is not Unicode
            return None

    def to_record(self, row: Sequence[Any]) -> SyncRecord | InvalidRow:
        """Map and validate one row."""
        user_id = _to_user_id(row[self._id])
        email = row[self._email]
        try:
            email = _checked_email(email)
            event_time = _to_datetime(row[self._event_time], self._zone)
            event_at = _to_microseconds(event_time, self._zone)
            stored_time = event_time.isoformat(" ")
            event_id = to_event_id(
                user_id,
                stored_time,
                None if self._page is None else row[self._page],
                None if self._event_id is None else row[self._event_id],
            )
            profile_fields = self._fields(row, self._user_fields, self._send_nulls)
            profile_fields["recent_page_view"] = True
            event_fields = self._fields(row, self._event_fields, False)
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
        except ValueError as problem:
            return InvalidRow(user_id, _shown_email(email), str(problem))
        except TypeError:  # orjson's own: text that is not Unicode
            return InvalidRow(user_id, _shown_email(email), "a text is not valid Unicode")
        return SyncRecord(
            user_id,
            email,
            profile,
            event,
            event_id,
        )

    def _fields(
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
                except ValueError as problem:
                    raise ValueError(f"field {target!r} {problem}") from None
        return values

    def _hash(self, values: object) -> int:
        digest = self._seed.copy()
        digest.update(orjson.dumps(values, default=_told_apart))
        return int.from_bytes(digest.digest(), "big", signed=True)


def needed_columns(
    columns: Sequence[str],
    user_fields: Sequence[Field] = USER_FIELDS,
    event_fields: Sequence[Field] = EVENT_FIELDS,
) -> list[str]:
    """List what a query has to return that returns `columns`: an `event_id` replaces `page`."""
    always = ["id", "email", "event_time", *([] if "event_id" in columns else ["page"])]
    mapped = [field.column for field in (*user_fields, *event_fields)]
    return list(dict.fromkeys([*always, *mapped]))


def _picker(positions: Iterable[int]) -> Callable[[Sequence[Any]], Any]:
    """Return a function that picks these values out of a row, each once, at the speed of C."""
    return itemgetter(*dict.fromkeys(positions))


def _told_apart(value: object) -> str:
    """Return the same text in every process for what JSON has no form of; a set has no order."""
    return repr(sorted(value) if isinstance(value, set) else value)


def _to_user_id(value: object) -> int | str | None:
    if type(value) is int and -(2**63) <= value < 2**63:  # SQLite's integers end there
        return value
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()


def _checked_email(value: object) -> str:
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


def _shown_email(value: object) -> str | None:
    """Return what an invalid row shows as its e-mail: any text, made fit for JSON."""
    if not isinstance(value, str):
        return None
    return value[:MAX_EMAIL_CHARACTERS].encode("utf-8", "replace").decode()


def _to_datetime(value: object, zone: tzinfo) -> datetime:
    """Return the stored time as a naive datetime in `zone`, from DATETIME, DATE or text."""
    if value is None or value == "":
        raise ValueError("no event time")
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))  # 3.10: no Z
    if isinstance(value, datetime):
        try:
            return value.astimezone(zone).replace(tzinfo=None) if value.tzinfo else value
        except OverflowError:  # year 1 or 9999, and an offset beyond it
            raise ValueError("the event time is not a time") from None
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - as stored, zoneless
    raise ValueError("the event time is not a time")


def _to_microseconds(moment: datetime, zone: tzinfo) -> int:
    """Return microseconds since 1970 (UTC) of a naive moment in `zone`, exactly.

    A time that the zone skips or has twice is read as `zoneinfo` reads it with fold=0.
    """
    since = (
        moment - _EPOCH_NAIVE  # three times as fast, and the usual case
        if zone is timezone.utc
        else moment.replace(tzinfo=zone) - _EPOCH
    )
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
