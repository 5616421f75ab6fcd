"""Calls of the client while Iterable does not answer: what they wait for, and their result."""

from __future__ import annotations

from typing import Any

import pytest

from iterable_api.responses import USERS_BULK_UPDATE, USERS_GET_FIELDS, USERS_UPDATE
from records.outcomes import Verdict
from sandbox.iterable_api import IterableSandbox
from tests.support.drains import endpoints_of
from tests.support.rows import unwaiting_client

USER = b'{"email":"user1@example.com"}'
DOWN: dict[str, Any] = {"fault": "status", "status": 503}
PAGE: dict[str, Any] = {"fault": "html_body", "status": 403, "applied": False}


def test_a_request_waits_until_the_outage_is_over(iterable: IterableSandbox) -> None:
    iterable.set_faults([{**DOWN, "times": 12}])
    client, stop = unwaiting_client(iterable.url, outage_patience_seconds=300)
    began_at = stop.clock.now_seconds
    result = client.call(USERS_UPDATE, USER)
    assert result.delivered
    assert result.attempts > 8
    assert stop.clock.now_seconds - began_at > 5 + 10 + 20
    assert not client.breakers.is_open(USERS_UPDATE)


def test_a_request_that_alone_is_not_answered_has_all_attempts_twice(
    iterable: IterableSandbox,
) -> None:
    """Before the breaker opens, then one while it is open, then after getFields was answered."""
    iterable.set_faults([{**DOWN, "endpoint": USERS_UPDATE}])
    client, _stop = unwaiting_client(iterable.url, outage_patience_seconds=300)
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.attempts) == (Verdict.UNAVAILABLE, 5 + 1 + 5)
    assert result.has_verdict
    assert endpoints_of(iterable.calls).count(USERS_GET_FIELDS) == 1


def test_without_patience_a_request_fails_after_its_attempts(iterable: IterableSandbox) -> None:
    iterable.set_faults([DOWN])
    client, _stop = unwaiting_client(iterable.url)
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.attempts) == (Verdict.UNAVAILABLE, 5)
    assert result.has_verdict


def test_a_suspect_fails_after_its_attempts(iterable: IterableSandbox) -> None:
    iterable.set_faults([DOWN])
    client, _stop = unwaiting_client(iterable.url, outage_patience_seconds=300)
    result = client.bulk_update_users([USER], max_attempts=2, is_suspect=True)
    assert (result.verdict, result.attempts) == (Verdict.UNAVAILABLE, 2)
    assert not client.breakers.is_open(USERS_BULK_UPDATE)


def test_a_stop_in_an_outage_leaves_the_request_without_a_verdict(
    iterable: IterableSandbox,
) -> None:
    iterable.set_faults([DOWN])
    client, stop = unwaiting_client(iterable.url, outage_patience_seconds=300)

    def before_attempt(number: int) -> bool:
        if number == 7:
            stop.set()
        return True

    result = client.call(USERS_UPDATE, USER, before_attempt=before_attempt)
    assert (result.verdict, result.attempts) == (Verdict.UNAVAILABLE, 7)
    assert not result.has_verdict


def test_a_request_under_way_when_the_outage_began_was_a_failure(
    iterable: IterableSandbox,
) -> None:
    """Its attempt counts, because another one was still answered; then it waits for the end."""
    iterable.set_faults([DOWN])
    client, stop = unwaiting_client(iterable.url, outage_patience_seconds=300)

    def before_attempt(_number: int) -> bool:
        stop.clock.now_seconds += 1
        client.breakers.note_fields()
        client.breakers.open(USERS_UPDATE, "HTTP 503")
        stop.set()
        return True

    result = client.call(USERS_UPDATE, USER, before_attempt=before_attempt)
    assert result.attempts == 1
    assert not result.has_verdict


@pytest.mark.parametrize("patience_seconds", [None, 1_000])
def test_a_request_that_meets_only_429s_fails_after_five_minutes(
    iterable: IterableSandbox, patience_seconds: float | None
) -> None:
    iterable.set_faults([{"fault": "rate_limited", "reset": 50}])
    client, _stop = unwaiting_client(iterable.url, outage_patience_seconds=patience_seconds)
    result = client.call(USERS_UPDATE, USER)
    assert (result.verdict, result.http_status) == (Verdict.UNAVAILABLE, 429)
    assert result.has_verdict
    assert client.breakers.watch() is None


def test_a_request_that_meets_only_429s_after_an_outage_had_no_verdict(
    iterable: IterableSandbox,
) -> None:
    """A run that went on would have called its row `not_attempted`."""
    iterable.set_faults([{**DOWN, "times": 2}, {"fault": "rate_limited", "reset": 50}])
    client, _stop = unwaiting_client(iterable.url, outage_patience_seconds=1_000)
    client.breakers.open(USERS_BULK_UPDATE, "HTTP 503")
    result = client.bulk_update_users([USER], is_suspect=True)
    assert (result.verdict, result.http_status) == (Verdict.UNAVAILABLE, 429)
    assert result.has_verdict


def test_a_stop_during_an_attempt_asks_for_nothing_more(iterable: IterableSandbox) -> None:
    iterable.set_faults([{**DOWN, "endpoint": USERS_UPDATE}])
    client, stop = unwaiting_client(iterable.url, outage_patience_seconds=300)
    client.breakers.open(USERS_UPDATE, "HTTP 503")
    result = client.call(USERS_UPDATE, USER, after_failure=stop.set)
    assert not result.has_verdict
    assert endpoints_of(iterable.calls) == [USERS_UPDATE]


def test_the_five_minutes_of_429s_begin_anew_after_another_response(
    iterable: IterableSandbox,
) -> None:
    iterable.set_faults(
        [
            {"fault": "rate_limited", "reset": 50, "nth": [1, 2, 3, 4, 6, 7, 8, 9]},
            {**DOWN, "nth": [5]},
        ]
    )
    client, _stop = unwaiting_client(iterable.url)
    result = client.call(USERS_UPDATE, USER)
    assert result.delivered
    assert result.elapsed_seconds > 350


def test_a_429_after_thousands_of_attempts_in_an_outage_was_a_number_too_large(
    iterable: IterableSandbox,
) -> None:
    iterable.set_faults(
        [{**DOWN, "times": 1_500}, {"fault": "rate_limited", "reset": None, "times": 1}]
    )
    client, _stop = unwaiting_client(iterable.url, outage_patience_seconds=86_400)
    assert client.call(USERS_UPDATE, USER).delivered


def test_blocked_requests_are_rejected_until_twenty_in_a_row_then_they_wait(
    iterable: IterableSandbox,
) -> None:
    client, _stop = unwaiting_client(iterable.url, outage_patience_seconds=300)
    assert client.call(USERS_UPDATE, USER).delivered
    iterable.set_faults([{**PAGE, "times": 25}])
    verdicts = [client.call(USERS_UPDATE, USER).verdict for _ in range(20)]
    assert verdicts == [*19 * [Verdict.REJECTED], Verdict.DELIVERED]


def test_a_blocked_batch_does_not_open_the_breaker(iterable: IterableSandbox) -> None:
    client, _stop = unwaiting_client(iterable.url, outage_patience_seconds=300)
    assert client.bulk_update_users([USER]).delivered
    iterable.set_faults([PAGE])
    verdicts = {client.bulk_update_users([USER, USER]).verdict for _ in range(30)}
    assert verdicts == {Verdict.REJECTED}
