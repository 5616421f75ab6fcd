"""Retries of the client in virtual time: when, after which wait, and when it gives up."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest

from iterable_api.responses import EVENTS_TRACK, EVENTS_TRACK_BULK, USERS_BULK_UPDATE, USERS_UPDATE
from iterable_client import IterableClient
from records.outcomes import CallResult, Verdict
from sandbox.iterable_api import IterableSandbox
from tests.support.rows import API_KEY, unwaiting_client

USER = b'{"email":"user1@example.com"}'
EVENT = b'{"email":"user1@example.com","eventName":"page_view"}'
ENOUGH = {USERS_UPDATE: 1e9}  # no call waits for a permit
RATE_LIMITED: dict[str, Any] = {"fault": "rate_limited", "reset": None}


@pytest.mark.parametrize("max_attempts", [1, 2, 5])
def test_a_call_is_attempted_max_attempts_times_with_a_wait_between_attempts(
    iterable: IterableSandbox, max_attempts: int
) -> None:
    iterable.set_faults([{"fault": "status", "status": 503}])
    client, stop = unwaiting_client(
        iterable.url, max_attempts=max_attempts, requests_per_second=ENOUGH
    )
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.attempts) == (Verdict.UNAVAILABLE, max_attempts)
    assert len(iterable.calls) == max_attempts
    assert len(stop.waits_seconds) == max_attempts - 1
    limits = [0.5 * 2**number for number in range(max_attempts - 1)]
    assert all(w <= limit for w, limit in zip(stop.waits_seconds, limits, strict=True))


def test_a_call_is_attempted_five_times_by_default(iterable: IterableSandbox) -> None:
    iterable.set_faults([{"fault": "status", "status": 503}])
    client, _stop = unwaiting_client(iterable.url)
    assert client.call(USERS_UPDATE, USER).attempts == 5


def test_waits_differ_from_call_to_call(iterable: IterableSandbox) -> None:
    iterable.set_faults([{"fault": "status", "status": 503}])
    client, stop = unwaiting_client(iterable.url, max_attempts=2, requests_per_second=ENOUGH)
    for _ in range(5):
        client.call(USERS_UPDATE, USER)
    assert len(set(stop.waits_seconds)) == 5


@pytest.mark.parametrize("status", [408, 425, 500, 503])
@pytest.mark.parametrize(("named", "least_seconds"), [(7, 7.0), (59.5, 59.5), (86_400, 60.0)])
def test_a_requested_wait_is_a_minimum_up_to_a_minute(
    iterable: IterableSandbox, status: int, named: float, least_seconds: float
) -> None:
    fault = {"fault": "status", "status": status, "retry_after": named, "times": 1}
    iterable.set_faults([fault])
    client, stop = unwaiting_client(iterable.url)
    assert client.call(USERS_UPDATE, USER).delivered
    assert stop.waits_seconds == [least_seconds]


def test_a_wait_may_be_requested_as_a_date(iterable: IterableSandbox) -> None:
    then = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    fault = {"fault": "status", "status": 503, "retry_after": then, "times": 1}
    iterable.set_faults([fault])
    client, stop = unwaiting_client(iterable.url)
    assert client.call(USERS_UPDATE, USER).delivered
    (waited_seconds,) = stop.waits_seconds
    assert 25 < waited_seconds <= 30


@pytest.mark.parametrize("nonsense", ["soon", "-5", "nan", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_an_invalid_requested_wait_is_ignored(iterable: IterableSandbox, nonsense: str) -> None:
    fault = {"fault": "status", "status": 503, "retry_after": nonsense, "times": 1}
    iterable.set_faults([fault])
    client, stop = unwaiting_client(iterable.url)
    assert client.call(USERS_UPDATE, USER).delivered
    assert stop.waits_seconds[0] <= 0.5


# 429


@pytest.mark.parametrize(
    ("hints", "least_seconds"),
    [
        ({"reset": 3}, 3),
        ({"reset": None, "retry_after": 4}, 4),
        ({"reset": 3, "retry_after": 4}, 4),
        ({"reset": 900}, 60),
        ({"reset": None, "retry_after": 86_400}, 60),
    ],
)
def test_the_wait_that_a_429_requests_is_kept_up_to_a_minute(
    iterable: IterableSandbox, hints: dict[str, Any], least_seconds: float
) -> None:
    iterable.set_faults([{"fault": "rate_limited", **hints, "times": 1}])
    client, stop = unwaiting_client(iterable.url)
    began_at = stop.clock.now_seconds
    assert client.call(USERS_UPDATE, USER).delivered
    assert least_seconds <= stop.clock.now_seconds - began_at < least_seconds + 1


def test_a_429_that_requests_no_wait_is_retried_after_a_wait(iterable: IterableSandbox) -> None:
    iterable.set_faults([{**RATE_LIMITED, "times": 1}])
    client, stop = unwaiting_client(iterable.url)
    assert client.call(USERS_UPDATE, USER).delivered
    assert len(stop.waits_seconds) >= 1


@pytest.mark.parametrize(("named", "pause_seconds"), [(30, 30.0), (None, 0.0)])
def test_the_wait_that_a_429_requests_applies_to_the_whole_endpoint(
    iterable: IterableSandbox, named: int | None, pause_seconds: float
) -> None:
    iterable.set_faults([{"fault": "rate_limited", "reset": named, "nth": [2]}])
    client, stop = unwaiting_client(iterable.url)
    assert client.call(USERS_UPDATE, USER).delivered
    stop.clock.now_seconds += 5
    stop.set()  # the next call does not wait itself
    assert client.call(USERS_UPDATE, USER).http_status == 429
    users, events = client.rate_limiters[USERS_UPDATE], client.rate_limiters[EVENTS_TRACK]
    began_at = stop.clock.now_seconds
    assert events.acquire(stop.clock.pass_by)
    assert stop.clock.now_seconds == began_at
    assert users.acquire(stop.clock.pass_by)
    assert stop.clock.now_seconds == began_at + pause_seconds


def test_429s_do_not_count_towards_max_attempts(iterable: IterableSandbox) -> None:
    iterable.set_faults(
        [
            {**RATE_LIMITED, "nth": [1, 2, 4, 5, 6, 7]},
            {"fault": "status", "status": 500, "nth": [3]},
        ]
    )
    client, _stop = unwaiting_client(iterable.url, max_attempts=2)
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.attempts) == (Verdict.DELIVERED, 8)
    assert client.retry_count == 7


def test_other_failures_between_429s_count_towards_max_attempts(iterable: IterableSandbox) -> None:
    iterable.set_faults([{**RATE_LIMITED, "every": 2}, {"fault": "status", "status": 500}])
    client, _stop = unwaiting_client(iterable.url, max_attempts=3)
    result = client.call(USERS_UPDATE, USER)
    assert (result.http_status, result.attempts) == (500, 5)


@pytest.mark.parametrize("hints", [{"reset": 1}, {"reset": 20}, {"reset": None}])
def test_a_call_is_given_up_after_five_minutes_of_429s(
    iterable: IterableSandbox, hints: dict[str, Any]
) -> None:
    iterable.set_faults([{"fault": "rate_limited", **hints}])
    client, stop = unwaiting_client(iterable.url)
    began_at = stop.clock.now_seconds
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.http_status) == (Verdict.UNAVAILABLE, 429)
    assert result.code == "RateLimitExceeded"
    assert 240 <= stop.clock.now_seconds - began_at <= 305


def test_a_call_is_retried_until_the_end_of_the_five_minutes_of_429s(
    iterable: IterableSandbox,
) -> None:
    iterable.set_faults([{"fault": "rate_limited", "reset": 60}])
    client, stop = unwaiting_client(iterable.url)
    result = client.call(USERS_UPDATE, USER)
    assert (result.attempts, result.elapsed_seconds) == (6, 300.0)
    assert stop.waits_seconds == [60.0] * 5


def test_a_429_after_a_long_wait_for_a_permit_is_retried(iterable: IterableSandbox) -> None:
    client, stop = unwaiting_client(iterable.url, requests_per_second={EVENTS_TRACK: 0.0025})
    assert client.call(EVENTS_TRACK, EVENT).delivered
    iterable.set_faults([{**RATE_LIMITED, "times": 1}])
    result = client.call(EVENTS_TRACK, EVENT)
    assert stop.waits_seconds[0] >= 400
    assert (result.verdict, result.attempts) == (Verdict.DELIVERED, 2)


def test_a_429_slows_its_endpoint_and_no_other(iterable: IterableSandbox) -> None:
    iterable.set_faults([{**RATE_LIMITED, "times": 1}])
    client, stop = unwaiting_client(iterable.url)
    client.call(USERS_UPDATE, USER)
    users, events = client.rate_limiters[USERS_UPDATE], client.rate_limiters[EVENTS_TRACK]
    assert users.rate < users.full_rate == 500
    assert events.rate == events.full_rate == 2000
    for _ in range(200):
        stop.clock.now_seconds += 2
        assert users.acquire(stop.clock.pass_by)
    assert users.rate == users.full_rate


# Rate limit


def test_retries_count_towards_the_rate_limit(iterable: IterableSandbox) -> None:
    arrivals: list[float] = []
    client, stop = unwaiting_client(
        iterable.url, requests_per_second={USERS_UPDATE: 4}, max_attempts=3
    )
    iterable.set_faults([{"fault": "status", "status": 500, "every": 3}])
    for _ in range(20):
        before = client.call_count
        client.call(USERS_UPDATE, USER)
        arrivals += [stop.clock.now_seconds] * (client.call_count - before)
    assert client.retry_count > 0
    assert all(late - early > 1 for early, late in zip(arrivals, arrivals[5:], strict=False))
    assert all(late >= early for early, late in pairwise(arrivals))


# Stop


def test_after_a_stop_nothing_is_sent(iterable: IterableSandbox) -> None:
    client, stop = unwaiting_client(iterable.url, requests_per_second={USERS_UPDATE: 0.1})
    client.call(USERS_UPDATE, USER)
    stop.set()
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.attempts) == (Verdict.UNAVAILABLE, 0)
    assert result.message == "stopped before it was sent"
    assert (client.call_count, client.retry_count) == (1, 0)
    assert len(iterable.calls) == 1


@pytest.mark.parametrize(
    ("fault", "rates"),
    [
        ({"fault": "status", "status": 503, "retry_after": 50}, {}),
        ({"fault": "rate_limited", "reset": 50}, {}),
        ({"fault": "delay", "seconds": 0}, {USERS_UPDATE: 0.02}),
    ],
    ids=["backoff", "429", "permit"],
)
def test_a_stop_ends_any_wait_at_once(
    iterable: IterableSandbox, fault: dict[str, Any], rates: dict[str, float]
) -> None:
    iterable.set_faults([fault])
    stop = threading.Event()
    client = IterableClient(API_KEY, iterable.url, stop=stop, requests_per_second=rates)
    if rates:
        client.call(USERS_UPDATE, USER)  # takes the only permit for 50 seconds
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    began_at = time.monotonic()
    result = client.call(USERS_UPDATE, USER)
    assert time.monotonic() - began_at < 20  # and not 50
    assert result.verdict is Verdict.UNAVAILABLE
    assert len(iterable.calls) == 1
    timer.join()


@pytest.mark.parametrize("endpoint", [USERS_BULK_UPDATE, EVENTS_TRACK_BULK])
def test_a_bulk_call_takes_a_permit(iterable: IterableSandbox, endpoint: str) -> None:
    client, stop = unwaiting_client(iterable.url, requests_per_second={endpoint: 0.01})

    def send() -> CallResult:
        if endpoint == USERS_BULK_UPDATE:
            return client.bulk_update_users([USER])
        return client.bulk_track_events([EVENT])

    assert send().delivered
    assert stop.waits_seconds == []
    assert send().delivered
    assert stop.waits_seconds == pytest.approx([100.015])


def test_every_retry_takes_a_permit_of_its_own(iterable: IterableSandbox) -> None:
    iterable.set_faults([{"fault": "status", "status": 500, "times": 1}])
    client, stop = unwaiting_client(iterable.url, requests_per_second={USERS_UPDATE: 0.001})
    assert client.call(USERS_UPDATE, USER).attempts == 2
    _backoff_seconds, permit_seconds = stop.waits_seconds
    assert permit_seconds > 900
