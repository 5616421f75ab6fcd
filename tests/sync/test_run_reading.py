"""Runs whose read breaks: up to three reads, and no row of an incomplete read is sent."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from sync.signals import stop_signals
from tests.conftest import SourceDatabase
from tests.support.fault_runs import hurried_stop
from tests.support.mariadb import PrivateMariaDB
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import sent_calls

COLUMNS = """
    seq AS id, CONCAT('user', seq, '@example.com') AS email, 'Ann' AS first_name,
    NULL AS last_name, 'pro' AS plan_type, 'yes' AS candidate, 'pricing' AS page,
    'desktop' AS device, 'Chrome' AS browser, 'Oslo' AS location,
    TIMESTAMP('2026-01-13 14:30:45') AS event_time
"""
# MariaDB's own table of numbers. The first chunks arrive while the query still runs; it then waits
# while somebody holds the lock.
PAUSED_IN_THE_MIDDLE = (
    f"SELECT {COLUMNS} FROM seq_1_to_7000 WHERE seq <> 6000 OR GET_LOCK('pause', 60)"
)


@pytest.fixture
def runs(mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    runs = Runs.between(tmp_path, mariadb, iterable)
    runs.with_query(PAUSED_IN_THE_MIDDLE)
    return runs


@contextlib.contextmanager
def killing_the_reader(server: PrivateMariaDB, times: int) -> Iterator[list[int]]:
    """Kill the first `times` connections in the middle of the query; let the next one go on."""
    killed: list[int] = []
    done = threading.Event()
    root = server.root_connection()
    cursor = root.cursor()
    cursor.execute("SELECT GET_LOCK('pause', 0)")
    assert cursor.fetchall() == [(1,)]

    def watch() -> None:
        while not done.is_set() and len(killed) < times:
            cursor.execute(
                "SELECT id FROM information_schema.processlist WHERE state = 'User lock'"
            )
            for (number,) in cursor.fetchall():
                if number not in killed:
                    killed.append(number)
                    cursor.execute(f"KILL CONNECTION {number}")
            time.sleep(0.02)
        root.close()  # releases the lock

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield killed
    finally:
        done.set()
        watching.join()


@pytest.mark.slow
def test_a_read_that_breaks_once_is_repeated(
    runs: Runs,
    mariadb_server: PrivateMariaDB,
    iterable: IterableSandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs.settings["SYNC_MODE"] = "bulk"
    with killing_the_reader(mariadb_server, 1) as killed:
        report = runs.run(hurried_stop())
    assert len(killed) == 1
    assert caplog.text.count("Reading again from the first row.") == 1
    assert counts_of(report) == {"successful": 7_000}
    assert len(iterable.project.users) == len(iterable.project.events) == 7_000


@pytest.mark.slow
def test_a_read_that_always_breaks_is_given_up_after_three_attempts(
    runs: Runs,
    mariadb_server: PrivateMariaDB,
    iterable: IterableSandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with killing_the_reader(mariadb_server, 10) as killed:
        report = runs.run(hurried_stop())
    assert len(killed) == 3
    assert caplog.text.count("Reading again from the first row.") == 2
    assert "The connection to MySQL" in str(report.error)
    assert "was lost" in str(report.error)
    assert counts_of(report) == {}
    assert results_of(report)["status"] == "aborted"
    assert [run.status for run in runs.history()] == ["aborted"]
    assert sent_calls(iterable) == []


@pytest.mark.slow
def test_a_broken_read_does_not_change_the_state_file(
    runs: Runs, mariadb_server: PrivateMariaDB, iterable: IterableSandbox
) -> None:
    runs.settings["SYNC_MODE"] = "bulk"
    assert counts_of(runs.run(limit=3_000)) == {"successful": 3_000}
    iterable.reset()
    with killing_the_reader(mariadb_server, 1):
        assert counts_of(runs.run(hurried_stop())) == {"successful": 4_000, "unchanged": 3_000}
    assert len(iterable.project.users) == 4_000


def test_a_query_with_an_error_is_not_repeated(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    runs.with_query("SELECT nothing FROM nowhere")
    report = runs.run()
    assert "MySQL refused the query" in str(report.error)
    assert "Reading again" not in caplog.text
    assert results_of(report)["reason"] == str(report.error)
    assert iterable.calls == []


@pytest.mark.no_cover  # an exception of the signal's handler could leave coverage's lock taken
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "slow_rows",
    [
        pytest.param("seq_1_to_3 WHERE SLEEP(3) = 0", id="before the first row"),
        # The message was: Another run has taken over the state file.
        pytest.param("seq_1_to_7000 WHERE seq <> 6000 OR SLEEP(3) = 0", id="between rows"),
    ],
)
def test_a_signal_while_the_query_runs_ends_the_run_at_once(
    runs: Runs, iterable: IterableSandbox, number: signal.Signals, slow_rows: str
) -> None:
    runs.with_query(f"SELECT {COLUMNS} FROM {slow_rows}")
    timer = threading.Timer(0.4, os.kill, (os.getpid(), number))
    with stop_signals() as stop:
        timer.start()
        began_at = time.monotonic()
        try:
            report = runs.run(stop)
        finally:
            timer.join()
    assert time.monotonic() - began_at < 2.5
    assert (report.summary.status, report.summary.reason) == (
        "interrupted",
        f"{number.name} received",
    )
    assert report.error is None
    assert counts_of(report) == {}
    assert results_of(report)["records"] == []
    assert [run.status for run in runs.history()] == ["interrupted"]
    assert sent_calls(iterable) == []


def test_with_a_limit_no_more_rows_are_read_than_needed(runs: Runs) -> None:
    began_at = time.monotonic()
    runs.with_query(f"SELECT {COLUMNS} FROM seq_1_to_2000 WHERE seq < 1000 OR SLEEP(0.01) = 0")
    report = runs.run(dry_run=True, limit=4)
    assert counts_of(report) == {"not_attempted": 4}
    assert time.monotonic() - began_at < 5  # all of it would take ten
