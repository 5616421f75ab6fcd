"""Rate limiter in virtual time: even spacing, and never over the limit with many threads."""

from __future__ import annotations

import threading
import tracemalloc
from math import ceil

import pytest

from iterable_api.rate_limiter import RateLimiter
from tests.support.rate_limited_calls import (
    ROUNDING,
    calls,
    gaps_of,
    late_wait,
    limiter_and_time,
    most_in_a_second,
    next_start,
    starts_within,
)

# One thread


@pytest.mark.parametrize("rate", [1, 2, 5, 10, 100, 500])
def test_permits_are_spread_and_use_nearly_the_whole_limit(rate: int) -> None:
    limiter, time = limiter_and_time(rate)
    starts = starts_within(limiter, time, 10.0)
    assert min(gaps_of(starts)) > (0.99 / rate if rate > 10 else 0.009)
    assert most_in_a_second(starts) <= rate
    assert len(starts) >= 0.97 * rate * 10


def test_few_permits_are_given_as_soon_as_a_second_has_room() -> None:
    limiter, time = limiter_and_time(5)
    starts = starts_within(limiter, time, 3.0)
    first_five = [0.0, 0.01, 0.02, 0.03, 0.04]
    assert starts[:10] == pytest.approx([*first_five, *(1.015 + start for start in first_five)])


@pytest.mark.parametrize("rate", [1, 5, 7, 10, 500])
def test_a_second_is_fifteen_milliseconds_longer_to_allow_for_latency(rate: int) -> None:
    limiter, time = limiter_and_time(rate)
    starts = starts_within(limiter, time, 3.0)
    assert starts[rate] - starts[0] == pytest.approx(1.015)


@pytest.mark.parametrize(("rate", "seconds_apart"), [(0.5, 2.0), (0.01, 100.0)])
def test_a_rate_under_one_a_second_waits_longer_than_a_second(
    rate: float, seconds_apart: float
) -> None:
    limiter, time = limiter_and_time(rate)
    starts = starts_within(limiter, time, 10 * seconds_apart)
    gaps = gaps_of(starts)
    assert len(starts) == 10
    assert gaps == pytest.approx([seconds_apart + 0.015] * 9)


@pytest.mark.parametrize("rate", [1.5, 2.5, 7.3])
def test_a_fractional_rate_is_kept_over_ten_seconds(rate: float) -> None:
    limiter, time = limiter_and_time(rate)
    starts = starts_within(limiter, time, 10.0)
    assert most_in_a_second(starts) <= rate + 1
    assert 0.95 * rate * 10 <= len(starts) <= rate * 10 + ceil(rate)


def test_after_a_stall_at_most_a_fifth_of_a_second_is_caught_up() -> None:
    limiter, time = limiter_and_time(100)
    assert next_start(limiter, time) == 0.0
    time.now += 3_600.0
    starts = starts_within(limiter, time, 5.0)
    # The window of a second leaves no room for more than the usual number.
    assert len(starts) == pytest.approx(5 * 100 / 1.015, abs=3)
    assert most_in_a_second(starts) <= 100


def test_lost_time_is_made_up_without_a_burst() -> None:
    """A hundred calls at once arrived one by one, and the next second was too full."""
    limiter, time = limiter_and_time(100)
    assert next_start(limiter, time) == 0.0
    time.now = 0.3
    starts = starts_within(limiter, time, 0.7)
    assert starts[20] - starts[0] == pytest.approx(20 * 0.01015 / 1.25)
    assert len(starts) >= 79  # 20 of the 30 that were lost are made up, as far as a second allows


def test_a_burst_after_a_stall_was_repeated_every_second() -> None:
    """The pause after a burst was taken for another stall."""
    limiter, time = limiter_and_time(100)
    assert next_start(limiter, time) == 0.0
    time.now = 3_600.0
    starts = starts_within(limiter, time, 5.0)
    assert most_in_a_second(starts) <= 100
    later = [moment for moment in starts if moment > 3_600.9]
    assert min(gaps_of(later)) > 0.008
    assert len(starts) > 480


def test_the_time_before_the_first_permit_is_not_caught_up() -> None:
    limiter, time = limiter_and_time(100)
    time.now = 3_600.0
    starts = starts_within(limiter, time, 1.0)
    assert min(gaps_of(starts)) > 0.0099


def test_the_first_permit_is_given_at_once() -> None:
    limiter, time = limiter_and_time(0.01)
    assert next_start(limiter, time) == 0.0
    assert next_start(limiter, time) > 99.0


def test_only_the_last_second_is_remembered() -> None:
    limiter, time = limiter_and_time(500)
    starts_within(limiter, time, 2.0)
    tracemalloc.start()
    assert len(starts_within(limiter, time, 20.0)) > 9_700
    remembered_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert remembered_bytes < 100_000  # 32 a start


# Many threads


