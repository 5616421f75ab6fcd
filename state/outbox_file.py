"""The file of the outbox: created beside the state file, and without a name from then on.

The operating system frees it when the process ends, also if it is killed, so no personal data is
left behind. Nothing in it has to survive a crash: the next run reads the rows again, and what was
delivered is in the state file. So it is never flushed to the disk, and its journal is in memory.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from records.rows import RequestKind
from state.database import CACHE_KIBIBYTES

_TABLE = """ outbox (  -- one row per row of the query
    seq INTEGER PRIMARY KEY,
    user_id, email TEXT, user_key INTEGER, event_at INTEGER, tie_breaker INTEGER,
    profile_hash INTEGER, event_hash INTEGER,
    kind TEXT, reason TEXT,  -- kind: the outcome, if no request decides it; NULL: to be sent
    profile BLOB, event BLOB,  -- NULL: this request is not needed
    event_id TEXT,
    is_event_kept INTEGER,  -- the event differs from the delivered one only by the settings
    update_verdict TEXT, update_result TEXT,
    event_verdict TEXT, event_result TEXT,
    settled_at REAL,
    held TEXT,  -- `Held`; NULL: nothing is held back
    failure_key INTEGER,  -- of an invalid row, see state/failures.py
    failure_ages TEXT,  -- JSON of `records.rows.FailureAges`; NULL: nothing has failed
    email_change TEXT  -- JSON of `records[].email_change`; NULL: the address is the same
)"""
# User keys that invalid rows name. Beside the outbox, whose rows with one key are duplicates.
_NAMED_USERS = "named_users (user_key INTEGER PRIMARY KEY)"
# Rows whose user had another address, see `state.email_changes.EmailChange`.
_EMAIL_CHANGES = """ email_changes (
    seq INTEGER PRIMARY KEY, user_id TEXT, user_key INTEGER, email TEXT, former_key INTEGER,
    former_email TEXT, profile_hash INTEGER, event_hash INTEGER, event_id TEXT
)"""
# The column of a request's verdict, and the condition that a row needs the request, which may be
# held back.
VERDICT_COLUMN: Mapping[RequestKind, str] = {
    RequestKind.PROFILE: "update_verdict",
    RequestKind.EVENT: "event_verdict",
}
IS_NEEDED: Mapping[RequestKind, str] = {
    kind: f"kind IS NULL AND {kind.value} IS NOT NULL" for kind in RequestKind
}
# The condition that the request is needed and not held back, in a row that is to be sent.
IS_SENT: Mapping[RequestKind, str] = {
    kind: f"{kind.value} IS NOT NULL AND held IS NOT '{kind.value}'" for kind in RequestKind
}
_PAGE_BYTES = 16_384  # a fifth less CPU time than with SQLite's usual 4,096


class Held(str, Enum):
    """What is not sent of a row, in most cases because Iterable has rejected it before.

    The verdict of what was rejected is in the outbox from the start.
    """

    PROFILE = "profile"
    EVENT = "event"
    ROW = "row"  # nothing is sent
    MOVE = "move"  # nothing is sent until the user has the row's address in Iterable
    WAIT = "wait"  # the user got the address a moment ago: see `Outbox.rows_of`


class OutboxRow(NamedTuple):
    """A row of the table when it is inserted."""

    seq: int
    user_id: int | str | None
    email: str | None
    user_key: int | None = None
    event_at: int | None = None
    tie_breaker: int | None = None
    profile_hash: int | None = None
    event_hash: int | None = None
    kind: str | None = None
    reason: str | None = None
    profile: bytes | None = None
    event: bytes | None = None
    event_id: str | None = None
    is_event_kept: bool | None = None


def attach_outbox(database: sqlite3.Connection, state_file: Path) -> None:
    """Create the file, attach it to the connection of the state file, and remove its name."""
    path = state_file.with_name(state_file.name + "-outbox")
    with _new_file(path):
        database.execute("ATTACH ? AS run", (str(path),))
        for setting in (
            f"page_size = {_PAGE_BYTES}",
            "auto_vacuum = INCREMENTAL",
            "journal_mode = MEMORY",
            "synchronous = OFF",
            "locking_mode = EXCLUSIVE",
            f"cache_size = -{CACHE_KIBIBYTES}",
        ):
            database.execute(f"PRAGMA run.{setting}")
        database.execute(f"CREATE TABLE run.{_TABLE}")
        database.execute(f"CREATE TABLE run.{_NAMED_USERS}")
        database.execute(f"CREATE TABLE run.{_EMAIL_CHANGES}")


def create_temporary_outbox(database: sqlite3.Connection) -> None:
    """Create the tables in SQLite's temporary file, for a connection that may not write."""
    database.execute(f"CREATE TEMP TABLE {_TABLE}")
    database.execute(f"CREATE TEMP TABLE {_NAMED_USERS}")
    database.execute(f"CREATE TEMP TABLE {_EMAIL_CHANGES}")


def release_free_pages(database: sqlite3.Connection) -> None:
    """Shrink the attached file by the space of deleted rows."""
    # `execute` takes only the first step of this statement, which frees one page.
    database.executescript("PRAGMA run.incremental_vacuum")


@contextmanager
def _new_file(path: Path) -> Iterator[None]:
    path.unlink(missing_ok=True)  # of a run that was killed just now, or planted by somebody
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        yield
    finally:
        path.unlink()
