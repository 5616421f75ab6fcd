"""The table `members`: who is in Iterable because of this program, by identifier.

It holds e-mail addresses or user ids, so it exists only while `EMAIL_CHANGES=move` or
`ON_LEAVE=clear` need it. Only this module uses it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import orjson

from state.database import state_errors

# Rows that the query names and that can be in Iterable. A row whose e-mail change is still open is
# noted when that is settled, see `MemberTable.replace`.
_NOTE_PRESENT = """
    INSERT INTO members (user_key, user_id, identifier, flag)
    SELECT outbox.user_key, CAST(outbox.user_id AS TEXT), {identifier}, :flag
    FROM outbox LEFT JOIN delivered USING (user_key)
    WHERE (outbox.kind IS NULL OR outbox.kind = 'unchanged')
        AND outbox.held IS NOT 'move'
        AND (delivered.profile_at IS NOT NULL
            OR outbox.profile IS NOT NULL AND outbox.held IS NOT 'profile'
                AND outbox.held IS NOT 'row')
    ON CONFLICT (user_key) DO UPDATE
    SET user_id = excluded.user_id, identifier = excluded.identifier, flag = excluded.flag,
        clearing_began_at = NULL
    WHERE user_id IS NOT excluded.user_id OR identifier IS NOT excluded.identifier
        OR flag IS NOT excluded.flag OR clearing_began_at IS NOT NULL
"""
_COLUMNS = "user_key, user_id, identifier, flag, clearing_began_at"


class Member(NamedTuple):
    """A user whose profile this program delivered, or may have delivered."""

    user_key: int
    user_id: str | None  # of the row, as text
    identifier: str  # the e-mail or userId that names the user in Iterable
    flag: str | None  # the profile flag that was delivered as true; None: none, or it was cleared
    clearing_began_at: int | None  # unix seconds; None: no clearing of the flag is under way


class MemberTable:
    """The table in an open state file. Raises StateError. The caller commits."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database

    @property
    def exists(self) -> bool:
        """Whether the file has the table."""
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = 'members'"
            )
            return found.fetchone() is not None

    def keep(self, is_wanted: bool) -> None:
        """Create the table where the settings ask for it; where they do not, remove it.

        What it held is overwritten in the file.
        """
        if is_wanted == self.exists:
            return
        with state_errors(self._path):
            if is_wanted:
                self._database.execute(
                    "CREATE TABLE members (user_key INTEGER PRIMARY KEY, user_id TEXT,"
                    " identifier TEXT NOT NULL, flag TEXT, clearing_began_at INTEGER)"
                )
                self._database.execute("CREATE INDEX members_user_id ON members (user_id)")
            else:
                self._database.execute("PRAGMA secure_delete = ON")
                self._database.execute("DROP TABLE members")
                self._database.execute("PRAGMA secure_delete = OFF")

    def note_present(self, *, identify_by_email: bool, flag: str | None) -> None:
        """Note the users of this run's rows, right before the first request.

        Those whom the query still returns are no longer being cleared.
        """
        identifier = "email" if identify_by_email else "CAST(outbox.user_id AS TEXT)"
        with state_errors(self._path):
            self._database.execute(_NOTE_PRESENT.format(identifier=identifier), {"flag": flag})

    def of_user_ids(self, user_ids: Iterable[str]) -> dict[str, list[Member]]:
        """Return the members with each of these user ids, in the order of their keys."""
        found: dict[str, list[Member]] = {}
        with state_errors(self._path):
            rows = self._database.execute(
                f"SELECT {_COLUMNS} FROM members"  # noqa: S608 - our own names
                " WHERE user_id IN (SELECT value FROM json_each(?)) ORDER BY user_key",
                (orjson.dumps(list(user_ids)).decode(),),
            )
            for row in rows:
                member = Member._make(row)
                found.setdefault(member.user_id or "", []).append(member)
        return found

    def replace(self, former_key: int | None, member: Member) -> None:
        """Put a member in the place of the one with `former_key`, whom nobody names any more."""
        with state_errors(self._path):
            if former_key is not None:
                self._database.execute("DELETE FROM members WHERE user_key = ?", (former_key,))
            self._database.execute(
                "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?)",
                member,
            )

    def count(self) -> int:
        """Return the number of members."""
        with state_errors(self._path):
            count: int = self._database.execute("SELECT count(*) FROM members").fetchone()[0]
            return count
