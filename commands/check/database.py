"""Database checks of `--check`: driver, login, the query's plan, columns and first rows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Sequence
from typing import Any

import orjson

from commands.check.field_types import CONSTANT_FIELD, FieldTypes, type_of_column, types_in
from commands.check.line import CheckLine, failed, passed, warned
from config.fields import Field
from config.settings import Settings
from db_connection import DatabaseConnection, SourceError
from errors import ConfigError
from records.mapping import InvalidRow
from source import query_plan
from sync.source_rows import SourceRows, to_database

MAX_CHECKED_ROWS = 1_000


def check_database(settings: Settings) -> Generator[CheckLine, None, FieldTypes | None]:
    """Yield the lines; return the types of the profile fields, None if the query was not read."""
    database = to_database(settings)
    yield _driver_line(database)
    try:
        database.open()
    except SourceError as error:
        yield failed("database", str(error))
        return None
    with database:
        yield _login_line(database)
        plan_lines, problem = _plan_lines(database)
        yield from plan_lines
        types = yield from _check_rows(settings)
        if problem is not None and types is not None:  # else the query itself failed
            yield warned("query plan", f"not checked: {problem}")
        return types


def _driver_line(database: DatabaseConnection) -> CheckLine:
    if database.driver == "C extension":
        return passed("driver", "MySQL's C extension is in use")
    return warned(
        "driver",
        "MySQL's C extension cannot be loaded, and pure Python reads rows at a fifth of the speed. "
        "On CPython with OpenSSL 3: pip install --force-reinstall -r requirements.txt",
    )


def _login_line(database: DatabaseConnection) -> CheckLine:
    source = database.source
    try:
        version = database.execute_query("SELECT VERSION() AS version")[0]["version"]
    except SourceError as error:
        return failed("database", str(error))
    return passed(
        "database",
        f"{source.user} can log in to {source.database} at {source.place} (version {version})",
    )


def _plan_lines(database: DatabaseConnection) -> tuple[list[CheckLine], str | None]:
    """Return the lines about the query's plan, or why it cannot be checked."""
    name = "query plan"
    try:
        steps = database.explain(
            database.query_text(), {"window_start": database.window_start_now()}
        )
        text_columns = _text_columns(database)
    except SourceError as error:
        return [], str(error)
    if not query_plan.is_table_form(steps):
        return [], "the EXPLAIN of this server is not in the format of MySQL or MariaDB"
    slow = query_plan.slow_steps(steps, text_columns)
    if not slow:
        return [passed(name, "no full table scan")], None
    return [warned(name, f"slow: {problem}. To fix it: {fix}") for problem, fix in slow], None


def _text_columns(database: DatabaseConnection) -> frozenset[str]:
    rows = database.execute_query(
        "SELECT table_name AS of_table, column_name AS of_column FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND data_type LIKE '%%text'"
    )
    return frozenset(f"{row['of_table']}.{row['of_column']}" for row in rows)


def _check_rows(settings: Settings) -> Generator[CheckLine, None, FieldTypes | None]:
    """Run the query and check its columns and its first rows."""
    started_at = time.monotonic()
    try:
        with SourceRows(settings, limit=MAX_CHECKED_ROWS) as source:
            rows = [row for chunk in source for row in chunk]
            mapping = source.mapping
    except (SourceError, ConfigError) as error:
        yield failed("query", str(error))
        return None
    seconds = time.monotonic() - started_at
    yield passed(
        "query",
        f"{settings.query_file.name} returns all required columns, the first rows after "
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
            f"the query returns no rows for the last {settings.engagement_window_days:g} days: "
            f"check plan_type and page in {settings.query_file.name}, and ENGAGEMENT_WINDOW_DAYS",
        )
    checked = f"the first {rows:,}" if rows == MAX_CHECKED_ROWS else f"{rows:,}"
    if not reasons:
        return passed("rows", f"{checked} rows, all of them valid")
    top = ", ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(3))
    return warned(
        "rows", f"{reasons.total():,} of {checked} rows are invalid and will be skipped: {top}"
    )


def _profile_types(
    profiles: Sequence[bytes],
    fields: Sequence[Field],
    columns: Sequence[str],
    type_codes: Sequence[int],
) -> FieldTypes:
    """Collect the types of each field's values, or its column's type if it has none."""
    seen: dict[str, set[str]] = {CONSTANT_FIELD: {"boolean"}}
    for profile in profiles:
        data_fields: dict[str, Any] = orjson.loads(profile)["dataFields"]
        for name, kind in types_in(data_fields):
            seen.setdefault(name, set()).add(kind)
    for field in fields:
        if field.target not in seen:
            column_type = type_of_column(type_codes[columns.index(field.column)], field.cast)
            if column_type is not None:
                seen[field.target] = {column_type}
    return {name: frozenset(kinds) for name, kinds in seen.items()}
