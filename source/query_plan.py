"""The query's plan (EXPLAIN of MySQL or MariaDB): which steps are slow, and which index helps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# A full scan takes about a millisecond per few thousand rows: harmless below this number.
MANY_ROWS = 10_000

_INDEXES = {
    "page_views": ("page_views_recent", ("page", "event_time", "user_id")),
    "customers": ("customers_plan", ("plan_type", "id")),
}
_TEXT_PREFIX = 64  # an index on a TEXT column has to name a number of characters

Step = Mapping[str, Any]


def is_table_form(steps: Iterable[Step]) -> bool:
    """Return whether the plan has the columns that `slow_steps` needs (FORMAT=TRADITIONAL)."""
    return all({"select_type", "table", "type", "rows"} <= step.keys() for step in steps)


def slow_steps(
    steps: Iterable[Step], text_columns: frozenset[str] = frozenset()
) -> list[tuple[str, str]]:
    """Return the slow steps of a plan: (what the server does, what to do about it).

    `text_columns` names the TEXT columns as `table.column`: an index on them needs a length.
    """
    found = (_slow_step(step, text_columns) for step in steps)
    return [slow_step for slow_step in found if slow_step is not None]


def _slow_step(step: Step, text_columns: frozenset[str]) -> tuple[str, str] | None:
    table, rows = str(step["table"] or ""), int(step["rows"] or 0)
    if not table or table.startswith("<"):
        return None  # the rows of an earlier step
    if "LATERAL" in step["select_type"]:
        what = f"{table} is ranked again for each customer (LATERAL DERIVED)"
        return what, _create_index(table, text_columns)
    if step["type"] not in ("ALL", "index"):
        return None
    whole = f"the whole of {table} is read (about {rows:,} rows)"
    others = _other_indexes(step, table)
    if others:
        if rows < MANY_ROWS:
            return None
        return (
            f"{whole} although an index is available ({','.join(others)})",
            f"ANALYZE TABLE {table} (not needed if the window covers most of the table)",
        )
    # Ranking without an index gets slow as the table grows, so it counts even with few rows.
    if rows < MANY_ROWS and step["select_type"] not in ("DERIVED", "MATERIALIZED"):
        return None
    return f"{whole}, because no index fits the query", _create_index(table, text_columns)


def _other_indexes(step: Step, table: str) -> list[str]:
    """Return the usable indexes, without one that MySQL would have to read from end to end."""
    recommended, _ = _INDEXES.get(table, ("", ()))
    read_whole = step.get("key") if step["type"] == "index" else None
    names = str(step.get("possible_keys") or "").split(",")
    return [name for name in names if name and (name != read_whole or name == recommended)]


def _create_index(table: str, text_columns: frozenset[str]) -> str:
    if table not in _INDEXES:
        return f"add an index to {table} on the columns that the query filters by"
    name, columns = _INDEXES[table]
    parts = [
        f"{column}({_TEXT_PREFIX})" if f"{table}.{column}" in text_columns else column
        for column in columns
    ]
    return f"CREATE INDEX {name} ON {table} ({', '.join(parts)})"
