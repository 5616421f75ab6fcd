"""Calls that wait for permits of a `RateLimiter` in virtual time, and figures of their starts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, pairwise

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


def limiter_and_time(rate: float) -> tuple[RateLimiter, VirtualTime]:
    time = VirtualTime()
    return RateLimiter(rate, clock=time.clock), time


def next_start(limiter: RateLimiter, time: VirtualTime) -> float:
    """Wait for a permit without threads; return when the call starts."""
    assert limiter.acquire(time.pass_by)
    return time.now


def starts_within(limiter: RateLimiter, time: VirtualTime, seconds: float) -> list[float]:
    """Start calls as fast as the limiter permits for so long; return when each started."""
    starts: list[float] = []
    end = time.now + seconds

    def wait(wait_seconds: float) -> bool:
        time.now += wait_seconds
        return time.now >= end

    while limiter.acquire(wait):
        starts.append(time.now)
    return starts


def late_wait(time: VirtualTime, late_seconds: Iterable[float]) -> Callable[[float], bool]:
    """Return a `wait` that returns too late, by each of these times in turn."""
    lateness = cycle(late_seconds)
    return lambda seconds: time.wait(seconds + next(lateness))


def calls(
    limiter: RateLimiter,
    time: VirtualTime,
    starts: list[float],
    seconds_apart: Sequence[float],
    wait: Callable[[float], bool] | None = None,
) -> Callable[[], None]:
    """Return a function that makes calls one after the other, with these pauses after them."""

    def job() -> None:
        for seconds in seconds_apart:
            assert limiter.acquire(wait or time.wait)
            starts.append(time.now)
            time.wait(seconds)

    return job


class Server:
    """A server in virtual time that counts exactly, and calls to it.

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

        def wait(wait_seconds: float) -> bool:
            until = time.now + wait_seconds
            while answers and answers[0][0] <= until:
                time.now, started_at = answers.popleft()
                limiter.slow_down(self._named_seconds, started_at=started_at)
            time.now = until
            return time.now >= end

        while limiter.acquire(wait):
            self.rates.append((time.now, limiter.rate))
            self._call(time.now, answers)

    def _call(self, now: float, answers: deque[tuple[float, float]]) -> None:
        allowed = self._allowed(now)
        if len(self.accepted) < allowed or self.accepted[-allowed] + 1.0 <= now:
            self.accepted.append(now)
        else:
            self.refused.append(now)
            answers.append((now + self._latency_seconds, now))
