"""`--history`: the lines that are printed."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from commands.history import history_lines, print_history
from errors import ExitStatus
from state.history import PastRun
from state.lock import RunLock
from state.outbox import Outbox

BEGAN_AT = datetime(2026, 1, 13, 14, 30, 45, tzinfo=timezone.utc)
ENDED_AT = BEGAN_AT + timedelta(seconds=90)


def past_run(**changes: Any) -> PastRun:
    usual = PastRun(
        "run-1", "per-user", BEGAN_AT.isoformat(), ENDED_AT.isoformat(), "completed", None, {}
    )
    return usual._replace(**changes)


def test_the_runs_of_the_state_file_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.sqlite3"
    outbox = Outbox(path)
    outbox.history.begin("run-1", "bulk", BEGAN_AT)
    outbox.history.end("run-1", ENDED_AT, "completed", None, {"total_users": 3})
    outbox.close()
    assert print_history({"STATE_FILE": str(path)}) == ExitStatus.OK
    line = "2026-01-13 14:30:45 UTC  bulk      completed              3 total users\n"
    assert capsys.readouterr().out == line


def test_the_history_ignored_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "state.sqlite3"
    assert print_history({"STATE_FILE": str(path)}, as_json=True) == ExitStatus.OK
    assert json.loads(capsys.readouterr().out) == {"runs": []}
    outbox = Outbox(path)
    outbox.history.begin("run-1", "bulk", BEGAN_AT)
    counts = {"total_users": 7, "duration_seconds": 90.0}
    outbox.history.end("run-1", ENDED_AT, "completed", None, counts)
    outbox.history.begin("run-2", "per-user", ENDED_AT)
    outbox.close()
    print_history({"STATE_FILE": str(path)}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "runs": [
            {
                "run_id": "run-2",
                "mode": "per-user",
                "started_at": "2026-01-13T14:32:15+00:00",
                "finished_at": None,
                "status": "killed",
                "reason": "the run did not finish",
            },
            {
                "run_id": "run-1",
                "mode": "bulk",
                "started_at": "2026-01-13T14:30:45+00:00",
                "finished_at": "2026-01-13T14:32:15+00:00",
                "status": "completed",
                "reason": None,
                "total_users": 7,
                "duration_seconds": 90.0,
            },
        ]
    }


def test_the_history_failed_with_a_file_of_confirmations_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"STATE_FILE": tmp_path / "state.sqlite3", "CONFIRMATIONS_FILE": tmp_path / "theirs"}
    paths["CONFIRMATIONS_FILE"].write_text("of another program")
    outbox = Outbox(paths["STATE_FILE"])
    outbox.history.begin("run-1", "bulk", BEGAN_AT)
    outbox.history.end("run-1", ENDED_AT, "completed", None, {"total_users": 3})
    outbox.close()
    assert print_history({name: str(path) for name, path in paths.items()}) == ExitStatus.OK
    printed = capsys.readouterr()
    assert printed.out.endswith("3 total users\n")
    assert "theirs is not a file of confirmations" in printed.err


def test_a_run_that_was_killed_was_running_until_the_next_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.sqlite3"
    with RunLock(path):
        outbox = Outbox(path)
        outbox.history.begin("run-1", "bulk", BEGAN_AT)
        outbox.close()
        print_history({"STATE_FILE": str(path)})
        assert capsys.readouterr().out.split()[4:] == ["running"]
    before = path.read_bytes()
    print_history({"STATE_FILE": str(path)})
    line = "2026-01-13 14:30:45 UTC  bulk      killed                   (the run did not finish)\n"
    assert capsys.readouterr().out == line
    assert path.read_bytes() == before


def test_a_run_of_no_rows_had_an_empty_line() -> None:
    (line,) = history_lines([past_run(counts={"total_users": 0, "duration_seconds": 0.5})])
    assert line.endswith("completed                0.5 s  0 total users")


def test_a_reason_of_two_lines_is_one_line_without_an_escape() -> None:
    (line,) = history_lines([past_run(status="aborted", reason="No profiles.\nNo events.")])
    assert line.endswith("(No profiles. No events.)")


def test_without_a_run_the_output_says_so() -> None:
    assert history_lines([]) == ["No run yet."]


def test_a_line_has_the_start_the_duration_and_the_counts_above_zero() -> None:
    counts = {
        "total_users": 12_345,
        "successful": 12_000,
        "partial_failures": 0,
        "invalid": 345,
        "api_calls": 24_000,
        "duration_seconds": 1_234.56,
    }
    (line,) = history_lines([past_run(status="completed_with_failures", counts=counts)])
    assert line == (
        "2026-01-13 14:30:45 UTC  per-user  completed_with_failures  1,234.6 s  "
        "12,345 total users, 12,000 successful, 345 invalid"
    )


def test_an_unfinished_run_has_no_duration() -> None:
    run = past_run(finished_at=None, status="killed", reason="the run did not finish")
    assert history_lines([run]) == [
        "2026-01-13 14:30:45 UTC  per-user  killed                   (the run did not finish)"
    ]


def test_durations_are_aligned_in_a_column() -> None:
    counts = {"total_users": 1, "duration_seconds": 0.5}
    lines = history_lines([past_run(counts=counts), past_run(mode="bulk", counts=counts)])
    assert len({line.index("0.5 s") for line in lines}) == 1
