"""`--export FILE.csv`: the query's rows as CSV (RFC 4180, UTF-8, no byte order mark).

NULL is an empty cell, an empty text is `""`. A text that a spreadsheet would run as a formula gets
an apostrophe in front. Times are written as they are stored, JSON as JSON, BLOBs as hex.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from commands.console import print_line
from config.settings import Settings
from errors import ExitStatus, SyncError
from records.chosen_rows import ChosenRows
from records.json_values import to_clock_time
from reporting.atomic_file import replace_file
from reporting.formatting import counted
from sync.signals import stop_signals
from sync.source_rows import SourceRows

logger = logging.getLogger(__name__)

# The first characters of a formula in a spreadsheet (OWASP, "CSV Injection"), including full-width
# forms and leading blanks. A plain number that begins like a formula is harmless.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
# Neither a formula nor in need of quotes: found by one match, which takes most cells.
_IS_PLAIN = re.compile(r"\w[\w.:@-]*(?: [\w.:@-]+)*").fullmatch
_TYPES_WITHOUT_FORMULAS = (int, float, Decimal, date, timedelta)
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
# Blanks at the ends are lost without quotes; some locales separate cells with semicolons.
_NEEDS_QUOTES = re.compile(r'[",;\r\n\t]|^\s|\s$')


class ExportError(SyncError):
    """The CSV file cannot be written."""


def run_export(
    settings: Settings,
    path: Path,
    *,
    limit: int | None = None,
    only: Sequence[str] = (),
    quiet: bool = False,
) -> ExitStatus:
    """Write the query's rows to a CSV file; print their number unless `quiet`.

    At most `limit`; with `only` those of these users, by id or e-mail.
    """
    with stop_signals(), SourceRows(settings, limit=limit) as rows:
        chosen = ChosenRows(only, _to_names_of(rows.columns, settings)) if only else None
        count = export_rows(_with_header(rows, chosen), path)
        if not quiet:
            print_line(f"{counted(count, 'row')} written to {path}")
        if rows.warning:
            logger.warning("%s", rows.warning)
    return ExitStatus.OK


def _to_names_of(
    columns: Sequence[str], settings: Settings
) -> Callable[[Sequence[Any]], tuple[Any, Any]]:
    """Return the function that takes user id and e-mail out of a row; None for a missing column."""
    names = [column.lower() for column in columns]
    user_id, email = (
        names.index(name) if name in names else None
        for name in (settings.user_id_column.lower(), "email")
    )

    def names_of(row: Sequence[Any]) -> tuple[Any, Any]:
        return (
            None if user_id is None else row[user_id],
            None if email is None else row[email],
        )

    return names_of


def _with_header(rows: SourceRows, chosen: ChosenRows | None) -> Iterator[Sequence[Sequence[Any]]]:
    """Yield the column names as a first row, then the rows."""
    yield [rows.columns]
    if chosen is None:
        yield from rows
        return
    first = 0
    for chunk in rows:
        yield [chunk[seq - first] for seq in chosen.take(chunk, first)]
        first += len(chunk)
    chosen.require_all()


def export_rows(chunks: Iterable[Sequence[Sequence[Any]]], path: Path) -> int:
    """Write the header and the rows to a file of mode 0600; return the number of rows.

    The first row of the first chunk is the header. An existing file is replaced only after the last
    row is on disk. Raises ExportError; errors of `chunks` pass through.
    """
    line_count = 0
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise ExportError(f"{path} is not a regular file: choose another file for --export.")
        with replace_file(target) as file:
            for chunk in chunks:
                file.write(b"".join(map(csv_line, chunk)))
                line_count += len(chunk)
    except OSError as error:
        raise ExportError(
            f"The rows cannot be written to {path} ({error.strerror or error}): check its folder "
            "and the free space there, or choose another file."
        ) from error
    return line_count - 1


def csv_line(values: Iterable[Any]) -> bytes:
    """Return a line of values of any type that MySQL's driver returns, in UTF-8."""
    cells = [_cell(value) for value in values]
    # CSV readers skip an empty line, so a row whose only value is NULL needs quotes.
    line = ",".join(cells) if cells != [""] else '""'
    return f"{line}\r\n".encode("utf-8", "replace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if type(value) is str else _to_text(value)
    if _IS_PLAIN(text):
        return text
    if not text:
        return '""'
    may_be_formula = not isinstance(value, _TYPES_WITHOUT_FORMULAS)
    if may_be_formula and _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        text = f"'{text}"
    if _NEEDS_QUOTES.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _to_text(value: Any) -> str:
    """Write a value of any type that MySQL's driver returns."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return to_clock_time(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, (set, frozenset)):
        return ",".join(sorted(map(str, value)))
    if isinstance(value, (dict, list)):
        return orjson.dumps(value, default=str).decode()
    return str(value)
