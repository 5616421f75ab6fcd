"""Runs that end early: which files they leave, and how the next run continues."""

from __future__ import annotations

import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from errors import ConfigError
from sandbox.iterable_api import IterableSandbox
from state.database import StateError
from state.lock import RunLock
from state.outbox import Outbox
from sync.signals import StopSignal
from tests.conftest import SourceDatabase
from tests.support.rows import deliver_all, fill, rows, wait_until
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import add_users, check_project

NUMBERS = range(1, 41)


@pytest.fixture
def runs(mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    """Runs between a database with forty users and the sandbox."""
    add_users(mariadb.run_sql, NUMBERS)
    return Runs.between(tmp_path, mariadb, iterable)


# Errors before the first call


def test_columns_that_the_query_lacks_are_named_before_anything_is_sent(
    runs: Runs, iterable: IterableSandbox
) -> None:
    runs.settings["USER_FIELDS"] = "first_name,score,country=land"
    for options in ({}, {"dry_run": True}):
        with pytest.raises(ConfigError, match="returns no column 'score': add it"):
            runs.run(**options)
    assert iterable.calls == []
    assert [run.status for run in runs.history()] == ["aborted"]
    del runs.settings["USER_FIELDS"]
    assert counts_of(runs.run()) == {"successful": 40}


def test_a_second_run_ends_at_once_while_the_first_is_running(
    runs: Runs, iterable: IterableSandbox
) -> None:
    with RunLock(runs.state_file), pytest.raises(StateError, match="Another run is in progress"):
        runs.run()
    assert iterable.calls == []
    assert not runs.state_file.read_bytes()


# Early ends


def test_a_refusal_aborts_the_run_and_leaves_a_complete_results_file(
    runs: Runs, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 401}])
    report = runs.run()
    assert str(report.error).startswith("Iterable refused the API key (HTTP 401 BadApiKey)")
    assert counts_of(report) == {"total_failures": 1, "not_attempted": 39}
    results = results_of(report)
    assert (results["status"], results["reason"]) == ("aborted", str(report.error))
    assert results["records"][0]["users_update"]["verdict"] == "refused"
    assert {record["reason"] for record in results["records"][1:]} == {"the run was aborted"}
    assert [(run.status, run.reason) for run in runs.history()] == [("aborted", str(report.error))]
    assert b"example.com" not in runs.state_file.read_bytes()
    iterable.set_faults([])
    assert counts_of(runs.run()) == {"successful": 40}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_leaves_a_complete_results_file_and_the_next_run_continues(
    runs: Runs, iterable: IterableSandbox, number: signal.Signals
) -> None:
    runs.settings |= {"USERS_UPDATE_RPS": "40", "EVENTS_TRACK_RPS": "40"}
    stop = StopSignal()

    def send_signal() -> None:
        wait_until(lambda: len(iterable.project.events) >= 5)
        stop(number, None)

    sending = threading.Thread(target=send_signal)
    sending.start()
    report = runs.run(stop)
    sending.join()
    assert (report.summary.status, report.error) == ("interrupted", None)
    assert report.summary.reason == f"{number.name} received"
    counts = counts_of(report)
    assert counts["successful"] == len(iterable.project.events) >= 5
    assert counts["not_attempted"] == 40 - len(iterable.project.users) > 0
    last = results_of(report)["records"][-1]
    assert (last["outcome"], last["reason"]) == ("not_attempted", "the run was interrupted")
    assert runs.run().summary.status == "completed"
    check_project(iterable.project, NUMBERS)
    assert {event.applied_count for event in iterable.project.events.values()} == {1}


def test_rows_of_a_killed_run_are_not_in_the_results_of_the_next(
    runs: Runs, iterable: IterableSandbox
) -> None:
    left_by_a_kill = Outbox(runs.state_file)
    fill(left_by_a_kill, rows(901, 902, 903))
    deliver_all(left_by_a_kill)
    left_by_a_kill.close()
    runs.settings["DB_PASSWORD"] = "wrong"
    report = runs.run()
    assert "check DB_USER and DB_PASSWORD" in str(report.error)
    assert counts_of(report) == {}
    assert results_of(report)["records"] == []
    assert b"user901" not in runs.state_file.read_bytes()
    assert iterable.calls == []


def test_results_that_cannot_be_written_do_not_undo_the_delivery(
    runs: Runs, iterable: IterableSandbox, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    runs.settings["RESULTS_DIR"] = str(folder)
    iterable.set_faults([{"fault": "delay", "seconds": 0.2, "nth": [1]}])

    def remove_the_folder() -> None:
        wait_until(lambda: iterable.calls)
        folder.rmdir()

    removing = threading.Thread(target=remove_the_folder)
    removing.start()
    report = runs.run()
    removing.join()
    assert "The results cannot be written" in str(report.error)
    assert report.summary.status == "aborted"
    assert counts_of(report) == {"successful": 40}
    folder.mkdir()
    assert counts_of(runs.run()) == {"unchanged": 40}


@pytest.mark.parametrize("event", ["UPDATE ON runs"])
def test_a_state_file_that_fails_at_the_very_end_makes_the_summary_aborted(
    runs: Runs, iterable: IterableSandbox, event: str
) -> None:
    iterable.set_faults([{"fault": "delay", "seconds": 0.2, "nth": [1]}])

    def add_the_trigger() -> None:
        wait_until(lambda: iterable.calls)
        with closing(sqlite3.connect(runs.state_file)) as database:
            database.execute(
                f"CREATE TRIGGER fails BEFORE {event} BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
            )

    adding = threading.Thread(target=add_the_trigger)
    adding.start()
    report = runs.run()
    adding.join()
    assert "is full: free some space and run again" in str(report.error)
    assert (report.summary.status, report.summary.reason) == ("aborted", str(report.error))
    assert counts_of(report) == {"successful": 40}
