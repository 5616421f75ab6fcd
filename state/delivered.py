"""The table `delivered`: hashes of the last delivery of each user. Only this module uses it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from records.rows import RequestKind
from state.database import state_errors

_RECORD = {
    RequestKind.PROFILE: """
        INSERT INTO delivered (person, profile_hash, profile_at)
        SELECT person, profile_hash, ? FROM outbox WHERE seq = ?
        ON CONFLICT (person) DO UPDATE
        SET profile_hash = excluded.profile_hash, profile_at = excluded.profile_at
    """,
    RequestKind.EVENT: """
        INSERT INTO delivered (person, event_hash, event_id, event_at)
        SELECT person, event_hash, event_id, ? FROM outbox WHERE seq = ?
        ON CONFLICT (person) DO UPDATE SET event_hash = excluded.event_hash,
            event_id = excluded.event_id, event_at = excluded.event_at
    """,
}

Hashes = tuple[int | None, int | None]  # of the profile and of the event; None: never delivered


class DeliveredUser(NamedTuple):
    """The last delivery of each of a user's requests. Times are in unix seconds; None: never."""

    profile_hash: int | None
    profile_at: int | None
    event_hash: int | None
    event_at: int | None


class DeliveredTable:
    """The table in an open state file. Raises StateError."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database

    def record(self, kind: RequestKind, deliveries: Sequence[tuple[int, int]]) -> None:
        """Copy the hashes of delivered requests from the outbox.

        `deliveries` are (time in unix seconds, outbox.seq)."""
        with state_errors(self._path):
            self._database.executemany(_RECORD[kind], deliveries)

    def hashes_of(self, user_keys: Sequence[int]) -> dict[int, Hashes]:
        """Return the hashes of those users that are in the table.

        The result is one JSON value. SQLite then releases the interpreter once for all rows, and
        the prefetching thread can work: a million look-ups take 3 s beside that thread this
        way, and 6 s row by row.
        """
        with state_errors(self._path):
            found = self._database.execute(
                # CAST: a value that is not a number, which no version of this program writes, then
                # differs from every hash instead of breaking the comparison.
                "SELECT json_group_array(json_array(person, CAST(profile_hash AS INTEGER),"
                " CAST(event_hash AS INTEGER)))"
                " FROM delivered WHERE person IN (SELECT value FROM json_each(?))",
                (orjson.dumps(user_keys).decode(),),
            ).fetchone()[0]
            return {
                user_key: (profile_hash, event_hash)
                for user_key, profile_hash, event_hash in orjson.loads(found)
            }

    def find(self, user_keys: Iterable[int]) -> dict[int, DeliveredUser]:
        """Return those users that are in the table, with the times of their deliveries."""
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT person, CAST(profile_hash AS INTEGER), CAST(profile_at AS INTEGER),"
                " CAST(event_hash AS INTEGER), CAST(event_at AS INTEGER) FROM delivered"
                " WHERE person IN (SELECT value FROM json_each(?))",
                (orjson.dumps(list(user_keys)).decode(),),
            )
            return {user_key: DeliveredUser(*rest) for user_key, *rest in found}

    def count(self) -> int:
        """Return the number of users in the table."""
        with state_errors(self._path):
            count: int = self._database.execute("SELECT count(*) FROM delivered").fetchone()[0]
            return count
