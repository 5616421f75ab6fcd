"""The file of confirmations: which events Iterable's webhooks have confirmed, and counts by kind.

A SQLite file of its own, since the listener writes it while runs use the state file. It has hashes,
kinds and times, nothing that names a user, and forgets after 30 days.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import orjson

from errors import SyncError
from records.webhooks import Webhook, to_event_hash

KEPT_SECONDS = 30 * 86_400
_APPLICATION_ID = 0x4D324943  # "M2IC", in the header of the file
_VERSION = 1  # `user_version` of the file; in those that version 1.4.0 has made it is 0
_SCHEMA = f"""
    BEGIN IMMEDIATE;
    CREATE TABLE IF NOT EXISTS webhooks (body_hash INTEGER PRIMARY KEY, received_at INTEGER);
    CREATE TABLE IF NOT EXISTS confirmed (event_hash INTEGER PRIMARY KEY, confirmed_at INTEGER);
    CREATE TABLE IF NOT EXISTS counts (
        day TEXT, kind TEXT, count INTEGER, PRIMARY KEY (day, kind)
    ) WITHOUT ROWID;
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {_VERSION};
    COMMIT;
"""


class ConfirmationsError(SyncError):
    """The file of confirmations cannot be used. The message says why and what to do."""


class Received(NamedTuple):
    """A webhook, and when it was received (unix seconds)."""

    webhook: Webhook
    at: int


class ConfirmationsFile:
    """The open file; not thread-safe. Raises ConfirmationsError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _errors(path):
            _create(path)
            self._database = sqlite3.connect(path, isolation_level=None, timeout=10.0)
            try:
                _check_owner(path, self._database)
                path.chmod(0o600)  # whatever the umask
                self._database.executescript(_SCHEMA)
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")  # on the disk when it returns
                self._identity = _identity_of(path)
            except BaseException:
                self._database.close()
                raise

    def is_in_place(self) -> bool:
        """Return whether the file still has its name: somebody may have moved or deleted it."""
        return _identity_of(self._path) == self._identity

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, received: Sequence[Received]) -> int:
        """Store webhooks in one transaction; return how many were new. A repeat counts once."""
        new_count = 0
        with _errors(self._path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                for webhook, at in received:
                    new_count += self._add(webhook, at)
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        return new_count

    def _add(self, webhook: Webhook, at: int) -> int:
        added = self._database.execute(
            "INSERT OR IGNORE INTO webhooks VALUES (?, ?)", (webhook.body_hash, at)
        ).rowcount
        if added:
            self._database.execute(
                "INSERT INTO counts VALUES (?, ?, 1)"
                " ON CONFLICT (day, kind) DO UPDATE SET count = count + 1",
                (_day_of(at), webhook.kind),
            )
        self._database.executemany(
            "INSERT INTO confirmed VALUES (?, ?) ON CONFLICT (event_hash)"
            " DO UPDATE SET confirmed_at = max(confirmed_at, excluded.confirmed_at)",
            [(event_hash, at) for event_hash in webhook.event_hashes],
        )
        return added

    def forget_old(self, now: int) -> None:
        """Remove what is older than 30 days; `now` is in unix seconds."""
        with _errors(self._path):
            for statement, value in (
                ("DELETE FROM webhooks WHERE received_at < ?", now - KEPT_SECONDS),
                ("DELETE FROM confirmed WHERE confirmed_at < ?", now - KEPT_SECONDS),
                ("DELETE FROM counts WHERE day < ?", _day_of(now - KEPT_SECONDS)),
            ):
                self._database.execute(statement, (value,))


class Confirmations:
    """What the file says, for a command that only reads it; without a file it says nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.exist = False
        with contextlib.suppress(OSError):
            # It is empty for a moment, when it is made.
            self.exist = path.is_file() and path.stat().st_size > 0

    def confirmed_at(self, event_ids: Iterable[str]) -> Mapping[str, int]:
        """Return when webhooks have confirmed events, at last, in unix seconds by event id.

        Events that none has confirmed are left out.
        """
        by_hash = {to_event_hash(event_id): event_id for event_id in event_ids}
        if not self.exist or not by_hash:
            return {}
        with self._opened() as database:
            found = database.execute(
                "SELECT event_hash, confirmed_at FROM confirmed"
                " WHERE event_hash IN (SELECT value FROM json_each(?))",
                (orjson.dumps(list(by_hash)).decode(),),
            )
            return {by_hash[event_hash]: at for event_hash, at in found}

    def counts(self, now: float | None = None) -> Mapping[str, int]:
        """Return how many webhooks of each kind were received in the last 30 days."""
        if not self.exist:
            return {}
        day = _day_of((time.time() if now is None else now) - KEPT_SECONDS)
        with self._opened() as database:
            return dict(
                database.execute(
                    "SELECT kind, sum(count) FROM counts WHERE day >= ?"
                    " GROUP BY kind ORDER BY kind",
                    (day,),
                )
            )

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with _errors(self._path):
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            database = sqlite3.connect(uri, uri=True, timeout=10.0)
            try:
                _check_owner(self._path, database)
                yield database
            finally:
                database.close()


def _day_of(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).date().isoformat()


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _create(path: Path) -> None:
    """Make the file where there is none. Raises ConfirmationsError or OSError."""
    if path.is_symlink():
        raise ConfirmationsError(f"{path} is a symbolic link: choose another CONFIRMATIONS_FILE.")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        is_usable = stat.S_ISREG(mode) and file.read(16) in (b"", b"SQLite format 3\0")
    if not is_usable:
        raise _not_ours(path)
    if not mode & stat.S_IWUSR:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # root could write to it


def _check_owner(path: Path, database: sqlite3.Connection) -> None:
    application_id = database.execute("PRAGMA application_id").fetchone()[0]
    is_new = application_id == 0 and not database.execute("PRAGMA schema_version").fetchone()[0]
    if not is_new and application_id != _APPLICATION_ID:
        raise _not_ours(path)
    if database.execute("PRAGMA user_version").fetchone()[0] > _VERSION:
        raise ConfirmationsError(
            f"{path} was made by a newer version of this program: use that version."
        )


def _not_ours(path: Path) -> ConfirmationsError:
    return ConfirmationsError(
        f"{path} is not a file of confirmations: choose another CONFIRMATIONS_FILE."
    )


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Convert errors of SQLite and the file system."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if "not a database" in reason:
            raise _not_ours(path) from error
        raise ConfirmationsError(
            f"The file of confirmations {path} cannot be used ({reason}): check its folder, its "
            "owner, its mode and the free space, or choose another CONFIRMATIONS_FILE."
        ) from error
