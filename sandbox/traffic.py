"""Traffic of each endpoint: counts, the busiest second, and the rate limit behind a 429.

Times are monotonic seconds.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Protocol

Limit = float | Mapping[str, float | str]


class BusiestSecond:
    """Highest number of arrivals within any window of one second."""

    __slots__ = ("_recent", "most")

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self.most = 0

    def arrive(self, at: float) -> None:
        """Count one arrival; times must not go backwards."""
        recent = self._recent
        recent.append(at)
        oldest = at - 1.0
        while recent[0] <= oldest:
            recent.popleft()
        if len(recent) > self.most:
            self.most = len(recent)


class RateLimit(Protocol):
    """When a call is accepted."""

    per_second: float

    @property
    def remaining(self) -> int:
        """Number of calls that would be accepted now."""

    def wait_seconds(self, now: float) -> float:
        """Accept a call and return 0.0, or return the seconds until one would be accepted."""


def to_rate_limit(limit: Limit) -> RateLimit:
    """Build a limit from its JSON form; raises ValueError.

    That is a number or `{"per_second": N}`, with a `"burst"` of a token bucket's size other than
    N, or with `"window": "sliding"`.
    """
    numbers: dict[str, Any] = dict(limit) if isinstance(limit, Mapping) else {"per_second": limit}
    is_sliding = numbers.get("window") == "sliding"
    if is_sliding:
        del numbers["window"]
    unknown = set(numbers) - ({"per_second"} if is_sliding else {"per_second", "burst"})
    if unknown or "per_second" not in numbers:
        raise ValueError(
            'a limit is a number, {"per_second": N, "burst": N}'
            ' or {"per_second": N, "window": "sliding"}'
        )
    if not all(type(value) in (int, float) and value > 0 for value in numbers.values()):
        raise ValueError("a limit's numbers must be greater than 0")
    return SlidingSecond(**numbers) if is_sliding else TokenBucket(**numbers)


class TokenBucket:
    """Rate limit: `per_second` tokens are added, `burst` is the capacity, a call takes one."""

    __slots__ = ("_tokens", "_updated_at", "burst", "per_second")

    def __init__(self, per_second: float, burst: float | None = None) -> None:
        self.per_second = per_second
        self.burst = max(1.0, per_second if burst is None else burst)
        self._tokens = self.burst
        self._updated_at: float | None = None

    @property
    def remaining(self) -> int:
        """Number of calls that would be accepted now."""
        return int(self._tokens)

    def wait_seconds(self, now: float) -> float:
        """Take a token and return 0.0, or return the seconds until there is one."""
        if self._updated_at is not None:
            added = (now - self._updated_at) * self.per_second
            self._tokens = min(self.burst, self._tokens + added)
        self._updated_at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.per_second


class SlidingSecond:
    """Rate limit that counts exactly: at most so many accepted calls in any second."""

    __slots__ = ("_accepted", "per_second")

    def __init__(self, per_second: float) -> None:
        if per_second != int(per_second):
            raise ValueError("a limit in a sliding window must be a whole number")
        self.per_second = per_second
        self._accepted: deque[float] = deque()  # times within the last second

    @property
    def remaining(self) -> int:
        """Number of calls that would be accepted now."""
        return int(self.per_second) - len(self._accepted)

    def wait_seconds(self, now: float) -> float:
        """Accept a call and return 0.0, or return the seconds until one would be accepted."""
        accepted = self._accepted
        while accepted and now - accepted[0] >= 1.0:
            accepted.popleft()
        if len(accepted) < self.per_second:
            accepted.append(now)
            return 0.0
        return accepted[0] + 1.0 - now


class EndpointTraffic:
    """Counts of one endpoint; `answers` counts responses by HTTP status or by `Ending`."""

    __slots__ = (
        "answers",
        "applied_count",
        "busiest",
        "in_flight_count",
        "most_in_flight",
        "rate_limited_count",
        "received_count",
        "repeated_count",
    )

    def __init__(self) -> None:
        self.received_count = 0
        self.answers: Counter[str] = Counter()
        self.applied_count = 0
        self.repeated_count = 0
        self.rate_limited_count = 0
        self.in_flight_count = 0
        self.most_in_flight = 0
        self.busiest = BusiestSecond()

    def arrive(self, at: float) -> None:
        """Count a received request."""
        self.received_count += 1
        self.in_flight_count += 1
        if self.in_flight_count > self.most_in_flight:
            self.most_in_flight = self.in_flight_count
        self.busiest.arrive(at)

    def to_dict(self) -> dict[str, object]:
        """Return the counts, in the form of GET /sandbox/state."""
        return {
            "received": self.received_count,
            "answers": dict(self.answers),
            "applied": self.applied_count,
            "repeated": self.repeated_count,
            "rate_limited": self.rate_limited_count,
            "in_flight": self.in_flight_count,
            "max_in_flight": self.most_in_flight,
            "max_in_one_second": self.busiest.most,
        }


def whole_seconds(seconds: float) -> int:
    """Round a wait up to whole seconds, at least 1, as Iterable and `Retry-After` state them."""
    return max(1, math.ceil(seconds))
