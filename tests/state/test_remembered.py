"""The texts that the state file remembers by name."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from state.database import StateError, open_state
from state.remembered import RememberedTable


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_state(tmp_path / "state.sqlite3")) as opened:
        yield opened


@pytest.fixture
def remembered(tmp_path: Path, database: sqlite3.Connection) -> RememberedTable:
    return RememberedTable(tmp_path / "state.sqlite3", database)


def test_a_text_is_read_back_replaced_and_forgotten(remembered: RememberedTable) -> None:
    assert remembered.read("name") is None
    for text in ("one", "another ü", ""):
        remembered.write("name", text)
        remembered.write("other name", "x")
        assert remembered.read("name") == text
    remembered.forget("name")
    assert (remembered.read("name"), remembered.read("other name")) == (None, "x")


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (7, "7"), (b"\xff", "\ufffd"), (1.5, "1.5"), ("\0a", "\0a")]
)
def test_a_value_that_no_run_writes_is_some_text(
    remembered: RememberedTable, database: sqlite3.Connection, value: object, text: str
) -> None:
    database.execute("INSERT INTO remembered VALUES ('name', ?)", (value,))
    assert remembered.read("name") == text


def test_a_file_without_the_table_is_an_error_for_the_operator(
    remembered: RememberedTable, database: sqlite3.Connection
) -> None:
    database.execute("DROP TABLE remembered")
    for use in (remembered.read, remembered.forget):
        with pytest.raises(StateError):
            use("name")
