"""Deliveries that end early: refusal, stop or bug, and what is recorded."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from iterable_api.responses import (
    EVENTS_TRACK,
    EVENTS_TRACK_BULK,
    USERS_BULK_UPDATE,
    USERS_UPDATE,
)
from records.outcomes import Verdict
from records.rows import PendingRow, RequestKind, Rows
from sandbox.iterable_api import IterableSandbox
from sync.dispatcher import Dispatcher, Report, RunAborted, Started
from sync.per_user import PerUserSender
from tests.support.drains import (
    FewAtOnce,
    calls_by_user,
    check_that_nothing_was_lost_or_repeated,
    drain,
    outbox_with,
    stop_when,
)
from tests.support.rows import call_result, email_of, failures_of, outcomes_of, rows, wait_until
from tests.support.senders import RowsInMemory, ScriptedSender, report_of

NUMBERS = range(1, 101)
UPDATES, TRACKS = (USERS_UPDATE, USERS_BULK_UPDATE), (EVENTS_TRACK, EVENTS_TRACK_BULK)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


def test_rejections_end_no_run(path: Path, iterable: IterableSandbox) -> None:
    iterable.set_faults([{"fault": "status", "status": 400}])
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, outage_patience_seconds=300)
        assert set(outcomes_of(outbox).values()) == {"total_failure"}


# A refusal after the first row


def test_after_a_refusal_no_further_call_is_made(path: Path) -> None:
    with (
        IterableSandbox(latency_seconds=0.02) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        iterable.set_faults([{"fault": "status", "status": 401, "nth": [30]}])
        with pytest.raises(RunAborted, match="refused the API key"):
            drain(outbox, iterable.url, to_sender=FewAtOnce)
        counts = Counter(outcomes_of(outbox).values())
        assert counts["not_attempted"] > 50
        assert counts["successful"] > 5
        assert len(iterable.calls) <= 30 + 4 * FewAtOnce.max_in_flight
        (refused,) = [call for call in iterable.calls if call.status == 401]
        assert calls_by_user(iterable)[refused.email][-1] is refused
        check_that_nothing_was_lost_or_repeated(outbox, iterable, NUMBERS)


SLOW_UPDATES = [
    {"fault": "delay", "seconds": 0.5, "endpoint": USERS_UPDATE, "email": email_of(number)}
    for number in range(3, 9)
]


def test_rows_in_flight_at_a_refusal_make_no_further_call(
    path: Path, iterable: IterableSandbox
) -> None:
    refusal = {"fault": "status", "status": 401, "email": email_of(2)}
    late = {"fault": "delay", "seconds": 0.2, "email": email_of(2)}  # all the others have begun
    iterable.set_faults([refusal, late, *SLOW_UPDATES])
    with outbox_with(path, rows(*range(1, 9))) as outbox:
        with pytest.raises(RunAborted, match="refused the API key"):
            drain(outbox, iterable.url)
        outcomes = Counter(outcomes_of(outbox).values())
    assert outcomes == {"successful": 1, "total_failure": 1, "partial_failure": 6}
    assert {event.email for event in iterable.project.events.values()} == {email_of(1)}


# A stop


def test_rows_in_flight_at_a_stop_are_finished(path: Path, iterable: IterableSandbox) -> None:
    iterable.set_faults(SLOW_UPDATES)
    with outbox_with(path, rows(*range(1, 9))) as outbox:
        drain(outbox, iterable.url, stop=stop_when(lambda: len(iterable.project.users) == 8))
        assert set(outcomes_of(outbox).values()) == {"successful"}


@pytest.mark.slow
def test_a_stop_ends_the_run_soon_and_records_the_calls_in_flight(path: Path) -> None:
    with (
        IterableSandbox(latency_seconds=0.1, jitter_seconds=0.05) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        stopped_at: list[float] = []

        def is_time() -> bool:
            stopped_at.append(time.monotonic())
            return len(iterable.project.events) >= 5

        rates = {USERS_UPDATE: 100, EVENTS_TRACK: 100}
        drain(outbox, iterable.url, stop=stop_when(is_time), requests_per_second=rates)
        assert time.monotonic() - stopped_at[-1] < 1.5
        counts = Counter(outcomes_of(outbox).values())
        assert set(counts) == {"successful", "partial_failure", "not_attempted"} or set(counts) == {
            "successful",
            "not_attempted",
        }
        assert counts["successful"] == len(iterable.project.events) >= 5
        assert counts["not_attempted"] == len(NUMBERS) - len(iterable.project.users) > 0
        check_that_nothing_was_lost_or_repeated(outbox, iterable, NUMBERS)


def test_a_stop_ends_retries_and_records_their_last_result(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 503, "retry_after": 60}])
    stop = stop_when(lambda: iterable.calls)
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        began_at = time.monotonic()
        drain(outbox, iterable.url, stop=stop, max_attempts=5)
        assert time.monotonic() - began_at < 30  # and not 60
        outcomes = list(outcomes_of(outbox).values())
    assert len(iterable.calls) <= 2
    assert outcomes[0] == "total_failure"
    assert set(outcomes[1:]) == {"not_attempted"}


def test_a_stop_before_the_first_call_sends_nothing(path: Path, iterable: IterableSandbox) -> None:
    stop = threading.Event()
    stop.set()
    with outbox_with(path, rows(1, 2)) as outbox:
        drain(outbox, iterable.url, stop=stop)
        assert set(outcomes_of(outbox).values()) == {"not_attempted"}
    assert iterable.calls == []


def test_events_still_delayed_at_a_stop_are_sent_by_the_next_run(
    path: Path, iterable: IterableSandbox
) -> None:
    stop = stop_when(lambda: len(iterable.project.users) == len(NUMBERS))
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url, stop=stop, event_delay_seconds=60)
        assert set(outcomes_of(outbox).values()) == {"partial_failure"}
        check_that_nothing_was_lost_or_repeated(outbox, iterable, NUMBERS)


@pytest.mark.slow
def test_a_stop_does_not_wait_for_calls_that_hang(path: Path, iterable: IterableSandbox) -> None:
    iterable.set_faults([{"fault": "hang", "nth": [7, 8, 9, 12]}])
    stop = stop_when(lambda: len(iterable.calls) > 20)
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        began_at = time.monotonic()
        drain(outbox, iterable.url, stop=stop)
        assert time.monotonic() - began_at < 20  # the calls would hang for 30


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("endpoints", [UPDATES, TRACKS])
def test_a_call_that_a_stop_does_not_wait_for_counts_as_made(
    path: Path, iterable: IterableSandbox, batch_size: int | None, endpoints: tuple[str, str]
) -> None:
    """Its row was not_attempted and api_calls 0, though Iterable had the call."""
    endpoint = endpoints[0 if batch_size is None else 1]
    iterable.set_faults([{"fault": "hang", "endpoint": endpoint}])
    stop = stop_when(lambda: any(call.endpoint == endpoint for call in iterable.calls))
    hit_count = 1 if batch_size is None else 5
    # Others wait for the first update only.
    row_count = 9 if endpoint in UPDATES else hit_count
    with outbox_with(path, rows(*range(1, 1 + row_count))) as outbox:
        client = drain(outbox, iterable.url, stop=stop, batch_size=batch_size)
        outcome = "total_failure" if endpoint in UPDATES else "partial_failure"
        assert client.call_count == len(iterable.calls)
        expected = Counter({outcome: hit_count, "not_attempted": row_count - hit_count})
        assert Counter(outcomes_of(outbox).values()) == +expected
        settled = next(iter(outbox.settled()))
        result = settled.update_result if endpoint in UPDATES else settled.event_result
        assert orjson.loads(result or "") == {
            "success": False,
            "verdict": "unavailable",
            "http_status": None,
            "attempts": 1,
            "request_id": None,
            "response": {
                "code": "ResponseNotAwaited",
                "msg": "The run ended while this request was under way; "
                "its response was not waited for.",
                "params": None,
            },
        }


@pytest.mark.slow
def test_a_call_under_way_when_an_error_ends_the_run_counts_as_made(
    path: Path, iterable: IterableSandbox
) -> None:
    hang = {"fault": "hang", "email": email_of(3)}
    refusal = {"fault": "status", "status": 401, "email": email_of(2)}
    iterable.set_faults([hang, {"fault": "delay", "seconds": 0.3, "email": email_of(2)}, refusal])
    with outbox_with(path, rows(1, 2, 3)) as outbox:
        with pytest.raises(RunAborted, match="refused the API key"):
            drain(outbox, iterable.url)
        assert list(outcomes_of(outbox).values()) == ["successful"] + 2 * ["total_failure"]
        assert {failure.code for failure in failures_of(outbox)} == {
            "BadApiKey",
            "ResponseNotAwaited",
        }


def test_no_call_starts_after_the_grace_of_a_stop() -> None:
    """The event of an update that came back too late was sent while the results were written."""
    release, sent = threading.Event(), threading.Event()

    def slow(unit: Rows, report: Report) -> None:
        assert report(Started(RequestKind.PROFILE, unit, 1))
        sent.set()
        release.wait(30)
        may_continue.append(delivered_late(unit, report))
        may_continue.append(report(Started(RequestKind.EVENT, unit, 1)))
        is_over.set()

    def delivered_late(unit: Rows, report: Report) -> bool:
        return report(report_of(call_result(), unit))

    may_continue: list[bool] = []
    is_over = threading.Event()
    outbox = RowsInMemory(1)
    Dispatcher(outbox, ScriptedSender(slow), stop_when(sent.is_set)).run()
    release.set()
    assert is_over.wait(10)
    assert may_continue == [False, False]
    assert [(f.result.verdict, f.result.code) for f in outbox.recorded] == [
        (Verdict.UNAVAILABLE, "ResponseNotAwaited")
    ]


# Bugs


class FaultySender(PerUserSender):
    """A sender that raises an exception before or after the calls of some rows."""

    bug: BaseException = ZeroDivisionError("a bug")
    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()

    def send(self, unit: Sequence[PendingRow], report: Report) -> None:
        if unit[0].email in self.before:
            raise self.bug
        super().send(unit, report)
        if unit[0].email in self.after:
            raise self.bug


@pytest.mark.parametrize("bug", [ZeroDivisionError("a bug"), SystemExit(3)])
def test_a_bug_in_a_worker_ends_the_run_and_finished_calls_are_recorded(
    path: Path, iterable: IterableSandbox, bug: BaseException
) -> None:
    class Faulty(FaultySender):
        max_in_flight = FewAtOnce.max_in_flight
        before = frozenset({email_of(50)})

    Faulty.bug = bug
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        with pytest.raises(type(bug)):
            drain(outbox, iterable.url, to_sender=Faulty)
        counts = Counter(outcomes_of(outbox).values())
        assert counts["successful"] >= 49 - Faulty.max_in_flight
        assert counts["successful"] == len(iterable.project.events)
        check_that_nothing_was_lost_or_repeated(outbox, iterable, NUMBERS)


def test_several_bugs_at_once_lose_no_result(path: Path) -> None:
    class Faulty(FaultySender):
        after = frozenset(email_of(number) for number in range(20, 40))

    with (
        IterableSandbox(latency_seconds=0.05) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        with pytest.raises(ZeroDivisionError):
            drain(outbox, iterable.url, to_sender=Faulty)
        counts = Counter(outcomes_of(outbox).values())
        assert counts["successful"] == len(iterable.project.events) >= 20
        check_that_nothing_was_lost_or_repeated(outbox, iterable, NUMBERS)


def test_a_bug_during_a_graceful_shutdown_is_raised(path: Path) -> None:
    class Faulty(FaultySender):
        after = frozenset(email_of(number) for number in range(1, 101))

    with (
        IterableSandbox(latency_seconds=0.1) as iterable,
        outbox_with(path, rows(*NUMBERS)) as outbox,
    ):
        stop = stop_when(lambda: iterable.calls)
        with pytest.raises(ZeroDivisionError):
            drain(outbox, iterable.url, to_sender=Faulty, stop=stop)
        assert outcomes_of(outbox)[email_of(1)] in ("successful", "partial_failure")


def test_threads_end_with_the_run(path: Path, iterable: IterableSandbox) -> None:
    before = threading.active_count()
    with outbox_with(path, rows(*NUMBERS)) as outbox:
        drain(outbox, iterable.url)
    assert wait_until(lambda: threading.active_count() <= before)
