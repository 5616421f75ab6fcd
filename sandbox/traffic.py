"""How busy each endpoint was, and how busy it may be.

Owns the counts per endpoint, the busiest second, and the token buckets behind 429 answers. Refuses
to know HTTP and what the calls were about. Times are monotonic seconds, passed in.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping

Limit = float | Mapping[str, float]


class BusiestSecond:
    """The most arrivals within any one second."""

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
    """A token bucket: `per_second` tokens flow in, at most `burst` are kept, a call takes one."""

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
        """How many calls would be let through now."""
        return int(self._tokens)

    def wait_seconds(self, now: float) -> float:
        """Take a token and give 0.0, or say in how many seconds there will be one."""
        if self._updated_at is not None:
            flowed = (now - self._updated_at) * self.per_second
            self._tokens = min(self.burst, self._tokens + flowed)
        self._updated_at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.per_second


class EndpointTraffic:
    """What one endpoint received and answered."""

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
        """Count one request that came in."""
        self.received_count += 1
        self.in_flight_count += 1
        if self.in_flight_count > self.most_in_flight:
            self.most_in_flight = self.in_flight_count
        self.busiest.arrive(at)

    def to_dict(self) -> dict[str, object]:
        """Give the counts as the state endpoint shows them."""
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
    """Round a wait up to the whole seconds that Iterable and `Retry-After` speak of, at least 1."""
    return max(1, math.ceil(seconds))
