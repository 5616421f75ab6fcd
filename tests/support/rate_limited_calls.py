"""Calls that wait for permits of a `RateLimiter` in virtual time, and figures of their starts."""

from __future__ import annotations

from collections import deque
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


class Server:
    """A server in virtual time that counts exactly, and the calls of a dispatcher to it.

    `allowed(now)` is how many calls a second it accepts; each call takes `latency_seconds`, and one
    that gets a 429 waits for `named_seconds` before it is sent again.
    """

    def __init__(
        self,
        allowed: Callable[[float], int],
        *,
        latency_seconds: float = 0.3,
        named_seconds: float = 1.0,
    ) -> None:
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self.rates: list[tuple[float, float]] = []  # time, rate of the limiter
        self._allowed = allowed
        self._latency_seconds = latency_seconds
        self._named_seconds = named_seconds

    def serve(self, limiter: RateLimiter, time: VirtualTime, seconds: float) -> None:
        """Send calls as fast as the limiter permits, for so many seconds."""
        answers: deque[tuple[float, float]] = deque()  # of 429s: when they come back, and started
        end = time.now + seconds
        while time.now < end:
            while answers and answers[0][0] <= time.now:
                _, started_at = answers.popleft()
                limiter.slow_down(self._named_seconds, started_at=started_at)
            wait_seconds = limiter.try_acquire()
            if not wait_seconds:
                self._call(time.now, answers)
                continue
            self.rates.append((time.now, limiter.rate))
            next_answer_seconds = answers[0][0] - time.now if answers else wait_seconds
            time.now += max(min(wait_seconds, next_answer_seconds), ROUNDING)

    def _call(self, now: float, answers: deque[tuple[float, float]]) -> None:
        allowed = self._allowed(now)
        if len(self.accepted) < allowed or self.accepted[-allowed] + 1.0 <= now:
            self.accepted.append(now)
        else:
            self.refused.append(now)
            answers.append((now + self._latency_seconds, now))
