"""`--export`: CSV format, formulas, and replacing a file only when the export is complete."""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
import resource
import stat
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.export import ExportError, export_rows
from db_connection import SourceError
from tests.conftest import INSERT_THREE_USERS, SourceDatabase

FORMULA_STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # the last four: full-width


def exported(folder: Path, rows: Sequence[Sequence[Any]], columns: Sequence[str] = ()) -> bytes:
    """Export the rows in chunks of two and return the file's content."""
    path = folder / "rows.csv"
    columns = columns or [f"c{i}" for i in range(len(rows[0]) if rows else 1)]
    chunks = [[columns], *(rows[start : start + 2] for start in range(0, len(rows), 2))]
    assert export_rows(chunks, path) == len(rows)
    return path.read_bytes()


def lines_of(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True))


def test_the_format_is_rfc_4180_in_utf_8(tmp_path: Path) -> None:
    rows = [(1, "Zoë, the 1st", 'She said "no"'), (2, "two\nlines", "小龙")]
    assert exported(tmp_path, rows, ["id", "name", "said"]) == (
        'id,name,said\r\n1,"Zoë, the 1st","She said ""no"""\r\n2,"two\nlines",小龙\r\n'.encode()
    )


def test_null_is_an_empty_cell_and_an_empty_text_is_quoted(tmp_path: Path) -> None:
    assert exported(tmp_path, [(1, None, "")]) == b'c0,c1,c2\r\n1,,""\r\n'


def test_a_row_of_one_null_is_still_a_row(tmp_path: Path) -> None:
    assert len(lines_of(exported(tmp_path, [(None,), (None,)]))) == 3


def test_a_query_without_rows_exports_the_header(tmp_path: Path) -> None:
    assert exported(tmp_path, [], ["id", "email"]) == b"id,email\r\n"


def test_every_column_type_is_written_as_text(tmp_path: Path) -> None:
    rows = [
        (
            *(-7, -2.5, 1e-07, -1e300, True, Decimal("-12.50"), Decimal("1E+3")),
            dt.datetime(2026, 1, 13, 14, 30, 45),  # noqa: DTZ001 - as stored
            dt.datetime(2026, 1, 13, 14, 30, 45, 120_000),  # noqa: DTZ001
            *(dt.date(2026, 1, 13), dt.timedelta(hours=-26, minutes=-5), b"\x00\xff"),
            dt.timedelta(hours=10, milliseconds=250),  # a TIME(3)
            *({"a": [1, "x"]}, {"b", "a"}),
        )
    ]
    assert lines_of(exported(tmp_path, rows))[1] == [
        *("-7", "-2.5", "1e-07", "-1e+300", "1", "-12.50", "1000"),
        *("2026-01-13 14:30:45", "2026-01-13 14:30:45.120000", "2026-01-13", "-26:05:00"),
        *("00ff", "10:00:00.25", '{"a":[1,"x"]}', "a,b"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", '=HYPERLINK("http://x")', "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)"),
        *("\t=1", "\r=1", "\n=1", " =1", "\uff1d1+1", "-", "+49 170 1234", "=", "--1"),
    ],
)
def test_a_formula_in_a_text_is_escaped(tmp_path: Path, text: str) -> None:
    assert lines_of(exported(tmp_path, [(text,)]))[1] == [f"'{text}"]


@pytest.mark.parametrize("text", ["-5", "+5", "-5.25", "5", "a=b", "a@b.example", "1-2", "'"])
def test_a_text_that_is_no_formula_is_not_escaped(tmp_path: Path, text: str) -> None:
    assert lines_of(exported(tmp_path, [(text,)]))[1] == [text]


def test_a_formula_in_a_column_name_is_escaped(tmp_path: Path) -> None:
    assert exported(tmp_path, [(1,)], ["=1+1"]).startswith(b"'=1+1\r\n")


def test_a_formula_in_a_set_is_escaped(tmp_path: Path) -> None:
    assert lines_of(exported(tmp_path, [({"=1", "b"}, "=1")]))[1] == ["'=1,b", "'=1"]


