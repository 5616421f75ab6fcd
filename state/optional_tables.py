"""Tables of the state file that exist only while a setting asks for them.

They hold what identifies users, which the other tables do not. What a removed table held is
overwritten in the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence


def keep_table(
    database: sqlite3.Connection, table: str, indexes: Sequence[str] = (), *, is_wanted: bool
) -> None:
    """Create a table and its indexes, or remove them; nothing happens where that was done before.

    `table` and `indexes` are what follows `CREATE TABLE` and `CREATE INDEX`.
    """
    if is_wanted:
        database.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        for index in indexes:
            database.execute(f"CREATE INDEX IF NOT EXISTS {index}")
        return
    name = table.partition(" ")[0]
    found = database.execute("SELECT 1 FROM main.sqlite_schema WHERE name = ?", (name,))
    if found.fetchone() is not None:
        database.execute("PRAGMA secure_delete = ON")
        database.execute(f"DROP TABLE {name}")
        database.execute("PRAGMA secure_delete = OFF")
