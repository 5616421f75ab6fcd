"""Outages in a delivery, in hurried time: requests wait for Iterable, up to the patience."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iterable_api.circuit_breaker import CircuitBreakers
from iterable_api.responses import (
    EVENTS_TRACK,
    EVENTS_TRACK_BULK,
    USERS_BULK_UPDATE,
    USERS_GET_FIELDS,
    USERS_UPDATE,
)
from iterable_client import IterableClient
from records.rows import Rows
from sandbox.iterable_api import IterableSandbox
from state.outbox import Outbox
from sync.dispatcher import Dispatcher, Report, RunAborted
from sync.per_user import PerUserSender
from tests.support.drains import (
    FewAtOnce,
    check_that_nothing_was_lost_or_repeated,
    drain,
    endpoints_of,
    outbox_with,
)
from tests.support.fault_runs import HurriedTime
from tests.support.rows import (
    PassingTime,
    email_of,
    failures_of,
    outcomes_of,
    rows,
    wait_until,
)
from tests.support.senders import RowsInMemory, ScriptedSender, delivered

MODES = pytest.mark.parametrize("batch_size", [None, 10], ids=["per-user", "bulk"])
DOWN: list[dict[str, Any]] = [
    {"fault": "status", "status": 503},
    {"fault": "drop_before"},
    {"fault": "html_body", "applied": False},
    {"fault": "status", "status": 408},
]
KINDS_OF_OUTAGE = pytest.mark.parametrize("down", DOWN, ids=["503", "dropped", "page", "408"])
NOT_ANSWERED = "Iterable has not answered any request to {} for 3[0-9]{{2}} s"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


def deliver(outbox: Outbox, url: str, **options: Any) -> IterableClient:
    """Deliver with a patience of five minutes, in hurried time."""
    stop = options.pop("stop", None) or HurriedTime()
    usual: dict[str, Any] = {"outage_patience_seconds": 300, "max_attempts": 5}
    return drain(outbox, url, stop=stop, clock=stop.clock, **{**usual, **options})


def endpoint_in(batch_size: int | None) -> str:
    return USERS_UPDATE if batch_size is None else USERS_BULK_UPDATE


# An outage that ends


@MODES
@KINDS_OF_OUTAGE
def test_an_outage_in_the_middle_costs_no_row_and_repeats_none(
    path: Path, iterable: IterableSandbox, down: dict[str, Any], batch_size: int | None
) -> None:
    iterable.set_faults([{**down, "nth": list(range(20, 60))}])
    numbers = range(1, 101)
    with outbox_with(path, rows(*numbers)) as outbox:
        client = deliver(
            outbox,
            iterable.url,
            batch_size=batch_size and 1,
            stop=HurriedTime(50),
            requests_per_second={USERS_BULK_UPDATE: 50, EVENTS_TRACK_BULK: 50},
        )
        assert set(outcomes_of(outbox).values()) == {"successful"}
        assert {user.applied_count for user in iterable.project.users.values()} == {1}
        assert {event.applied_count for event in iterable.project.events.values()} == {1}
        assert len(iterable.project.users) == len(iterable.project.events) == len(numbers)
    assert client.call_count == iterable.state()["calls"] + iterable.state()["reset_connections"]


@MODES
@KINDS_OF_OUTAGE
@pytest.mark.parametrize("count", [1, 25])
def test_an_outage_at_the_start_costs_no_row(
    path: Path,
    iterable: IterableSandbox,
    count: int,
    down: dict[str, Any],
    batch_size: int | None,
) -> None:
    iterable.set_faults([{**down, "times": 9}])
    with outbox_with(path, rows(*range(count))) as outbox:
        deliver(outbox, iterable.url, batch_size=batch_size)
        assert set(outcomes_of(outbox).values()) == {"successful"}


def test_a_rate_limit_after_an_outage_ends_it(path: Path, iterable: IterableSandbox) -> None:
    iterable.set_faults(
        [
            {"fault": "status", "status": 503, "times": 7},
            {"fault": "rate_limited", "reset": None, "times": 1},
        ]
    )
    with outbox_with(path, rows(1)) as outbox:
        deliver(outbox, iterable.url)
        assert set(outcomes_of(outbox).values()) == {"successful"}


def test_while_one_endpoint_is_down_the_other_goes_on(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 503, "endpoint": EVENTS_TRACK, "times": 25}])
    with outbox_with(path, rows(*range(200))) as outbox:
        deliver(outbox, iterable.url, max_attempts=20)
        assert set(outcomes_of(outbox).values()) == {"successful"}
    calls = endpoints_of(iterable.calls)
    assert USERS_UPDATE in calls[calls.index(EVENTS_TRACK) + 10 :]


# Down for good


@MODES
@KINDS_OF_OUTAGE
@pytest.mark.parametrize("count", [1, 3, 100])
def test_a_run_that_nobody_answers_ends_after_the_patience(
    path: Path,
    iterable: IterableSandbox,
    count: int,
    down: dict[str, Any],
    batch_size: int | None,
) -> None:
    """A handful of rows with nobody answering was a success, and an outage of days was not told."""
    iterable.set_faults([down])
    with outbox_with(path, rows(*range(1, count + 1))) as outbox:
        with pytest.raises(RunAborted, match=NOT_ANSWERED.format(endpoint_in(batch_size))):
            deliver(outbox, iterable.url, batch_size=batch_size)
        assert set(outcomes_of(outbox).values()) == {"not_attempted"}
        assert failures_of(outbox) == []
        state = iterable.state()
        assert state["calls"] + state["reset_connections"] < 20 + 2 * 15
        check_that_nothing_was_lost_or_repeated(outbox, iterable, range(1, count + 1))


@MODES
def test_rows_delivered_before_the_outage_stay_delivered(
    path: Path, iterable: IterableSandbox, batch_size: int | None
) -> None:
    down_from = 40 if batch_size is None else 4
    iterable.set_faults(
        [{"fault": "drop_before", "nth": list(range(down_from, 5_000))}],
    )
    with outbox_with(path, rows(*range(1, 101))) as outbox:
        with pytest.raises(RunAborted, match="has not answered"):
            deliver(outbox, iterable.url, batch_size=batch_size, stop=HurriedTime(200))
        counts = Counter(outcomes_of(outbox).values())
        # The attempt that was under way when the run ended has a verdict of its own.
        assert counts.pop("total_failure", 0) <= 1
        assert set(counts) <= {"successful", "partial_failure", "not_attempted"}
        assert counts["not_attempted"] > 40
        assert counts["successful"] == len(iterable.project.events) > 0
        assert counts["partial_failure"] == len(iterable.project.users) - counts["successful"]
        check_that_nothing_was_lost_or_repeated(outbox, iterable, range(1, 101))


def test_an_endpoint_that_is_down_for_more_than_twenty_requests_ends_the_run(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 503, "endpoint": EVENTS_TRACK}])
    with outbox_with(path, rows(*range(100))) as outbox:
        with pytest.raises(RunAborted, match=NOT_ANSWERED.format(EVENTS_TRACK)):
            deliver(outbox, iterable.url)
        # The first event alone may have been asked about, and failed for itself.
        assert set(outcomes_of(outbox).values()) <= {"partial_failure", "not_attempted"}
        assert (
            len(iterable.project.users) == Counter(outcomes_of(outbox).values())["partial_failure"]
        )


def test_a_row_whose_attempt_was_over_when_the_run_ended_has_met_only_the_outage(
    path: Path, iterable: IterableSandbox
) -> None:
    """It counted as failed, "its response was not waited for", while getFields was."""
    iterable.set_faults(
        [
            {"fault": "status", "status": 503, "endpoint": USERS_UPDATE},
            {"fault": "hang", "endpoint": USERS_GET_FIELDS},
        ]
    )
    with outbox_with(path, rows(1, 2)) as outbox:
        with pytest.raises(RunAborted, match="has not answered"):
            deliver(outbox, iterable.url, max_attempts=1, outage_patience_seconds=5.5)
        assert set(outcomes_of(outbox).values()) == {"not_attempted"}


# Few requests that are at fault themselves


@pytest.mark.parametrize("endpoint", [USERS_UPDATE, EVENTS_TRACK])
@pytest.mark.parametrize("count", [1, 3])
def test_a_few_requests_that_alone_are_not_answered_fail(
    path: Path, iterable: IterableSandbox, count: int, endpoint: str
) -> None:
    iterable.set_faults([{"fault": "status", "status": 503, "endpoint": endpoint}])
    with outbox_with(path, rows(*range(1, count + 1))) as outbox:
        deliver(outbox, iterable.url)
        assert set(outcomes_of(outbox).values()) == {"partial_failure"}
        assert {f.verdict for f in failures_of(outbox)} == {"unavailable"}
    assert USERS_GET_FIELDS in endpoints_of(iterable.calls)


def test_a_row_that_alone_is_not_answered_fails_by_its_attempts_while_others_are_answered(
    path: Path, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    iterable.set_faults([{"fault": "status", "status": 500, "email": email_of(50)}])
    with outbox_with(path, rows(*range(1, 101))) as outbox:
        deliver(outbox, iterable.url)
        assert Counter(outcomes_of(outbox).values()) == {"successful": 99, "total_failure": 1}
    assert caplog.text.count("Iterable does not answer") <= 2  # the last requests of the run


def test_a_row_that_failed_at_once_held_up_all_others(
    path: Path, iterable: IterableSandbox
) -> None:
    """Row 3 closed the breaker, row 2 failed and opened it again; then no request was left."""

    class ThreeAtOnce(PerUserSender):
        max_in_flight = 3

    def slow(seconds: float, **selectors: object) -> dict[str, Any]:
        return {"fault": "delay", "seconds": seconds, **selectors}

    iterable.set_faults(
        [
            slow(0.1, email=email_of(2), endpoint=USERS_UPDATE),
            slow(0.3, email=email_of(3), endpoint=USERS_UPDATE),
            slow(0.6, email=email_of(3), endpoint=EVENTS_TRACK),
            {"fault": "status", "status": 503, "email": email_of(2), "endpoint": USERS_UPDATE},
        ]
    )
    with outbox_with(path, rows(*range(1, 9))) as outbox:
        deliver(outbox, iterable.url, max_attempts=1, to_sender=ThreeAtOnce)
        counts = Counter(outcomes_of(outbox).values())
    assert counts == {"successful": 7, "partial_failure": 1}


def test_where_no_request_waits_to_try_again_the_next_one_does() -> None:
    clock = PassingTime()
    breakers = CircuitBreakers([USERS_UPDATE], 300, clock=clock)

    def send(unit: Rows, report: Report) -> None:
        breakers[USERS_UPDATE].note_answer()
        delivered(unit, report)

    sender = ScriptedSender(send)
    sender.client.breakers = breakers
    breakers.open(USERS_UPDATE, "HTTP 503")
    clock.now_seconds += 5
    Dispatcher(RowsInMemory(3), sender, threading.Event()).run()
    assert sorted(row.seq for unit in sender.sent for row in unit) == [0, 1, 2]


def test_one_row_that_breaks_its_batch_is_found_although_no_other_batch_is_sent(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 500, "email": email_of(77)}])
    with outbox_with(path, rows(*range(1, 129))) as outbox:
        client = deliver(outbox, iterable.url, batch_size=200)
        failed = {e for e, outcome in outcomes_of(outbox).items() if outcome != "successful"}
        assert failed == {email_of(77)}
    assert client.breakers.have_opened
    assert Counter(endpoints_of(iterable.calls))[USERS_BULK_UPDATE] == 5 + 1 + 5 + 6 * 3 + 5 + 1


def test_one_row_that_breaks_its_batch_is_found_while_other_batches_are_answered(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 500, "email": email_of(77)}])
    with outbox_with(path, rows(*range(1, 401))) as outbox:
        deliver(outbox, iterable.url, batch_size=8)
        failed = {e for e, outcome in outcomes_of(outbox).items() if outcome != "successful"}
        assert failed == {email_of(77)}


def test_batches_are_not_split_in_an_outage(path: Path, iterable: IterableSandbox) -> None:
    iterable.set_faults([{"fault": "status", "status": 503, "times": 60}])
    with outbox_with(path, rows(*range(200))) as outbox:
        deliver(
            outbox,
            iterable.url,
            batch_size=10,
            outage_patience_seconds=5_000,
        )
        assert set(outcomes_of(outbox).values()) == {"successful"}
    sizes = {
        len(call.body["users"]) for call in iterable.calls if call.body and "users" in call.body
    }
    assert sizes == {10}


def test_a_dead_endpoint_does_not_split_every_batch_to_the_bone(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults([{"fault": "status", "status": 503, "endpoint": USERS_BULK_UPDATE}])
    said = NOT_ANSWERED.format(USERS_BULK_UPDATE)
    with (
        outbox_with(path, rows(*range(5_000))) as outbox,
        pytest.raises(RunAborted, match=said),
    ):
        deliver(outbox, iterable.url, batch_size=1_000)
    assert Counter(endpoints_of(iterable.calls))[USERS_BULK_UPDATE] < 300


# A stop


@MODES
def test_a_stop_during_an_outage_ends_the_run_and_no_row_counts_as_failed(
    path: Path, iterable: IterableSandbox, batch_size: int | None
) -> None:
    iterable.set_faults([{"fault": "status", "status": 503}])
    stop = HurriedTime()
    stop_once(stop, lambda: len(iterable.calls) >= 8)
    with outbox_with(path, rows(*range(1, 51))) as outbox:
        deliver(outbox, iterable.url, batch_size=batch_size, stop=stop, outage_patience_seconds=1e6)
        assert set(outcomes_of(outbox).values()) == {"not_attempted"}


def stop_once(stop: HurriedTime, holds: Callable[[], object]) -> None:
    def watch() -> None:
        wait_until(holds)
        stop.set()

    threading.Thread(target=watch, daemon=True).start()


# A proxy or firewall


def test_a_firewall_that_begins_to_block_everything_ends_the_run(
    path: Path, iterable: IterableSandbox
) -> None:
    page = {"fault": "html_body", "status": 403, "applied": False}
    iterable.set_faults([{**page, "email": email_of(number)} for number in range(2, 101)])
    with outbox_with(path, rows(*range(1, 101))) as outbox:
        said = rf"{NOT_ANSWERED.format('.*')} \(the last: a page of a proxy or firewall, HTTP 403\)"
        with pytest.raises(RunAborted, match=said):
            deliver(outbox, iterable.url, to_sender=FewAtOnce)
        assert Counter(outcomes_of(outbox).values())["not_attempted"] >= 10


@MODES
def test_a_firewall_that_blocks_everything_for_a_while_ends_no_run(
    path: Path, iterable: IterableSandbox, batch_size: int | None
) -> None:
    page = {"fault": "html_body", "status": 403, "applied": False}
    iterable.set_faults([{**page, "endpoint": USERS_UPDATE, "nth": list(range(10, 40))}])
    with outbox_with(path, rows(*range(1, 101))) as outbox:
        deliver(outbox, iterable.url, batch_size=batch_size)
        counts = Counter(outcomes_of(outbox).values())
        assert counts["successful"] >= 70


# 429s


@MODES
def test_an_endpoint_that_answers_nothing_but_429_ends_the_run(
    path: Path, iterable: IterableSandbox, batch_size: int | None
) -> None:
    endpoint = endpoint_in(batch_size)
    iterable.set_faults([{"fault": "rate_limited", "endpoint": endpoint}])
    said = f"every request to {endpoint} with HTTP 429"
    with outbox_with(path, rows(*range(1, 4))) as outbox, pytest.raises(RunAborted, match=said):
        deliver(outbox, iterable.url, batch_size=batch_size)


def test_one_request_that_meets_only_429s_for_five_minutes_fails_alone(
    path: Path, iterable: IterableSandbox
) -> None:
    iterable.set_faults(
        [{"fault": "rate_limited", "email": email_of(1), "endpoint": USERS_UPDATE, "reset": 60}]
    )
    with outbox_with(path, rows(*range(1, 101))) as outbox:
        rates = {USERS_UPDATE: 0.5}  # the others take as long
        deliver(outbox, iterable.url, requests_per_second=rates, outage_patience_seconds=310)
        assert Counter(outcomes_of(outbox).values()) == {"successful": 99, "partial_failure": 1}


# The log


@MODES
def test_an_outage_is_three_lines_on_the_console_and_not_one_for_each_attempt(
    path: Path,
    iterable: IterableSandbox,
    caplog: pytest.LogCaptureFixture,
    batch_size: int | None,
) -> None:
    caplog.set_level(logging.DEBUG)
    iterable.set_faults([{"fault": "status", "status": 503, "times": 12}])
    with outbox_with(path, rows(*range(1, 101))) as outbox:
        deliver(outbox, iterable.url, batch_size=batch_size)
    count_of_get_fields = sum(
        call.endpoint == USERS_GET_FIELDS and call.status == 503 for call in iterable.calls
    )
    lines = [r for r in caplog.records if r.levelno >= logging.WARNING]
    are_attempts = ["5xx Server Error" in record.getMessage() for record in lines]
    assert are_attempts[:5] == [*4 * [True], False]  # of the first request, then it opens
    assert lines[4].getMessage().startswith("Iterable does not answer")
    opened_for = [are for are in are_attempts[4:] if not are]
    assert len(opened_for) in (3, 4)  # it opens, one or two minutes, it closes
    in_the_file = [r for r in caplog.records if "waits until Iterable answers" in r.getMessage()]
    assert {r.levelname for r in in_the_file} == {"DEBUG"}
    assert len(in_the_file) + are_attempts.count(True) + count_of_get_fields == 12
