"""Runs whose MySQL server or network fails before, during or after the read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from sync.run import RunReport
from tests.conftest import SourceDatabase, fresh_database
from tests.support.fault_runs import hurried_stop
from tests.support.mariadb import PrivateMariaDB
from tests.support.rows import wait_until
from tests.support.runs import Runs, counts_of, results_of
from tests.support.tcp_proxy import Proxy
from tests.support.users import add_users, check_project, sent_calls

USER_NUMBERS = range(1, 6_001)
FEW = range(1, 41)
# Thousands of rows arrive while the query still runs.
SLOW_NEAR_THE_END = (
    "SELECT c.*, v.page, v.device, v.browser, v.location, v.event_time FROM customers AS c"
    " STRAIGHT_JOIN page_views AS v ON v.user_id = c.id"
    " WHERE c.id <> 5500 OR SLEEP(60) = 0 ORDER BY c.id"
)


@pytest.fixture(scope="module")
def mortal(
    tmp_path_factory: pytest.TempPathFactory, mariadb_server: object
) -> Iterator[PrivateMariaDB]:
    """A MariaDB that the tests of this module kill; skipped where MariaDB is not installed."""
    assert mariadb_server
    with PrivateMariaDB(
        tmp_path_factory.mktemp("mortal"), ["--innodb-flush-log-at-trx-commit=1"]
    ) as server:
        yield server


@pytest.fixture
def source(mortal: PrivateMariaDB) -> Iterator[SourceDatabase]:
    with fresh_database(mortal) as database:
        yield database


def hurried(runs: Runs) -> RunReport:
    """Run once, without waits between reads."""
    return runs.run(hurried_stop())


def check_that_nothing_was_sent(report: RunReport, iterable: IterableSandbox) -> None:
    assert report.error is not None
    assert counts_of(report) == {}
    results = results_of(report)
    assert (results["status"], results["reason"]) == ("aborted", str(report.error))
    assert sent_calls(iterable) == []


@pytest.mark.slow
def test_a_server_killed_before_the_read_aborts_the_run_and_the_next_one_delivers(
    mortal: PrivateMariaDB, source: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    add_users(source.run_sql, FEW)
    runs = Runs.between(tmp_path, source, iterable)
    mortal.kill()
    report = hurried(runs)
    assert "Cannot reach MySQL" in str(report.error)
    check_that_nothing_was_sent(report, iterable)
    mortal.start()
    assert counts_of(hurried(runs)) == {"successful": 40}
    check_project(iterable.project, FEW)


@pytest.mark.slow
def test_no_row_of_an_incomplete_read_is_sent_when_the_server_is_killed(
    mortal: PrivateMariaDB,
    source: SourceDatabase,
    iterable: IterableSandbox,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add_users(source.run_sql, USER_NUMBERS)
    with Proxy(source.port) as proxy:
        runs = Runs.between(tmp_path, replace(source, port=proxy.port), iterable, SYNC_MODE="bulk")
        runs.with_query(SLOW_NEAR_THE_END)

        def kill_in_the_middle() -> None:
            assert wait_until(lambda: proxy.passed_bytes >= 300_000)
            mortal.kill()

        killing = threading.Thread(target=kill_in_the_middle)
        killing.start()
        report = hurried(runs)
        killing.join()
        assert "was lost" in caplog.text
        check_that_nothing_was_sent(report, iterable)
        mortal.start()
        del runs.settings["QUERY_FILE"]
        assert counts_of(hurried(runs)) == {"successful": 6_000}
    check_project(iterable.project, USER_NUMBERS)


@pytest.mark.slow
def test_a_server_killed_after_the_read_does_not_affect_delivery(
    mortal: PrivateMariaDB, source: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    add_users(source.run_sql, FEW)
    runs = Runs.between(tmp_path, source, iterable)
    iterable.set_faults([{"fault": "delay", "seconds": 0.2, "nth": [1]}])

    def kill_once_the_first_call_is_made() -> None:
        assert wait_until(lambda: iterable.calls)
        mortal.kill()

    killing = threading.Thread(target=kill_once_the_first_call_is_made)
    killing.start()
    report = hurried(runs)
    killing.join()
    mortal.start()
    assert counts_of(report) == {"successful": 40}
    check_project(iterable.project, FEW)


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
def test_a_read_is_repeated_when_the_connection_is_lost_in_the_middle_of_a_row(
    mariadb: SourceDatabase,
    iterable: IterableSandbox,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    resets: bool,
) -> None:
    add_users(mariadb.run_sql, FEW)
    with Proxy(mariadb.port) as proxy:
        # The connection of the read, and the one that would kill its query.
        proxy.cut_at, proxy.resets, proxy.cut_connections = 3_000, resets, 2
        runs = Runs.between(tmp_path, replace(mariadb, port=proxy.port), iterable)
        assert counts_of(hurried(runs)) == {"successful": 40}
        assert proxy.connection_count > 2
    assert caplog.text.count("Reading again from the first row.") >= 1
    check_project(iterable.project, FEW)


def test_a_read_is_given_up_when_the_connection_is_always_lost_in_a_row(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    add_users(mariadb.run_sql, FEW)
    with Proxy(mariadb.port) as proxy:
        runs = Runs.between(tmp_path, replace(mariadb, port=proxy.port), iterable)
        proxy.cut_at = 3_000
        report = hurried(runs)
        assert "was lost" in str(report.error)
        check_that_nothing_was_sent(report, iterable)
        proxy.cut_at = None
        assert counts_of(hurried(runs)) == {"successful": 40}
    check_project(iterable.project, FEW)
