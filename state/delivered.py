"""The table `delivered`: what each user was sent last. Only this module uses it.

A hash stands for "delivered with this content". It is empty while a request is in doubt: from the
moment before it may be sent until it is recorded as delivered. So a value that goes back to what
was delivered before, after a lost response or a killed run, is sent again. The times and the event
id usually stay: they say that something was delivered once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from records.identity import to_key_of_user_id
from records.rows import RequestKind
from state.database import state_errors
from state.outbox_file import IS_NEEDED

_RECORD = {
    RequestKind.PROFILE: """
        INSERT INTO delivered (user_key, profile_hash, profile_at, id_hash)
        SELECT user_key, profile_hash, :at, hash_of_id(user_id) FROM outbox WHERE seq = :seq
        ON CONFLICT (user_key) DO UPDATE SET profile_hash = excluded.profile_hash,
            event_hash = iif(profile_at IS NULL, NULL, event_hash),
            profile_at = excluded.profile_at, id_hash = excluded.id_hash
    """,
    # An e-mail-based project drops the event of a user whom it does not know. So the event of a
    # user whose profile was never delivered stays in doubt, where profiles are sent.
    RequestKind.EVENT: """
        INSERT INTO delivered (user_key, event_hash, event_settings, event_id, event_at, id_hash)
        SELECT user_key, iif(EXISTS (
                SELECT 1 FROM delivered AS known
                WHERE known.user_key = outbox.user_key AND known.profile_at IS NOT NULL
            ) OR NOT :sends_profiles, event_hash, NULL), :settings, event_id, :at,
            iif(:sends_profiles, NULL, hash_of_id(user_id))
        FROM outbox WHERE seq = :seq
        ON CONFLICT (user_key) DO UPDATE SET event_hash = excluded.event_hash,
            event_settings = excluded.event_settings,
            former_event_id = iif(event_id IS excluded.event_id, former_event_id, NULL),
            event_id = excluded.event_id, event_at = excluded.event_at,
            id_hash = ifnull(excluded.id_hash, id_hash)
    """,
}
# Iterable moves an event to the user for whom its id came last.
_FORGET_FORMER_USER = """
    UPDATE delivered SET event_hash = NULL, event_settings = NULL, event_id = NULL, event_at = NULL
    WHERE event_id = (SELECT event_id FROM outbox WHERE seq = :seq)
        AND user_key <> (SELECT user_key FROM outbox WHERE seq = :seq)
"""

# Whoever is doubted like this may be unknown to Iterable.
_DOUBT_USERS = "UPDATE delivered SET profile_hash = NULL, profile_at = NULL, event_hash = NULL"

IS_KNOWN = "profile_at IS NOT NULL"  # Iterable has the user: the profile was delivered once

# Needed, and neither held back nor left until the user is moved.
_MAY_BE_SENT = {
    kind: f"{needed} AND ifnull(held, '') NOT IN ('move', 'row', '{kind.value}')"
    for kind, needed in IS_NEEDED.items()
}

Hashes = tuple[int | None, int | None]  # of the profile and of the event; None: not delivered


class DeliveredUser(NamedTuple):
    """The last delivery of each of a user's requests. Times are in unix seconds; None: never."""

    profile_hash: int | None  # None: never delivered, or in doubt
    profile_at: int | None
    event_hash: int | None
    event_settings: int | None  # `RowMapping.event_settings` of the event
    event_id: str | None
    event_at: int | None
    former_event_id: str | None = None  # of the event in Iterable, where the user was moved


