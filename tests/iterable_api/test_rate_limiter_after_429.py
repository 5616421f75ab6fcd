"""Rate limiter after a 429: the rate drops for all threads, then recovers step by step."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.rate_limited_calls import (
    Server,
    calls,
    gaps_of,
    late_wait,
    limiter_and_time,
    most_in_a_second,
    next_start,
    starts_within,
)

# The rate


def test_a_lone_429_lowers_the_rate_a_little_and_five_seconds_later_it_is_back() -> None:
    limiter, time = limiter_and_time(100)
    limiter.slow_down()
    rates = []
    for _ in range(6):
        next_start(limiter, time)
        rates.append(limiter.rate)
        time.now += 1.0
    assert rates[0] == pytest.approx(97)
    assert rates == sorted(rates)
    assert rates[5] == 100


def test_429s_of_calls_that_were_in_flight_lower_the_rate_once() -> None:
    limiter, time = limiter_and_time(100)
    time.now = 1.0
    for hundredths in range(100):
        time.now = 1.0 + hundredths / 100
        limiter.slow_down(started_at=hundredths / 100)
    assert limiter.rate == pytest.approx(97)


def test_429s_of_calls_that_started_since_are_a_large_step() -> None:
    limiter, time = limiter_and_time(20)
    limiter.slow_down(started_at=time.now)
    time.now = 0.3
    limiter.slow_down(started_at=0.1)
    assert limiter.rate == pytest.approx(14, rel=0.05)
    time.now = 0.6
    limiter.slow_down(started_at=0.2)  # in flight
    assert limiter.rate == pytest.approx(14, rel=0.05)
    limiter.slow_down(started_at=0.4)
    assert limiter.rate == pytest.approx(9.8, rel=0.05)


def test_without_a_start_a_429_counts_as_one_of_a_call_that_took_a_second() -> None:
    limiter, time = limiter_and_time(20)
    limiter.slow_down()
    time.now = 0.9
    limiter.slow_down()
    assert limiter.rate == pytest.approx(19.4)
    time.now = 1.1
    limiter.slow_down()
    assert limiter.rate == pytest.approx(14, rel=0.05)


def test_the_429s_of_one_stall_are_one_small_step() -> None:
    """One of them was a large step, and the rate was back after eight seconds."""
    limiter, time = limiter_and_time(500)
    limiter.slow_down(started_at=0.0)
    for number in range(28):
        time.now = 0.4 + number / 500
        limiter.slow_down(started_at=-0.1 if number % 2 else 0.1)
    assert limiter.rate > 0.97 * 500 - 1
    limiter.slow_down(started_at=0.2)  # the fifteenth of those that started since
    assert limiter.rate < 0.75 * 500


def test_two_lone_429s_are_two_small_steps() -> None:
    limiter, time = limiter_and_time(100)
    for _ in range(2):
        time.now += 3.0
        limiter.slow_down(started_at=time.now - 0.3)
    assert limiter.rate > 96


def test_the_rate_after_large_steps_is_back_in_seconds_not_minutes() -> None:
    limiter, time = limiter_and_time(20)
    for _ in range(3):
        time.now += 0.5
        limiter.slow_down(started_at=time.now)
    assert limiter.rate < 11
    lowered_at = time.now
    while limiter.rate < 20:
        time.now += 0.1
        next_start(limiter, time)
    assert 10 < time.now - lowered_at < 20


# A server that counts exactly


@pytest.mark.parametrize("latency_seconds", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_where_another_program_uses_the_limit_too_nearly_all_calls_get_through(
    share: float, latency_seconds: float
) -> None:
    limiter, time = limiter_and_time(500)
    server = Server(lambda _now: int(share * 500), latency_seconds=latency_seconds)
    server.serve(limiter, time, 60.0)
    assert len(server.accepted) > 0.85 * share * 500 * 60
    later = [moment for moment in server.refused if moment >= 20.0]
    assert len(later) < 0.02 * share * 500 * 40


def test_a_slow_endpoint_also_finds_the_rate_that_is_left() -> None:
    limiter, time = limiter_and_time(10)
    server = Server(lambda _now: 5)
    server.serve(limiter, time, 120.0)
    assert len(server.accepted) > 0.85 * 5 * 120


def test_the_full_rate_is_back_soon_after_another_program_has_ended() -> None:
    limiter, time = limiter_and_time(500)
    server = Server(lambda now: 250 if now < 30.0 else 500)
    server.serve(limiter, time, 60.0)
    assert limiter.rate == limiter.full_rate
    back_at = next(now for now, rate in server.rates if now > 30.0 and rate == 500)
    assert back_at < 50.0
    assert not [moment for moment in server.refused if moment > 30.5]


def test_a_server_that_counts_exactly_has_no_reason_for_a_429() -> None:
    limiter, time = limiter_and_time(500)
    server = Server(lambda _now: 500)
    server.serve(limiter, time, 20.0)
    assert not server.refused
    assert len(server.accepted) > 0.98 * 500 * 20


def test_a_lone_429_costs_few_calls_though_iterable_names_a_wait_of_a_second() -> None:
    """All calls paused for that second: 500 calls."""
    limiter, time = limiter_and_time(500)
    server = Server(lambda _now: 500)
    server.serve(limiter, time, 3.0)
    limiter.slow_down(1.0, started_at=time.now - 0.3)
    server.serve(limiter, time, 10.0)
    assert len(server.accepted) > 0.95 * 500 * 13


# The bounds


def test_the_rate_never_falls_below_a_hundredth_of_the_limit() -> None:
    limiter, time = limiter_and_time(500)
    for _ in range(200):
        for _call in range(20):
            limiter.slow_down()
        time.now += 1.0
    assert limiter.rate == pytest.approx(5)
    assert len(starts_within(limiter, time, 2.0)) >= 9


def test_no_permit_is_given_during_the_pause_that_a_429_requests() -> None:
    limiter, time = limiter_and_time(100)
    assert next_start(limiter, time) == 0.0
    limiter.slow_down(7.0)
    assert next_start(limiter, time) == pytest.approx(7.0)


@pytest.mark.parametrize(("pause_seconds", "ends_at"), [(1.0, 7.0), (3.0, 7.0), (9.0, 11.0)])
def test_of_two_pauses_the_one_that_ends_later_counts(pause_seconds: float, ends_at: float) -> None:
    limiter, time = limiter_and_time(100)
    limiter.slow_down(7.0)
    time.now += 2.0
    limiter.slow_down(pause_seconds)
    assert next_start(limiter, time) == pytest.approx(ends_at)


def test_a_pause_is_capped_at_a_minute() -> None:
    limiter, time = limiter_and_time(100)
    limiter.slow_down(36_000.0)
    assert next_start(limiter, time) == pytest.approx(60.0)


def test_a_pause_also_applies_to_threads_that_already_wait() -> None:
    limiter, time = limiter_and_time(20)
    starts: list[float] = []

    def respond_with_429() -> None:
        time.wait(0.25)
        limiter.slow_down(5.0)

    time.run(respond_with_429, *(calls(limiter, time, starts, [0.0]) for _ in range(20)))
    assert len(starts) == 20
    assert len([moment for moment in starts if moment < 0.25]) == 5
    assert not [moment for moment in starts if 0.25 <= moment < 5.25]


def test_calls_that_waited_for_the_end_of_a_pause_started_all_at_once() -> None:
    """Each booked the end of the pause itself, as many as the limit of a second."""
    limiter, time = limiter_and_time(50)
    starts: list[float] = []
    limiter.slow_down(10.0)
    time.run(*(calls(limiter, time, starts, [0.0]) for _ in range(40)))
    assert min(starts) == pytest.approx(10.0)
    assert min(gaps_of(starts)) > 0.9 / 50


def test_the_rate_does_not_change_during_a_pause() -> None:
    limiter, time = limiter_and_time(100)
    limiter.slow_down(30.0)
    for _ in range(6):
        assert not limiter.acquire(lambda _seconds: True)
        assert limiter.rate == pytest.approx(97)
        time.now += 5.0


def test_a_short_wait_pauses_the_endpoint_only_when_429s_go_on() -> None:
    limiter, time = limiter_and_time(20)
    limiter.slow_down(2.0, started_at=time.now)
    assert next_start(limiter, time) == 0.0
    time.now = 0.3
    limiter.slow_down(2.0, started_at=0.1)
    assert next_start(limiter, time) == pytest.approx(2.3)


def test_a_429_during_a_pause_slows_the_threads_that_wait_for_its_end() -> None:
    limiter, time = limiter_and_time(10)
    starts: list[float] = []

    def respond_with_429s() -> None:
        limiter.slow_down(started_at=time.now)
        time.wait(0.5)
        limiter.slow_down(10.0, started_at=time.now)
        time.wait(0.5)
        limiter.slow_down(12.0, started_at=0.4)

    time.run(respond_with_429s, *(calls(limiter, time, starts, [0.0]) for _ in range(20)))
    after = [moment for moment in starts if moment > 0.5]
    assert min(after) == pytest.approx(13.0)
    assert min(gaps_of(after)) > 1 / 9


def test_permits_booked_before_a_429_are_given_back() -> None:
    limiter, time = limiter_and_time(10)
    starts: list[float] = []

    def respond_with_429() -> None:
        time.wait(0.25)
        limiter.slow_down()

    time.run(respond_with_429, *(calls(limiter, time, starts, [0.0]) for _ in range(20)))
    assert len(starts) == 20
    assert starts[-1] < 2.3  # three until the 429, the others at nearly ten a second


def test_calls_of_the_second_before_a_429_count_towards_the_lower_rate() -> None:
    limiter, time = limiter_and_time(5)
    for number in range(5):
        time.now = 0.21 * number
        assert next_start(limiter, time) == time.now
    limiter.slow_down()
    assert next_start(limiter, time) == pytest.approx(5 / 4.85 + 0.015)


def test_idle_time_before_a_429_is_not_caught_up() -> None:
    limiter, time = limiter_and_time(100)
    assert next_start(limiter, time) == 0.0
    time.now += 5.0
    limiter.slow_down()
    starts = starts_within(limiter, time, 1.0)
    assert starts[0] == 5.0
    assert min(gaps_of(starts)) > 0.01


def test_the_rate_after_a_pause_is_as_low_as_before_it() -> None:
    limiter, time = limiter_and_time(20)
    limiter.slow_down(30.0, started_at=time.now)
    time.now += 30.0
    limiter.slow_down(30.0, started_at=time.now)
    time.now += 30.0
    starts = starts_within(limiter, time, 1.0)
    assert 13 <= len(starts) <= 15


CALLS = st.lists(st.sampled_from([0.0, 0.05, 0.3, 2.0]), min_size=1, max_size=12)
REPLIES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.7, 3.0]), st.sampled_from([0.0, 0.2, 2.0, 3.0])),
    max_size=5,
)
LATENESS = st.lists(st.sampled_from([0.0, 0.01, 0.05, 0.3, 1.5]), min_size=1, max_size=10)


@settings(deadline=None, max_examples=100)
@given(
    rate=st.sampled_from([1, 2, 5, 10, 40, 7.5, 0.5]),
    threads=st.lists(CALLS, max_size=10),
    replies=REPLIES,
    late_seconds=LATENESS,
)
@example(
    rate=5, threads=[[0.0] * 4] * 10, replies=[(0.7, 0.0), (0.3, 0.0)], late_seconds=[0.0, 0.3]
)
@example(rate=7.5, threads=[[0.0] * 5] * 6, replies=[], late_seconds=[0.0])
@example(rate=40, threads=[[0.0] * 9] * 9, replies=[(0.1, 3.0)], late_seconds=[0.0, 0.3, 0.01])
def test_no_second_has_more_calls_than_the_limit_whatever_429s_and_late_wake_ups_come(
    rate: float,
    threads: list[list[float]],
    replies: list[tuple[float, float]],
    late_seconds: list[float],
) -> None:
    limiter, time = limiter_and_time(rate)
    starts: list[float] = []
    wait = late_wait(time, late_seconds)

    def limit() -> None:
        for after_seconds, pause_seconds in replies:
            time.wait(after_seconds)
            limiter.slow_down(pause_seconds, started_at=time.now - 0.05)

    time.run(limit, *(calls(limiter, time, starts, seconds, wait) for seconds in threads))
    assert len(starts) == sum(map(len, threads))
    assert most_in_a_second(starts) <= ceil(rate)
