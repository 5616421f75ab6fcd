"""Rate limiter in virtual time: even spacing, and never over the limit with many threads."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from itertools import cycle

import pytest

from iterable_api.rate_limiter import RateLimiter
from tests.support.rate_limited_calls import (
    ROUNDING,
    calls,
    gaps_of,
    limiter_and_time,
    most_in_a_second,
    starts_of_dispatcher,
)

# One thread


@pytest.mark.parametrize("rate", [1, 2, 5, 10, 100, 500])
def test_permits_are_evenly_spread_and_use_nearly_the_whole_limit(rate: int) -> None:
    limiter, time = limiter_and_time(rate)
    starts = starts_of_dispatcher(limiter, time, 10.0)
    assert min(gaps_of(starts)) > 0.99 / rate
    assert most_in_a_second(starts) <= rate
    assert len(starts) >= 0.97 * rate * 10


@pytest.mark.parametrize(
    ("rate", "clear_seconds"), [(1, 0.02), (5, 0.02), (7, 0.1 / 7), (10, 0.01), (500, 0.01)]
)
def test_a_second_is_ten_to_twenty_milliseconds_longer_to_allow_for_latency(
    rate: int, clear_seconds: float
) -> None:
    limiter, time = limiter_and_time(rate)
    starts = starts_of_dispatcher(limiter, time, 3.0)
    assert starts[rate] - starts[0] == pytest.approx(1.0 + clear_seconds)


@pytest.mark.parametrize(("rate", "seconds_apart"), [(0.5, 2.0), (0.01, 100.0)])
def test_a_rate_under_one_a_second_waits_longer_than_a_second(
    rate: float, seconds_apart: float
) -> None:
    limiter, time = limiter_and_time(rate)
    starts = starts_of_dispatcher(limiter, time, 10 * seconds_apart)
    gaps = gaps_of(starts)
    assert len(starts) == 10
    assert gaps == pytest.approx([seconds_apart + 0.02] * 9)


@pytest.mark.parametrize("rate", [1.5, 2.5, 7.3])
def test_a_fractional_rate_is_kept_over_ten_seconds(rate: float) -> None:
    limiter, time = limiter_and_time(rate)
    starts = starts_of_dispatcher(limiter, time, 10.0)
    assert most_in_a_second(starts) <= rate + 1
    assert 0.95 * rate * 10 <= len(starts) <= rate * 10 + 1


def test_after_a_stall_at_most_a_fifth_of_a_second_is_caught_up() -> None:
    limiter, time = limiter_and_time(100)
    assert limiter.try_acquire() == 0.0
    time.now += 3_600.0
    at_once = 0
    while limiter.try_acquire() == 0.0:
        at_once += 1
    assert 20 <= at_once <= 21


def test_a_burst_after_a_stall_was_repeated_every_second() -> None:
    """The pause after a burst was taken for another stall."""
    limiter, time = limiter_and_time(100)
    assert limiter.try_acquire() == 0.0
    time.now = 3_600.0
    starts = starts_of_dispatcher(limiter, time, 5.0)
    assert starts[19] == 3_600.0
    assert most_in_a_second(starts) <= 100
    later = [moment for moment in starts if moment > 3_600.9]
    assert min(gaps_of(later)) > 0.0099
    assert len(starts) > 480


def test_the_time_before_the_first_permit_is_not_caught_up() -> None:
    limiter, time = limiter_and_time(100)
    time.now = 3_600.0
    starts = starts_of_dispatcher(limiter, time, 1.0)
    assert min(gaps_of(starts)) > 0.0099


def test_the_first_permit_is_given_at_once() -> None:
    limiter, _ = limiter_and_time(0.01)
    assert limiter.try_acquire() == 0.0
    assert limiter.try_acquire() > 99.0


def test_try_acquire_returns_the_exact_wait_for_the_next_permit() -> None:
    limiter, time = limiter_and_time(5)
    assert limiter.try_acquire() == 0.0
    wait_seconds = limiter.try_acquire()
    time.now += wait_seconds - 0.001
    assert limiter.try_acquire() > 0.0
    time.now += 0.001 + ROUNDING
    assert limiter.try_acquire() == 0.0


def test_only_the_last_second_is_remembered() -> None:
    limiter, time = limiter_and_time(500)
    starts_of_dispatcher(limiter, time, 2.0)
    tracemalloc.start()
    assert len(starts_of_dispatcher(limiter, time, 20.0)) > 9_700
    remembered_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert remembered_bytes < 100_000  # 32 a start


# Workers that get their permits late


def test_a_worker_that_got_its_permit_late_was_counted_in_the_next_second() -> None:
    """A stall of 0.1 s: the calls held up came on top of those that followed."""
    limiter, time = limiter_and_time(100)
    starts: list[float] = []

    def work(late_seconds: float) -> Callable[[], None]:
        def job() -> None:
            time.wait(late_seconds)
            assert limiter.start(time.wait)
            starts.append(time.now)

        return job

    def dispatch() -> None:
        while time.now < 5.0:
            if wait_seconds := limiter.try_acquire():
                time.wait(wait_seconds)
            else:
                time.start(work(max(0.0, 2.1 - time.now) if 2.0 < time.now < 2.1 else 0.001))

    time.run(dispatch)
    assert most_in_a_second(sorted(starts)) <= 100
    assert len(starts) > 0.97 * 100 * 4.9


def test_each_late_call_waits_for_its_own_turn() -> None:
    limiter, time = limiter_and_time(10)
    for _ in range(10):
        assert limiter.acquire(time.pass_by)
    last = time.now
    waits_seconds: list[float] = []

    def noted_wait(seconds: float) -> bool:
        waits_seconds.append(seconds)
        return time.wait(seconds)

    def job() -> None:
        assert limiter.start(noted_wait)

    time.run(*(job for _ in range(5)))
    assert waits_seconds == pytest.approx([1.01 - last + 0.101 * number for number in range(5)])


def test_a_pause_also_holds_back_a_call_whose_permit_is_older() -> None:
    limiter, _time = limiter_and_time(10)
    assert limiter.try_acquire() == 0.0
    limiter.slow_down(5.0)
    waits_seconds: list[float] = []

    def stop(seconds: float) -> bool:
        waits_seconds.append(seconds)
        return True

    assert limiter.start(stop) is False
    assert waits_seconds == pytest.approx([5.0])


# Permits that are given back


def test_the_next_caller_gets_the_slot_of_a_permit_that_is_given_back() -> None:
    limiter, time = limiter_and_time(5)
    assert limiter.try_acquire() == 0.0
    time.now += 0.01
    limiter.give_back()
    assert limiter.try_acquire() == 0.0
    assert limiter.try_acquire() > 0.19


@pytest.mark.parametrize("every", [1, 2, 10])
def test_permits_that_are_given_back_do_not_lower_the_rate(every: int) -> None:
    limiter, time = limiter_and_time(100)
    starts: list[float] = []

    while time.now < 10.0:
        while wait_seconds := limiter.try_acquire():
            time.now += wait_seconds
        if len(starts) % every == 0:  # the worker has to connect first
            limiter.give_back()
            assert limiter.acquire(time.pass_by)
        else:
            assert limiter.start(time.pass_by)
        starts.append(time.now)
    assert len(starts) >= 0.97 * 100 * 10
    assert most_in_a_second(starts) <= 100


def test_a_second_full_of_permits_that_are_given_back_is_not_lost() -> None:
    """The run begins with as many new connections as calls start before the first one ends."""
    limiter, time = limiter_and_time(500)
    starts: list[float] = []
    given_back = 0

    def connect() -> None:
        time.wait(0.2)
        assert limiter.acquire(time.wait)
        starts.append(time.now)

    def dispatch() -> None:
        nonlocal given_back
        while given_back < 100:
            if wait_seconds := limiter.try_acquire():
                time.wait(wait_seconds)
            else:
                given_back += 1
                limiter.give_back()

    time.run(dispatch, *(connect for _ in range(300)))
    assert most_in_a_second(sorted(starts)) <= 500
    assert max(starts) < 0.2 + 300 / 490


def test_more_permits_given_back_than_taken_change_nothing() -> None:
    limiter, time = limiter_and_time(5)
    for _ in range(3):
        limiter.give_back()
    assert limiter.try_acquire() == 0.0
    for _ in range(3):
        limiter.give_back()
    starts = starts_of_dispatcher(limiter, time, 10.0)
    assert most_in_a_second(starts) <= 5


def test_a_permit_that_is_given_back_does_not_end_a_pause() -> None:
    limiter, _time = limiter_and_time(5)
    assert limiter.try_acquire() == 0.0
    limiter.slow_down(10.0)
    limiter.give_back()
    assert limiter.try_acquire() == pytest.approx(10.0)


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
    assert sorted(waits_seconds) == pytest.approx([1.01 * number / 100 for number in range(1, 20)])


def test_a_dispatcher_and_threads_share_one_limit() -> None:
    limiter, time = limiter_and_time(20)
    starts: list[float] = []

    def dispatch() -> None:
        while time.now < 5.0:
            wait_seconds = limiter.try_acquire()
            if not wait_seconds:
                starts.append(time.now)
            time.wait(max(wait_seconds, 0.001))

    time.run(dispatch, *(calls(limiter, time, starts, [0.3] * 5) for _ in range(6)))
    assert most_in_a_second(starts) <= 20


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

    def job() -> None:
        for _ in range(5):
            assert limiter.acquire(wait_too_long)
            starts.append(time.now)

    time.run(*(job for _ in range(2 * rate)))
    assert len(starts) == 10 * rate
    assert most_in_a_second(starts) <= rate


def test_threads_that_wake_late_keep_a_rate_under_one_a_second() -> None:
    limiter, time = limiter_and_time(0.5)
    starts: list[float] = []
    lateness = cycle((1.5, 0.0))

    def wait_too_long(seconds: float) -> bool:
        return time.wait(seconds + next(lateness))

    def job() -> None:
        assert limiter.acquire(wait_too_long)
        starts.append(time.now)

    time.run(*(job for _ in range(10)))
    assert len(starts) == 10
    assert min(gaps_of(starts)) > 2.0 - ROUNDING


def test_a_thread_that_wakes_late_keeps_its_distance_from_the_dispatchers_calls() -> None:
    limiter, time = limiter_and_time(1)
    assert limiter.try_acquire() == 0.0
    dispatched_at: list[float] = []

    def wait_too_long(seconds: float) -> bool:
        time.now += seconds
        if not dispatched_at:  # it sleeps through its own turn and the next, which is given away
            time.now += limiter.try_acquire()
            assert limiter.try_acquire() == 0.0
            assert limiter.start(time.wait)
            dispatched_at.append(time.now)
            time.now += 0.5
        return False

    assert limiter.acquire(wait_too_long)
    assert time.now >= dispatched_at[0] + 1.0


def test_a_wait_that_ends_early_is_continued() -> None:
    limiter, time = limiter_and_time(1)
    assert limiter.acquire(time.wait)
    waited: list[float] = []

    def wait_half(seconds: float) -> bool:
        waited.append(seconds)
        time.now += seconds / 2 if len(waited) < 3 else seconds
        return False

    assert limiter.acquire(wait_half)
    assert time.now == pytest.approx(1.02)
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
