"""A random choice of the query's rows that were delivered with their present values.

A hash equal to the one in the state file shows that a request was delivered with this content.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from itertools import count as numbers
from typing import Any, NamedTuple

from config.settings import Settings
from records.mapping import InvalidRow, RowMapping, SyncRecord
from state.delivered import DeliveredTable
from state.outbox import Outbox
from state.project import Project
from sync.source_rows import SourceRows


class DeliveredRow(NamedTuple):
    """A record, and when each request was delivered with its present content.

    Times are in unix seconds; None if it was not delivered, or with other content.
    """

    record: SyncRecord
    profile_at: int | None
    event_at: int | None


def choose_delivered_rows(
    settings: Settings,
    max_rows: int,
    stop: threading.Event,
) -> list[DeliveredRow]:
    """Choose up to `max_rows` rows at random; rows that the last run delivered are preferred.

    Reads all rows of the query, or until `stop` is set, and holds only the chosen ones. Raises
    SourceError, StateError (also where the state file is of another project), and ConfigError if
    the query lacks columns.
    """
    with closing(Outbox(settings.state_file, read_only=True)) as outbox:
        outbox.project.match(Project(settings.iterable_api_base_url, settings.iterable_api_key))
        runs = outbox.history.runs()
        last_run_at = datetime.fromisoformat(runs[0].started_at).timestamp() if runs else 0.0
        tie_breakers = numbers()
        # A heap: the first entry is the one to replace.
        chosen: list[tuple[bool, float, int, DeliveredRow]] = []
        for row, mapping, profile_at, event_at in _delivered(settings, outbox.delivered, stop):
            is_of_last_run = max(profile_at or 0, event_at or 0) >= last_run_at
            rank = (is_of_last_run, random.random())  # noqa: S311 - a sample, not a secret
            if len(chosen) == max_rows and rank <= chosen[0][:2]:
                continue
            record = mapping.to_record(row)
            if isinstance(record, InvalidRow):
                continue
            entry = (*rank, next(tie_breakers), DeliveredRow(record, profile_at, event_at))
            if len(chosen) < max_rows:
                heapq.heappush(chosen, entry)
            else:
                heapq.heapreplace(chosen, entry)
    return [entry[-1] for entry in sorted(chosen, reverse=True)]


def _delivered(
    settings: Settings, delivered: DeliveredTable, stop: threading.Event
) -> Iterator[tuple[Sequence[Any], RowMapping, int | None, int | None]]:
    """Yield each row with a delivered request, its mapping, and the times as in DeliveredRow."""
    with SourceRows(settings) as rows:
        mapping = rows.mapping
        for chunk in rows:
            if stop.is_set():
                return
            keys = [mapping.key(row) for row in chunk]
            known = delivered.find(key.user_key for key in keys if key)
            for row, key in zip(chunk, keys, strict=True):
                user = known.get(key.user_key) if key else None
                if key is None or user is None:
                    continue
                profile_at = user.profile_at if key.profile_hash == user.profile_hash else None
                event_at = user.event_at if key.event_hash == user.event_hash else None
                if profile_at is not None or event_at is not None:
                    yield row, mapping, profile_at, event_at
