"""The SQLite state file: schema, opening, upgrades, and the messages for its errors.

A damaged file, a file of another program or one of a newer version is never written to.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from errors import SyncError

APPLICATION_ID = 0x4D324954  # "M2IT", in the header of every state file
CACHE_KIBIBYTES = 8_000  # more is not faster: the operating system caches the file too
_HEADER_BYTES = 100  # of every SQLite file
_COLUMNS = (
    'SELECT m.name, c.name, c.type, c."notnull", c.dflt_value, c.pk, c.hidden'
    " FROM sqlite_schema AS m, pragma_table_xinfo(m.name) AS c WHERE m.type = 'table'"
)

# `user_version` of the file that version 1.1.0 of the program made; older ones were never released.
FIRST_VERSION = 3
# The first step makes a file of this version; an older file is upgraded by the steps after its own,
# in one transaction. A released step never changes.
SCHEMA_STEPS: Sequence[str] = (
    """
    CREATE TABLE delivered (  -- one row per user, see state/delivered.py
        user_key INTEGER PRIMARY KEY,
        profile_hash INTEGER, profile_at INTEGER,
        event_hash INTEGER, event_settings INTEGER, event_id TEXT, event_at INTEGER
    );
    CREATE TABLE outbox (  -- one row per row of the query; empty between runs
        seq INTEGER PRIMARY KEY,
        user_id, email TEXT, user_key INTEGER, event_at INTEGER, tie_breaker INTEGER,
        kind TEXT, reason TEXT,  -- kind: unchanged, invalid, duplicate; NULL: to be sent
        profile BLOB, profile_hash INTEGER,  -- NULL: this request is not needed
        event BLOB, event_hash INTEGER, event_id TEXT,
        update_verdict TEXT, update_result TEXT,
        event_verdict TEXT, event_result TEXT,
        settled_at REAL
    );
    CREATE TABLE remembered (name TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY, mode TEXT, started_at TEXT, finished_at TEXT,
        status TEXT, reason TEXT, counts TEXT
    );
    """,
    # Since version 1.2.0 the outbox has a file of its own, see state/outbox_file.py.
    "DROP TABLE outbox;",
    """
    CREATE TABLE failures (  -- one row per failing request or invalid row, see state/failures.py
        row_key INTEGER, kind TEXT,
        verdict TEXT, http_status INTEGER, code TEXT,
        content_hash INTEGER, event_hash INTEGER,
        judged_at INTEGER, first_failed_at INTEGER, runs_failed INTEGER, row_count INTEGER,
        PRIMARY KEY (row_key, kind)
    ) WITHOUT ROWID;
    INSERT INTO remembered SELECT 'delivered_profile_settings', value FROM remembered
    WHERE name = 'profile_settings'
        AND EXISTS (SELECT 1 FROM delivered WHERE profile_at IS NOT NULL);
    """,
    # Since version 1.4.0: the id under which Iterable has the event of a user who was moved, and a
    # hash of the row's user id, which tells that an address has changed.
    """
    ALTER TABLE delivered ADD COLUMN former_event_id TEXT;
    ALTER TABLE delivered ADD COLUMN id_hash INTEGER;
    CREATE INDEX delivered_moved ON delivered (user_key) WHERE former_event_id IS NOT NULL;
    """,
)


class StateError(SyncError):
    """The state file cannot be used. The message says why and what to do."""


@contextlib.contextmanager
def state_errors(path: Path) -> Iterator[None]:
    """Convert errors of SQLite and the file system to StateError."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        raise StateError(_explain(path, error)) from error


def _explain(path: Path, error: Exception) -> str:
    # str() of an OSError contains the path, which may contain any of the words below.
    text = getattr(error, "strerror", None) or str(error)
    if "full" in text or "No space" in text or "quota" in text:
        return f"The disk of the state file {path} is full: free some space and run again."
    if "unable to open" in text:
        return f"The state file {path} cannot be opened: check that its folder is writable."
    if "readonly" in text or "Read-only" in text or "Permission" in text:
        return f"The state file {path} cannot be written: check its owner and mode."
    # If SQLite's message quotes a schema that is not UTF-8, Python raises UnicodeDecodeError, or
    # (3.10) an error without text.
    is_garbled = isinstance(error, UnicodeDecodeError) or not text
    if is_garbled or "malformed" in text or "not a database" in text:
        return (
            f"The state file {path} is damaged: move it away, and the next run sends everything "
            "again. (An older copy would not know what has changed in Iterable since.)"
        )
    if "locked" in text:
        return f"The state file {path} is in use by another program: close it and run again."
    return f"The state file {path} cannot be used: {text}"


