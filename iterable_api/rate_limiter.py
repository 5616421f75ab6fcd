"""Rate limiter for an endpoint, and exponential backoff for retries.

Clock, sleep and random number are arguments, so that tests need no real time.

Why not a library: a 429 must slow down all threads of an endpoint at once and the rate must then
recover step by step. And one call too many in a second is a 429: with 350 threads at 500 calls/s,
the busiest second had 655 to 780 calls with pyrate-limiter 4.5 (999 with its token bucket), and
501 with this class.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0
MAX_REQUESTED_WAIT_SECONDS = 60.0  # a longer one is shortened to this

# The dispatcher sometimes pauses (a commit, garbage collection). It makes up for at most this much
# lost time.
_CATCH_UP_SECONDS = 0.2
# Network latency varies, so calls sent at five a second could arrive at six. The limiter therefore
# adds a tenth of an interval, at most this much, to each second.
_JITTER_SECONDS = 0.02
# After a 429, the calls in flight bring more of them, which are ignored for this long.
_SLOW_DOWN_EVERY_SECONDS = 1.0
_SLOW_DOWN_FACTOR = 0.8
_RECOVER_EVERY_SECONDS = 2.0
_RECOVER_SHARE = 0.01  # of the full rate per step: half the rate returns in 100 s
_SLOWEST_SHARE = 0.01


def backoff_seconds(
    attempt: int, requested_seconds: float | None = None, draw: Callable[[], float] = random.random
) -> float:
    """Return the wait after failed attempt `attempt` (1, 2, ...): exponential, full jitter.

    The wait is at least `requested_seconds`, which the server asks for, but of that at most 60 s.
    """
    doubled = BACKOFF_FIRST_SECONDS * 2.0 ** (attempt - 1)
    jittered = draw() * min(BACKOFF_MAX_SECONDS, doubled)
    return max(jittered, min(requested_seconds or 0.0, MAX_REQUESTED_WAIT_SECONDS))


class RateLimiter:
    """Permits for one endpoint: evenly spread, never more than the limit in any second.

    Thread-safe. The dispatcher calls `try_acquire`; worker threads wait in `acquire`, each for its
    own time slot, so that no thread wakes in vain.
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
        self._generation = 0  # increases when earlier bookings become invalid
        self._slowed_at = self._recovered_at = float("-inf")

    def try_acquire(self) -> float:
        """Take a permit and return 0.0, or return the seconds until the next one."""
        with self._lock:
            now = self._clock()
            wait_seconds = max(self._next_slot(now), self._free_at()) - now
            if wait_seconds > 0:
                return wait_seconds
            self._book(now, now)
            self._started.append(now)
            return 0.0

    def acquire(self, wait: Callable[[float], bool]) -> bool:
        """Wait for a permit and take it; return False if the run stops first.

        `wait(seconds)` is the stop event's `wait`, which returns True once the event is set.
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
        """React to a 429: cut the rate by a fifth, pause for `pause_seconds` (60 at most)."""
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
        """Delay the next permit until the current second has room for it."""
        permits = max(1, int(rate))
        if len(self._booked) >= permits:
            self._due = max(self._due, self._booked[-permits] + _window_seconds(rate))

    def _free_at(self) -> float:
        """Return when another call may start, judged by when the last calls really started.

        On a busy machine threads wake late, and so start closer together than their slots.
        """
        if not self._started:
            return 0.0
        return self._started[0] + len(self._started) / self.full_rate

    def _book(self, slot: float, now: float) -> None:
        if not self._booked:
            self._due = slot  # no burst at the start
        self._booked.append(slot)
        self._due = max(self._due, slot - _CATCH_UP_SECONDS) + 1 / self.rate
        # Drop by age, not by count: bookings of waiting threads, which a 429 cancels, would push
        # out calls that have just started.
        while self._booked[0] < now - 1.0 - _JITTER_SECONDS:
            self._booked.popleft()

    def _recover(self, now: float) -> None:
        steps = max(0, int((now - self._recovered_at) / _RECOVER_EVERY_SECONDS))  # 0 during a pause
        self._recovered_at += steps * _RECOVER_EVERY_SECONDS
        gained = steps * self.full_rate * _RECOVER_SHARE
        self.rate = min(self.full_rate, self.rate + gained)


def _window_seconds(rate: float) -> float:
    """Return the seconds that one second's permits take, with the margin for jitter."""
    return max(1, int(rate)) / rate + min(_JITTER_SECONDS, 0.1 / rate)
