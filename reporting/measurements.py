"""Measurements of a delivery: progress, throughput over time, latency histogram.

Their size is fixed, however long the run and however many calls it makes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

MAX_SAMPLES = 240  # a longer run doubles the time that each covers

# 1 ms to 6 minutes in steps of 19 %; a call that waits for 429s takes five minutes at most.
_STEPS_PER_DOUBLING = 4
LATENCY_BOUNDS_SECONDS = tuple(0.001 * 2 ** (step / _STEPS_PER_DOUBLING) for step in range(75))


class Sample(NamedTuple):
    """One interval of a delivery."""

    starts_at_seconds: float  # since the delivery began
    seconds: float
    rows: float  # settled; a fraction if an update covered several intervals
    retries: float

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


class LatencyBucket(NamedTuple):
    """The calls that took from `from_seconds` to less than `to_seconds`."""

    from_seconds: float
    to_seconds: float
    calls: int


class Measurements(NamedTuple):
    """What one delivery measured.

    A call's time includes its retries and the waits before them, but not the wait for its turn.
    """

    ceiling_rows_per_second: float
    samples: Sequence[Sample] = ()
    latencies: Sequence[LatencyBucket] = ()  # ascending, without gaps
    slowest_seconds: float = 0.0


class ProgressSnapshot(NamedTuple):
    """The progress of a delivery at one moment."""

    rows_done: int
    rows_to_send: int
    rows_failed: int
    retries: int
    rows_per_second: float
    ceiling_rows_per_second: float

    @property
    def rows_delivered(self) -> int:
        return max(0, self.rows_done - self.rows_failed)

    @property
    def share_done(self) -> float:
        return min(1.0, self.rows_done / self.rows_to_send) if self.rows_to_send else 1.0

    @property
    def share_of_ceiling(self) -> float:
        return self.rows_per_second / self.ceiling_rows_per_second

    @property
    def seconds_left(self) -> float | None:
        """None while the rate is 0."""
        rows_left = max(0, self.rows_to_send - self.rows_done)
        return rows_left / self.rows_per_second if self.rows_per_second else None


class Throughput:
    """Rows and retries over time, in at most `MAX_SAMPLES` intervals of equal length."""

    def __init__(self) -> None:
        self._interval_seconds = 1.0
        self._ends_at = 0.0
        self._rows: list[float] = []
        self._retries: list[float] = []

    def add(self, until_seconds: float, rows: int, retries: int) -> None:
        """Spread rows and retries evenly over the time since the previous call."""
        since = self._ends_at
        until = max(until_seconds, since + 1e-6)
        self._ends_at = until
        while until > MAX_SAMPLES * self._interval_seconds:
            self._interval_seconds *= 2
            self._rows = _sum_pairs(self._rows)
            self._retries = _sum_pairs(self._retries)
        width = self._interval_seconds
        first, last = int(since / width), min(int(until / width), MAX_SAMPLES - 1)
        missing = last + 1 - len(self._rows)
        self._rows += [0.0] * missing
        self._retries += [0.0] * missing
        for index in range(first, last + 1):
            overlap = min(until, (index + 1) * width) - max(since, index * width)
            share = overlap / (until - since)
            self._rows[index] += rows * share
            self._retries[index] += retries * share

    def samples(self) -> list[Sample]:
        """Return the intervals so far.

        A last interval of less than half the length is merged with the one before it, because
        a few late rows would look like a peak.
        """
        width = self._interval_seconds
        samples = [
            Sample(index * width, min(width, self._ends_at - index * width), rows, retries)
            for index, (rows, retries) in enumerate(zip(self._rows, self._retries, strict=True))
            if self._ends_at > index * width
        ]
        if len(samples) > 1 and samples[-1].seconds < width / 2:
            last, previous = samples.pop(), samples.pop()
            samples.append(
                Sample(
                    previous.starts_at_seconds,
                    previous.seconds + last.seconds,
                    previous.rows + last.rows,
                    previous.retries + last.retries,
                )
            )
        return samples


class Latencies:
    """Histogram of call durations; each bucket is 19 % wider than the one before."""

    def __init__(self) -> None:
        self.slowest_seconds = 0.0
        self._calls = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)

    def add(self, elapsed_seconds: float) -> None:
        """Count one call."""
        self._calls[bisect_right(LATENCY_BOUNDS_SECONDS, elapsed_seconds)] += 1
        if elapsed_seconds > self.slowest_seconds:
            self.slowest_seconds = elapsed_seconds

    def buckets(self) -> list[LatencyBucket]:
        """Return the buckets from the first to the last that is not empty."""
        used = [index for index, calls in enumerate(self._calls) if calls]
        if not used:
            return []
        bounds = (0.0, *LATENCY_BOUNDS_SECONDS, float("inf"))
        return [
            LatencyBucket(bounds[index], bounds[index + 1], self._calls[index])
            for index in range(used[0], used[-1] + 1)
        ]


def clock_time(seconds: float) -> str:
    """Write a duration as 0:07, 4:05 or 1:02:03."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_seconds:02}" if hours else f"{minutes}:{whole_seconds:02}"


def percentile_seconds(measured: Measurements, share: float) -> float:
    """Return the time within which `share` (0 to 1) of the calls ended, accurate to 19 %."""
    calls_left = share * sum(bucket.calls for bucket in measured.latencies)
    for bucket in measured.latencies:
        calls_left -= bucket.calls
        if calls_left <= 0:
            return min(bucket.to_seconds, measured.slowest_seconds)
    return measured.slowest_seconds


def _sum_pairs(counts: Sequence[float]) -> list[float]:
    return [sum(counts[index : index + 2]) for index in range(0, len(counts), 2)]
