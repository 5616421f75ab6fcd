"""Which rows of the query Iterable must have exactly as they are now.

Owns the look into the state file's memory, which it never changes: a row whose values hash to what
was remembered was delivered with just those values. Sends nothing.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from itertools import count as numbers
from typing import Any, NamedTuple

from config.settings import Settings
from records.mapping import InvalidRow, RowMapping, SyncRecord
from state.delivered import DeliveredTable, DeliveredUser
from state.outbox import Outbox
from sync.source_rows import SourceRows


class DeliveredRow(NamedTuple):
    """A row, and when (unix seconds) each half of it was delivered; None: not as it is now."""

    record: SyncRecord
    profile_at: int | None
    event_at: int | None


def choose_delivered_rows(
    settings: Settings,
    most: int,
    stop: threading.Event,
    draw: Callable[[], float] = random.random,
) -> list[DeliveredRow]:
    """Choose up to `most` rows at random, those that the last run delivered before all others.

    Reads the whole query once, or until `stop` is set, holding no more than is chosen. Raises
    SourceError, StateError, and ConfigError where columns are missing.
    """
    with closing(Outbox(settings.state_file, read_only=True)) as outbox:
        runs = outbox.history.runs()
        last_run_at = datetime.fromisoformat(runs[0].started_at).timestamp() if runs else 0.0
        tie_breakers = numbers()
        # The worst of the chosen is on top of the heap.
        chosen: list[tuple[bool, float, int, DeliveredRow]] = []
        for row, mapping, remembered in _known_rows(settings, outbox.delivered, stop):
            profile_at, event_at = _still_so(row, mapping, remembered)
            if profile_at is None and event_at is None:
                continue
            rank = (max(profile_at or 0, event_at or 0) >= last_run_at, draw())
            if len(chosen) == most and rank <= chosen[0][:2]:
                continue
            record = mapping.to_record(row)
            if isinstance(record, InvalidRow):
                continue
            entry = (*rank, next(tie_breakers), DeliveredRow(record, profile_at, event_at))
            if len(chosen) < most:
                heapq.heappush(chosen, entry)
            else:
                heapq.heapreplace(chosen, entry)
    return [entry[-1] for entry in sorted(chosen, reverse=True)]


def _known_rows(
    settings: Settings, delivered: DeliveredTable, stop: threading.Event
) -> Iterator[tuple[Sequence[Any], RowMapping, DeliveredUser]]:
    """Yield the rows of people whom the state file knows."""
    with SourceRows(settings) as rows:
        mapping = rows.mapping
        for chunk in rows:
            if stop.is_set():
                return
            keys = [mapping.key(row) for row in chunk]
            known = delivered.find(key.person for key in keys if key)
            for row, key in zip(chunk, keys, strict=True):
                if key and key.person in known:
                    yield row, mapping, known[key.person]


def _still_so(
    row: Sequence[Any], mapping: RowMapping, remembered: DeliveredUser
) -> tuple[int | None, int | None]:
    """Say when each half was delivered with the values that it has now."""
    key = mapping.key(row)
    if key is None:
        return None, None
    return (
        remembered.profile_at if key.profile_hash == remembered.profile_hash else None,
        remembered.event_at if key.event_hash == remembered.event_hash else None,
    )
