"""The mapping of a query's rows: what is said about columns that are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import Settings
from errors import ConfigError
from sync.source_rows import SourceRows, near_name
from tests.conftest import SourceDatabase
from tests.support.set_up import KEY


@pytest.mark.parametrize(
    ("name", "columns", "near"),
    [
        ("email", ["id", "mail", "name"], "mail"),
        ("email", ["Email_Address", "mail2"], "Email_Address"),
        ("id", ["customer_id", "plan"], "customer_id"),
        ("event_time", ["created_at"], "created_at"),
        ("event_time", ["event_tme"], "event_tme"),
        ("first_name", ["firstname", "name"], "firstname"),
        ("score", ["mail", "tier"], None),
        ("email", [], None),
    ],
)
def test_the_column_that_is_probably_meant(name: str, columns: list[str], near: str | None) -> None:
    assert near_name(name, columns) == near


def test_a_column_of_another_field_is_not_recommended_for_a_missing_one(
    embedded: SourceDatabase, tmp_path: Path
) -> None:
    own = tmp_path / "own.sql"
    own.write_text(
        "SELECT id, email, first_name, plan_type, candidate, 'x' AS page, 'x' AS device,"
        " 'x' AS location, '2026-01-13' AS event_time FROM customers",
        encoding="utf-8",
    )
    environment = {
        **embedded.settings(),
        "ITERABLE_API_KEY": KEY,
        "QUERY_FILE": str(own),
        "STATE_FILE": str(tmp_path / "state.sqlite3"),
    }
    with (
        SourceRows(Settings.from_environment(environment)) as rows,
        pytest.raises(ConfigError) as caught,
    ):
        _ = rows.mapping
    assert caught.value.problems == [
        f"{own} returns no column 'last_name': add it to the query, or write COLUMN AS last_name"
        " for the column that has it, or take it out of USER_FIELDS"
    ]
