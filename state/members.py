"""The table `members`: who is in Iterable because of this program, by identifier.

It holds e-mail addresses or user ids, so it exists only while `EMAIL_CHANGES=move` or
`ON_LEAVE=clear` need it. Only this module uses it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from state.database import state_errors
from state.optional_tables import keep_table

CLEARED_DAYS = 30  # so long --verify reads a cleared user back
_SECONDS_PER_DAY = 86_400

_TABLE = """members (
    user_key INTEGER PRIMARY KEY, user_id TEXT, identifier TEXT NOT NULL,
    flag TEXT, clearing_began_at INTEGER, cleared_at INTEGER, failure_code TEXT
)"""
_INDEXES = ("members_user_id ON members (user_id)",)
# Rows that the query returns and whose profile Iterable has, or may have once this run has sent it.
# A row whose changed e-mail is still to be moved is noted when that is done, see `replace`.
_NOTE_PRESENT = """
    INSERT INTO members (user_key, user_id, identifier, flag)
    SELECT outbox.user_key, CAST(outbox.user_id AS TEXT), {identifier}, :flag
    FROM outbox LEFT JOIN delivered USING (user_key)
    WHERE (outbox.kind IS NULL OR outbox.kind = 'unchanged') AND outbox.held IS NOT 'move'
        AND (delivered.profile_at IS NOT NULL OR (outbox.profile IS NOT NULL
            AND outbox.held IS NOT 'profile' AND outbox.held IS NOT 'row'))
    ON CONFLICT (user_key) DO UPDATE
    SET user_id = excluded.user_id, identifier = excluded.identifier,
        flag = ifnull(flag, excluded.flag),
        clearing_began_at = NULL, cleared_at = NULL, failure_code = NULL
    WHERE user_id IS NOT excluded.user_id OR identifier IS NOT excluded.identifier
        OR flag IS NOT ifnull(flag, excluded.flag) OR clearing_began_at IS NOT NULL
        OR cleared_at IS NOT NULL OR failure_code IS NOT NULL
"""
# Whom no row of the read names, by user key or user id, valid or not.
_LEAVERS = """
    FROM members WHERE flag IS NOT NULL AND cleared_at IS NULL
        AND user_key NOT IN (SELECT user_key FROM outbox WHERE user_key IS NOT NULL)
        AND user_key NOT IN (SELECT user_key FROM named_users)
        AND (user_id IS NULL
            OR user_id NOT IN (SELECT CAST(user_id AS TEXT) FROM outbox WHERE user_id IS NOT NULL))
