"""Rate limits of a delivery: never above a limit, close to it, and after 429s."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from iterable_api.responses import EVENTS_TRACK, USERS_UPDATE
from sandbox.iterable_api import IterableSandbox
from sync.per_user import PerUserSender
from tests.support.drains import FAST, busiest_second, drain, outbox_with
from tests.support.rows import email_of, outcomes_of, rows

# Calls start evenly spread, but some arrive a few milliseconds later than those after them, above
# all when client and sandbox share an interpreter and the machine is busy.
JITTER = 1.2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


@pytest.mark.slow
@pytest.mark.rate
def test_no_second_has_more_calls_than_the_limit_of_the_endpoint(
    path: Path, iterable: IterableSandbox
) -> None:
    with outbox_with(path, rows(*range(70))) as outbox:
        began_at = time.monotonic()
        drain(outbox, iterable.url, requests_per_second={USERS_UPDATE: 40, EVENTS_TRACK: 60})
        took_seconds = time.monotonic() - began_at
        assert set(outcomes_of(outbox).values()) == {"successful"}
    assert busiest_second(iterable, USERS_UPDATE) <= 40 * JITTER
    assert busiest_second(iterable, EVENTS_TRACK) <= 60 * JITTER
    assert took_seconds > 69 / 40 - 0.2  # a burst of a fifth of a second may come first


@pytest.mark.slow
@pytest.mark.rate
def test_the_limit_for_events_may_be_lower_than_for_users(
    path: Path, iterable: IterableSandbox
) -> None:
    with outbox_with(path, rows(*range(40))) as outbox:
        drain(outbox, iterable.url, requests_per_second={USERS_UPDATE: 200, EVENTS_TRACK: 30})
        assert set(outcomes_of(outbox).values()) == {"successful"}
    assert busiest_second(iterable, EVENTS_TRACK) <= 30 * JITTER
    assert busiest_second(iterable, USERS_UPDATE) > 30 * JITTER


@pytest.mark.slow
@pytest.mark.rate
def test_a_high_latency_does_not_lower_the_rate(path: Path) -> None:
    with (
        IterableSandbox(latency_seconds=0.3) as iterable,
        outbox_with(path, rows(*range(101))) as outbox,
    ):
        began_at = time.monotonic()
        drain(outbox, iterable.url, requests_per_second={USERS_UPDATE: 100, EVENTS_TRACK: 100})
        took_seconds = time.monotonic() - began_at
    # The first row alone, a second of starting the others, and the last row's two calls. One by
    # one they would take a minute.
    assert took_seconds < 20


def test_no_more_rows_are_in_flight_than_the_sender_allows(path: Path) -> None:
    class FewAtOnce(PerUserSender):
        max_in_flight = 3

    with (
        IterableSandbox(latency_seconds=0.02) as iterable,
        outbox_with(path, rows(*range(30))) as outbox,
    ):
        drain(outbox, iterable.url, to_sender=FewAtOnce, event_delay_seconds=0.05)
        endpoints = iterable.state()["endpoints"]
        in_flight = [endpoints[name]["max_in_flight"] for name in (USERS_UPDATE, EVENTS_TRACK)]
        assert 2 <= max(in_flight) <= 3
        assert set(outcomes_of(outbox).values()) == {"successful"}


@pytest.mark.slow
@pytest.mark.rate
def test_retries_count_towards_the_limit(path: Path, iterable: IterableSandbox) -> None:
    fails_once = {"fault": "status", "status": 500, "times": 1}
    iterable.set_faults(
        [
            {**fails_once, "email": email_of(number), "endpoint": endpoint}
            for number in range(20)
            for endpoint in (USERS_UPDATE, EVENTS_TRACK)
        ]
    )
    with outbox_with(path, rows(*range(40))) as outbox:
        client = drain(
            outbox,
            iterable.url,
            max_attempts=2,
            requests_per_second={USERS_UPDATE: 30, EVENTS_TRACK: 30},
        )
        assert set(outcomes_of(outbox).values()) == {"successful"}
    assert client.retry_count == 40
    assert busiest_second(iterable, USERS_UPDATE) <= 30 * JITTER
    assert busiest_second(iterable, EVENTS_TRACK) <= 30 * JITTER


@pytest.mark.slow
@pytest.mark.rate
def test_a_limit_that_another_program_shares_uses_up_no_attempt(path: Path) -> None:
    limits = {USERS_UPDATE: {"per_second": 20, "window": "sliding"}}
    with (
        IterableSandbox(limits=limits, latency_seconds=0.05) as iterable,
        outbox_with(path, rows(*range(100))) as outbox,
    ):
        drain(outbox, iterable.url, max_attempts=1, requests_per_second={USERS_UPDATE: 40})
        assert set(outcomes_of(outbox).values()) == {"successful"}
        assert iterable.state()["endpoints"][USERS_UPDATE]["rate_limited"] > 0


@pytest.mark.slow
@pytest.mark.rate
@pytest.mark.parametrize("hints", [{}, {"rate_limit_reset": False}, {"retry_after": True}])
def test_many_429s_lower_the_rate_and_lose_no_row(path: Path, hints: dict[str, Any]) -> None:
    limits = {USERS_UPDATE: 25.0, EVENTS_TRACK: 40.0}
    with (
        IterableSandbox(limits=limits, **hints) as iterable,
        outbox_with(path, rows(*range(100))) as outbox,
    ):
        client = drain(outbox, iterable.url, max_attempts=2, requests_per_second=FAST)
        assert set(outcomes_of(outbox).values()) == {"successful"}
        state = iterable.state()["endpoints"]
        assert state[USERS_UPDATE]["rate_limited"] > 0
        assert client.rate_limiters[USERS_UPDATE].rate < FAST[USERS_UPDATE]
        assert len(iterable.project.users) == len(iterable.project.events) == 100
        assert {user.applied_count for user in iterable.project.users.values()} == {1}


@pytest.mark.slow
@pytest.mark.rate
def test_a_run_within_iterables_limits_gets_no_429(path: Path) -> None:
    limits = {USERS_UPDATE: 50.0, EVENTS_TRACK: 50.0}
    with (
        IterableSandbox(limits=limits, latency_seconds=0.05, jitter_seconds=0.02) as iterable,
        outbox_with(path, rows(*range(200))) as outbox,
    ):
        drain(outbox, iterable.url, requests_per_second=limits)
        state = iterable.state()["endpoints"]
        assert state[USERS_UPDATE]["rate_limited"] == state[EVENTS_TRACK]["rate_limited"] == 0
        assert set(outcomes_of(outbox).values()) == {"successful"}
