"""What `--quiet` has printed already: warnings and endings of past runs, as hashes and times.

An entry of the table `remembered`. It is read and written by a connection of its own after a run,
so that a run that could not open or lock the state file can still be compared with earlier ones.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from state.database import (
    APPLICATION_ID,
    close_after_reading,
    newest_version,
    state_errors,
    to_uri,
)
from state.remembered import RememberedTable

_NAME = "news"
_TIMEOUT_SECONDS = 2.0  # another run may be writing
MAX_WARNINGS = 1_000


@dataclass(frozen=True)
class PrintedNews:
    """What was printed: hashes of texts, each with the time (unix seconds) at which it was."""

    warnings: Mapping[str, float] = field(default_factory=dict)  # of the last run
    endings: Mapping[str, float] = field(default_factory=dict)  # reasons why runs ended early
    is_ended: bool = False  # an ending was printed, and no run has completed since


def hash_of(text: str) -> str:
    """Return the hash under which a text is remembered."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def read_printed_news(path: Path) -> PrintedNews:
    """Return what was printed; nothing where the state file does not exist. Raises StateError."""
    if not path.exists():
        return PrintedNews()
    with state_errors(path):
        database = _open(path, "ro")
        try:
            text = RememberedTable(path, database).read(_NAME)
        finally:
            close_after_reading(Path(os.path.realpath(path)), database)
    return _to_printed_news(text or "")


def write_printed_news(path: Path, printed: PrintedNews) -> None:
    """Replace what was printed. Raises StateError, also where there is no state file."""
    warnings = dict(list(printed.warnings.items())[:MAX_WARNINGS])
    entry = {"warnings": warnings, "endings": dict(printed.endings), "is_ended": printed.is_ended}
    with state_errors(path), closing(_open(path, "rw")) as database:
        RememberedTable(path, database).write(_NAME, orjson.dumps(entry).decode())


def _open(path: Path, mode: str) -> sqlite3.Connection:
    """Open a state file of this version without checking all of it, which takes long."""
    # SQLite's own files lie beside the real one.
    database = sqlite3.connect(
        to_uri(Path(os.path.realpath(path)), mode),
        uri=True,
        isolation_level=None,
        timeout=_TIMEOUT_SECONDS,
    )
    try:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        application_id = database.execute("PRAGMA application_id").fetchone()[0]
        if (application_id, version) != (APPLICATION_ID, newest_version()):
            raise sqlite3.DatabaseError("not a state file of this version")
    except BaseException:
        database.close()
        raise
    return database


def _to_printed_news(text: str) -> PrintedNews:
    """Parse an entry; one that no run wrote counts as nothing printed."""
    try:
        entry: Any = orjson.loads(text)
        return PrintedNews(
            {str(name): float(at) for name, at in entry["warnings"].items()},
            {str(name): float(at) for name, at in entry["endings"].items()},
            bool(entry["is_ended"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return PrintedNews()