"""


class Member(NamedTuple):
    """A user whose profile this program delivered, or may have delivered."""

    user_key: int
    user_id: str | None  # of the row, as text
    identifier: str  # the e-mail or userId that names the user in Iterable


class Leaver(NamedTuple):
    """A member who has left: the flag is to be set to false."""

    user_key: int
    user_id: str | None
    identifier: str
    flag: str  # the name of the profile field
    failure_code: str | None  # why clearing failed the last time
    # Unix time of the last attempt to move the user, see `state.email_changes`; 0: there was none.
    moved_at: float = 0.0
    tried: tuple[str, ...] = ()  # the identifiers that a killed run may have given the user


class MemberTable:
    """The table in an open state file. Raises StateError. The caller commits."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database
        self.exists = self._exists()

    def _exists(self) -> bool:
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = 'members'"
            )
            return found.fetchone() is not None

    def keep(self, is_wanted: bool) -> None:
        """Create the table if the settings ask for it; if they do not, overwrite and remove it."""
        with state_errors(self._path):
            keep_table(self._database, _TABLE, _INDEXES, is_wanted=is_wanted)
        self.exists = is_wanted

    def note_present(
        self, *, by_email: bool, flag: str | None, now: int, keeps_cleared: bool = False
    ) -> None:
        """Note the users of this run's rows, right before the first request.

        Their flag is not being cleared any more. `flag` is the profile flag's name, None if there
        is none; where it is another one than before, see `note_flag`. `now` is in unix seconds.
        Cleared users are removed after a while, but not with `keeps_cleared`: who comes back with
        another address is moved.
        """
        identifier = "outbox.email" if by_email else "CAST(outbox.user_id AS TEXT)"
        with state_errors(self._path):
            self._database.execute(_NOTE_PRESENT.format(identifier=identifier), {"flag": flag})
            if not keeps_cleared:
                self._database.execute(
                    "DELETE FROM members WHERE cleared_at < ?", (_cleared_since(now),)
                )

    def note_flag(self, seqs: Sequence[int], flag: str | None) -> None:
        """Note the flag that was delivered with the profiles of these rows of the outbox."""
        with state_errors(self._path):
            self._database.execute(
                "UPDATE members SET flag = :flag WHERE flag IS NOT :flag AND user_key IN"
                " (SELECT user_key FROM outbox WHERE seq IN (SELECT value FROM json_each(:seqs)))",
                {"flag": flag, "seqs": orjson.dumps(seqs).decode()},
            )

    def of_user_ids(self, user_ids: Iterable[str]) -> dict[str, list[Member]]:
        """Return the members with each of these user ids; last the one delivered last."""
        found: dict[str, list[Member]] = {}
        with state_errors(self._path):
            rows = self._database.execute(
                "SELECT user_key, user_id, identifier FROM members LEFT JOIN delivered USING"
                " (user_key) WHERE user_id IN (SELECT value FROM json_each(?))"
                " ORDER BY profile_at, user_key",
                (orjson.dumps(list(user_ids)).decode(),),
            )
            for row in rows:
                member = Member._make(row)
                found.setdefault(member.user_id or "", []).append(member)
        return found

    def put(self, member: Member, flag: str | None) -> None:
        """Add a member, or change the one with this key."""
        with state_errors(self._path):
            self._database.execute(
                "INSERT OR REPLACE INTO members (user_key, user_id, identifier, flag)"
                " VALUES (?, ?, ?, ?)",
                (*member, flag),
            )

    def remove(self, user_key: int) -> None:
        """Remove a member: Iterable does not have the user."""
        with state_errors(self._path):
            self._database.execute("DELETE FROM members WHERE user_key = ?", (user_key,))

    def forget_user_id(self, user_key: int) -> None:
        """Keep a member whom no row names by user id any more, so that it counts as having left."""
        with state_errors(self._path):
            self._database.execute(
                "UPDATE members SET user_id = NULL WHERE user_key = ?", (user_key,)
            )

    def forget_user_ids(self) -> None:
        """Keep all members, but none of their user ids: those of the rows are others."""
        with state_errors(self._path):
            self._database.execute("UPDATE members SET user_id = NULL WHERE user_id IS NOT NULL")

    def count_leavers(self) -> int:
        """Return how many members no row of the outbox names; call it before rows are taken out."""
        with state_errors(self._path):
            count: int = self._database.execute(f"SELECT count(*) {_LEAVERS}").fetchone()[0]
            return count

    def find_leavers(self, *, has_noted_moves: bool = False) -> list[Leaver]:
        """Return the members whom no row of the outbox names, see `count_leavers`."""
        with state_errors(self._path):
            moved_at, tried = "0.0", "'[]'"
            if has_noted_moves:
                moved_at = (
                    "ifnull((SELECT max(attempted_at) FROM noted_moves"
                    " WHERE noted_moves.user_id = members.user_id), 0.0)"
                )
                tried = (
                    "(SELECT json_group_array(new_email) FROM noted_moves"
                    " WHERE noted_moves.user_id = members.user_id AND NOT is_settled"
                    " AND new_key NOT IN (SELECT user_key FROM outbox WHERE user_key IS NOT NULL)"
                    " AND new_key NOT IN (SELECT user_key FROM named_users)"
                    " AND new_key NOT IN (SELECT other.user_key FROM members AS other))"
                )
            found = self._database.execute(
                "SELECT user_key, user_id, identifier, flag, failure_code,"
                f" {moved_at}, {tried} {_LEAVERS}"
            )
            return [Leaver._make([*row, tuple(orjson.loads(emails))]) for *row, emails in found]

    def begin_clearing(self, user_keys: Sequence[int], now: int) -> None:
        """Mark that the flags of these users may be set to false from now on (unix seconds)."""
        with state_errors(self._path):
            self._database.execute(
                "UPDATE members SET clearing_began_at = ?"
                " WHERE user_key IN (SELECT value FROM json_each(?))",
                (now, orjson.dumps(user_keys).decode()),
            )

    def note_cleared(self, leaver: Leaver, at: int) -> None:
        """Note that a user's flag was set to false."""
        with state_errors(self._path):
            self._database.execute(
                "UPDATE members SET clearing_began_at = NULL, cleared_at = ?,"
                " failure_code = NULL WHERE user_key = ?",
                (at, leaver.user_key),
            )

    def note_failure(self, user_key: int, code: str | None) -> None:
        """Note why a user's flag could not be set to false."""
        with state_errors(self._path):
            self._database.execute(
                "UPDATE members SET failure_code = ? WHERE user_key = ?", (code or "", user_key)
            )

    def choose_cleared(
        self, max_users: int, *, has_noted_moves: bool = False
    ) -> list[tuple[Member, str, int]]:
        """Return cleared users at random, each with the flag's name and when it was cleared.

        Those of the last 30 days; without those who may have another address than is noted, after a
        move without a response.
        """
        if not self.exists:
            return []
        is_certain = "TRUE"
        if has_noted_moves:
            is_certain = (
                "NOT EXISTS (SELECT 1 FROM noted_moves"
                " WHERE noted_moves.user_id = members.user_id AND NOT is_settled)"
            )
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT user_key, user_id, identifier, flag, cleared_at FROM members"  # noqa: S608
                f" WHERE cleared_at >= ? AND {is_certain} ORDER BY random() LIMIT ?",
                (_cleared_since(int(time.time())), max_users),
            )
            return [(Member._make(row[:3]), row[3], row[4]) for row in found]

    def count(self) -> int:
        """Return the number of members whose flag is not cleared."""
        with state_errors(self._path):
            count: int = self._database.execute(
                "SELECT count(*) FROM members WHERE flag IS NOT NULL AND cleared_at IS NULL"
            ).fetchone()[0]
            return count


def _cleared_since(now: int) -> int:
    return now - CLEARED_DAYS * _SECONDS_PER_DAY
