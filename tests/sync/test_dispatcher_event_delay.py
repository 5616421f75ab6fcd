"""The dispatcher alone: delayed events, and how progress counts them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from records.rows import Rows
from sync.dispatcher import CallReport, DelayedEvents, Dispatcher, Report
from tests.support.rows import wait_until
from tests.support.senders import RowsInMemory, ScriptedSender, Sending, delivered, hold_back

# An exception that ends a thread unnoticed fails the test.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def test_a_delayed_event_is_sent_when_it_is_due() -> None:
    has_gone = threading.Event()

    def send(unit: Rows, report: Report) -> None:
        if unit[0].profile is None:
            has_gone.set()
            return
        report(DelayedEvents([unit[0].seq]))
        if unit[0].seq:
            # Events that are delayed later must not delay it further.
            for _ in range(500):
                if has_gone.wait(0.01):
                    break
                report(DelayedEvents([1]))
            went_in_time.append(has_gone.is_set())

    went_in_time: list[bool] = []
    waiting = RowsInMemory(2)
    Dispatcher(waiting, ScriptedSender(send), threading.Event(), event_delay_seconds=0.1).run()
    assert went_in_time == [True]


def test_a_row_with_a_delayed_event_is_not_done() -> None:
    stop = threading.Event()
    counts: list[int] = []

    def hear(_calls: Sequence[CallReport], rows_done: int) -> None:
        counts.append(rows_done)
        stop.set()

    sender = ScriptedSender(hold_back)
    Dispatcher(RowsInMemory(10), sender, stop, event_delay_seconds=60, on_progress=hear).run()
    assert set(counts) == {0}


def rows_done(send: Sending, stop: threading.Event, row_count: int = 10) -> int:
    """Deliver some rows; return the last count of finished rows that progress got."""
    counts: list[int] = []
    Dispatcher(
        RowsInMemory(row_count),
        ScriptedSender(send),
        stop,
        event_delay_seconds=0.05,
        on_progress=lambda _calls, rows_done: counts.append(rows_done),
    ).run()
    return counts[-1]


def test_a_row_counts_as_done_once_whatever_its_number_of_calls() -> None:
    assert rows_done(hold_back, threading.Event()) == 10


def test_the_run_waits_for_the_last_delayed_event() -> None:
    assert rows_done(hold_back, threading.Event(), row_count=1) == 1


def test_progress_does_not_count_rows_that_a_stop_left_unsent() -> None:
    stop = threading.Event()

    def send(unit: Rows, report: Report) -> None:
        delivered(unit, report)
        stop.set()

    assert rows_done(send, stop) == 1
    assert rows_done(send, stop) == 0  # stopped before it began


def test_a_row_is_not_done_while_its_batch_is_in_flight_though_its_event_is_done() -> None:
    """Both had the same first row: the rows of the batch were taken before their results came."""
    is_event_done = threading.Event()
    recorded: list[int] = []

    def send(unit: Rows, report: Report) -> None:
        if unit[0].profile is None:
            is_event_done.set()
            return
        delivered(unit, report)
        report(DelayedEvents([unit[0].seq]))
        assert is_event_done.wait(10)
        count = len(recorded) + 2
        wait_until(lambda: len(recorded) >= count)
        seen.extend(recorded)

    seen: list[int] = []
    Dispatcher(
        RowsInMemory(1),
        ScriptedSender(send),
        threading.Event(),
        event_delay_seconds=0.01,
        on_recorded=recorded.append,
    ).run()
    assert set(seen) == {0}
    assert recorded[-1] == 1


def test_a_row_is_not_done_before_its_delayed_event() -> None:
    recorded: list[int] = []
    sent_at: list[int] = []

    def send(unit: Rows, report: Report) -> None:
        if unit[0].profile is None:
            sent_at.append(len(recorded))
        elif unit[0].seq == 1:
            report(DelayedEvents([1]))

    Dispatcher(
        RowsInMemory(5),
        ScriptedSender(send),
        threading.Event(),
        event_delay_seconds=0.6,
        on_recorded=recorded.append,
    ).run()
    assert set(recorded[: sent_at[0]]) == {1}
    assert recorded[-1] == 5