@pytest.mark.parametrize(("rate", "threads"), [(1, 5), (5, 3), (5, 40), (50, 20), (20, 1)])
def test_threads_together_stay_under_the_limit(rate: int, threads: int) -> None:
    limiter, time = limiter_and_time(rate)
    starts: list[float] = []
    time.run(*(calls(limiter, time, starts, [0.01] * 10) for _ in range(threads)))
    assert len(starts) == 10 * threads
    assert most_in_a_second(starts) <= rate
    assert starts[-1] <= 1.05 * len(starts) / rate


def test_each_thread_waits_once_for_its_own_permit() -> None:
    limiter, time = limiter_and_time(100)
    time.now = 3_600.0
    waits_seconds: list[float] = []

    def noted_wait(seconds: float) -> bool:
        waits_seconds.append(seconds)
        return time.wait(seconds)

    def job() -> None:
        assert limiter.acquire(noted_wait)

    time.run(*(job for _ in range(20)))
    assert sorted(waits_seconds) == pytest.approx([1.015 * number / 100 for number in range(1, 20)])


def test_threads_never_get_the_same_permit() -> None:
    limiter = RateLimiter(100, clock=lambda: 0.0)
    slots: list[float] = []

    def stop_waiting(seconds: float) -> bool:
        slots.append(seconds)
        return True

    def work() -> None:
        for _ in range(50):
            limiter.acquire(stop_waiting)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    slots.sort()
    assert len(slots) == 799  # the first needed no wait
    assert min(gaps_of(slots)) > 0.0099


# Threads that wake late


@pytest.mark.parametrize(("rate", "late_seconds"), [(1, 0.7), (5, 0.7), (20, 0.3), (100, 0.05)])
def test_threads_that_wake_late_exceeded_the_limit_of_the_next_second(
    rate: int, late_seconds: float
) -> None:
    """On a busy machine they started in addition to the calls of that second."""
    limiter, time = limiter_and_time(rate)
    starts: list[float] = []

    def wait_too_long(seconds: float) -> bool:
        is_held_up = int(time.now) % 2 == 1
        return time.wait(seconds + (late_seconds if is_held_up else 0.0))

    jobs = [calls(limiter, time, starts, [0.0] * 5, wait_too_long) for _ in range(2 * rate)]
    time.run(*jobs)
    assert len(starts) == 10 * rate
    assert most_in_a_second(starts) <= rate


def test_a_stall_of_all_threads_costs_no_more_than_its_own_time() -> None:
    limiter, time = limiter_and_time(100)
    starts: list[float] = []

    def wait_out_the_stall(seconds: float) -> bool:
        until = time.now + seconds
        return time.wait((2.1 if 2.0 < until < 2.1 else until) - time.now)

    time.run(*(calls(limiter, time, starts, [0.001] * 25, wait_out_the_stall) for _ in range(20)))
    assert len(starts) == 500
    assert not [moment for moment in starts if 2.0 < moment < 2.1]
    assert most_in_a_second(starts) <= 100
    assert starts[-1] < 5.1 / 0.97


def test_threads_that_wake_late_keep_a_rate_under_one_a_second() -> None:
    limiter, time = limiter_and_time(0.5)
    starts: list[float] = []
    wait_too_long = late_wait(time, [1.5, 0.0])
    time.run(*(calls(limiter, time, starts, [0.0], wait_too_long) for _ in range(10)))
    assert len(starts) == 10
    assert min(gaps_of(starts)) > 2.0 - ROUNDING


def test_a_thread_that_wakes_late_keeps_its_distance_from_calls_that_started_meanwhile() -> None:
    limiter, time = limiter_and_time(1)
    assert next_start(limiter, time) == 0.0
    others: list[float] = []

    def wait_too_long(seconds: float) -> bool:
        time.now += seconds
        if not others:  # it sleeps through its own turn, and through the next one of another call
            others.append(next_start(limiter, time))
            time.now += 0.5
        return False

    assert limiter.acquire(wait_too_long)
    assert time.now >= others[0] + 1.0


# How a wait ends


def test_a_wait_that_ends_early_is_continued() -> None:
    limiter, time = limiter_and_time(1)
    assert limiter.acquire(time.wait)
    waited: list[float] = []

    def wait_half(seconds: float) -> bool:
        waited.append(seconds)
        time.now += seconds / 2 if len(waited) < 3 else seconds
        return False

    assert limiter.acquire(wait_half)
    assert time.now == pytest.approx(1.015)
    assert len(waited) == 3


def test_a_stop_ends_the_wait_and_gives_no_permit() -> None:
    limiter, _ = limiter_and_time(0.01)
    assert limiter.acquire(lambda _seconds: pytest.fail("the first needs no wait"))
    waited: list[float] = []

    def stopped(seconds: float) -> bool:
        waited.append(seconds)
        return True

    assert limiter.acquire(stopped) is False
    assert len(waited) == 1
