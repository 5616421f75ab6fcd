"""What was printed by `--quiet`, in the state file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from state.database import StateError
from state.news import MAX_WARNINGS, PrintedNews, hash_of, read_printed_news, write_printed_news
from state.outbox import Outbox

PRINTED = PrintedNews({"a1": 1_768_314_645.5}, {"b2": 12.0, "c3": 13.0}, True)


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    path = tmp_path / "state.sqlite3"
    Outbox(path).close()
    return path


def test_what_was_printed_is_read_back(state_file: Path) -> None:
    assert read_printed_news(state_file) == PrintedNews()
    for news in (PRINTED, PrintedNews(), PRINTED):
        write_printed_news(state_file, news)
        assert read_printed_news(state_file) == news


def test_reading_neither_changes_the_file_nor_leaves_files_beside_it(state_file: Path) -> None:
    write_printed_news(state_file, PRINTED)
    before = state_file.read_bytes()
    assert read_printed_news(state_file) == PRINTED
    assert state_file.read_bytes() == before
    beside = {path.name for path in state_file.parent.iterdir()}
    assert not {name for name in beside if name.endswith(("-wal", "-shm"))}


def test_the_file_holds_hashes_and_no_text(state_file: Path) -> None:
    warning = "the address ann@example.com"
    write_printed_news(state_file, PrintedNews({hash_of(warning): 1.0}))
    assert b"ann@" not in state_file.read_bytes()
    assert hash_of(warning) != hash_of("the address bob@example.com")


def test_a_missing_file_has_told_nothing_and_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite3"
    assert read_printed_news(path) == PrintedNews()
    with pytest.raises(StateError):
        write_printed_news(path, PRINTED)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(84)])
def test_a_file_of_another_program_is_neither_used_nor_changed(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(StateError):
        read_printed_news(path)
    with pytest.raises(StateError):
        write_printed_news(path, PRINTED)
    assert path.read_bytes() == content


def test_a_file_of_another_version_is_not_used(state_file: Path) -> None:
    with closing(sqlite3.connect(state_file)) as database:
        database.execute("PRAGMA user_version = 3")
    with pytest.raises(StateError):
        write_printed_news(state_file, PRINTED)


@pytest.mark.parametrize("value", ["", "[]", '{"warnings": 1}', '{"warnings": {"a": "x"}}', None])
def test_an_entry_that_no_run_wrote_counts_as_nothing_told(
    state_file: Path, value: str | None
) -> None:
    with closing(sqlite3.connect(state_file)) as database, database:
        database.execute("INSERT INTO remembered VALUES ('news', ?)", (value,))
    assert read_printed_news(state_file) == PrintedNews()


def test_a_run_that_writes_for_a_long_time_does_not_hold_the_news_up_for_ever(
    state_file: Path,
) -> None:
    with closing(sqlite3.connect(state_file, isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="is in use by another program"):
            write_printed_news(state_file, PRINTED)
        assert read_printed_news(state_file) == PrintedNews()


def test_a_link_to_the_state_file_leads_to_the_same_news(state_file: Path, tmp_path: Path) -> None:
    link = tmp_path / "folder" / "link"
    link.parent.mkdir()
    link.symlink_to(state_file)
    write_printed_news(link, PRINTED)
    assert read_printed_news(state_file) == read_printed_news(link) == PRINTED
    assert [path.name for path in link.parent.iterdir()] == ["link"]


def test_the_number_of_warnings_is_limited(state_file: Path) -> None:
    write_printed_news(state_file, PrintedNews({str(n): 1.0 for n in range(MAX_WARNINGS + 5)}))
    assert len(read_printed_news(state_file).warnings) == MAX_WARNINGS
