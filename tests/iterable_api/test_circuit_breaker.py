"""Circuit breaker with a clock of the test: when it opens and closes, who tries, what counts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator

import pytest

from iterable_api.circuit_breaker import Attempts, CircuitBreaker, CircuitBreakers
from iterable_api.responses import EVENTS_TRACK, USERS_UPDATE
from tests.support.rows import NoWaiting, PassingTime, wait_until

PATIENCE_SECONDS = 300


class Endpoint:
    """A breaker, its clock, and requests that fail."""

    def __init__(self, patience_seconds: float | None = PATIENCE_SECONDS) -> None:
        self.clock = PassingTime()
        self.stop = NoWaiting(self.clock)
        self.breaker = CircuitBreaker(USERS_UPDATE, patience_seconds, clock=self.clock)

    def request(self, most: int = 5, *, count_at_once: bool = False) -> Attempts:
        return self.breaker.attempts(most, count_at_once=count_at_once)

    def fail(self, attempts: Attempts, times: int = 1, *, is_answered: bool = False) -> None:
        for _ in range(times):
            began_at = self.clock()
            self.pass_by(0.1)
            self.breaker.note_unanswered(attempts, began_at, "HTTP 503", is_answered=is_answered)

    def probe(self, attempts: Attempts) -> float:
        """Try the request as soon as it may be; return how long it waited."""
        began_at = self.clock()
        assert self.breaker.admit(attempts, self.stop)
        waited_seconds = self.clock() - began_at
        self.breaker.note_unanswered(attempts, self.clock(), "HTTP 503")
        return waited_seconds

    def fail_in_a_row(self, count: int) -> None:
        for _ in range(count):
            self.fail(self.request())

    def answer(self) -> None:
        self.pass_by(0.1)
        self.breaker.note_answer()

    def pass_by(self, seconds: float) -> None:
        self.clock.now_seconds += seconds


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def opened(endpoint: Endpoint) -> Endpoint:
    endpoint.fail_in_a_row(20)
    assert endpoint.breaker.is_open
    return endpoint


# Opening


def test_it_opens_after_twenty_unanswered_attempts_in_a_row(endpoint: Endpoint) -> None:
    endpoint.fail_in_a_row(19)
    assert not endpoint.breaker.is_open
    endpoint.fail_in_a_row(1)
    assert endpoint.breaker.is_open


def test_an_answer_between_begins_the_count_anew(endpoint: Endpoint) -> None:
    endpoint.fail_in_a_row(19)
    endpoint.answer()
    endpoint.fail_in_a_row(19)
    assert not endpoint.breaker.is_open


def test_a_429_is_an_answer(endpoint: Endpoint) -> None:
    endpoint.fail_in_a_row(19)
    endpoint.breaker.note_answer(is_rate_limited=True)
    endpoint.fail_in_a_row(19)
    assert not endpoint.breaker.is_open


@pytest.mark.parametrize("most", [1, 2, 5])
def test_it_opens_when_a_request_has_made_all_its_attempts_and_nothing_was_answered(
    endpoint: Endpoint, most: int
) -> None:
    request = endpoint.request(most)
    endpoint.fail(request, most - 1)
    assert not endpoint.breaker.is_open
    endpoint.fail(request)
    assert endpoint.breaker.is_open
    assert not request.are_used_up


def test_it_does_not_open_when_something_was_answered_since_the_first_attempt(
    endpoint: Endpoint,
) -> None:
    request = endpoint.request()
    endpoint.fail(request)
    endpoint.answer()
    endpoint.fail(request, 4)
    assert not endpoint.breaker.is_open
    assert (request.counted, request.failed_count) == (1, 5)


def test_a_request_that_has_failed_does_not_open_it(endpoint: Endpoint) -> None:
    """Nobody waited then to try again, and the run ended after the patience."""
    request = endpoint.request(1)
    endpoint.fail(request)
    assert endpoint.breaker.is_open
    endpoint.answer()
    endpoint.fail(request)
    assert request.are_used_up
    assert not endpoint.breaker.is_open


def test_a_429_cannot_open_it(endpoint: Endpoint) -> None:
    for _ in range(100):
        endpoint.breaker.note_answer(is_rate_limited=True)
    assert not endpoint.breaker.is_open


def test_blocked_requests_open_it_after_twenty_in_a_row(endpoint: Endpoint) -> None:
    for _ in range(19):
        endpoint.breaker.note_blocked("HTTP 403")
    assert not endpoint.breaker.is_open
    endpoint.breaker.note_blocked("HTTP 403")
    assert endpoint.breaker.is_open


def test_without_patience_it_never_opens_and_every_attempt_counts() -> None:
    endpoint = Endpoint(None)
    endpoint.fail_in_a_row(50)
    request = endpoint.request()
    endpoint.fail(request, 5)
    endpoint.breaker.open("HTTP 503", 0.0)
    for _ in range(50):
        endpoint.breaker.note_blocked("HTTP 403")
    assert not endpoint.breaker.is_open
    assert request.are_used_up
    assert not request.met_outage


# What counts


def test_an_attempt_counts_once_something_was_answered_after_it_began(endpoint: Endpoint) -> None:
    request = endpoint.request()
    for _ in range(4):
        endpoint.fail(request)
        endpoint.answer()
    endpoint.fail(request)
    assert request.counted == 4
    assert not request.are_used_up
    endpoint.answer()
    endpoint.breaker.count(request)
    assert request.are_used_up


def test_an_answer_before_the_attempt_began_does_not_count_it(endpoint: Endpoint) -> None:
    endpoint.answer()
    request = endpoint.request()
    endpoint.fail(request)
    assert request.counted == 0
    assert request.met_outage


def test_an_attempt_counts_once_get_fields_was_answered(endpoint: Endpoint) -> None:
    request = endpoint.request()
    endpoint.fail(request, 2)
    endpoint.breaker.note_fields()
    endpoint.breaker.count(request)
    assert request.counted == 2


def test_an_attempt_that_the_api_itself_puts_off_counts_at_once(endpoint: Endpoint) -> None:
    request = endpoint.request(2)
    endpoint.fail(request, 2, is_answered=True)
    assert request.are_used_up
    assert not endpoint.breaker.is_open


def test_what_was_answered_before_an_outage_does_not_decide_a_request(endpoint: Endpoint) -> None:
    """The attempts under way when Iterable went down count, since some were still answered."""
    request = endpoint.request()
    endpoint.fail(request)
    endpoint.answer()
    endpoint.breaker.count(request)
    assert not request.met_outage
    endpoint.fail(request)
    assert (request.counted, request.met_outage) == (1, True)


def test_a_request_without_attempts_has_met_no_outage(endpoint: Endpoint) -> None:
    assert not endpoint.request().met_outage


# While open


def test_the_first_attempt_comes_after_five_seconds_then_the_waits_double_up_to_thirty(
    opened: Endpoint,
) -> None:
    request = opened.request()
    waits = [round(opened.probe(request), 3) for _ in range(6)]
    assert waits == [5, 10, 20, 30, 30, 30]


def test_attempts_while_open_do_not_use_up_a_request(opened: Endpoint) -> None:
    request = opened.request()
    for _ in range(50):
        opened.probe(request)
    assert not request.are_used_up
    assert request.met_outage


def in_turns(endpoint: Endpoint, count: int) -> Generator[Attempts, None, None]:
    """Yield the requests in the order in which they are tried, each in a thread of its own."""
    stop = threading.Event()
    tried: list[Attempts] = []
    go_on = threading.Semaphore(0)

    def work(request: Attempts) -> None:
        while endpoint.breaker.admit(request, stop):
            tried.append(request)
            go_on.acquire()
            endpoint.breaker.note_unanswered(request, endpoint.clock(), "HTTP 503")
            endpoint.breaker.end_probe(request)

    requests = [endpoint.request() for _ in range(count)]
    threads = [threading.Thread(target=work, args=(each,), daemon=True) for each in requests]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: len(endpoint.breaker._waiting) == count)
    seen = 0

    def has_tried() -> bool:
        endpoint.pass_by(30)
        return has_tried_another()

    def has_tried_another() -> bool:
        return len(tried) > seen

    try:
        while True:
            assert wait_until(has_tried)
            seen += 1
            assert not wait_until(has_tried_another, 0.02), "two at a time"
            yield tried[-1]
            go_on.release()
    finally:
        stop.set()
        go_on.release(1_000)
        for thread in threads:
            thread.join(30)


def test_one_at_a_time_tries_and_each_time_another_request(opened: Endpoint) -> None:
    turns = in_turns(opened, 3)
    tried = [next(turns) for _ in range(5)]
    turns.close()
    assert len(set(tried[:3])) == 3
    assert tried[3:] == tried[:2]


def thirty_waiting(
    opened: Endpoint, stop: threading.Event
) -> tuple[list[threading.Thread], list[bool]]:
    """Return threads with a waiting request each, and whether the finished ones were admitted."""
    admitted: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: admitted.append(opened.breaker.admit(opened.request(), stop))
        )
        for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: len(opened.breaker._waiting) == 30)
    return threads, admitted


def test_an_answer_closes_it_and_lets_all_waiting_requests_go_on(opened: Endpoint) -> None:
    stop = threading.Event()
    threads, admitted = thirty_waiting(opened, stop)
    assert admitted == []
    opened.answer()
    for thread in threads:
        thread.join(30)
    assert admitted == 30 * [True]
    assert not opened.breaker.is_open


def test_a_stop_ends_the_wait_of_all_requests(opened: Endpoint) -> None:
    stop = threading.Event()
    threads, admitted = thirty_waiting(opened, stop)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert admitted == 30 * [False]


def test_a_request_that_waits_for_its_permit_when_it_opens_is_held_back(
    opened: Endpoint,
) -> None:
    late, probe = opened.request(), opened.request()
    assert opened.breaker.holds_back(late)
    assert opened.breaker.admit(probe, opened.stop)
    assert not opened.breaker.holds_back(probe)
    assert opened.breaker.holds_back(late)
    opened.answer()
    assert not opened.breaker.holds_back(late)


def test_after_another_opening_the_waits_begin_with_five_seconds_again(opened: Endpoint) -> None:
    request = opened.request()
    for _ in range(3):
        opened.probe(request)
    opened.answer()
    opened.fail_in_a_row(20)
    assert opened.probe(request) == pytest.approx(5)


def test_it_lacks_a_probe_when_it_is_time_to_try_and_no_request_waits(opened: Endpoint) -> None:
    opened.pass_by(4)
    assert not opened.breaker.lacks_a_probe()
    opened.pass_by(1)
    assert opened.breaker.lacks_a_probe()
    assert opened.breaker.admit(opened.request(), opened.stop)
    assert not opened.breaker.lacks_a_probe()
    opened.answer()
    assert not opened.breaker.lacks_a_probe()


# The few requests that may be at fault themselves


def test_get_fields_is_asked_once_each_of_the_few_waiting_requests_was_tried(
    opened: Endpoint,
) -> None:
    first, second = opened.request(), opened.request()
    for request in (first, second):
        opened.breaker._waiting[request] = None
    opened.probe(first)
    assert not opened.breaker.asks_for_fields()
    opened.breaker.end_probe(first)
    opened.breaker._waiting[first] = None
    opened.probe(second)
    assert opened.breaker.asks_for_fields()


def test_get_fields_is_not_asked_where_more_than_twenty_requests_wait(opened: Endpoint) -> None:
    requests = [opened.request() for _ in range(21)]
    for request in requests:
        request.tried_in = opened.breaker.outage_count
        opened.breaker._waiting[request] = None
    assert not opened.breaker.asks_for_fields()
    opened.breaker.end_probe(requests[0])
    del opened.breaker._waiting[requests[0]]
    assert opened.breaker.asks_for_fields()


def test_suspects_have_all_attempts_once_more_and_then_fail(opened: Endpoint) -> None:
    request = opened.request()
    opened.fail(request, 3)
    opened.probe(request)
    opened.breaker.close_for_suspects()
    assert not opened.breaker.is_open
    opened.fail(request, 4)
    assert not request.are_used_up
    opened.fail(request)
    assert request.are_used_up
    assert not request.met_outage


def test_suspects_do_not_open_it_again_and_get_no_second_round(opened: Endpoint) -> None:
    suspects = [opened.request() for _ in range(10)]
    for request in suspects:
        opened.breaker._waiting[request] = None
    opened.breaker.close_for_suspects()
    for request in suspects:
        opened.fail(request, 4)
    assert not opened.breaker.is_open
    opened.fail_in_a_row(20)
    opened.breaker._waiting[suspects[0]] = None
    opened.breaker.close_for_suspects()
    assert suspects[0].counted == 4


def test_an_attempt_of_a_suspect_in_another_outage_does_not_count(opened: Endpoint) -> None:
    suspect = opened.request(count_at_once=True)
    opened.probe(suspect)
    assert suspect.counted == 0
    assert suspect.met_outage


# The run


def test_the_run_ends_after_the_patience(opened: Endpoint) -> None:
    opened.pass_by(299.5)
    assert opened.breaker.watch() is None
    opened.pass_by(0.5)
    assert opened.breaker.watch() == (
        "Iterable has not answered any request to users/update for 300 s (the last: HTTP 503). "
        "Run again later: the rest is sent then."
    )


def test_an_answer_to_get_fields_alone_does_not_renew_the_patience(opened: Endpoint) -> None:
    """Otherwise a run whose rows all fail would open and close it for hours."""
    opened.pass_by(200)
    opened.breaker.close_for_suspects()
    opened.pass_by(99)
    assert opened.breaker.watch() is None
    opened.fail_in_a_row(20)
    assert str(opened.breaker.watch()).startswith("Iterable has not answered any request to")


def test_an_answer_renews_the_patience(opened: Endpoint) -> None:
    opened.pass_by(299)
    opened.answer()
    opened.fail_in_a_row(20)
    opened.pass_by(299)
    assert opened.breaker.watch() is None


def test_a_breaker_that_is_closed_again_does_not_end_the_run(opened: Endpoint) -> None:
    opened.answer()
    opened.pass_by(10_000)
    assert opened.breaker.watch() is None


def test_one_line_tells_of_the_opening_one_a_minute_of_the_outage_and_one_of_the_end(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "iterable_api.circuit_breaker")
    endpoint.fail_in_a_row(40)
    for _ in range(150 * 4):
        endpoint.pass_by(0.25)
        assert endpoint.breaker.watch() is None
    endpoint.answer()
    endpoint.answer()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "Iterable does not answer users/update (the last attempt: HTTP 503). Its requests "
            "wait, and one at a time tries again, for up to 300 s.",
        ),
        (
            "WARNING",
            "Iterable has not answered users/update for 60 s (the last: HTTP 503). The run waits "
            "for up to 240 s more.",
        ),
        (
            "WARNING",
            "Iterable has not answered users/update for 120 s (the last: HTTP 503). The run waits "
            "for up to 180 s more.",
        ),
        ("WARNING", "Iterable answers users/update again after 152 s: the run goes on."),
    ]


def test_a_run_whose_endpoint_answers_only_429_ends_after_the_patience(
    endpoint: Endpoint,
) -> None:
    endpoint.breaker.note_answer(is_rate_limited=True)
    endpoint.pass_by(299)
    endpoint.breaker.note_answer(is_rate_limited=True)
    assert endpoint.breaker.watch() is None
    endpoint.pass_by(1)
    endpoint.breaker.note_answer(is_rate_limited=True)
    assert endpoint.breaker.watch() == (
        "Iterable has answered every request to users/update with HTTP 429 (rate limit exceeded) "
        "for 300 s. Run again later; if it recurs, find out which other programs use the limit of "
        "this project."
    )


def test_another_answer_between_429s_begins_their_time_anew(endpoint: Endpoint) -> None:
    endpoint.breaker.note_answer(is_rate_limited=True)
    endpoint.pass_by(299)
    endpoint.answer()
    endpoint.breaker.note_answer(is_rate_limited=True)
    endpoint.pass_by(299)
    endpoint.breaker.note_answer(is_rate_limited=True)
    assert endpoint.breaker.watch() is None


def test_a_long_time_without_requests_after_a_429_does_not_end_the_run(
    endpoint: Endpoint,
) -> None:
    endpoint.breaker.note_answer(is_rate_limited=True)
    endpoint.pass_by(10_000)
    assert endpoint.breaker.watch() is None


@pytest.mark.parametrize(("wait_seconds", "ends"), [(9, False), (10, True)])
def test_a_request_that_gives_up_on_429s_ends_the_run_if_its_next_attempt_came_too_late(
    endpoint: Endpoint, wait_seconds: float, ends: bool
) -> None:
    endpoint.breaker.note_answer(is_rate_limited=True)
    endpoint.pass_by(290)
    endpoint.breaker.note_answer(is_rate_limited=True)
    endpoint.breaker.note_rate_limit_over(wait_seconds)
    assert (endpoint.breaker.watch() is not None) == ends


# All endpoints


def test_the_endpoints_have_breakers_of_their_own() -> None:
    breakers = CircuitBreakers([USERS_UPDATE, EVENTS_TRACK], 300)
    assert not breakers.have_opened
    breakers.open(EVENTS_TRACK, "HTTP 503")
    assert breakers.is_open(EVENTS_TRACK)
    assert not breakers.is_open(USERS_UPDATE)
    assert breakers.have_opened
    breakers[EVENTS_TRACK].note_answer()
    assert not breakers.is_open(EVENTS_TRACK)
    assert breakers.have_opened


def test_the_answer_to_get_fields_counts_on_every_endpoint() -> None:
    clock = PassingTime()
    breakers = CircuitBreakers([USERS_UPDATE, EVENTS_TRACK], 300, clock=clock)
    for endpoint in (USERS_UPDATE, EVENTS_TRACK):
        request = breakers[endpoint].attempts(5)
        breakers[endpoint].note_unanswered(request, clock(), "HTTP 503")
        clock.now_seconds += 1
        breakers.note_fields()
        breakers[endpoint].count(request)
        assert request.counted == 1
