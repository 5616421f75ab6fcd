"""Graceful shutdown: SIGHUP, SIGINT and SIGTERM at any moment of a run."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import Program, counts_of, wait_until
from tests.support.users import add_users, check_project, email_of

SEED = 20260113
EVERYONE = range(1, 61)


@pytest.fixture
def program(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Program:
    """The program between the embedded MySQL with sixty users, and the sandbox."""
    add_users(embedded.run_sql, EVERYONE)
    return Program.between(tmp_path / "run", embedded, iterable)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["SIGHUP", "SIGINT", "SIGTERM"],
)
def test_a_stop_signal_shuts_the_run_down_gracefully(
    program: Program, iterable: IterableSandbox, number: signal.Signals, status: int
) -> None:
    running = program.start(settings={"USERS_UPDATE_RPS": "5"})
    wait_until(lambda: len(iterable.calls) >= 4)
    running.send(number)
    ending = running.ending(5.0)
    assert ending.status == status, ending.output
    assert ending.stderr.splitlines()[-1] == f"Stopped by {number.name}. Run again to continue."
    assert program.results["status"] == "interrupted"
    assert program.results["reason"] == f"{number.name} received"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(
    program: Program, iterable: IterableSandbox, number: signal.Signals
) -> None:
    """As SIGHUP under nohup. SIGINT, ignored in a background job of a script, ended the run."""
    former = signal.signal(number, signal.SIG_IGN)
    try:
        running = program.start(settings={"USERS_UPDATE_RPS": "40"})
    finally:
        signal.signal(number, former)
    wait_until(lambda: len(iterable.calls) >= 4)
    running.send(number)
    ending = running.ending()
    assert ending.status == 0, ending.output
    check_project(iterable.project, EVERYONE)


def test_after_sigterm_the_counts_agree_with_the_sandbox(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "delay", "seconds": 0.1}])
    running = program.start(settings={"USERS_UPDATE_RPS": "40"})
    wait_until(lambda: len(iterable.project.users) >= 12)
    running.send(signal.SIGTERM)
    ending = running.ending(5.0)
    assert ending.status == 143, ending.output
    results = program.results
    assert results["status"] == "interrupted"
    assert results["api_calls"] == iterable.state()["calls"]
    counts = counts_of(results)
    assert counts["not_attempted"] > 0
    assert counts["successful"] == len(iterable.project.events)
    delivered = counts["successful"] + counts.get("partial_failures", 0)
    assert delivered == len(iterable.project.users)
    iterable.set_faults([])
    assert program.run().status == 0
    check_project(iterable.project, EVERYONE)
    assert iterable.state()["repeated_applies"] == 0


def test_a_stop_signal_interrupts_a_slow_query(
    mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    (tmp_path / "query.sql").write_text("SELECT SLEEP(61.25)")  # no other test sleeps so long
    program = Program.between(tmp_path, mariadb, iterable, QUERY_FILE=str(tmp_path / "query.sql"))
    running = program.start()
    with mariadb.connection() as other:
        at_work = (
            "SELECT id FROM information_schema.processlist"
            " WHERE state = 'User sleep' AND INSTR(info, 'SLEEP(61.25)')"
        )
        wait_until(lambda: bool(other.execute_query(at_work)))
    running.send(signal.SIGTERM)
    ending = running.ending(5.0)
    assert ending.status == 143, ending.output
    assert program.results["status"] == "interrupted"
    assert program.results["total_users"] == 0


@pytest.mark.parametrize(
    "fault", [{"fault": "rate_limited", "reset": 60}, {"fault": "hang"}], ids=["429", "hang"]
)
def test_a_stop_signal_ends_every_wait(
    program: Program, iterable: IterableSandbox, fault: dict[str, object]
) -> None:
    iterable.set_faults([{**fault, "email": email_of(2)}])
    running = program.start(settings={"USERS_UPDATE_RPS": "10"})
    wait_until(lambda: any(call.email == email_of(2) for call in iterable.calls))
    running.send(signal.SIGTERM)
    ending = running.ending(5.0)
    assert ending.status == 143, ending.output
    assert "Traceback" not in ending.output
    assert counts_of(program.results)["not_attempted"] >= 1
    assert program.results["api_calls"] == len(iterable.calls)
    (record,) = [each for each in program.results["records"] if each["email"] == email_of(2)]
    assert record["users_update"]["verdict"] == "unavailable"
    if fault["fault"] == "hang":  # it was not_attempted, and not counted among the calls
        assert "its response was not waited for" in record["users_update"]["response"]["msg"]


def test_signals_at_any_moment_cause_no_traceback_and_lose_nothing(
    program: Program, iterable: IterableSandbox
) -> None:
    draw = random.Random(SEED)
    for number in range(20):
        log_file = program.folder / f"{number}.log"
        settings = {"USERS_UPDATE_RPS": "200", "LOG_FILE": str(log_file)}
        running = program.start("--full-refresh", settings=settings)
        wait_until(log_file.exists)
        for _ in range(draw.choice([1, 1, 2, 3])):
            time.sleep(draw.uniform(0.0, 0.3))
            running.send(draw.choice([signal.SIGHUP, signal.SIGINT, signal.SIGTERM]))
        ending = running.ending(5.0)
        assert ending.status in (0, 129, 130, 143), ending.output
        assert "Traceback" not in ending.stderr, ending.stderr
        assert "CRITICAL" not in log_file.read_text()
    assert program.run("--full-refresh").status == 0
    check_project(iterable.project, EVERYONE)
