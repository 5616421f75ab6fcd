"""Identity of a row: user key, e-mail syntax, event id and change hashes.

The state file stores these values, so the same row must give the same ones in every release, and
none may depend on the Python type of a value: `1`, `'1'` and `CAST(id AS CHAR)` are the same.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from config.fields import (
    DEFAULT_EVENT_NAME,
    MAX_EVENT_NAME_CHARACTERS,
    has_control_characters,
)
from records.json_values import to_clock_time

MAX_EMAIL_CHARACTERS = 254
MAX_USER_ID_CHARACTERS = 52
MAX_EVENT_ID_CHARACTERS = 64  # Iterable: letters, digits and hyphens, unique in the project

# Matches most addresses in 0.4 microseconds. The email-validator library takes 20, but also knows
# quoted parts and other alphabets.
_PLAIN_EMAIL = re.compile(
    r"(?=.{6,254}\Z)(?=[^@]{1,64}@)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
)
_BLAKE2B, _LONG_BLAKE2B = blake2b(digest_size=8), blake2b(digest_size=16)
_HEX_DIGITS = 32
_MAX_NAME_IN_EVENT_IDS = MAX_EVENT_ID_CHARACTERS - _HEX_DIGITS - 1
_NOT_IN_EVENT_IDS = re.compile(r"[^A-Za-z0-9-]")
_PLAIN_EVENT_NAME = re.compile(r"[A-Za-z0-9_]+")
_to_int64 = Struct(">q").unpack  # SQLite's integers are signed
_EVENT_ID = re.compile(r"[A-Za-z0-9-]+")
_USER_ID = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class RowKey(NamedTuple):
    """What change detection compares. Equal hashes mean equal requests, whatever the settings."""

    user_id: int | str | None
    email: str | None  # None only where the userId identifies the user
    user_key: int  # of the identifier; rows with the same one are duplicates
    event_at: int  # microseconds since 1970, UTC
    tie_breaker: int  # decides between rows of one user with equal times
    profile_hash: int | None  # None: profiles are not sent
    event_hash: int | None  # None: events are not sent


def to_change_hash(content: object) -> int:
    """Return a signed 64-bit hash of JSON values; the order of an object's members is ignored.

    Raises TypeError for text that is not Unicode.
    """
    return _hash64(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))


def to_tie_breaker(
    page_or_event_id: str | None, profile_hash: int | None, event_hash: int | None
) -> int:
    """Return a positive 63-bit number that orders rows by their own values.

    Its upper half depends on no setting, so that changed settings do not make another row win.
    """
    return (
        _to_upper_half(page_or_event_id) | ((profile_hash or 0) ^ (event_hash or 0)) & 0xFFFF_FFFF
    )


@lru_cache(maxsize=256)  # most tables have few pages
def _to_upper_half(page_or_event_id: str | None) -> int:
    return crc32((page_or_event_id or "").encode("utf-8", "surrogatepass")) >> 1 << 32


def to_comparable_email(email: str) -> str:
    """Return the address without outer spaces and in lower case, as Iterable stores it.

    `casefold` would take straße@ for strasse@.
    """
    return email.strip().lower()


def to_user_key(email: str) -> int:
    """Return the user key of an e-mail: a signed 64-bit hash of the address in comparable form.

    Among ten million users the probability that two share a key is 3 in a million.
    """
    return _hash64(to_comparable_email(email).encode("utf-8", "surrogatepass"))


def to_key_of_user_id(user_id: str) -> int:
    """Return the user key of a userId, which Iterable compares exactly."""
    return _hash64(user_id.encode("utf-8", "surrogatepass"))


def to_valid_user_id(value: object) -> str:
    """Return a value of MySQL's driver as the userId that Iterable accepts.

    1 to 52 printable ASCII characters (Iterable: "Identifying the user"); that no blank may be at
    its end is Iterable's rule, that none may be at its beginning is ours. Raises ValueError whose
    text completes "the user id ...".
    """
    user_id = str(value) if type(value) is int else to_stable_text(value)  # twice as fast
    if user_id and len(user_id) <= MAX_USER_ID_CHARACTERS and _USER_ID.fullmatch(user_id):
        return user_id
    if not user_id:
        raise ValueError("is empty")
    if len(user_id) > MAX_USER_ID_CHARACTERS:
        raise ValueError(f"has more than {MAX_USER_ID_CHARACTERS} characters")
    if user_id != user_id.strip():
        raise ValueError("has a blank at its beginning or end: select TRIM(...)")
    raise ValueError("has other characters than printable ASCII: select HEX(...)")


def _hash64(content: bytes) -> int:
    digest = _BLAKE2B.copy()  # half the time of making a new one
    digest.update(content)
    number: int = _to_int64(digest.digest())[0]
    return number


def is_email(text: str) -> bool:
    """Return whether `text` has the syntax of an e-mail address. Makes no DNS query."""
    if _PLAIN_EMAIL.fullmatch(text):
        return True
    if len(text) > MAX_EMAIL_CHARACTERS or "@" not in text:
        return False
    from email_validator import validate_email  # takes 50 ms to import and is rarely needed

    try:
        validate_email(text, check_deliverability=False, strict=True)
    except ValueError:  # EmailNotValidError derives from it
        return False
    return True


def to_event_id(
    identifier: str, event_time: str, page: str | None, event_name: str = DEFAULT_EVENT_NAME
) -> str:
    """Return the idempotent event id: Iterable updates an event whose `id` it already has.

    Iterable requires ids to be unique in the project, so the user's identifier is a part of it: the
    e-mail as `to_comparable_email` returns it, or the userId. `event_time` is the stored time
    without trailing zeros of its fraction.
    """
    return _hashed_id(event_name, [identifier, event_name, event_time, page])


def to_named_event_id(event_id: str, event_name: str = DEFAULT_EVENT_NAME) -> str:
    """Return the event id for a row's own value in the column `event_id`; ValueError if empty.

    Events of two names never have one id, whatever their values.
    """
    if not event_id.strip():
        raise ValueError("the event_id is empty")
    plain_name = _to_plain_name(event_name)
    plain_id = f"{plain_name}-id-{event_id}"
    if plain_name and len(plain_id) <= MAX_EVENT_ID_CHARACTERS and _EVENT_ID.fullmatch(event_id):
        return plain_id
    return _hashed_id(event_name, [event_name, event_id])


@lru_cache(maxsize=256)  # a sync has one name or a few
def _to_plain_name(event_name: str) -> str:
    """Return the name as it stands in readable event ids, or "" if it could be taken for another.

    Underscores become hyphens, so a name with hyphens of its own has none. In an id the name ends
    at the first "-id-", so it must not contain that itself.
    """
    name = event_name.replace("_", "-")
    is_plain = _PLAIN_EVENT_NAME.fullmatch(event_name) and f"{name}-id-".find("-id-") == len(name)
    return name if is_plain else ""


def to_valid_event_name(value: object, default: str) -> str:
    """Return the name in a row's column `event_name`, or the default where it is empty.

    Raises ValueError whose text completes "the event name ...".
    """
    if isinstance(value, (bytes, bytearray)):
        raise ValueError("is binary: select CONVERT(... USING utf8mb4)")
    name = (to_stable_text(value) or "").strip()
    if len(name) > MAX_EVENT_NAME_CHARACTERS:
        raise ValueError(f"has more than {MAX_EVENT_NAME_CHARACTERS} characters")
    if has_control_characters(name):
        raise ValueError("has control characters")
    return name or default


def _hashed_id(event_name: str, parts: list[str | None]) -> str:
    digest = _LONG_BLAKE2B.copy()
    digest.update(orjson.dumps(parts))
    return f"{_to_readable_prefix(event_name)}-{digest.hexdigest()}"


@lru_cache(maxsize=256)
def _to_readable_prefix(event_name: str) -> str:
    return _NOT_IN_EVENT_IDS.sub("-", event_name)[:_MAX_NAME_IN_EVENT_IDS]


def to_stable_text(value: Any) -> str | None:
    """Return a value of MySQL's driver as the text that `CAST(... AS CHAR)` gives, None for NULL.

    Binary values are written as HEX() does, a SET in alphabetical order, JSON with sorted members.
    """
    if value is None or type(value) is str:
        return value
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Decimal):
        return f"{value:f}"
    if (
        isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    ):  # MySQL writes larger ones as 1e15
        return str(int(value))
    if isinstance(value, datetime):
        return to_time_text(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return to_clock_time(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex().upper()
    if isinstance(value, (set, frozenset)):
        return ",".join(sorted(map(str, value)))
    if isinstance(value, (dict, list)):
        with suppress(orjson.JSONEncodeError):  # nested too deep
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return str(value)


def to_time_text(moment: datetime) -> str:
    """Return `YYYY-MM-DD HH:MM:SS` with the fraction, but without its trailing zeros."""
    text = moment.isoformat(" ")
    return text.rstrip("0") if moment.microsecond else text