def open_state(path: Path, *, steps: Sequence[str] = SCHEMA_STEPS) -> sqlite3.Connection:
    """Open the file; create (mode 0600) or upgrade it if necessary. Raises StateError."""
    with state_errors(path):
        if not path.parent.is_dir():
            raise StateError(f"The folder of the state file {path} does not exist: create it.")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):  # /dev/null, for example: no chmod
                raise StateError(f"{path} is not a regular file: choose another STATE_FILE.")
            if found.st_nlink > 1:
                raise StateError(
                    f"{path} has a second name (a hard link), and SQLite keeps its log beside one "
                    "name only: remove the other name, or choose another STATE_FILE."
                )
            _check_header(path, os.pread(descriptor, _HEADER_BYTES, 0))
            if found.st_size and not found.st_mode & stat.S_IWUSR:
                raise PermissionError("Permission denied")  # root could write to it anyway
            os.fchmod(descriptor, 0o600)  # whatever the umask
        finally:
            os.close(descriptor)
        if _has_write_ahead_log(path):
            # A killed run left a log, and closing a connection that may write merges it into the
            # file. So a connection that only reads checks first whether the file is damaged.
            close_after_reading(path, open_for_reading(path, steps=steps))
        connection = sqlite3.connect(path, isolation_level=None, timeout=10.0)
        try:
            _make_ready(path, connection, steps)
        except BaseException:
            connection.close()
            raise
        return connection


def open_for_reading(path: Path, *, steps: Sequence[str] = SCHEMA_STEPS) -> sqlite3.Connection:
    """Open the file without changing it; a file that does not exist is read as an empty one.

    Only what a killed run left unfinished is rolled back. Of a file that has to be upgraded, a
    temporary copy is upgraded and opened.
    """
    with state_errors(path):
        if path.exists():
            if not path.is_file():
                raise StateError(f"{path} is not a regular file: choose another STATE_FILE.")
            with path.open("rb") as file:
                _check_header(path, file.read(_HEADER_BYTES))
            _roll_back_unfinished(path)
        if not path.exists() or path.stat().st_size == 0:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            _upgrade(connection, 0, steps)
            return connection
        connection = sqlite3.connect(
            to_uri(path, "ro"), uri=True, isolation_level=None, timeout=10.0
        )
        try:
            version = _checked_version(path, connection, steps)
            if version == newest_version(steps):
                return connection
            copy = sqlite3.connect("", isolation_level=None)  # a file that SQLite removes
            connection.backup(copy)
        except BaseException:
            close_after_reading(path, connection)
            raise
        close_after_reading(path, connection)
        _upgrade(copy, version, steps)
        return copy


def close_after_reading(path: Path, connection: sqlite3.Connection) -> None:
    """Close a connection of `open_for_reading` and remove the files that SQLite made for it.

    SQLite makes a `-wal` and a `-shm` file for a reader; only a writer can remove them.
    """
    connection.close()
    with contextlib.suppress(sqlite3.Error, OSError, UnicodeDecodeError):
        if path.with_name(path.name + "-wal").stat().st_size == 0:
            writer = sqlite3.connect(to_uri(path, "rw"), uri=True)
            with contextlib.closing(writer):
                writer.execute("PRAGMA user_version").fetchone()


def _roll_back_unfinished(path: Path) -> None:
    """Roll back the transaction of a run that was killed while it created the file.

    SQLite does so on the next access, but refuses it to a connection that only reads. Later there
    is no such journal, because the file has a write-ahead log.
    """
    journal = path.with_name(path.name + "-journal")
    if journal.exists() and journal.stat().st_size > 0:
        writer = sqlite3.connect(to_uri(path, "rw"), uri=True, timeout=10.0)
        with contextlib.closing(writer):
            writer.execute("PRAGMA user_version").fetchone()


