"""Rate limiter for an endpoint, and exponential backoff for retries.

Clock, sleep and random number are arguments, so that tests need no real time.

Why not a library: a 429 must slow down all threads of an endpoint at once and the rate must then
recover. And one call too many in a second is a 429: with 350 threads at 500 calls/s,
the busiest second had 655 to 780 calls with pyrate-limiter 4.5 (999 with its token bucket), and
500 with this class.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from math import ceil
from typing import NamedTuple

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0
MAX_REQUESTED_WAIT_SECONDS = 60.0  # a longer one is shortened to this

# The program sometimes pauses (a commit, garbage collection). It makes up for at most this much
# lost time, and a quarter faster than usual: a hundred calls at once would arrive one by one, later
# than they started, and make the next second too full.
_CATCH_UP_SECONDS = 0.2
_CATCH_UP_FACTOR = 1.25
_CATCH_UP_STEP_SECONDS = 0.02  # the permits of so long may start together
# So few permits a second need no even spread, except after a 429: they are given as soon as the
# second has room, only not all at once. 60 batches at 5 a second take 0.5 s less.
_FEW_PERMITS = 10
_FEW_SECONDS_APART = 0.01
_JITTER_SECONDS = 0.015  # of arrivals, as network latency varies

# After a 429 the rate follows the curve of TCP CUBIC (RFC 9438): quickly back to nearly the rate at
# which the 429 came, slowly past it, then faster and faster. A rate that is 3 % lower is back after
# (0.03 / 0.0003) ** (1 / 3) = 4.6 s, half the rate after 14 s. Where the limit is only half of what
# the settings say (at 0.3 s a call), 95 % of it is used and one call in 800 is a 429 once the rate
# is found; with steps of 1 % every 2 s half the rate took 100 s to come back.
_SMALL_STEP_FACTOR = 0.97
_LARGE_STEP_FACTOR = 0.7
_GROWTH = 0.0003  # of the full rate, per cubic second
_SLOWEST_SHARE = 0.01
# 429s go on if so large a share of a second's calls gets them, of those that started so soon after
# the rate was lowered. Fewer do not count: where a server or a line stalled for a moment, a few
# dozen calls arrive together, and the second that they fill is too full until it is over.
_GOES_ON_SHARE = 0.03
_GOES_ON_SECONDS = 1.0
# A wait of one or two seconds, the shortest that Iterable names, concerns only the call that got
# the 429 (`backoff_seconds`): a pause of all would cost 500 calls for one too many.
_SHORT_WAIT_SECONDS = 2.0
_USUAL_CALL_SECONDS = 1.0


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
    """Permits for one endpoint: never more than the limit in any second, evenly spread if many.

    Thread-safe. Workers wait in `acquire` right before they send a request, each for its own time
    slot, so that no thread wakes in vain.
    """

    def __init__(
        self,
        permits_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.full_rate = permits_per_second
        self.rate = permits_per_second
        self._full_window = self._window = _window_of(permits_per_second)
        self._clock = clock
        self._lock = threading.Lock()
        self._due = 0.0  # when the next permit falls due in an even spread
        self._paused_until = 0.0
        self._booked: deque[float] = deque()  # the starts of the last second, and those to come
        self._started: deque[float] = deque(maxlen=self._full_window.permits)
        self._generation = 0  # increases when earlier bookings become invalid
        self._slowed_at = float("-inf")
        self._count_since_step = 0  # of 429s that calls got which started since the last step
        self._rate_at_429 = self._lowered_rate = permits_per_second

    def acquire(self, wait: Callable[[float], bool]) -> bool:
        """Wait for a permit and start its call; return False if the run stops first.

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

    def slow_down(self, pause_seconds: float = 0.0, *, started_at: float | None = None) -> None:
        """React to a 429 of a call that started at `started_at` (None: a second ago).

        The rate falls by 3 %, and by 30 % if 429s go on: see `_GOES_ON_SHARE`. Calls that had
        started before the last step change nothing. If 429s go on, or if the wait that Iterable
        names is longer than 2 s, no call starts for `pause_seconds` (60 at most).
        """
        with self._lock:
            now = self._clock()
            if started_at is None:
                started_at = now - _USUAL_CALL_SECONDS
            is_news = started_at >= self._slowed_at
            goes_on = False
            if is_news and (
                started_at - self._slowed_at < _GOES_ON_SECONDS + self._window.seconds_apart
            ):
                self._count_since_step += 1
                goes_on = self._count_since_step >= self.full_rate * _GOES_ON_SHARE
                is_news = goes_on
            if pause_seconds <= _SHORT_WAIT_SECONDS and not goes_on:
                pause_seconds = 0.0
            paused_until = now + min(pause_seconds, MAX_REQUESTED_WAIT_SECONDS)
            if is_news:
                self._update_rate(now)
                self._rate_at_429 = self.rate
                factor = _LARGE_STEP_FACTOR if goes_on else _SMALL_STEP_FACTOR
                self._lowered_rate = max(self.rate * factor, self.full_rate * _SLOWEST_SHARE)
                self._set_rate(self._lowered_rate)
                self._slowed_at = max(now, paused_until)
                self._count_since_step = 0
            if is_news or paused_until > max(now, self._paused_until):
                self._paused_until = max(self._paused_until, paused_until)
                self._due = self._paused_until
                while self._booked and self._booked[-1] > now:
                    self._booked.pop()
                self._generation += 1

    def _next_slot(self, now: float) -> float:
        if self.rate < self.full_rate:
            self._update_rate(now)
            self._hold_back(self._window)
        self._hold_back(self._full_window)
        slot = max(now, self._due)
        if self._is_uneven():
            return slot
        count = max(1, int(self.rate * _CATCH_UP_STEP_SECONDS))
        if len(self._booked) >= count:
            step_seconds = count * self._window.seconds_apart / _CATCH_UP_FACTOR
            slot = max(slot, self._booked[-count] + step_seconds)
        return slot

    def _is_uneven(self) -> bool:
        """Return whether permits are given as soon as the window has room for them."""
        return self._full_window.permits <= _FEW_PERMITS and self.rate == self.full_rate

    def _hold_back(self, window: _Window) -> None:
        """Delay the next permit until the window has room for it."""
        if len(self._booked) >= window.permits:
            self._due = max(self._due, self._booked[-window.permits] + window.seconds)

    def _free_at(self) -> float:
        """Return when another call may start, by the starts so far.

        On a busy machine threads wake late, and so start closer together than their slots.
        """
        if len(self._started) < self._full_window.permits:
            return 0.0
        return self._started[0] + self._full_window.seconds

    def _book(self, slot: float, now: float) -> None:
        if not self._booked:
            self._due = slot  # no burst at the start
        self._booked.append(slot)
        if self._is_uneven():
            self._due = slot + min(_FEW_SECONDS_APART, self._window.seconds_apart)
        else:
            self._due = max(self._due, slot - _CATCH_UP_SECONDS) + self._window.seconds_apart
        # Drop by age, not by count: bookings of waiting threads, which a 429 cancels, would push
        # out calls that have just started.
        _drop_before(now - 1.0 - _JITTER_SECONDS, self._booked)

    def _update_rate(self, now: float) -> None:
        growth = self.full_rate * _GROWTH
        back_after_seconds = ((self._rate_at_429 - self._lowered_rate) / growth) ** (1 / 3)
        seconds = max(0.0, now - self._slowed_at)  # 0 during a pause
        rate = self._rate_at_429 + growth * (seconds - back_after_seconds) ** 3
        self._set_rate(min(self.full_rate, rate))

    def _set_rate(self, rate: float) -> None:
        self.rate = rate
        self._window = _window_of(rate)


class _Window(NamedTuple):
    """A number of permits, and the seconds that they take: never less than one."""

    permits: int
    seconds: float
    seconds_apart: float  # between two permits in an even spread


def _window_of(rate: float) -> _Window:
    """Return the window of a rate: a second has room for 8 of 7.5 permits, on average for 7.5.

    Network latency varies, so calls sent at five a second could arrive at six: `_JITTER_SECONDS`
    is therefore added to each second.
    """
    permits = ceil(rate)
    seconds = permits / rate + _JITTER_SECONDS
    return _Window(permits, seconds, seconds / permits)


def _drop_before(moment: float, moments: deque[float]) -> None:
    while moments and moments[0] < moment:
        moments.popleft()
