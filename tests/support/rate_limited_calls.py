"""Calls that wait for permits of a `RateLimiter` in virtual time, and figures of their starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from iterable_api.rate_limiter import RateLimiter
from tests.support.virtual_time import VirtualTime

ROUNDING = 1e-6


def most_in_a_second(starts: Sequence[float]) -> int:
    """Return the most calls in any period of one second."""
    most = first = 0
    for last, moment in enumerate(starts):
        while starts[first] <= moment - 1.0 + ROUNDING:
            first += 1
        most = max(most, last - first + 1)
    return most


def gaps_of(starts: Sequence[float]) -> list[float]:
    return [later - sooner for sooner, later in pairwise(starts)]


def starts_of_dispatcher(limiter: RateLimiter, time: VirtualTime, seconds: float) -> list[float]:
    """Take every permit that `try_acquire` gives for so long; return when each was given."""
    starts: list[float] = []

    def dispatch() -> None:
        end = time.now + seconds
        while time.now < end:
            wait_seconds = limiter.try_acquire()
            if wait_seconds:
                time.wait(wait_seconds)
            else:
                starts.append(time.now)

    time.run(dispatch)
    return starts


def limiter_and_time(rate: float) -> tuple[RateLimiter, VirtualTime]:
    time = VirtualTime()
    return RateLimiter(rate, clock=time.clock), time


def calls(
    limiter: RateLimiter, time: VirtualTime, starts: list[float], seconds_apart: Sequence[float]
) -> Callable[[], None]:
    """Return a function that makes calls one after the other, with these pauses after them."""

    def job() -> None:
        for seconds in seconds_apart:
            assert limiter.acquire(time.wait)
            starts.append(time.now)
            time.wait(seconds)

    return job