def _has_write_ahead_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def to_uri(path: Path, mode: str) -> str:
    """Return the URI that opens the file in a mode of SQLite: `ro`, `rw`."""
    return f"{path.absolute().as_uri()}?mode={mode}"


def _check_header(path: Path, header: bytes) -> None:
    """Raise StateError for a file of another program, before SQLite opens it and may write to it.

    Source: sqlite.org/fileformat2.html, "The Database Header".
    """
    if not header:
        return
    is_ours = header[68:72] == APPLICATION_ID.to_bytes(4, "big")
    is_without_tables = not any(header[40:44] + header[68:72])
    if header[:16] != b"SQLite format 3\0" or not (is_ours or is_without_tables):
        raise StateError(f"{path} is not a state file of this program: choose another STATE_FILE.")


def _checked_version(path: Path, connection: sqlite3.Connection, steps: Sequence[str]) -> int:
    """Return the schema version, 0 for a new file; raises StateError for another program's file."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    is_new = application_id == 0 and not connection.execute("PRAGMA schema_version").fetchone()[0]
    if not is_new and application_id != APPLICATION_ID:
        raise StateError(f"{path} is not a state file of this program: choose another STATE_FILE.")
    if version > newest_version(steps):
        raise StateError(f"{path} was made by a newer version of this program: use that version.")
    if 0 < version < FIRST_VERSION:
        raise StateError(
            f"{path} was made before version 1.1.0, whose event ids are different: move it away. "
            "The next run sends everything, so events that are still in the window will be in "
            "Iterable twice."
        )
    # Reads the whole file (0.15 s per million users): damage is found before anything is written.
    is_sound = connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
    if not (is_sound and version >= 0 and _has_schema(connection, version, steps)):
        raise sqlite3.DatabaseError("database disk image is malformed")
    return version


def newest_version(steps: Sequence[str] = SCHEMA_STEPS) -> int:
    """Return the `user_version` of a file that has taken all steps."""
    return FIRST_VERSION + len(steps) - 1


def _steps_after(version: int, steps: Sequence[str]) -> str:
    return "".join(steps[version - FIRST_VERSION + 1 if version else 0 :])


def _has_schema(connection: sqlite3.Connection, version: int, steps: Sequence[str]) -> bool:
    """Return whether the tables are as this version made them, and there are no triggers."""
    ours: set[str] = set()  # the tables of any version
    expected: set[tuple[object, ...]] = set()
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        for step_version, step in enumerate(steps, FIRST_VERSION):
            model.executescript(step)
            columns = set(model.execute(_COLUMNS))
            ours |= {table for table, *_column in columns}
            if step_version == version:
                expected = columns
    found = set(connection.execute(_COLUMNS))
    has_triggers = connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'trigger'")
    return {column for column in found if column[0] in ours} == expected and not (
        has_triggers.fetchone()
    )


def _make_ready(path: Path, connection: sqlite3.Connection, steps: Sequence[str]) -> None:
    version = _checked_version(path, connection, steps)
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
    if version < newest_version(steps):
        # Before WAL mode, so that the first commit already contains the application id.
        _upgrade(connection, version, steps)
    connection.execute("PRAGMA journal_mode = WAL")
    # A commit is on the disk when it returns. There are four a second, so a power failure
    # loses no more than the results of that time.
    connection.execute("PRAGMA synchronous = FULL")


def _upgrade(connection: sqlite3.Connection, version: int, steps: Sequence[str]) -> None:
    connection.execute("PRAGMA secure_delete = ON")  # a killed run may have left personal data
    connection.executescript(
        f"BEGIN IMMEDIATE; {_steps_after(version, steps)}"
        f"PRAGMA application_id = {APPLICATION_ID};"
        f"PRAGMA user_version = {newest_version(steps)}; COMMIT;"
        "PRAGMA secure_delete = OFF;"
    )
    if version:  # a step may have removed most of the file
        connection.executescript("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
