"""`--export FILE.csv`: the query's rows as CSV, whole or not at all.

Owns the form (RFC 4180 in UTF-8: commas, CRLF, quotes doubled; no byte order mark), what makes a
cell safe in a spreadsheet, and the safe writing. Knows neither MySQL nor Iterable.

NULL is an empty cell, an empty text is `""`. A text that a spreadsheet would take for a formula
gets an apostrophe in front. Times are written as they are stored; JSON as JSON, BLOBs as hex.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import orjson

from commands.console import print_line
from commands.prepare import stop_signals
from config.settings import Settings
from errors import ExitStatus, SyncError
from reporting.atomic_file import replace_file
from sync.source_rows import SourceRows

# What begins a formula in a spreadsheet (OWASP, "CSV Injection"), full-width forms and leading
# blanks included; and the texts that begin so and are nothing but a number.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NEVER_FORMULAS = (int, float, Decimal, date, timedelta)
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
# Blanks at the ends survive only between quotes; a semicolon separates in some countries.
_NEEDS_QUOTES = re.compile(r'[",;\r\n\t]|^\s|\s$')


class ExportError(SyncError):
    """The file cannot be written; the text says why and what to do."""


class Rows(Protocol):
    """A query's result: the names of its columns, then its rows in chunks."""

    @property
    def columns(self) -> Sequence[str]: ...

    def __iter__(self) -> Iterator[Sequence[Sequence[Any]]]: ...


def run_export(settings: Settings, path: Path) -> ExitStatus:
    """Write the query's rows to a CSV file and print their number."""
    with stop_signals(), SourceRows(settings) as rows:
        count = export_rows(rows, path)
        print_line(f"{count:,} rows written to {path}")
    return ExitStatus.OK


def export_rows(stream: Rows, path: Path) -> int:
    """Write all rows to a file, readable by its owner only, and return their number.

    An existing file is replaced, at the end and in one step: whatever breaks the export, what was
    there stays. Raises ExportError; what the stream raises passes through.
    """
    rows = 0
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise ExportError(f"{path} is not a file: name one for the rows.")
        with replace_file(target) as file:
            file.write(_line(stream.columns))
            for chunk in _chunks(stream):
                file.write(b"".join(map(_line, chunk)))
                rows += len(chunk)
    except OSError as error:
        raise ExportError(
            f"The rows cannot be written to {path} ({error.strerror or error}): check its folder "
            "and the room there, or choose another file."
        ) from error
    except _StreamFailed as failed:
        raise failed.error from failed.error.__cause__
    return rows


class _StreamFailed(Exception):
    """Carries what the stream raised past the handling of our own file's errors."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def _chunks(stream: Rows) -> Iterator[Sequence[Sequence[Any]]]:
    try:
        yield from stream
    except Exception as error:
        raise _StreamFailed(error) from error


def _line(values: Iterable[Any]) -> bytes:
    cells = [_cell(value) for value in values]
    # A line with nothing on it would be no row at all.
    line = ",".join(cells) if cells != [""] else '""'
    return f"{line}\r\n".encode("utf-8", "replace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if type(value) is str else _to_text(value)
    if not text:
        return '""'
    may_be_formula = not isinstance(value, _NEVER_FORMULAS)
    if may_be_formula and _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        text = f"'{text}"
    if _NEEDS_QUOTES.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _to_text(value: Any) -> str:
    """Write a value that MySQL's driver returns; numbers stay numbers."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        seconds = abs(value) // timedelta(seconds=1)
        sign = "-" if value < timedelta(0) else ""
        return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, (set, frozenset)):
        return ",".join(sorted(map(str, value)))
    if isinstance(value, (dict, list)):
        return orjson.dumps(value, default=str).decode()
    return str(value)
