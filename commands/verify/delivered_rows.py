"""A random choice of the query's rows that were delivered with their present values.

A hash equal to the one in the state file shows that a request was delivered with this content.

The users are chosen in the state file, and their rows are then looked for in the query's result:
only they are mapped, and most of the result need not be read.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import NamedTuple

import orjson

from config.identity import IdentifyBy
from config.settings import Settings
from records.mapping import RowMapping, SyncRecord
from state.delivered import DeliveredTable
from state.delivered_samples import DeliveredRow, delivered_rows
from state.outbox import Outbox
from sync.project_check import to_project
from sync.source_rows import MAX_READ_SECONDS, Chunk, SourceRows

# Chosen in the state file for each row to be found. With more of them less of the result has to be
# read, but the rows at its beginning are preferred.
_CANDIDATES_PER_ROW = 4


class Choice(NamedTuple):
    """The chosen rows, and how many rows were read to find them."""

    rows: Sequence[DeliveredRow]  # of the query, then users who left and whose flag was cleared
    read_count: int
    ran_out_of_time: bool  # before enough rows were found


def choose_delivered_rows(
    settings: Settings,
    max_rows: int,
    stop: threading.Event,
    *,
    max_seconds: float = MAX_READ_SECONDS,
) -> Choice:
    """Choose up to `max_rows` rows at random; rows that the last run delivered are preferred.

    Reads the query's rows until enough are found, for `max_seconds` at most, or until `stop` is
    set. Raises SourceError, StateError (also where the state file is of another project), and
    ConfigError if the query lacks columns.
    """
    with closing(Outbox(settings.state_file, read_only=True)) as outbox:
        outbox.project.match(to_project(settings))
        runs = outbox.history.runs()
        last_run_at = datetime.fromisoformat(runs[0].started_at).timestamp() if runs else 0.0
        search = _Search(outbox.delivered, max_rows, last_run_at)
        read_count = 0
        with SourceRows(settings, max_seconds=max_seconds) as rows:
            mapping = rows.mapping
            cleared = _cleared_rows(outbox, max_rows, settings.identify_by)
            if not search.candidates:
                return Choice(cleared, 0, False)
            for chunk in rows:
                read_count += len(chunk)
                search.add(chunk, mapping)
                if stop.is_set() or search.is_over:
                    return Choice([*search.found, *cleared], read_count, False)
            ran_out_of_time = not rows.is_complete and len(search.found) < max_rows
        return Choice([*search.found, *cleared], read_count, ran_out_of_time)


def _cleared_rows(outbox: Outbox, max_rows: int, identify_by: IdentifyBy) -> list[DeliveredRow]:
    """Return users who left, each with a profile that has the cleared flag alone."""
    name = "email" if identify_by is IdentifyBy.EMAIL else "userId"
    rows = []
    has_noted_moves = outbox.email_changes.exists
    cleared = outbox.members.choose_cleared(max_rows, has_noted_moves=has_noted_moves)
    for member, flag, cleared_at in cleared:
        profile = orjson.dumps({name: member.identifier, "dataFields": {flag: False}})
        email = member.identifier if identify_by is IdentifyBy.EMAIL else None
        record = SyncRecord(member.user_id, email, profile, None, None, member.identifier)
        rows.append(DeliveredRow(record, cleared_at, None))
    return rows


class _Search:
    """The search for rows of users that are chosen at random in the state file."""

    def __init__(self, delivered: DeliveredTable, max_rows: int, last_run_at: float) -> None:
        self._delivered = delivered
        self._max_rows = max_rows
        self._last_run_at = last_run_at
        max_candidates = _CANDIDATES_PER_ROW * max_rows
        candidates = delivered.choose_users(max_candidates, last_run_at)
        self.candidates = set(candidates)
        self._has_others = len(candidates) == max_candidates
        self._unseen = {user_key for user_key, is_recent in candidates.items() if is_recent}
        self._of_last_run: list[DeliveredRow] = []
        self._older: list[DeliveredRow] = []
        self._others: list[DeliveredRow] = []  # used where candidates have changed or are gone

    @property
    def found(self) -> list[DeliveredRow]:
        """The rows that were found so far, at most `max_rows`."""
        return [*self._of_last_run, *self._older, *self._others][: self._max_rows]

    @property
    def is_over(self) -> bool:
        """Whether more rows would not improve the choice."""
        count = len(self._of_last_run)
        if not self._unseen:
            count += len(self._older)
        return count >= self._max_rows

    def add(self, chunk: Chunk, mapping: RowMapping) -> None:
        """Look for the candidates in the next rows of the query."""
        user_keys = [mapping.user_key_of(row) for row in chunk]
        self._unseen.difference_update(user_keys)
        if self._has_others and len(self._others) < self._max_rows:
            rows = chunk
        else:
            rows = [
                row
                for user_key, row in zip(user_keys, chunk, strict=True)
                if user_key in self.candidates
            ]
        for user_key, row in delivered_rows(rows, mapping, self._delivered):
            if user_key not in self.candidates:
                self._others.append(row)
            elif max(row.profile_at or 0, row.event_at or 0) >= self._last_run_at:
                self._of_last_run.append(row)
            else:
                self._older.append(row)
