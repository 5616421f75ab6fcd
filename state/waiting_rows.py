"""How a row goes into the outbox: which of its halves wait, and with what.

Pure: what was delivered arrives as an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from records.mapping import InvalidRow, RowKey, RowMapping

_NOT_KNOWN = (None, None)


class OutboxRow(NamedTuple):
    """A row as it is put into the outbox."""

    seq: int
    user_id: int | str | None
    email: str | None
    person: int | None = None
    event_at: int | None = None
    kind: str | None = None
    reason: str | None = None
    profile: bytes | None = None
    profile_hash: int | None = None
    event: bytes | None = None
    event_hash: int | None = None
    event_id: str | None = None


def to_outbox_row(
    seq: int,
    row: Sequence[Any],
    key: RowKey | None,
    known: Mapping[int, tuple[int | None, int | None]],
    mapping: RowMapping,
) -> OutboxRow:
    """Decide which of its halves a row waits for; at least one is new."""
    had_profile, had_event = known.get(key.person, _NOT_KNOWN) if key else _NOT_KNOWN
    record = mapping.to_record(row)
    if key is None or isinstance(record, InvalidRow):
        reason = record.reason if isinstance(record, InvalidRow) else "it cannot be compared"
        return OutboxRow(seq, record.user_id, record.email, kind="invalid", reason=reason)
    waiting = OutboxRow(seq, key.user_id, key.email, key.person, key.event_at)
    if had_profile != key.profile_hash:
        waiting = waiting._replace(profile=record.profile, profile_hash=key.profile_hash)
    if had_event != key.event_hash:
        waiting = waiting._replace(
            event=record.event, event_hash=key.event_hash, event_id=record.event_id
        )
    return waiting
