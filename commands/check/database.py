"""Database checks of `--check`: driver, login, the query's plan, columns and first rows."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from ipaddress import ip_address
from typing import Any, NamedTuple

import orjson

from commands.check.field_types import SentFields, sent_fields
from commands.check.line import CheckLine, failed, passed, warned
from config.fields import columns_of
from config.settings import Settings
from db_connection import DatabaseConnection, SourceError
from errors import ConfigError
from logger_config import redact
from records.mapping import InvalidRow, RowMapping
from reporting.formatting import counted
from source import query_plan
from source.query_parameters import has_window_start, without_comments_and_texts
from state.database import StateError
from state.outbox import FillSummary, Outbox
from sync.announcement import no_rows_text
from sync.source_rows import MAX_READ_SECONDS, Chunk, SourceRows, to_database

MAX_CHECKED_ROWS = 1_000
MAX_SHOWN_CHARACTERS = 60  # of a value
# Advice about indexes is given only if the first rows take longer than this.
SLOW_QUERY_SECONDS = 1.0


class _Read(NamedTuple):
    """The first rows of the query."""

    rows: list[Sequence[Any]]
    mapping: RowMapping
    columns: Sequence[str]
    type_codes: Sequence[int]
    row_count: int
    is_complete: bool  # False: the query returns more than `row_count` rows
    seconds_to_first: float
    seconds: float
    warning: str | None  # of the server; None too if not all rows were read
    filled: FillSummary | None
    has_window: bool  # whether the query uses the start of the window


class CheckedRows(NamedTuple):
    """The first rows of the query, and what was found out about all that were read."""

    rows: Sequence[Sequence[Any]]
    mapping: RowMapping
    fields: SentFields
    row_count: int
    is_complete: bool  # False: the query returns more than `row_count` rows
    filled: FillSummary | None  # only if the settings have changed


def check_database(
    settings: Settings,
    *,
    slow_query_seconds: float = SLOW_QUERY_SECONDS,
    max_read_seconds: float = MAX_READ_SECONDS,
) -> Generator[CheckLine, None, CheckedRows | None]:
    """Yield the lines; return the first rows, None if the query was not read.

    One connection does it all: an account may be limited to one.
    """
    database = to_database(settings)
    yield _driver_line(database)
    try:
        database.open()
    except SourceError as error:
        yield failed("database", str(error))
        return None
    with ExitStack() as stack:
        stack.callback(database.disconnect)
        yield _login_line(database)
        yield from _tls_lines(settings)
        started_at = time.monotonic()
        plan: _Plan | SourceError
        try:
            plan = _read_plan(database)
        except SourceError as error:
            plan = error
        stack.pop_all()  # from here on the connection belongs to the thread of `SourceRows`
    try:
        read = _read_rows(settings, database, max_read_seconds)
    except (SourceError, ConfigError) as error:
        is_slow = time.monotonic() - started_at > slow_query_seconds
        if is_slow and not isinstance(plan, SourceError):
            yield from _plan_lines(plan, is_slow)
        problems = error.problems if isinstance(error, ConfigError) else [str(error)]
        yield from (failed("query", problem) for problem in problems)
        return None
    if isinstance(plan, SourceError):
        yield warned("query plan", f"not checked: {plan}")
    else:
        yield from _plan_lines(plan, read.seconds_to_first > slow_query_seconds)
    return (yield from _row_lines(settings, read))


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


def _tls_lines(settings: Settings) -> Iterator[CheckLine]:
    """Warn where somebody on the network could read the password."""
    if settings.db_unix_socket or settings.db_ssl_ca or _is_this_machine(settings.db_host):
        return
    yield warned(
        "database TLS",
        f"the certificate of {settings.db_host} is not verified: somebody between this machine and "
        "it could read the password and the rows. Set DB_SSL_CA to the server's CA file",
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


class _Plan(NamedTuple):
    """The plan of the query, and what is needed to read it."""

    steps: Sequence[Mapping[str, Any]]
    query: str  # without comments and texts
    column_types: Mapping[str, str]


def _read_plan(database: DatabaseConnection) -> _Plan:
    steps = database.explain_query_file()
    rows = database.execute_query(
        "SELECT table_name AS of_table, column_name AS of_column, data_type AS of_type"
        " FROM information_schema.columns WHERE table_schema = DATABASE()"
    )
    column_types = {f"{row['of_table']}.{row['of_column']}": str(row["of_type"]) for row in rows}
    return _Plan(steps, without_comments_and_texts(database.query_text()), column_types)


def _plan_lines(plan: _Plan, is_slow: bool) -> list[CheckLine]:
    name = "query plan"
    if not query_plan.is_table_form(plan.steps):
        problem = "the EXPLAIN of this server is not in the format of MySQL or MariaDB"
        return [warned(name, f"not checked: {problem}")]
    slow = query_plan.slow_steps(plan.steps, plan.query, plan.column_types)
    if not slow:
        return [passed(name, "no full table scan")]
    if not is_slow:
        whats = "; ".join(what for what, _fix in slow)
        return [passed(name, f"fast at the present size, although {whats}")]
    return [
        warned(name, f"slow: {what}. To fix it, as an administrator of the database: {fix}")
        for what, fix in slow
    ]


def _read_rows(settings: Settings, database: DatabaseConnection, max_seconds: float) -> _Read:
    """Run the query; raises SourceError, and ConfigError if it does not fit the settings.

    All rows are counted, and the server reports warnings only after the last one.
    """
    started_at = time.monotonic()
    rows: list[Sequence[Any]] = []
    row_count = 0
    seconds_to_first: float | None = None
    filled: FillSummary | None = None
    with SourceRows(settings, max_seconds=max_seconds, database=database) as source:
        mapping = source.mapping

        def counted() -> Iterator[Chunk]:
            nonlocal row_count, rows, seconds_to_first
            for chunk in source:
                if seconds_to_first is None:
                    seconds_to_first = time.monotonic() - started_at
                rows += chunk[: MAX_CHECKED_ROWS - len(rows)]
                row_count += len(chunk)
                yield chunk

        with _memory_of_other_settings(settings, mapping) as outbox:
            if outbox is not None:
                filled = outbox.fill(counted(), mapping)
            else:
                deque(counted(), maxlen=0)
        seconds = time.monotonic() - started_at
        return _Read(
            rows,
            mapping,
            source.columns,
            source.type_codes,
            row_count,
            source.is_complete,
            seconds if seconds_to_first is None else seconds_to_first,
            seconds,
            source.warning,
            filled,
            has_window_start(database.query_text()),
        )


@contextmanager
def _memory_of_other_settings(settings: Settings, mapping: RowMapping) -> Iterator[Outbox | None]:
    """Yield a temporary outbox if the last run had other settings, otherwise None.

    Filling it shows what a run would send again; it takes longer than counting the rows.
    """
    try:
        outbox = Outbox(settings.state_file, read_only=True)
    except StateError:  # the line "state file" says why
        yield None
        return
    with closing(outbox):
        yield outbox if outbox.mapping_settings.differ(mapping) else None


def _row_lines(settings: Settings, read: _Read) -> Generator[CheckLine, None, CheckedRows]:
    first = f"the first after {read.seconds_to_first:.1f} s"
    if not read.rows:
        count = f"no rows in {read.seconds:.1f} s"
    elif read.is_complete:
        count = f"{counted(read.row_count, 'row')} in {read.seconds:.1f} s, {first}"
    else:
        count = f"more than {read.row_count:,} rows after {read.seconds:.0f} s, {first}"
    yield passed("query", f"{settings.query_file.name} returns all required columns; {count}")
    if settings.sends_events and not read.has_window:
        yield warned(
            "query window",
            f"{settings.query_file.name} has no %(window_start)s, so ENGAGEMENT_WINDOW_DAYS has no "
            "effect and every run reads all rows: compare the event time with it, as the query "
            "that comes with the program does",
        )
    records = [read.mapping.to_record(row) for row in read.rows]
    reasons = Counter(record.reason for record in records if isinstance(record, InvalidRow))
    if read.rows and reasons.total() == len(read.rows):
        yield _all_invalid_line(read, reasons)
    else:
        yield _rows_line(settings, len(read.rows), reasons)
    if read.warning:
        yield warned("MySQL warnings", read.warning)
    yield from _json_lines(settings, read)
    profiles = [
        record.profile
        for record in records
        if not isinstance(record, InvalidRow) and record.profile is not None
    ]
    fields = sent_fields(profiles, settings, read.columns, read.type_codes)
    return CheckedRows(
        read.rows, read.mapping, fields, read.row_count, read.is_complete, read.filled
    )


def _all_invalid_line(read: _Read, reasons: Counter[str]) -> CheckLine:
    """Return the line if no row is valid, with the value that is wrong in the first one."""
    reason, count = reasons.most_common(1)[0]
    row, record = next(
        (row, record)
        for row in read.rows
        if isinstance(record := read.mapping.to_record(row), InvalidRow) and record.reason == reason
    )
    column = read.mapping.invalid_column(row)
    value = "" if column is None else f", where {read.columns[column]} is {_text_of(row[column])}"
    return failed(
        "rows",
        f"all of the first {len(read.rows):,} rows are invalid, so nothing would be sent: "
        f"{count:,} x {reason} (for example user {record.user_id}{value})",
    )


def _text_of(value: object) -> str:
    text = "NULL" if value is None else repr(value) if isinstance(value, str) else str(value)
    return redact(
        text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
    )


def _json_lines(settings: Settings, read: _Read) -> Iterator[CheckLine]:
    """Warn of JSON that is sent as text. MariaDB's JSON columns are text."""
    positions = {name.lower(): index for index, name in enumerate(read.columns)}
    for setting, fields in (
        ("USER_FIELDS", settings.sent_user_fields),
        ("EVENT_FIELDS", settings.sent_event_fields),
    ):
        for field in columns_of(fields):
            index = positions.get(field.column.lower())
            if field.cast or index is None:
                continue
            values = [row[index] for row in read.rows if row[index] is not None]
            if values and all(map(_is_json_text, values)):
                yield warned(
                    "JSON columns",
                    f"{field.column} holds JSON as text and is sent as text: to send objects or "
                    f"lists, write {field.target}={field.column}:json in {setting}",
                )


def _is_json_text(value: object) -> bool:
    """Return whether a value is the text of a JSON object or list."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return False
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


def _rows_line(settings: Settings, rows: int, reasons: Counter[str]) -> CheckLine:
    if not rows:
        return warned("rows", no_rows_text(settings))
    checked = f"the first {rows:,}" if rows == MAX_CHECKED_ROWS else f"{rows:,}"
    if not reasons:
        return passed("rows", f"{checked} rows, all of them valid")
    top = ", ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(3))
    return warned(
        "rows", f"{reasons.total():,} of {checked} rows are invalid and will be skipped: {top}"
    )
