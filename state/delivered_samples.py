"""Samples of what was delivered: rows of a read that show whose project a new API key leads to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from records.mapping import InvalidRow, RowMapping, SyncRecord
from records.rows import RequestKind
from state.delivered import DeliveredTable

_MAX_SAMPLES = 5  # of each kind of request
_CANDIDATES_PER_ROW = 4


class DeliveredRow(NamedTuple):
    """A record, and when each request was delivered with its present content.

    Times are in unix seconds; None if it was not delivered, or with other content.
    """

    record: SyncRecord
    profile_at: int | None
    event_at: int | None


def delivered_rows(
    rows: Sequence[Sequence[Any]], mapping: RowMapping, delivered: DeliveredTable
) -> Iterator[tuple[int, DeliveredRow]]:
    """Yield the user key and the record of each row with a delivered request."""
    keys = [mapping.key(row) for row in rows]
    known = delivered.find(key.user_key for key in keys if key)
    for row, key in zip(rows, keys, strict=True):
        user = known.get(key.user_key) if key else None
        if key is None or user is None:
            continue
        is_same_profile = mapping.sends_profiles and key.profile_hash == user.profile_hash
        is_same_event = mapping.sends_events and key.event_hash == user.event_hash
        profile_at = user.profile_at if is_same_profile else None
        event_at = user.event_at if is_same_event else None
        if profile_at is None and event_at is None:
            continue
        record = mapping.to_record(row)
        if not isinstance(record, InvalidRow):
            if user.former_event_id and user.event_id == record.event_id and record.event:
                record = record._replace(event=with_id(record.event, user.former_event_id))
            yield key.user_key, DeliveredRow(record, profile_at, event_at)


def with_id(event: bytes, event_id: str | None) -> bytes:
    """Return the body of an event with another id."""
    return orjson.dumps({**orjson.loads(event), "id": event_id})


class LastRunSample:
    """Rows of a read that the last run has delivered, chosen at random. Raises StateError.

    `since` is when that run began, in unix seconds.
    """

    def __init__(
        self, delivered: DeliveredTable, mapping: RowMapping, since: float, max_rows: int
    ) -> None:
        self.found: list[DeliveredRow] = []
        self._delivered = delivered
        self._mapping = mapping
        self._max_rows = max_rows
        # Some of them may have other values now.
        chosen = delivered.choose_users(_CANDIDATES_PER_ROW * max_rows, since) if max_rows else {}
        self._candidates = {user_key for user_key, is_recent in chosen.items() if is_recent}

    def take(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows that were chosen, until there are enough."""
        if len(self.found) >= self._max_rows or not self._candidates:
            return
        chosen = [row for row in rows if self._mapping.user_key_of(row) in self._candidates]
        for user_key, row in delivered_rows(chosen, self._mapping, self._delivered):
            # Several rows can name one user, who is one to read back.
            if user_key in self._candidates and len(self.found) < self._max_rows:
                self._candidates.remove(user_key)
                self.found.append(row)


def body_of(record: SyncRecord, kind: RequestKind) -> bytes:
    """Return the body that was delivered; empty if this kind of request is not sent."""
    return (record.profile if kind is RequestKind.PROFILE else record.event) or b""


class DeliveredSample(NamedTuple):
    """A row of this read whose present event, or profile with these values, was delivered."""

    kind: RequestKind
    record: SyncRecord
    delivered_at: int  # unix seconds


class DeliveredSamples:
    """The first samples of a read, up to five of each kind. Raises StateError."""

    def __init__(self, delivered: DeliveredTable, mapping: RowMapping) -> None:
        self.found: list[DeliveredSample] = []
        self._delivered = delivered
        self._mapping = mapping
        self._missing = dict.fromkeys(RequestKind, _MAX_SAMPLES)

    def take(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows that are samples, until there are enough.

        An event is known by its id, since other settings may have changed its hash.
        """
        if not any(self._missing.values()):
            return
        keys = [self._mapping.key(row) for row in rows]
        users = self._delivered.find(key.user_key for key in keys if key)
        for row, key in zip(rows, keys, strict=True):
            user = users.get(key.user_key) if key else None
            if key is None or user is None:
                continue
            record = self._mapping.to_record(row)
            if isinstance(record, InvalidRow):
                continue
            is_event = user.event_hash is not None and user.event_id == record.event_id
            is_profile = record.profile is not None and user.profile_hash == key.profile_hash
            for kind, is_known, delivered_at in (
                (RequestKind.PROFILE, is_profile, user.profile_at),
                (RequestKind.EVENT, is_event, user.event_at),
            ):
                if is_known and self._missing[kind]:
                    self._missing[kind] -= 1
                    self.found.append(DeliveredSample(kind, record, delivered_at or 0))
