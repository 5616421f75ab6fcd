"""Rate limiter after a 429: the rate drops for all threads, then recovers step by step."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.rate_limited_calls import (
    calls,
    gaps_of,
    limiter_and_time,
    most_in_a_second,
    starts_of_dispatcher,
)


def test_a_429_lowers_the_rate_by_a_fifth_and_it_recovers_step_by_step() -> None:
    limiter, time = limiter_and_time(100)
    limiter.slow_down()
    rates = []
    for _ in range(25):
        limiter.try_acquire()
        rates.append(limiter.rate)
        time.now += 2.0
    assert rates[:4] == pytest.approx([80, 81, 82, 83])
    assert rates[19:22] == pytest.approx([99, 100, 100])
    assert max(rates) == 100


def test_several_429s_within_a_second_lower_the_rate_once() -> None:
    limiter, time = limiter_and_time(100)
    for hundredths in range(100):
        time.now = hundredths / 100
        limiter.slow_down()
    assert limiter.rate == pytest.approx(80)
    time.now = 1.0
    limiter.slow_down()
    assert limiter.rate == pytest.approx(64)


def test_the_rate_never_falls_below_a_hundredth_of_the_limit() -> None:
    limiter, time = limiter_and_time(500)
    for _ in range(200):
        limiter.slow_down()
        time.now += 1.0
    assert limiter.rate == pytest.approx(5)
    assert len(starts_of_dispatcher(limiter, time, 2.0)) >= 9


def test_no_permit_is_given_during_the_pause_that_a_429_requests() -> None:
    limiter, time = limiter_and_time(100)
    assert limiter.try_acquire() == 0.0
    limiter.slow_down(7.0)
    assert limiter.try_acquire() == pytest.approx(7.0)
    time.now += 6.99
    assert 0 < limiter.try_acquire() < 0.02
    time.now += 0.02
    assert limiter.try_acquire() == 0.0


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    limiter, time = limiter_and_time(100)
    limiter.slow_down(7.0)
    time.now += 2.0
    limiter.slow_down(1.0)
    assert limiter.try_acquire() == pytest.approx(5.0)
    limiter.slow_down(9.0)
    assert limiter.try_acquire() == pytest.approx(9.0)


def test_a_pause_is_capped_at_a_minute() -> None:
    limiter, _ = limiter_and_time(100)
    limiter.slow_down(36_000.0)
    assert limiter.try_acquire() == pytest.approx(60.0)


def test_a_pause_also_applies_to_threads_that_already_wait() -> None:
    limiter, time = limiter_and_time(10)
    starts: list[float] = []

    def respond_with_429() -> None:
        time.wait(0.25)
        limiter.slow_down(5.0)

    time.run(respond_with_429, *(calls(limiter, time, starts, [0.0]) for _ in range(20)))
    assert len(starts) == 20
    assert len([moment for moment in starts if moment < 0.25]) == 3
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
        assert limiter.try_acquire() > 0
        assert limiter.rate == pytest.approx(80)
        time.now += 5.0


def test_a_429_during_a_pause_slows_the_threads_that_wait_for_its_end() -> None:
    limiter, time = limiter_and_time(10)
    starts: list[float] = []

    def respond_with_429s() -> None:
        limiter.slow_down()
        time.wait(0.5)
        limiter.slow_down(10.0)
        time.wait(1.5)
        limiter.slow_down()

    time.run(respond_with_429s, *(calls(limiter, time, starts, [0.0]) for _ in range(20)))
    after = [moment for moment in starts if moment >= 10.5]
    assert len(after) > 10
    assert min(gaps_of(after)) > 1 / 7  # 80 % of 80 % of ten a second, and a little won back


def test_permits_booked_before_a_429_are_given_back() -> None:
    limiter, time = limiter_and_time(10)
    starts: list[float] = []

    def respond_with_429() -> None:
        time.wait(0.25)
        limiter.slow_down()

    time.run(respond_with_429, *(calls(limiter, time, starts, [0.0]) for _ in range(20)))
    assert len(starts) == 20
    assert starts[-1] < 2.6  # three until the 429, the others at eight a second


def test_calls_of_the_second_before_a_429_count_towards_the_lower_rate() -> None:
    limiter, time = limiter_and_time(5)
    for number in range(5):
        time.now = 0.21 * number
        assert limiter.try_acquire() == 0.0
    limiter.slow_down()
    assert time.now + limiter.try_acquire() == pytest.approx(0.21 + 1.02)  # four a second


def test_idle_time_before_a_429_is_not_caught_up() -> None:
    limiter, time = limiter_and_time(100)
    assert limiter.try_acquire() == 0.0
    time.now += 5.0
    limiter.slow_down()
    starts = starts_of_dispatcher(limiter, time, 1.0)
    assert starts[0] == 5.0
    assert min(gaps_of(starts)) > 0.0124


def test_the_rate_after_a_pause_is_as_low_as_before_it() -> None:
    limiter, time = limiter_and_time(100)
    limiter.slow_down(30.0)
    time.now += 30.0
    starts = starts_of_dispatcher(limiter, time, 2.0)
    assert 155 <= len(starts) <= 165


CALLS = st.lists(st.sampled_from([0.0, 0.05, 0.3, 2.0]), min_size=1, max_size=12)
REPLIES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.7, 3.0]), st.sampled_from([0.0, 0.2, 2.0])), max_size=5
)


@settings(deadline=None, max_examples=60)
@given(
    rate=st.sampled_from([1, 2, 5, 10, 40]),
    threads=st.lists(CALLS, min_size=1, max_size=10),
    replies=REPLIES,
)
@example(rate=5, threads=[[0.0] * 4] * 10, replies=[(0.7, 0.0), (0.3, 0.0)])
def test_no_second_has_more_calls_than_the_limit_whatever_429s_come(
    rate: int, threads: list[list[float]], replies: list[tuple[float, float]]
) -> None:
    limiter, time = limiter_and_time(rate)
    starts: list[float] = []

    def limit() -> None:
        for after_seconds, pause_seconds in replies:
            time.wait(after_seconds)
            limiter.slow_down(pause_seconds)

    time.run(limit, *(calls(limiter, time, starts, seconds) for seconds in threads))
    assert len(starts) == sum(map(len, threads))
    assert most_in_a_second(starts) <= rate
