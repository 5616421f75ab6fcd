"""Outages of Iterable while the program runs: connections refused, 503, and a firewall."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import Program, counts_of, wait_until
from tests.support.recording_servers import website
from tests.support.tcp_proxy import Proxy
from tests.support.users import add_users, check_project

NUMBERS = range(1, 301)
MODES = pytest.mark.parametrize("mode", ["per-user", "bulk"])
OPENED, CLOSED = "Iterable does not answer", "again after"
# Slow enough that the outage begins in the middle.
SLOWLY = {
    "USERS_UPDATE_RPS": "150",
    "EVENTS_TRACK_RPS": "150",
    "BULK_BATCH_SIZE": "10",
    "BULK_UPDATE_RPS": "15",
    "TRACK_BULK_RPS": "15",
}


@pytest.fixture
def program(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Program:
    add_users(embedded.run_sql, NUMBERS)
    return Program.between(tmp_path / "run", embedded, iterable, **SLOWLY)


@contextmanager
def unreachable(program: Program, iterable: IterableSandbox) -> Iterator[Callable[[], None]]:
    """Lead the program through a proxy; yield what ends it, so that connections are refused.

    Called again, it starts the proxy on the same port.
    """
    port = urlsplit(iterable.url).port or 0
    proxies = [Proxy(port).__enter__()]
    program.settings["ITERABLE_API_BASE_URL"] = f"http://127.0.0.1:{proxies[0].port}"
    listens_on = proxies[0].port

    def toggle() -> None:
        if proxies:
            proxies.pop().__exit__(None, None, None)
        else:
            proxies.append(Proxy(port, listens_on).__enter__())

    try:
        yield toggle
    finally:
        if proxies:
            toggle()


@contextmanager
def failing(_program: Program, iterable: IterableSandbox) -> Iterator[Callable[[], None]]:
    """Yield what makes the sandbox answer 503, and the second time answer again."""
    is_failing = False

    def toggle() -> None:
        nonlocal is_failing
        is_failing = not is_failing
        iterable.set_faults([{"fault": "status", "status": 503}] if is_failing else [])

    yield toggle


@MODES
@pytest.mark.parametrize("outage", [unreachable, failing], ids=["refused", "503"])
def test_an_outage_in_the_middle_is_waited_for(
    program: Program,
    iterable: IterableSandbox,
    outage: Callable[..., AbstractContextManager[Callable[[], None]]],
    mode: str,
) -> None:
    """It wrote thousands of console lines and ended the run within seconds."""
    with outage(program, iterable) as toggle:
        running = program.start("--mode", mode)
        wait_until(lambda: len(iterable.project.events) >= 50)
        toggle()
        wait_until(lambda: OPENED in program.log)
        toggle()
        ending = running.ending()
    assert ending.status == 0, ending.output
    check_project(iterable.project, NUMBERS)
    assert counts_of(program.results) == {"successful": len(NUMBERS)}
    assert program.results["api_calls"] >= iterable.state()["calls"]
    lines = ending.stderr.splitlines()
    assert 1 <= sum(OPENED in line for line in lines) <= 2  # one for each endpoint
    assert 1 <= sum(CLOSED in line for line in lines) <= 2
    assert len(lines) < 20 + 150  # those of the requests under way when it began
    assert "Traceback" not in ending.output


@MODES
@pytest.mark.parametrize("count", [3, 300])
def test_where_nobody_answers_the_run_ends_after_the_patience(
    program: Program, iterable: IterableSandbox, count: int, mode: str
) -> None:
    with unreachable(program, iterable) as toggle:
        toggle()
        flags = ("--mode", mode, *(("--limit", "3") if count == 3 else ()))
        settings = {"OUTAGE_PATIENCE_SECONDS": "6", "MAX_ATTEMPTS": "2"}
        ending = program.run(*flags, settings=settings)
        assert ending.status == 1, ending.output
        said = ending.stderr.splitlines()[-1]
        assert said.startswith("Iterable has not answered any request to ")
        assert program.results["status"] == "aborted"
        assert counts_of(program.results) == {"not_attempted": count}
        toggle()
        assert program.run().status == 0
    check_project(iterable.project, NUMBERS)


@MODES
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_in_an_outage_ends_the_run_at_once(
    program: Program, iterable: IterableSandbox, number: signal.Signals, mode: str
) -> None:
    running = program.start("--mode", mode)
    wait_until(lambda: len(iterable.project.events) >= 50)
    iterable.set_faults([{"fault": "status", "status": 503}])
    wait_until(lambda: OPENED in program.log)
    running.send(number)
    ending = running.ending(30)  # the outage would last for 300
    assert ending.status == 128 + number, ending.output
    assert set(counts_of(program.results)) <= {"successful", "partial_failures", "not_attempted"}
    iterable.set_faults([])
    assert program.run().status == 0
    check_project(iterable.project, NUMBERS)
    assert iterable.state()["repeated_applies"] == 0


@MODES
def test_a_run_killed_in_an_outage_is_continued_by_the_next(
    program: Program, iterable: IterableSandbox, mode: str
) -> None:
    running = program.start("--mode", mode)
    wait_until(lambda: len(iterable.project.events) >= 50)
    iterable.set_faults([{"fault": "status", "status": 503}])
    wait_until(lambda: OPENED in program.log)
    time.sleep(0.5)
    running.killed()
    iterable.set_faults([])
    assert program.run().status == 0
    check_project(iterable.project, NUMBERS)


def test_an_outage_pings_fail_and_leaves_no_success(
    program: Program, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 503}])
    with website() as site:
        settings = {
            "OUTAGE_PATIENCE_SECONDS": "2",
            "MAX_ATTEMPTS": "1",
            "HEALTHCHECK_URL": f"{site.url}/ping",
        }
        ending = program.run("--limit", "2", settings=settings)
        paths = [request.line.split()[1] for request in site.requests]
    assert ending.status == 1
    assert paths == ["/ping/start", "/ping/fail"]
