"""What MySQL's and MariaDB's EXPLAIN say of the query: is it slow, and which index would help.

Owns the reading of a plan's steps. Sends no query; knows no settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# A table read whole costs a millisecond per some thousand rows: below this it does no harm.
MANY_ROWS = 10_000

_INDEXES = {
    "page_views": ("page_views_recent", ("page", "event_time", "user_id")),
    "customers": ("customers_plan", ("plan_type", "id")),
}
_TEXT_PREFIX = 64  # characters of a TEXT column in an index, which needs a number

Step = Mapping[str, Any]


def is_understood(steps: Iterable[Step]) -> bool:
    """Say whether this is the table form of a plan, which all below rests on."""
    return all({"select_type", "table", "type", "rows"} <= step.keys() for step in steps)


def slow_parts(
    steps: Iterable[Step], text_columns: frozenset[str] = frozenset()
) -> list[tuple[str, str]]:
    """Return what is slow in a plan: (what the server does, what to do about it).

    `text_columns` are the TEXT columns as `table.column`: an index on them names a length.
    """
    parts = (_slow_part(step, text_columns) for step in steps)
    return [part for part in parts if part is not None]


def _slow_part(step: Step, text_columns: frozenset[str]) -> tuple[str, str] | None:
    table, rows = str(step["table"] or ""), int(step["rows"] or 0)
    if not table or table.startswith("<"):
        return None  # the rows of an earlier step
    if "LATERAL" in step["select_type"]:
        what = f"{table} is ranked once for every customer (LATERAL DERIVED)"
        return what, _make_index(table, text_columns)
    if step["type"] not in ("ALL", "index"):
        return None
    whole = f"the whole of {table} is read (about {rows:,} rows)"
    others = _other_indexes(step, table)
    if others:
        if rows < MANY_ROWS:
            return None
        return (
            f"{whole} although an index would serve ({','.join(others)})",
            f"ANALYZE TABLE {table}, unless the window is meant to take in most of it",
        )
    # Where views are ranked no index is a trouble to come, however few rows there are today.
    if rows < MANY_ROWS and step["select_type"] not in ("DERIVED", "MATERIALIZED"):
        return None
    return f"{whole}, as no index serves", _make_index(table, text_columns)


def _other_indexes(step: Step, table: str) -> list[str]:
    """Return the indexes that would serve; MySQL also lists one that it can only read whole."""
    recommended, _ = _INDEXES.get(table, ("", ()))
    read_whole = step.get("key") if step["type"] == "index" else None
    names = str(step.get("possible_keys") or "").split(",")
    return [name for name in names if name and (name != read_whole or name == recommended)]


def _make_index(table: str, text_columns: frozenset[str]) -> str:
    if table not in _INDEXES:
        return f"add an index to {table} on the columns that the query filters by"
    name, columns = _INDEXES[table]
    parts = [
        f"{column}({_TEXT_PREFIX})" if f"{table}.{column}" in text_columns else column
        for column in columns
    ]
    return f"CREATE INDEX {name} ON {table} ({', '.join(parts)})"
