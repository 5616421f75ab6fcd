"""The kinds of request that the last run ended, because Iterable rejected most of them.

The next run tries some of the rows first, each alone. What is noted are user keys and a code, as
JSON in the table `remembered`: users whose request was left out, and users whose request was
rejected. The former are tried where there are enough of them, because they show what is still to
be sent; the rejected ones may be exceptions that stand together in the query's order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from records.rows import RequestKind
from state.database import state_errors
from state.outbox_file import IS_NEEDED, VERDICT_COLUMN
from state.remembered import RememberedTable

# Of each kind of user. More than are tried: some leave the query until the next run.
MAX_NOTED_USERS = 100


class NotedUsers(NamedTuple):
    """The keys of users of a kind of request that has ended."""

    left_out: Sequence[int]
    rejected: Sequence[int]


class MassRejectionMemory:
    """The notes in an open state file. Raises StateError."""

    def __init__(self, remembered: RememberedTable, database: sqlite3.Connection) -> None:
        self._remembered = remembered
        self._database = database

    def code(self, kind: RequestKind) -> str | None:
        """Return the code with which requests of this kind were rejected, None if nothing is noted.

        Empty where Iterable gave none.
        """
        note = self._read(kind)
        return str(note.get("code") or "") if note else None

    def users(self, kind: RequestKind) -> NotedUsers:
        """Return the noted users."""
        note = self._read(kind)
        return NotedUsers(*(_to_keys(note.get(name)) for name in NotedUsers._fields))

    def note(self, kind: RequestKind, code: str | None, rejected: Sequence[int]) -> None:
        """Note that a kind has ended; the caller commits.

        `rejected` are the keys of up to `MAX_NOTED_USERS` users whose request was rejected. As many
        users whose request waits in the outbox are added.
        """
        waits = f"{IS_NEEDED[kind]} AND {VERDICT_COLUMN[kind]} IS NULL"
        with state_errors(self._remembered.path):
            (total,) = self._database.execute(
                f"SELECT count(*) FROM outbox WHERE {waits}"  # noqa: S608 - our own names
            ).fetchone()
            # Multiplied by a prime number, neighbours are far from each other. To number a million
            # rows instead would take seconds, in which nothing else is recorded.
            waiting = self._database.execute(
                f"SELECT user_key FROM outbox WHERE {waits}"  # noqa: S608
                " AND seq * 7919 % max(1, :total) < :most LIMIT :most",
                {"total": total, "most": MAX_NOTED_USERS},
            )
            users = NotedUsers([user_key for (user_key,) in waiting], rejected)
        note = {"code": code, **users._asdict()}
        self._remembered.write(_name(kind), orjson.dumps(note).decode())

    def forget(self, kind: RequestKind) -> None:
        """Forget the note: Iterable accepts these requests again."""
        self._remembered.forget(_name(kind))

    def _read(self, kind: RequestKind) -> dict[str, object]:
        try:
            note = orjson.loads(self._remembered.read(_name(kind)) or "{}")
        except ValueError:  # no version of this program writes such a value
            return {}
        return note if isinstance(note, dict) else {}


def _to_keys(value: object) -> Sequence[int]:
    return [each for each in value if isinstance(each, int)] if isinstance(value, list) else []


def _name(kind: RequestKind) -> str:
    return f"mass_rejection_{kind.value}"
