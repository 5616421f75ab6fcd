"""The table `remembered`: texts by name, from run to run. Only this module uses it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from state.database import state_errors


class RememberedTable:
    """The table in an open state file. Raises StateError. The caller commits."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path = path
        self._database = database

    def read(self, name: str) -> str | None:
        """Return the text of this name, None if there is none.

        A value that no version of this program writes is returned as some text.
        """
        with state_errors(self.path):
            found = self._database.execute(
                "SELECT CAST(value AS BLOB) FROM remembered WHERE name = ?", (name,)
            ).fetchone()
        return None if found is None else (found[0] or b"").decode("utf-8", "replace")

    def write(self, name: str, text: str) -> None:
        """Store a text, in place of the one that has this name."""
        with state_errors(self.path):
            self._database.execute("INSERT OR REPLACE INTO remembered VALUES (?, ?)", (name, text))

    def forget(self, name: str) -> None:
        """Remove the text of this name."""
        with state_errors(self.path):
            self._database.execute("DELETE FROM remembered WHERE name = ?", (name,))
