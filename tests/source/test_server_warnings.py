"""What the server warns of, on each real server and with each driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from db_connection import DatabaseConnection
from tests.conftest import SourceDatabase, numbers

CUT = (
    "SELECT id, GROUP_CONCAT(REPEAT(email, 9)) AS filler, 1 / (id % 2) AS ratio"
    " FROM customers GROUP BY id ORDER BY id"
)


@pytest.fixture
def database(real: SourceDatabase, use_pure: bool) -> DatabaseConnection:
    real.run_sql(
        "INSERT INTO customers (id, email, plan_type) VALUES (1, 'ann@example.com', 'pro'),"
        " (2, 'bob@example.com', 'pro'), (3, 'eve@example.com', 'pro')"
    )
    return real.connection(use_pure=use_pure)


def warning_of(database: DatabaseConnection, query: str, chunk_rows: int = 2) -> str | None:
    with database, database.stream(query, chunk_rows=chunk_rows) as rows:
        assert rows.warning is None
        for _chunk in rows:
            assert rows.warning is None  # the server tells them after the last row
        return rows.warning


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 5_000])
def test_a_cut_group_concat_was_told_nowhere(
    database: DatabaseConnection, real: SourceDatabase, chunk_rows: int
) -> None:
    real.run_sql("SET GLOBAL group_concat_max_len = 64")
    try:
        warning = warning_of(database, CUT, chunk_rows)
    finally:
        real.run_sql("SET GLOBAL group_concat_max_len = DEFAULT")
    assert warning is not None
    assert "3 x 1260 (GROUP_CONCAT cut a text: raise group_concat_max_len)" in warning
    assert "1 x 1365 (division by zero gave NULL)" in warning


def test_a_python_caller_finds_it_in_the_log(
    database: DatabaseConnection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database.query_file = tmp_path / "own.sql"
    database.query_file.write_text("SELECT id, 1 / 0 AS n FROM customers", encoding="utf-8")
    with database:
        assert len(database.get_pro_users_recent_engagement()) == 3
    assert "3 x 1365" in caplog.text


def test_all_are_counted_and_no_value_is_quoted(database: DatabaseConnection) -> None:
    query = f"SELECT CAST('secret' AS SIGNED) + seq * 0 AS n, 1 / 0 FROM {numbers(700)}"
    warning = warning_of(database, query)
    assert warning is not None
    assert "x 1365 (division by zero" in warning
    assert "secret" not in warning
    query = f"SELECT 1 / (seq * 0) FROM {numbers(3_000)}"
    assert "1,024 x 1365" in str(warning_of(database, query))
    assert "1,976 more" in str(warning_of(database, query))


def test_a_query_without_any_has_none_after_one_with_some(database: DatabaseConnection) -> None:
    with database:
        for query, warns in (("SELECT 1 / 0 AS n", True), ("SELECT 1 AS n", False)):
            with database.stream(query) as rows:
                assert len(list(rows)) == 1
                assert (rows.warning is not None) is warns
        assert database.execute_query("SELECT 1 AS n") == [{"n": 1}]
