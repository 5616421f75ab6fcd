"""Changed e-mail addresses: which users are to be moved, and what was already tried.

Two tables. `noted_moves`, in the state file, has an entry for each address that a user got or may
have got in Iterable, from before the attempt on; it holds addresses, so it exists only with
`EMAIL_CHANGES=move`. `email_changes`, in the file of the outbox, has the rows of this read whose
user had another address.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from records.mapping import InvalidRow, RowMapping
from state.database import state_errors
from state.members import Member, MemberTable
from state.optional_tables import keep_table
from state.outbox_file import OutboxRow

_KEPT_SECONDS = 86_400  # so long a settled move stays noted
_NOTED_MOVES = """noted_moves (
    user_id TEXT, new_key INTEGER, new_email TEXT, attempted_at REAL, is_settled INTEGER,
    PRIMARY KEY (user_id, new_key)
)"""


class TriedAddress(NamedTuple):
    """An address to which an earlier run may have moved a user."""

    email: str
    user_key: int


class EmailChange(NamedTuple):
    """A row whose user had another address in the last delivery."""

    seq: int
    user_id: str
    user_key: int  # of the row's address
    email: str
    former_key: int
    former_email: str
    # Of this row with the former address: what `delivered` has where nothing else has changed.
    profile_hash: int | None
    event_hash: int | None
    event_id: str | None
    is_noted: bool = False  # an earlier run may have made this move
    tried: tuple[TriedAddress, ...] = ()  # others than the row's, where the user may be instead

    @property
    def possible_keys(self) -> list[int]:
        """The user keys of all addresses that the user may have in Iterable now."""
        return [self.former_key, *(each.user_key for each in self.tried)]


class EmailChangeTable:
    """Both tables. Raises StateError. The caller commits."""

    def __init__(self, path: Path, database: sqlite3.Connection, members: MemberTable) -> None:
        self._path = path
        self._database = database
        self._members = members
        with state_errors(path):
            found = database.execute(
                "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = 'noted_moves'"
            )
            self.exists = found.fetchone() is not None

    def keep(self, is_wanted: bool) -> None:
        """Create the table of noted moves if the settings ask for it; if not, remove it."""
        with state_errors(self._path):
            keep_table(self._database, _NOTED_MOVES, is_wanted=is_wanted)
            if is_wanted:  # a settled move matters for a minute
                self._database.execute(
                    "DELETE FROM noted_moves WHERE is_settled AND attempted_at < ?",
                    (time.time() - _KEPT_SECONDS,),
                )
        self.exists = is_wanted

    def ignore(self) -> None:
        """Find no changes in this read, as in a first run: the user ids are others than before."""
        self.exists = False

    def forget_all(self) -> None:
        """Forget every move."""
        with state_errors(self._path):
            self._database.execute("DELETE FROM noted_moves")

    def clear_read(self) -> None:
        """Forget the rows of the last read."""
        self._database.execute("DELETE FROM email_changes")

    def take(
        self,
        rows: Sequence[Sequence[Any]],
        first_seq: int,
        outbox_rows: Sequence[OutboxRow],
        mapping: RowMapping,
    ) -> None:
        """Note those rows to send whose user id was last delivered under another address."""
        waiting = {
            str(row.user_id): row
            for row in outbox_rows
            if row.kind is None and row.user_id is not None and row.user_key is not None
        }
        changes = []
        for user_id, members in self._members.of_user_ids(waiting).items():
            row = waiting[user_id]
            last = members[-1]
            if last.user_key != row.user_key:
                former = mapping.with_email(rows[row.seq - first_seq], last.identifier)
                changes.append(_to_change(row, last, former, mapping))
        self._database.executemany(
            "INSERT INTO email_changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [change[:9] for change in changes if change is not None],
        )

    def found(self) -> list[EmailChange]:
        """Return the changes of this read, in its order; call it after the duplicates are marked.

        A user whom an earlier run may have moved counts as changed wherever the row's address is
        not the one of that attempt.
        """
        with state_errors(self._path):
            rows = self._database.execute(
                "SELECT email_changes.* FROM email_changes JOIN outbox USING (seq)"
                " WHERE outbox.kind IS NULL AND outbox.held IS NULL ORDER BY seq"
            ).fetchall()
            changes = {row[0]: EmailChange(*row) for row in rows}
            if not self._has_notes("NOT is_settled"):
                return list(changes.values())
            uncertain = self._database.execute(
                "SELECT seq, noted_moves.user_id, user_key, email, new_key, new_email"
                " FROM noted_moves JOIN outbox"
                " ON CAST(outbox.user_id AS TEXT) = noted_moves.user_id"
                " WHERE NOT is_settled AND (kind IS NULL OR kind = 'unchanged') AND held IS NULL"
                " ORDER BY attempted_at"
            ).fetchall()
        for seq, user_id, user_key, email, new_key, new_email in uncertain:
            change = changes.get(seq)
            if change is not None:
                tried = change.tried
                if new_key not in (user_key, *change.possible_keys):
                    tried += (TriedAddress(new_email, new_key),)
                changes[seq] = change._replace(is_noted=True, tried=tried)
            elif user_key != new_key:  # the row is back at the former address
                changes[seq] = EmailChange(
                    *(seq, user_id, user_key, email, new_key, new_email, None, None, None),
                    is_noted=True,
                )
        return [changes[seq] for seq in sorted(changes)]

    def _has_notes(self, condition: str, *values: float) -> bool:
        """Look before the whole outbox is read for the notes; most runs have none."""
        if not self.exists:
            return False
        with state_errors(self._path):
            found = self._database.execute(
                f"SELECT 1 FROM noted_moves WHERE {condition} LIMIT 1",  # noqa: S608 - our own text
                values,
            )
            return found.fetchone() is not None

    def shared_user_ids(self, user_ids: Sequence[str]) -> set[str]:
        """Return those user ids that several rows of this read have."""
        if not user_ids:
            return set()  # the outbox has no index of user ids
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT CAST(user_id AS TEXT) AS id FROM outbox"
                " WHERE id IN (SELECT value FROM json_each(?)) GROUP BY id HAVING count(*) > 1",
                (orjson.dumps(user_ids).decode(),),
            )
            return {user_id for (user_id,) in found}

    def rows_named(self, user_keys: Sequence[int]) -> dict[int, list[int | None]]:
        """Return, by user key, the `seq` of the rows that name it; None stands for invalid rows."""
        found: dict[int, list[int | None]] = {}
        if not user_keys:
            return found
        keys = orjson.dumps(user_keys).decode()
        with state_errors(self._path):
            for user_key, seq in self._database.execute(
                "SELECT user_key, seq FROM outbox"
                " WHERE user_key IN (SELECT value FROM json_each(:keys))"
                " UNION ALL SELECT user_key, NULL FROM named_users"
                " WHERE user_key IN (SELECT value FROM json_each(:keys))",
                {"keys": keys},
            ):
                found.setdefault(user_key, []).append(seq)
        return found

    def rows_to_send_at(self, user_keys: Sequence[int]) -> list[int]:
        """Return the `seq` of the rows with these user keys that are to be sent."""
        if not user_keys:
            return []
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT seq FROM outbox WHERE kind IS NULL AND held IS NOT 'row'"
                " AND user_key IN (SELECT value FROM json_each(?)) ORDER BY seq",
                (orjson.dumps(user_keys).decode(),),
            )
            return [seq for (seq,) in found]

    def rows_at_uncertain_addresses(self) -> list[int]:
        """Return rows to send to an address that another user may have, see `noted_moves`."""
        if not self._has_notes("NOT is_settled"):
            return []
        with state_errors(self._path):
            found = self._database.execute(
                "WITH uncertain AS (SELECT user_id, new_key AS user_key FROM noted_moves"
                " WHERE NOT is_settled UNION SELECT members.user_id, members.user_key FROM members"
                " JOIN noted_moves USING (user_id) WHERE NOT is_settled)"
                " SELECT DISTINCT seq FROM outbox JOIN uncertain USING (user_key)"
                " WHERE kind IS NULL AND held IS NOT 'row'"
                " AND uncertain.user_id IS NOT CAST(outbox.user_id AS TEXT)"
            ).fetchall()
            return [seq for (seq,) in found]

    def recent(self, since: float) -> list[tuple[int, float]]:
        """Return (seq, unix time of the attempt) of rows to send whose user was just moved."""
        if not self._has_notes("is_settled AND attempted_at > ?", since):
            return []
        with state_errors(self._path):
            return self._database.execute(
                "SELECT seq, attempted_at FROM noted_moves JOIN outbox"
                " ON outbox.user_key = noted_moves.new_key"
                " AND CAST(outbox.user_id AS TEXT) = noted_moves.user_id"
                " WHERE is_settled AND attempted_at > ? AND kind IS NULL AND held IS NULL",
                (since,),
            ).fetchall()

    def note(self, changes: Sequence[EmailChange], at: float) -> None:
        """Note attempts that are about to be made."""
        with state_errors(self._path):
            self._database.executemany(
                "INSERT OR REPLACE INTO noted_moves VALUES (?, ?, ?, ?, 0)",
                [(each.user_id, each.user_key, each.email, at) for each in changes],
            )

    def settle(self, change: EmailChange, at: float) -> None:
        """Note that the result of an attempt is known; `at` is when it was made."""
        with state_errors(self._path):
            self._database.execute("DELETE FROM noted_moves WHERE user_id = ?", (change.user_id,))
            self._database.execute(
                "INSERT INTO noted_moves VALUES (?, ?, ?, ?, 1)",
                (change.user_id, change.user_key, change.email, at),
            )

    def forget(self, change: EmailChange) -> None:
        """Remove the note of an attempt that Iterable has rejected."""
        with state_errors(self._path):
            self._database.execute(
                "DELETE FROM noted_moves WHERE user_id = ? AND new_key = ?",
                (change.user_id, change.user_key),
            )


def _to_change(
    row: OutboxRow, former: Member, former_row: Sequence[Any], mapping: RowMapping
) -> EmailChange | None:
    key, record = mapping.key(former_row), mapping.to_record(former_row)
    if key is None or isinstance(record, InvalidRow):
        return None
    return EmailChange(
        row.seq,
        str(row.user_id),
        row.user_key or 0,
        row.email or "",
        former.user_key,
        former.identifier,
        key.profile_hash,
        key.event_hash,
        record.event_id,
    )
