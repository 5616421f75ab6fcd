"""The dispatcher alone: permits, threads, the first trouble, and a stop.

The sender, the calls and what waits are the test's own, so that it says what meets what.
"""

from __future__ import annotations

import logging
import threading

import pytest

from delivery import Delivery, PerUserSender, Report, Reported, Rows, RunAborted
from outcomes import Verdict
from pacing import Pace
from tests.rows import call_result
from tests.senders import (
    NotedCalls,
    RowsInMemory,
    ScriptedSender,
    SeenStop,
    delivered,
    hold_back,
    report_of,
    waiting_row,
)
from verdicts import EVENTS_TRACK, USERS_UPDATE

REFUSED = call_result(Verdict.REFUSED, http_status=401, code="BadApiKey")
UNAVAILABLE = call_result(Verdict.UNAVAILABLE, http_status=503)


# Permits


def test_a_permit_is_for_a_rows_first_call_only() -> None:
    calls = NotedCalls()
    PerUserSender(calls).send([waiting_row(7)], lambda _report: True, has_permit=True)
    assert calls.calls == [
        (USERS_UPDATE, b"profile", "user 7", True),
        (EVENTS_TRACK, b"event", "user 7", False),
    ]
    PerUserSender(calls).send([waiting_row(8, None)], lambda _report: True, has_permit=True)
    assert calls.calls[2:] == [(EVENTS_TRACK, b"event", "user 8", True)]


def test_a_row_takes_the_permit_of_the_call_that_it_begins_with() -> None:
    calls = NotedCalls()
    sender = PerUserSender(calls)
    assert sender.pace([waiting_row(1)]) is calls.paces[USERS_UPDATE]
    assert sender.pace([waiting_row(1, None)]) is calls.paces[EVENTS_TRACK]


def test_every_row_but_the_first_and_the_held_back_comes_with_a_permit() -> None:
    sender = ScriptedSender(hold_back)
    Delivery(RowsInMemory(10), sender, threading.Event(), event_delay_seconds=0.1).run()
    # The first row, and the events, have to ask for theirs: nobody did it for them.
    assert sender.permits == [False] + 9 * [True] + 10 * [False]


def test_a_row_without_a_permit_waits() -> None:
    stop = threading.Event()
    sender = ScriptedSender(delivered)
    # Time stands still for this pace: after one permit there is none for half a second.
    sender.paces[USERS_UPDATE] = Pace(2, clock=lambda: 1_000.0)
    waiting = RowsInMemory(10)
    Delivery(waiting, sender, stop, on_progress=lambda _calls, _rows_done: stop.set()).run()
    assert sender.permits == [False, True]


# One row's calls


def test_a_row_without_an_event_is_not_held_back() -> None:
    reports: list[object] = []

    def note(report: object) -> bool:
        reports.append(report)
        return True

    row = waiting_row(1)._replace(event=None)
    calls = NotedCalls()
    PerUserSender(calls, holds_events_back=True).send([row], note, has_permit=True)
    assert [type(report) for report in reports] == [Reported]
    assert [call[0] for call in calls.calls] == [USERS_UPDATE]


# Calls that a stop kept from being made


def test_a_call_that_was_never_made_is_not_reported() -> None:
    calls = NotedCalls(call_result(Verdict.UNAVAILABLE, attempts=0))

    def refuse_reports(report: object) -> bool:
        raise AssertionError(report)

    for row in (waiting_row(1), waiting_row(2, None)):
        PerUserSender(calls).send([row], refuse_reports, has_permit=False)
    assert [call[0] for call in calls.calls] == [USERS_UPDATE, EVENTS_TRACK]


def test_after_a_stop_no_row_is_begun() -> None:
    stop = threading.Event()
    sender = ScriptedSender(lambda _unit, _report: stop.set())
    Delivery(RowsInMemory(10), sender, stop).run()
    assert len(sender.permits) == 1
    Delivery(RowsInMemory(10), sender, stop).run()
    assert len(sender.permits) == 1


# Threads


