"""Traffic of each endpoint: counts, the busiest second, and the rate limit behind a 429.

Times are monotonic seconds.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping

Limit = float | Mapping[str, float]


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


class RateLimit:
    """Token bucket: `per_second` tokens are added, `burst` is the capacity, a call takes one."""

    __slots__ = ("_tokens", "_updated_at", "burst", "per_second")

    def __init__(self, limit: Limit) -> None:
        numbers = limit if isinstance(limit, Mapping) else {"per_second": limit}
        unknown = sorted(set(numbers) - {"per_second", "burst"})
        if unknown or "per_second" not in numbers:
            raise ValueError('a limit is a number, or {"per_second": N, "burst": N}')
        values = list(numbers.values())
        if not all(type(value) in (int, float) and value > 0 for value in values):
            raise ValueError("a limit's numbers must be greater than 0")
        self.per_second = numbers["per_second"]
        self.burst = max(1.0, numbers.get("burst", self.per_second))
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
