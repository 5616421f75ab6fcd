"""The query's plan (EXPLAIN of MySQL or MariaDB): which steps are slow, and which index helps."""

from __future__ import annotations

import re
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
    steps: Iterable[Step], query: str = "", column_types: Mapping[str, str] | None = None
) -> list[tuple[str, str]]:
    """Return the slow steps of a plan: (what the server does, what to do about it).

    `column_types` are the types of the columns of the database, by `table.column`. With them and
    the query, tables are named by their names instead of the query's aliases.
    """
    types = {name.lower(): kind.lower() for name, kind in (column_types or {}).items()}
    tables = {name.partition(".")[0].lower(): name.partition(".")[0] for name in column_types or ()}
    found = (_slow_step(step, _real_name(step, query, tables), types) for step in steps)
    return [slow_step for slow_step in found if slow_step is not None]


def _real_name(step: Step, query: str, tables: Mapping[str, str]) -> str:
    """Return the table that a step reads. If that is unclear return the name in the plan."""
    alias = str(step["table"] or "")
    called_so = rf"\s+(?:AS\s+)?`?{re.escape(alias)}`?(?![\w$.`])"
    names = re.findall(rf"`?([\w$]+)`?{called_so}", query, re.IGNORECASE)
    found = {tables[name.lower()] for name in names if name.lower() in tables}
    if not found and alias.lower() not in tables:  # a table of another database, for example
        table = r"(?:FROM|JOIN|[,(])\s*((?:`?[\w$]+`?\.)?`?[\w$]+`?)"
        names = re.findall(table + called_so, query, re.IGNORECASE)
        found = {name.replace("`", "") for name in names}
    return found.pop() if len(found) == 1 else alias


def _row_count(value: object) -> int:
    """Return the number of rows; MariaDB writes `12 (67%)` where it filters by the row ids."""
    digits = re.match(r"\d+", str(value))
    return int(digits[0]) if digits else 0


def _slow_step(step: Step, table: str, types: Mapping[str, str]) -> tuple[str, str] | None:
    rows = _row_count(step["rows"])
    if not table or table.startswith("<"):
        return None  # the rows of an earlier step
    if "LATERAL" in step["select_type"]:
        what = f"{table} is ranked again for each customer (LATERAL DERIVED)"
        return what, _create_index(table, types)
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
    return f"{whole}, because no index fits the query", _create_index(table, types)


def _other_indexes(step: Step, table: str) -> list[str]:
    """Return the usable indexes, without one that MySQL would have to read from end to end."""
    recommended, _ = _INDEXES.get(table.lower(), ("", ()))
    read_whole = step.get("key") if step["type"] == "index" else None
    names = str(step.get("possible_keys") or "").split(",")
    return [name for name in names if name and (name != read_whole or name == recommended)]


def _create_index(table: str, types: Mapping[str, str]) -> str:
    name, columns = _INDEXES.get(table.lower(), ("", ()))
    # A table of this name may have other columns than that of `sql/schema.sql`.
    if not columns or (
        types and any(f"{table.lower()}.{column}" not in types for column in columns)
    ):
        return f"add an index to {table} on the columns that the query filters by"
    parts = [
        f"{column}({_TEXT_PREFIX})"
        if types.get(f"{table.lower()}.{column}", "").endswith("text")
        else column
        for column in columns
    ]
    return f"CREATE INDEX {name} ON {table} ({', '.join(parts)})"