def test_threads_are_used_again() -> None:
    threads: set[int] = set()

    def send(unit: Rows, report: Report) -> None:
        threads.add(threading.get_ident())
        delivered(unit, report)

    Delivery(RowsInMemory(30), ScriptedSender(send, max_in_flight=1), threading.Event()).run()
    assert len(threads) == 1


def test_not_more_rows_are_under_way_than_the_sender_allows_held_back_or_not() -> None:
    under_way: set[int] = set()
    most: list[int] = []

    def send(unit: Rows, report: Report) -> None:
        under_way.add(threading.get_ident())
        most.append(len(under_way))
        threading.Event().wait(0.01)  # for the others to come
        hold_back(unit, report)
        under_way.remove(threading.get_ident())

    sender = ScriptedSender(send, max_in_flight=3)
    Delivery(RowsInMemory(30), sender, threading.Event(), event_delay_seconds=0.02).run()
    assert len(most) == 60
    assert max(most) == 3


def test_a_thread_whose_call_hangs_does_not_keep_the_program_alive() -> None:
    are_daemons: list[bool] = []
    sender = ScriptedSender(lambda *_: are_daemons.append(threading.current_thread().daemon))
    Delivery(RowsInMemory(1), sender, threading.Event()).run()
    assert are_daemons == [True]


# What ends the run


def test_an_answer_that_follows_a_refusal_does_not_hide_it() -> None:
    def send(unit: Rows, report: Report) -> None:
        report(report_of(REFUSED, unit))
        for _ in range(10):
            delivered(unit, report)

    outbox = RowsInMemory(10)
    with pytest.raises(RunAborted, match="refused the API key"):
        Delivery(outbox, ScriptedSender(send), threading.Event()).run()
    assert len(outbox.recorded) == 11


def test_a_bug_that_follows_a_refusal_does_not_hide_it() -> None:
    def send(unit: Rows, report: Report) -> None:
        report(report_of(REFUSED, unit))
        raise ZeroDivisionError

    with pytest.raises(RunAborted, match="refused the API key"):
        Delivery(RowsInMemory(10), ScriptedSender(send), threading.Event()).run()


def test_a_success_begins_the_error_budget_anew() -> None:
    def send(unit: Rows, report: Report) -> None:
        for result in (*19 * [UNAVAILABLE], call_result()):
            report(report_of(result, unit))

    outbox = RowsInMemory(3)
    Delivery(outbox, ScriptedSender(send), threading.Event()).run()
    assert len(outbox.recorded) == 60


def test_calls_that_a_stop_cut_short_spend_no_budget() -> None:
    stop = threading.Event()

    def send(unit: Rows, report: Report) -> None:
        stop.set()
        for _ in range(30):
            report(report_of(UNAVAILABLE, unit))

    outbox = RowsInMemory(10)
    Delivery(outbox, ScriptedSender(send), stop).run()
    assert len(outbox.recorded) == 30


def test_a_refusal_ends_the_waits_of_the_others_and_their_results_are_recorded() -> None:
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
        Delivery(outbox, ScriptedSender(send), stop).run()
    assert sorted(call.seq for call in outbox.recorded) == [0, 1, 2, 3, 4, 5]
    assert goes_on == 4 * [False]


def test_a_refusal_after_a_stop_is_noted_and_the_run_ends_as_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "delivery")
    stop = SeenStop()
    goes_on: list[bool] = []

    def send(unit: Rows, report: Report) -> None:
        stop.set()
        stop.was_seen.wait(30)
        goes_on.append(report(report_of(call_result(), unit)))
        report(report_of(REFUSED, unit))

    outbox = RowsInMemory(10)
    Delivery(outbox, ScriptedSender(send), stop).run()
    assert [call.seq for call in outbox.recorded] == [0, 0]
    assert goes_on == [True]  # a row that was begun is finished
    assert "while stopping: Iterable refused the API key" in caplog.text


def test_a_bug_after_a_stop_surfaces_whatever_comes_home_later() -> None:
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
        Delivery(outbox, ScriptedSender(send), stop).run()
    assert [call.seq for call in outbox.recorded] == [0, 2]
