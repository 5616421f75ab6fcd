"""The table of past runs: what is stored, and for how long."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from state.database import StateError
from state.history import KEPT_RUNS, PastRun, RowCounts, RunHistory, to_history_entry
from state.outbox import Outbox

BEGAN_AT = datetime(2026, 1, 13, 14, 30, 45, tzinfo=timezone.utc)
ENDED_AT = BEGAN_AT + timedelta(seconds=90)


@pytest.fixture
def history(path: Path) -> Iterator[RunHistory]:
    outbox = Outbox(path)
    yield outbox.history
    outbox.close()


def past_run(**changes: Any) -> PastRun:
    usual = PastRun(
        "run-1", "per-user", BEGAN_AT.isoformat(), ENDED_AT.isoformat(), "completed", None, {}
    )
    return usual._replace(**changes)


def test_a_run_is_in_the_history_from_its_start(history: RunHistory) -> None:
    history.begin("run-1", "bulk", BEGAN_AT)
    assert history.runs() == [
        PastRun("run-1", "bulk", "2026-01-13T14:30:45+00:00", None, "running", None, {})
    ]


def test_a_finished_run_has_its_status_and_counts(history: RunHistory, path: Path) -> None:
    history.begin("run-1", "per-user", BEGAN_AT)
    history.end("run-1", ENDED_AT, "aborted", "the key", {"total_users": 3, "successful": 1})
    assert history.runs() == [
        past_run(status="aborted", reason="the key", counts={"total_users": 3, "successful": 1})
    ]
    second = Outbox(path, read_only=True)
    assert second.history.runs() == history.runs()
    second.close()


def test_a_run_that_did_not_finish_is_marked_as_killed_by_the_next(history: RunHistory) -> None:
    assert history.begin("run-1", "per-user", BEGAN_AT) is None
    assert history.begin("run-2", "per-user", ENDED_AT) == BEGAN_AT.timestamp()
    history.end("run-2", ENDED_AT, "completed", None, {})
    assert history.begin("run-3", "per-user", ENDED_AT) is None
    assert [(run.run_id, run.status, run.reason) for run in history.runs()] == [
        ("run-3", "running", None),
        ("run-2", "completed", None),
        ("run-1", "killed", "the run did not finish"),
    ]


@pytest.mark.parametrize("value", ["yesterday", "0001-01-01"])
def test_a_start_that_no_run_writes_is_a_damaged_file(
    history: RunHistory, path: Path, value: str
) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO runs VALUES ('run-1', 'bulk', ?, NULL, 'running', NULL, '{}')", (value,)
        )
    with pytest.raises(StateError, match="is damaged"):
        history.begin("run-2", "bulk", BEGAN_AT)


def test_the_oldest_runs_are_forgotten(history: RunHistory, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "INSERT INTO runs VALUES (?, 'bulk', '2025-12-13', NULL, 'completed', NULL, '{}')",
            [(f"run-{number}",) for number in range(KEPT_RUNS + 5)],
        )
    connection.close()
    history.begin("newest", "bulk", BEGAN_AT)
    found = history.runs()
    assert len(found) == KEPT_RUNS
    assert (found[0].run_id, found[-1].run_id) == ("newest", "run-6")


def test_all_runs_of_the_compared_days_are_kept(history: RunHistory, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "INSERT INTO runs VALUES (?, 'bulk', '2026-01-01T00:00:00+00:00', NULL, 'completed',"
            " NULL, '{}')",
            [(f"run-{number}",) for number in range(KEPT_RUNS + 5)],
        )
    connection.close()
    history.begin("newest", "bulk", BEGAN_AT)
    assert len(history.runs()) == KEPT_RUNS + 6


def test_row_counts_come_from_complete_reads_of_completed_runs(history: RunHistory) -> None:
    for number, (status, rows, is_complete) in enumerate(
        [
            ("completed", 1, True),
            ("completed", 2, False),
            ("aborted", 3, True),
            ("interrupted", 4, True),
            ("completed_with_failures", 5, True),
        ]
    ):
        entry = to_history_entry(is_complete_read=is_complete, starts_row_counts=False)
        history.begin(f"run-{number}", "bulk", BEGAN_AT)
        history.end(f"run-{number}", ENDED_AT, status, None, {"total_users": rows, **entry})
    history.begin("older version", "bulk", BEGAN_AT)
    history.end("older version", ENDED_AT, "completed", None, {"total_users": 6})
    assert history.row_counts(ENDED_AT) == RowCounts([5, 1], is_restarted=False)
    assert history.row_counts(ENDED_AT + timedelta(days=14)).counts == []


def test_row_counts_begin_with_the_run_that_was_let_through(history: RunHistory) -> None:
    for number, rows in enumerate([1, 2, 3]):
        entry = to_history_entry(is_complete_read=True, starts_row_counts=rows == 2)
        history.begin(f"run-{number}", "bulk", BEGAN_AT)
        history.end(f"run-{number}", ENDED_AT, "completed", None, {"total_users": rows, **entry})
    assert history.row_counts(ENDED_AT) == RowCounts([3, 2], is_restarted=True)


@pytest.mark.parametrize("counts", ["no JSON", '{"is_complete_read": true, "total_users": "x"}'])
def test_a_damaged_entry_is_a_state_error(history: RunHistory, path: Path, counts: str) -> None:
    history.begin("run-1", "bulk", BEGAN_AT)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET status = 'completed', counts = ?", (counts,))
    connection.close()
    with pytest.raises(StateError, match="is damaged"):
        history.row_counts(ENDED_AT)


def test_a_history_that_cannot_be_written_is_a_state_error(path: Path) -> None:
    Outbox(path).close()
    outbox = Outbox(path, read_only=True)
    with pytest.raises(StateError, match="cannot be written"):
        outbox.history.begin("run-1", "bulk", BEGAN_AT)
    outbox.close()