class DeliveredTable:
    """The table in an open state file. Raises StateError.

    With `index_event_ids` an event that is delivered for another user is forgotten for the former
    one: necessary only where the query names the events, as other ids contain the user's e-mail.
    """

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database
        self._has_event_ids = False
        database.create_function("hash_of_id", 1, _hash_of_id, deterministic=True)

    def index_event_ids(self) -> None:
        """Make it fast to find an event by its id."""
        with state_errors(self._path):
            self._database.execute(
                "CREATE INDEX IF NOT EXISTS delivered_event_id ON delivered (event_id)"
            )
        self._has_event_ids = True

    def doubt_everything(self) -> None:
        """Empty every hash, and forget that a profile was ever delivered.

        The project may be another one, which then does not know the users.
        """
        with state_errors(self._path):
            self._database.execute(_DOUBT_USERS)

    def doubt_profiles(self, user_keys: Iterable[int]) -> None:
        """Empty the profile hashes of these users."""
        with state_errors(self._path):
            self._database.execute(
                "UPDATE delivered SET profile_hash = NULL"
                " WHERE user_key IN (SELECT value FROM json_each(?))",
                (orjson.dumps(list(user_keys)).decode(),),
            )

    def doubt_user(self, user_key: int) -> None:
        """Empty the hashes of a user whom Iterable does not have any more."""
        with state_errors(self._path):
            self._database.execute(f"{_DOUBT_USERS} WHERE user_key = ?", (user_key,))

    def doubt_row(self, seq: int) -> None:
        """Empty the hash of each request that a row still needs."""
        self._doubt_requests({kind: f"seq = ? AND {IS_NEEDED[kind]}" for kind in RequestKind}, seq)

    def doubt_pending(self) -> None:
        """Empty the hash of each request that waits in the outbox, and is not held back.

        Not of rows whose user is to be moved, which has to be compared first: see `doubt_row`.
        """
        if not self.has_users():
            return  # the first run: nothing to look for
        self._doubt_requests(_MAY_BE_SENT)

    def _doubt_requests(self, rows: Mapping[RequestKind, str], *values: int) -> None:
        """Empty the hashes of these rows of the outbox; an event's also where another user has it.

        `rows` has an SQL condition for each kind of request, `values` what its parameters stand
        for.
        """
        with state_errors(self._path):
            for kind in RequestKind:
                self._database.execute(
                    f"UPDATE delivered SET {kind.value}_hash = NULL"  # noqa: S608 - our own names
                    f" WHERE {kind.value}_hash IS NOT NULL AND user_key IN"
                    f" (SELECT user_key FROM outbox WHERE {rows[kind]})",
                    values,
                )
            if self._has_event_ids:
                self._database.execute(
                    "UPDATE delivered SET event_hash = NULL WHERE event_id IN"  # noqa: S608
                    f" (SELECT event_id FROM outbox WHERE {rows[RequestKind.EVENT]})",
                    values,
                )

    def keep_events(self, event_settings: int) -> None:
        """Note the settings, and the hash they give, for each delivered event that is not sent.

        Also where they change nothing in the event: otherwise a later change of the row's own
        values would be taken for one of the settings, and not be sent.
        """
        outdated = "delivered.event_hash IS NOT NULL AND delivered.event_settings IS NOT :settings"
        settings = {"settings": event_settings}
        with state_errors(self._path):
            find = f"SELECT 1 FROM delivered WHERE {outdated} LIMIT 1"  # noqa: S608 - our own text
            if self._database.execute(find, settings).fetchone():
                self._database.execute(
                    "UPDATE delivered SET event_settings = :settings,"  # noqa: S608 - our own text
                    " event_hash = outbox.event_hash"
                    " FROM outbox WHERE outbox.user_key = delivered.user_key"
                    " AND outbox.event IS NULL"
                    " AND (outbox.kind IS NULL OR outbox.kind = 'unchanged')"
                    f" AND {outdated}",
                    settings,
                )

    def record(
        self,
        kind: RequestKind,
        deliveries: Sequence[tuple[int, int]],
        event_settings: int | None,
        *,
        sends_profiles: bool = True,
    ) -> None:
        """Copy the hashes of delivered requests from the outbox.

        `deliveries` are (time in unix seconds, outbox.seq). Without profiles (`sends_profiles`) an
        event is remembered whether or not Iterable is known to have the user.
        """
        values = [
            {"at": at, "seq": seq, "settings": event_settings, "sends_profiles": sends_profiles}
            for at, seq in deliveries
        ]
        with state_errors(self._path):
            if self._has_event_ids and kind is RequestKind.EVENT:
                self._database.executemany(_FORGET_FORMER_USER, values)
            self._database.executemany(_RECORD[kind], values)

    def newest_events(self, since: int, limit: int) -> list[tuple[int, str, str | None]]:
        """Return (time of delivery, event id, former one) of events, the newest first."""
        with state_errors(self._path):
            return self._database.execute(
                "SELECT event_at, event_id, former_event_id FROM delivered"
                " WHERE event_at >= ? AND event_id IS NOT NULL ORDER BY event_at DESC LIMIT ?",
                (since, limit),
            ).fetchall()

    def has_moved_users(self) -> bool:
        """Return whether any user's event has another id in Iterable than its row gives."""
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT 1 FROM delivered WHERE former_event_id IS NOT NULL LIMIT 1"
            )
            return found.fetchone() is not None

    def former_event_ids(self, event_ids: Mapping[int, str]) -> dict[int, str]:
        """Return the id in Iterable of each user's event that has another one; by user key."""
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT user_key, event_id, former_event_id FROM delivered"
                " WHERE former_event_id IS NOT NULL"
                " AND user_key IN (SELECT value FROM json_each(?))",
                (orjson.dumps(list(event_ids)).decode(),),
            )
            return {
                user_key: former_id
                for user_key, event_id, former_id in found
                if event_ids[user_key] == event_id
            }

    def move(
        self,
        former_key: int,
        user_key: int,
        *,
        profile_hash: int | None,
        event_hash: int | None,
        event_id: str | None,
    ) -> None:
        """Pass what is remembered of a user on to another key: the user has another address.

        The hashes are those to remember now; None: in doubt. `event_id` is the one that follows
        from the new address; None: the row has another event than the delivered one.
        """
        values = {
            "former": former_key,
            "new": user_key,
            "profile_hash": profile_hash,
            "event_hash": event_hash,
            "event_id": event_id,
        }
        with state_errors(self._path):
            self._database.execute(
                "INSERT OR REPLACE INTO delivered (user_key, profile_hash, profile_at, event_hash,"
                " event_settings, event_id, event_at, former_event_id, id_hash)"
                " SELECT :new, :profile_hash, profile_at, :event_hash,"
                " iif(:event_id IS NULL, NULL, event_settings), :event_id,"
                " iif(:event_id IS NULL, NULL, event_at),"
                " iif(:event_id IS NULL, NULL, ifnull(former_event_id, event_id)), id_hash"
                " FROM delivered WHERE user_key = :former",
                values,
            )
            self._database.execute("DELETE FROM delivered WHERE user_key = :former", values)

    def count_changed_emails(self) -> int:
        """Count rows to send whose user id was delivered under an address that no row has."""
        if not self.has_users():
            return 0
        with state_errors(self._path):
            new_ids = self._database.execute(
                "SELECT DISTINCT user_id FROM outbox LEFT JOIN delivered USING (user_key)"
                " WHERE kind IS NULL AND user_id IS NOT NULL AND delivered.user_key IS NULL"
            ).fetchall()
            if not new_ids:
                return 0
            # Not with SQL's hash_of_id: a stop signal within it would be an error of SQLite.
            ids = orjson.dumps([_hash_of_id(each) for (each,) in new_ids]).decode()
            count: int = self._database.execute(
                "SELECT count(DISTINCT id_hash) FROM delivered"
                " WHERE id_hash IN (SELECT value FROM json_each(?))"
                " AND user_key NOT IN (SELECT user_key FROM outbox WHERE user_key IS NOT NULL)",
                (ids,),
            ).fetchone()[0]
            return count

    def has_users(self) -> bool:
        """Return whether anything was delivered to anybody yet."""
        with state_errors(self._path):
            found = self._database.execute("SELECT 1 FROM delivered LIMIT 1")
            return found.fetchone() is not None

    def compare(
        self, first_seq: int, *, finds_all: bool, kinds: Sequence[RequestKind] = tuple(RequestKind)
    ) -> dict[int, Hashes]:
        """Return by `seq` the hashes of outbox rows from `first_seq` on that differ from theirs.

        Only these kinds of requests are compared; the hash of another one is any. Where both are,
        an event that was delivered without its user's profile, which was not sent then, is in
        doubt. With `finds_all` return the hashes of all rows. A million comparisons in one
        statement for some thousand rows take 1 s, and leave the interpreter to the thread that
        reads from MySQL.
        """
        event_hash = "delivered.event_hash"
        if len(kinds) == len(RequestKind):
            event_hash = f"iif({IS_KNOWN}, {event_hash}, NULL)"
        hashes = {RequestKind.PROFILE: "delivered.profile_hash", RequestKind.EVENT: event_hash}
        differs = " OR ".join(f"{hashes[kind]} IS NOT outbox.{kind.value}_hash" for kind in kinds)
        with state_errors(self._path):
            found = self._database.execute(
                # CAST: a value that is not a number, which no version of this program writes, then
                # differs from every hash instead of breaking the comparison.
                "SELECT seq, CAST(delivered.profile_hash AS INTEGER),"  # noqa: S608 - our own text
                f" CAST({event_hash} AS INTEGER) FROM outbox LEFT JOIN delivered USING (user_key)"
                f" WHERE seq >= ? AND (? OR {differs})",
                (first_seq, finds_all),
            )
            return {seq: (profile_hash, event_hash) for seq, profile_hash, event_hash in found}

    def find(self, user_keys: Iterable[int]) -> dict[int, DeliveredUser]:
        """Return those users that are in the table, with everything that is known of them."""
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT user_key, CAST(profile_hash AS INTEGER), CAST(profile_at AS INTEGER),"
                " CAST(event_hash AS INTEGER), CAST(event_settings AS INTEGER),"
                " CAST(event_id AS TEXT), CAST(event_at AS INTEGER),"
                " CAST(former_event_id AS TEXT) FROM delivered"
                " WHERE user_key IN (SELECT value FROM json_each(?))",
                (orjson.dumps(list(user_keys)).decode(),),
            )
            return {user_key: DeliveredUser(*rest) for user_key, *rest in found}

    def find_known(self, user_keys: Iterable[int]) -> set[int]:
        """Return those users whose profile was delivered at least once."""
        with state_errors(self._path):
            found = self._database.execute(
                f"SELECT user_key FROM delivered WHERE {IS_KNOWN}"  # noqa: S608 - our own text
                " AND user_key IN (SELECT value FROM json_each(?))",
                (orjson.dumps(list(user_keys)).decode(),),
            )
            return {user_key for (user_key,) in found}

    def count(self) -> int:
        """Return the number of users in the table."""
        with state_errors(self._path):
            count: int = self._database.execute("SELECT count(*) FROM delivered").fetchone()[0]
            return count

    def choose_users(self, max_users: int, since: float) -> dict[int, bool]:
        """Choose users with a delivered request at random, those with one since then first.

        `since` is in unix seconds; the result says for each user key whether it is one of these.
        Reads the whole table.
        """
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT user_key, max(ifnull(profile_at, 0), ifnull(event_at, 0)) >= ? AS is_recent"
                " FROM delivered WHERE profile_hash IS NOT NULL OR event_hash IS NOT NULL"
                " ORDER BY is_recent DESC, random() LIMIT ?",
                (since, max_users),
            )
            return {user_key: bool(is_recent) for user_key, is_recent in found}


def _hash_of_id(user_id: object) -> int | None:
    """Return a signed 64-bit hash of a row's user id."""
    return None if user_id is None else to_key_of_user_id(str(user_id))
