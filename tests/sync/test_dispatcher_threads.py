"""The dispatcher alone: threads, the first problem, and a stop.

Sender and outbox are fakes, so that each test decides what happens in which order.
"""

from __future__ import annotations

import logging
import threading

import pytest

from records.outcomes import Verdict
from records.rows import Rows
from sync.dispatcher import Dispatcher, Report, RunAborted
from tests.support.rows import call_result
from tests.support.senders import (
    RowsInMemory,
    ScriptedSender,
    SeenStop,
    delivered,
    hold_back,
    report_of,
)

# An exception that ends a thread unnoticed fails the test.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")

REFUSED = call_result(Verdict.REFUSED, http_status=401, code="BadApiKey")
UNAVAILABLE = call_result(Verdict.UNAVAILABLE, http_status=503)


# A stop


def test_no_row_is_started_after_a_stop() -> None:
    stop = threading.Event()
    sender = ScriptedSender(lambda _unit, _report: stop.set())
    Dispatcher(RowsInMemory(10), sender, stop).run()
    assert len(sender.sent) == 1
    Dispatcher(RowsInMemory(10), sender, stop).run()
    assert len(sender.sent) == 1


# Threads


def test_worker_threads_are_reused() -> None:
    threads: set[int] = set()

    def send(unit: Rows, report: Report) -> None:
        threads.add(threading.get_ident())
        delivered(unit, report)

    Dispatcher(RowsInMemory(30), ScriptedSender(send, max_in_flight=1), threading.Event()).run()
    assert len(threads) == 1


def test_delayed_events_count_towards_the_rows_in_flight() -> None:
    under_way: set[int] = set()
    most: list[int] = []

    def send(unit: Rows, report: Report) -> None:
        under_way.add(threading.get_ident())
        most.append(len(under_way))
        threading.Event().wait(0.01)  # for the others to come
        hold_back(unit, report)
        under_way.remove(threading.get_ident())

    sender = ScriptedSender(send, max_in_flight=3)
    Dispatcher(RowsInMemory(30), sender, threading.Event(), event_delay_seconds=0.02).run()
    assert len(most) == 60
    assert max(most) <= 3


def test_worker_threads_are_daemons() -> None:
    are_daemons: list[bool] = []
    sender = ScriptedSender(lambda *_: are_daemons.append(threading.current_thread().daemon))
    Dispatcher(RowsInMemory(1), sender, threading.Event()).run()
    assert are_daemons == [True]


# Recording


def test_many_results_share_a_transaction() -> None:
    outbox = RowsInMemory(300)
    Dispatcher(outbox, ScriptedSender(delivered, max_in_flight=1), threading.Event()).run()
    assert len(outbox.recorded) == 300
    assert outbox.record_count < 100  # one for each half second of results


# Aborted runs


def test_a_success_after_a_refusal_does_not_hide_it() -> None:
    def send(unit: Rows, report: Report) -> None:
        report(report_of(REFUSED, unit))
        for _ in range(10):
            delivered(unit, report)

    outbox = RowsInMemory(10)
    with pytest.raises(RunAborted, match="refused the API key"):
        Dispatcher(outbox, ScriptedSender(send), threading.Event()).run()
    assert len(outbox.recorded) == 11


def test_a_bug_after_a_refusal_does_not_hide_it() -> None:
    def send(unit: Rows, report: Report) -> None:
        report(report_of(REFUSED, unit))
        raise ZeroDivisionError

    with pytest.raises(RunAborted, match="refused the API key"):
        Dispatcher(RowsInMemory(10), ScriptedSender(send), threading.Event()).run()


def test_a_refusal_ends_the_waits_of_other_workers_and_records_their_results() -> None:
    stop = threading.Event()
    are_waiting = threading.Barrier(5)
    goes_on: list[bool] = []

    def send(unit: Rows, report: Report) -> None:
        if unit[0].seq == 0:
            delivered(unit, report)
            return
        are_waiting.wait(30)
        if unit[0].seq == 1:
            report(report_of(REFUSED, unit))
        elif stop.wait(30):
            goes_on.append(report(report_of(UNAVAILABLE, unit)))

    outbox = RowsInMemory(6)
    with pytest.raises(RunAborted, match="refused the API key"):
        Dispatcher(outbox, ScriptedSender(send), stop).run()
    assert sorted(call.seq for call in outbox.recorded) == [0, 1, 2, 3, 4, 5]
    assert goes_on == 4 * [False]


def test_a_refusal_after_a_stop_is_logged_and_the_run_ends_as_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "sync.dispatcher")
    stop = SeenStop()
    goes_on: list[bool] = []

    def send(unit: Rows, report: Report) -> None:
        stop.set()
        stop.was_seen.wait(30)
        goes_on.append(report(report_of(call_result(), unit)))
        report(report_of(REFUSED, unit))

    outbox = RowsInMemory(10)
    Dispatcher(outbox, ScriptedSender(send), stop).run()
    assert [call.seq for call in outbox.recorded] == [0, 0]
    assert goes_on == [True]  # a row that was begun is finished
    assert "During shutdown: Iterable refused the API key" in caplog.text


def test_a_bug_after_a_stop_is_raised_although_other_rows_succeed_later() -> None:
    stop = SeenStop()
    are_under_way = threading.Barrier(2)

    def send(unit: Rows, report: Report) -> None:
        if unit[0].seq:
            are_under_way.wait(30)
            stop.set()
            stop.was_seen.wait(30)
            if unit[0].seq == 1:
                raise ZeroDivisionError
            threading.Event().wait(0.05)
        delivered(unit, report)

    outbox = RowsInMemory(3)
    with pytest.raises(ZeroDivisionError):
        Dispatcher(outbox, ScriptedSender(send), stop).run()
    assert [call.seq for call in outbox.recorded] == [0, 2]
