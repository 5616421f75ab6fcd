"""How fast, and when again: the pace of an endpoint and the wait before a retry.

Owns permits, backoff and the reaction to a 429. Knows nothing of HTTP; the clock, the sleep
and the random number are passed in, so that tests need no real time.

Why our own limiter: Iterable's limit is per endpoint, a 429 has to slow every thread at once
and let go step by step, and a second with one call too many is a 429. pyrate-limiter 4.5, under
350 threads at 500 a second, let 655 to 780 calls into one second (its token bucket: 999); this
one 501.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0
MAX_REQUESTED_WAIT_SECONDS = 60.0  # a longer Retry-After is not believed

# A stall of the dispatcher (a commit, a garbage collection) is made up for, up to this much.
_CATCH_UP_SECONDS = 0.2
# Calls do not take equally long to arrive: five in a second that left a fifth of a second apart
# could arrive as six. A tenth of an interval, up to this, is kept clear.
_JITTER_SECONDS = 0.02
# One 429 is never alone: the calls in flight bring more, which say nothing new for a second.
_SLOW_DOWN_EVERY_SECONDS = 1.0
_SLOW_DOWN_FACTOR = 0.8
_RECOVER_EVERY_SECONDS = 2.0
_RECOVER_SHARE = 0.01  # of the full pace a step: half the pace is won back in 100 s
_SLOWEST_SHARE = 0.01


def backoff_seconds(
    attempt: int, named_seconds: float | None = None, draw: Callable[[], float] = random.random
) -> float:
    """Return the wait after failed attempt `attempt` (1, 2, ...): exponential, full jitter.

    `named_seconds`, what the server asked for, is a minimum, honoured up to 60 s.
    """
    doubled = BACKOFF_FIRST_SECONDS * 2.0 ** (attempt - 1)
    jittered = draw() * min(BACKOFF_MAX_SECONDS, doubled)
    return max(jittered, min(named_seconds or 0.0, MAX_REQUESTED_WAIT_SECONDS))


class RateLimiter:
    """Permits for one endpoint: evenly spread, and never more than the limit in any second.

    Thread-safe. The dispatcher asks with `try_acquire`; the threads that it started wait in
    `acquire`, each for a time of its own, so that waking costs the same however many wait.
    """

    def __init__(
        self,
        permits_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.full_rate = permits_per_second
        self.rate = permits_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._due = 0.0  # when the next permit falls due in an even spread
        self._paused_until = 0.0
        self._booked: deque[float] = deque()  # the starts of the last second, and those to come
        self._started: deque[float] = deque(maxlen=max(1, int(permits_per_second)))
        self._generation = 0  # grows when bookings made before have lost their worth
        self._slowed_at = self._recovered_at = float("-inf")

    def try_acquire(self) -> float:
        """Take a permit and return 0.0, or return the seconds until one may be had."""
        with self._lock:
            now = self._clock()
            wait_seconds = max(self._next_slot(now), self._free_at()) - now
            if wait_seconds > 0:
                return wait_seconds
            self._book(now, now)
            self._started.append(now)
            return 0.0

    def acquire(self, wait: Callable[[float], bool]) -> bool:
        """Take a permit, waiting for it with `wait(seconds)`; False where that returned True.

        `wait` is `threading.Event.wait` of the event that ends all waits.
        """
        slot, generation = 0.0, -1  # nothing booked yet
        while True:
            with self._lock:
                now = self._clock()
                if generation != self._generation:
                    slot, generation = self._next_slot(now), self._generation
                    self._book(slot, now)
                wait_seconds = max(slot, self._free_at()) - now
                if wait_seconds <= 0:
                    self._started.append(now)
                    return True
            if wait(wait_seconds):
                return False

    def slow_down(self, pause_seconds: float = 0.0) -> None:
        """Take a 429 in: the pace drops by a fifth, and nothing starts for `pause_seconds`.

        Of a longer pause, 60 s are believed.
        """
        with self._lock:
            now = self._clock()
            paused_until = now + min(pause_seconds, MAX_REQUESTED_WAIT_SECONDS)
            slower = now - self._slowed_at >= _SLOW_DOWN_EVERY_SECONDS
            if slower:
                self._slowed_at = self._recovered_at = max(now, paused_until)
                self.rate = max(self.rate * _SLOW_DOWN_FACTOR, self.full_rate * _SLOWEST_SHARE)
            if slower or paused_until > self._paused_until:
                self._paused_until = max(self._paused_until, paused_until)
                self._due = self._paused_until
                while self._booked and self._booked[-1] > now:
                    self._booked.pop()
                self._generation += 1

    def _next_slot(self, now: float) -> float:
        if self.rate < self.full_rate:
            self._recover(now)
            self._hold_back(self.rate)
        self._hold_back(self.full_rate)
        return max(now, self._due)

    def _hold_back(self, rate: float) -> None:
        """Let the next permit fall due when a second that is full by now ends."""
        permits = max(1, int(rate))
        if len(self._booked) >= permits:
            self._due = max(self._due, self._booked[-permits] + _window_seconds(rate))

    def _free_at(self) -> float:
        """Return when what started last, a second's permits at most, has had its time.

        Threads that wake late, on a busy machine, start closer together than they had booked.
        """
        if not self._started:
            return 0.0
        return self._started[0] + len(self._started) / self.full_rate

    def _book(self, slot: float, now: float) -> None:
        if not self._booked:
            self._due = slot  # nothing to catch up with: no burst at the start
        self._booked.append(slot)
        self._due = max(self._due, slot - _CATCH_UP_SECONDS) + 1 / self.rate
        # Not by count: threads that wait would push out what has just started, and a 429 takes
        # their bookings back.
        while self._booked[0] < now - 1.0 - _JITTER_SECONDS:
            self._booked.popleft()

    def _recover(self, now: float) -> None:
        steps = max(0, int((now - self._recovered_at) / _RECOVER_EVERY_SECONDS))  # 0 in a pause
        self._recovered_at += steps * _RECOVER_EVERY_SECONDS
        gained = steps * self.full_rate * _RECOVER_SHARE
        self.rate = min(self.full_rate, self.rate + gained)


def _window_seconds(rate: float) -> float:
    """Return how long a second's permits last, and a little more."""
    return max(1, int(rate)) / rate + min(_JITTER_SECONDS, 0.1 / rate)
