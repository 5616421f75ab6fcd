"""The source database, for `--check`: login, driver, the query's plan, columns and first rows.

Owns the looks at MySQL and what is learnt there for the field types. Reads one chunk of rows, never
all of them, and writes nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Sequence
from typing import Any

import orjson

from commands.check.field_types import FieldTypes, type_of_column, types_in
from commands.check.line import CheckLine, failed, passed, warned
from config.fields import Field
from config.settings import Settings
from db_connection import DatabaseConnection, SourceError
from errors import ConfigError
from records.mapping import InvalidRow
from source import query_plan
from sync.source_rows import SourceRows, to_database

LOOKED_AT_ROWS = 1_000


def check_database(settings: Settings) -> Generator[CheckLine, None, FieldTypes | None]:
    """Look at the source; returns what the profile fields are sent as, None where none came."""
    database = to_database(settings)
    yield _driver_line(database)
    try:
        database.open()
    except SourceError as error:
        yield failed("database", str(error))
        return None
    with database:
        yield _login_line(database)
        plan, why_not = _plan_lines(database)
        yield from plan
        types = yield from _check_rows(settings)
        if why_not is not None and types is not None:
            # Where the query itself fails, that line says it all.
            yield warned("query plan", f"cannot be seen: {why_not}")
        return types


def _driver_line(database: DatabaseConnection) -> CheckLine:
    if database.driver == "C extension":
        return passed("driver", "MySQL's C extension is in use")
    return warned(
        "driver",
        "pure Python, at a fifth of the speed, as MySQL's C extension cannot be loaded: on CPython "
        "with OpenSSL 3, pip install --force-reinstall -r requirements.txt",
    )


def _login_line(database: DatabaseConnection) -> CheckLine:
    source = database.source
    try:
        version = database.execute_query("SELECT VERSION() AS version")[0]["version"]
    except SourceError as error:
        return failed("database", str(error))
    return passed(
        "database",
        f"{source.user} may log in to {source.database} at {source.place} (version {version})",
    )


def _plan_lines(database: DatabaseConnection) -> tuple[list[CheckLine], str | None]:
    """Return the lines on the query's plan, or why there is none to see."""
    name = "query plan"
    try:
        steps = database.explain(
            database.query_text(), {"window_start": database.window_start_now()}
        )
        text_columns = _text_columns(database)
    except SourceError as error:
        return [], str(error)
    if not query_plan.is_table_form(steps):
        return [], "this server tells it in another form than MySQL and MariaDB"
    slow = query_plan.slow_steps(steps, text_columns)
    if not slow:
        return [passed(name, "no table is read whole")], None
    return [warned(name, f"slow: {what}. Have it mended: {cure}") for what, cure in slow], None


def _text_columns(database: DatabaseConnection) -> frozenset[str]:
    rows = database.execute_query(
        "SELECT table_name AS of_table, column_name AS of_column FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND data_type LIKE '%%text'"
    )
    return frozenset(f"{row['of_table']}.{row['of_column']}" for row in rows)


def _check_rows(settings: Settings) -> Generator[CheckLine, None, FieldTypes | None]:
    """Run the query and look at its columns and its first rows."""
    started_at = time.monotonic()
    try:
        with SourceRows(settings, limit=LOOKED_AT_ROWS) as source:
            rows = [row for chunk in source for row in chunk]
            mapping = source.mapping
    except (SourceError, ConfigError) as error:
        yield failed("query", str(error))
        return None
    seconds = time.monotonic() - started_at
    yield passed(
        "query",
        f"{settings.query_file.name} returns the columns that are needed, the first rows after "
        f"{seconds:.1f} s",
    )
    records = [mapping.to_record(row) for row in rows]
    reasons = Counter(record.reason for record in records if isinstance(record, InvalidRow))
    yield _rows_line(settings, len(rows), reasons)
    profiles = [record.profile for record in records if not isinstance(record, InvalidRow)]
    return _profile_types(profiles, settings.user_fields, source.columns, source.type_codes)


def _rows_line(settings: Settings, rows: int, reasons: Counter[str]) -> CheckLine:
    if not rows:
        return warned(
            "rows",
            f"the query returns nothing for the last {settings.engagement_window_days:g} days: see "
            f"its plan and pages in {settings.query_file.name}, and ENGAGEMENT_WINDOW_DAYS",
        )
    looked_at = f"of the first {rows:,}" if rows == LOOKED_AT_ROWS else f"of {rows:,}"
    if not reasons:
        return passed("rows", f"{looked_at} all are valid")
    described = ", ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(3))
    return warned(
        "rows", f"{looked_at} {reasons.total():,} are invalid and never sent: {described}"
    )


def _profile_types(
    profiles: Sequence[bytes],
    fields: Sequence[Field],
    columns: Sequence[str],
    type_codes: Sequence[int],
) -> FieldTypes:
    """Collect the types of what is sent; where no row has a value, the column's type counts."""
    seen: dict[str, set[str]] = {"recent_page_view": {"boolean"}}
    for profile in profiles:
        data_fields: dict[str, Any] = orjson.loads(profile)["dataFields"]
        for name, kind in types_in(data_fields):
            seen.setdefault(name, set()).add(kind)
    for field in fields:
        if field.target not in seen:
            kind_of_column = type_of_column(type_codes[columns.index(field.column)], field.cast)
            if kind_of_column is not None:
                seen[field.target] = {kind_of_column}
    return {name: frozenset(kinds) for name, kinds in seen.items()}
