"""Samples of what was delivered: rows of a read that show whose project a new API key leads to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from records.mapping import InvalidRow, RowMapping, SyncRecord
from records.rows import RequestKind
from state.delivered import DeliveredTable

_MAX_SAMPLES = 5  # of each kind of request


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
            for kind, is_known, delivered_at in (
                (RequestKind.PROFILE, user.profile_hash == key.profile_hash, user.profile_at),
                (RequestKind.EVENT, is_event, user.event_at),
            ):
                if is_known and self._missing[kind]:
                    self._missing[kind] -= 1
                    self.found.append(DeliveredSample(kind, record, delivered_at or 0))
