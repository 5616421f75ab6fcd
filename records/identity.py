"""Identity of a row: user key, e-mail syntax, event id and change hashes.

The state file stores these values, so the same row must give the same ones in every release.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple

import orjson

EVENT_NAME = "page_view"
MAX_EMAIL_CHARACTERS = 254
MAX_EVENT_ID_CHARACTERS = 64  # Iterable: letters, digits and hyphens, unique in the project

# Matches most addresses in 0.4 microseconds. The email-validator library takes 20, but also knows
# quoted parts and other alphabets.
_PLAIN_EMAIL = re.compile(
    r"(?=.{6,254}\Z)(?=[^@]{1,64}@)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
)
_EVENT_ID = re.compile(r"[A-Za-z0-9-]+")


class RowKey(NamedTuple):
    """What change detection compares; made without building the payloads.

    The hashes cover the columns that a payload is made from, the field mapping and the settings
    that shape the payload. Equal hashes mean equal payloads.
    """

    user_id: int | str | None
    email: str
    user_key: int  # `to_user_key` of the e-mail; rows with the same one are duplicates
    event_at: int  # microseconds since 1970, UTC
    profile_hash: int
    event_hash: int


class ChangeHash:
    """64-bit hash of a row's values, seeded with everything else that shapes the payload."""

    def __init__(self, seed: str) -> None:
        self._seeded = blake2b(seed.encode(), digest_size=8)

    def of(self, values: object) -> int:
        """Return the hash as a signed integer. Raises TypeError for text that is not Unicode."""
        digest = self._seeded.copy()
        digest.update(orjson.dumps(values, default=_to_stable_text))
        return _to_signed(digest.digest())


def to_user_key(email: str) -> int:
    """Return a signed 64-bit hash of the address, compared without outer spaces or letter case.

    Among ten million users the probability that two share a key is 3 in a million.
    """
    folded = email.strip().casefold().encode("utf-8", "surrogatepass")
    return _to_signed(blake2b(folded, digest_size=8).digest())


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


def to_event_id(user_id: object, event_time: str, page: object, event_id: object = None) -> str:
    """Return the idempotent event id: Iterable updates an event whose `id` it already has.

    The id depends on the user, the time and the page, or only on `event_id` if the query returns
    that column.
    """
    prefix = EVENT_NAME.replace("_", "-")
    if event_id is None:
        parts = [user_id, EVENT_NAME, event_time, page]
    else:
        plain_id = f"{prefix}-id-{event_id}"
        if len(plain_id) <= MAX_EVENT_ID_CHARACTERS and _EVENT_ID.fullmatch(str(event_id)):
            return plain_id
        parts = [EVENT_NAME, event_id]
    digest = blake2b(orjson.dumps(parts, default=str), digest_size=16).hexdigest()
    return f"{prefix}-{digest}"


def _to_signed(digest: bytes) -> int:
    """Return a digest as a signed 64-bit integer, the only kind that SQLite stores."""
    return int.from_bytes(digest, "big", signed=True)


def _to_stable_text(value: object) -> str:
    """Return a text for a value that orjson cannot write. A set's order differs by process."""
    return repr(sorted(value) if isinstance(value, set) else value)