# csv.reader of Python 3.10 does not take NUL; half a surrogate pair is no text.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
CELLS = st.one_of(
    st.none(),
    TEXTS,
    st.text(alphabet=",\";\r\n\t =+-@'a1."),
    st.integers(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=5))
def test_a_csv_reader_reads_the_exported_values_back(tmp_path: Path, rows: list[list[Any]]) -> None:
    content = exported(tmp_path, rows, ["a", "b", "c"])
    assert content.endswith(b"\r\n")
    found = lines_of(content)[1:]
    assert len(found) == len(rows)
    for row, cells in zip(rows, found, strict=True):
        for value, cell in zip(row, cells, strict=True):
            if isinstance(value, str):
                assert cell in (value, f"'{value}")
            elif value is None:
                assert cell == ""
            else:
                assert type(value)(cell) == value


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(TEXTS, st.text(alphabet="=+-@ \t\r\n1\"',;")), min_size=1))
def test_no_exported_cell_is_a_formula(tmp_path: Path, row: list[str]) -> None:
    for cell in lines_of(exported(tmp_path, [row]))[1]:
        if cell.strip()[:1] in FORMULA_STARTS and cell.strip():
            float(cell)  # a plain number


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.none(), TEXTS))
def test_null_and_an_empty_text_are_written_differently(tmp_path: Path, value: str | None) -> None:
    line = exported(tmp_path, [(1, value, 2)]).split(b"\r\n", 1)[1]
    assert (line == b"1,,2\r\n") is (value is None)


def test_the_file_is_readable_only_by_its_owner_even_if_the_old_one_was_readable_by_all(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old", encoding="ascii")
    path.chmod(0o644)
    former = os.umask(0)
    try:
        exported(tmp_path, [(1,)])
    finally:
        os.umask(former)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"c0\r\n1\r\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_kept_when_the_database_fails_midway(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old", encoding="ascii")

    def broken_chunks() -> Iterator[Sequence[Sequence[Any]]]:
        yield [("a",), (1,)]
        raise SourceError("The connection to MySQL was lost.")

    with pytest.raises(SourceError, match="was lost"):
        export_rows(broken_chunks(), path)
    assert path.read_text(encoding="ascii") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_kept_when_the_export_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old", encoding="ascii")

    def interrupted_chunks() -> Iterator[Sequence[Sequence[Any]]]:
        yield [("a",), (1,)]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_rows(interrupted_chunks(), path)
    assert path.read_text(encoding="ascii") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old", encoding="ascii")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(ExportError, match=r"rows\.csv \(.*choose another file"):
            export_rows([[("x" * 100,)] * 1_000], path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text(encoding="ascii") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["", "no/such/folder.csv"])
def test_a_path_that_cannot_be_written_is_an_export_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError):
        export_rows([[("a",)]], tmp_path / name)


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(ExportError, match="is not a regular file"):
        export_rows([[("a",)]], Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_the_target_of_a_symbolic_link_is_replaced_and_the_link_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "rows.csv"
    link.symlink_to(target)
    exported(tmp_path, [(1,)])
    assert link.is_symlink()
    assert target.read_bytes() == b"c0\r\n1\r\n"


def test_the_rows_of_a_real_query_are_exported(source: SourceDatabase, tmp_path: Path) -> None:
    source.run_sql(INSERT_THREE_USERS)
    with (
        source.connection() as database,
        database.stream("SELECT * FROM customers ORDER BY id", chunk_rows=2) as stream,
    ):
        assert export_rows([[stream.columns], *stream], tmp_path / "rows.csv") == 3
    assert lines_of((tmp_path / "rows.csv").read_bytes()) == [
        ["id", "email", "first_name", "last_name", "plan_type", "candidate"],
        ["1", "Ann@Example.com", "Ann", "O'Hara", "pro", ""],
        ["2", "li@example.com", "小龙", "Amélie 🚀", "free", "yes"],
        ["3", "", "", "", "pro", "no"],
    ]
