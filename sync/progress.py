"""Progress of a delivery: a live line on a terminal, otherwise a log line every minute."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple, TextIO

from config.settings import Settings
from records.outcomes import CallResult, Verdict
from records.rows import Finished
from reporting.measurements import Latencies, Measurements, ProgressSnapshot, Throughput, clock_time
from sync.progress_bar import LiveProgressBar, can_be_live

logger = logging.getLogger(__name__)

LINE_EVERY_SECONDS = 60.0
_LIVE_RATE_SECONDS = 10.0  # the live line shows the rate over these last seconds
_HISTORY_STEPS = 300  # of 0.25 s each: a little more than the minute of a log line

# A `CallReport` of the dispatcher: a call after its last attempt, and the results of its requests.
Call = tuple[CallResult, Sequence[Finished]]


def ceiling_rows_per_second(settings: Settings) -> float:
    """Return the rows/s that the rate limits allow: a call for each kind of request."""
    of_profiles, of_events, size = _limits(settings)
    limits = [of_profiles] * settings.sends_profiles + [of_events] * settings.sends_events
    return min(limits) * size


def _limits(settings: Settings) -> tuple[float, float, int]:
    """Return the requests/s for profiles and for events, and the rows in a request."""
    if settings.sync_mode == "bulk":
        return settings.bulk_update_rps, settings.track_bulk_rps, settings.bulk_batch_size
    return settings.users_update_rps, settings.events_track_rps, 1


class Pace(NamedTuple):
    """How long requests take at least, and the rate limit that decides it."""

    seconds: float
    requests_per_second: float


def pace_at_the_limits(settings: Settings, profiles: int, events: int) -> Pace:
    """Return the pace of that many requests if nothing but the rate limits slows them down."""
    of_profiles, of_events, size = _limits(settings)
    return max(
        Pace(profiles / size / of_profiles, of_profiles), Pace(events / size / of_events, of_events)
    )


class Progress:
    """The progress of one delivery; a context manager around it.

    The dispatcher calls `advance` four times a second. With `live`, and if `stream` (None: standard
    error) is a terminal, its bottom line shows the progress. Otherwise a line is logged once a
    minute.
    """

    def __init__(
        self,
        rows_to_send: int,
        ceiling_rows_per_second: float,
        *,
        live: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows_to_send = rows_to_send
        self._ceiling = ceiling_rows_per_second
        self._stream = sys.stderr if stream is None else stream
        self._is_live = live and can_be_live(self._stream)
        self._line: LiveProgressBar | None = None
        self._clock = clock
        self._began_at = self._logged_at = clock()
        self._history = deque([(self._began_at, 0)], maxlen=_HISTORY_STEPS)
        self._rows_done = self._retries = self._rows_failed = 0
        self._failed = bytearray()  # a bit per row, so that two failed requests count as one row
        self._throughput, self._latencies = Throughput(), Latencies()

    def __enter__(self) -> Progress:
        if self._is_live:
            self._line = LiveProgressBar(self._stream)
            self._line.show(self.snapshot(_LIVE_RATE_SECONDS))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def advance(self, calls: Sequence[Call], rows_done: int) -> None:
        """Add the calls since the last time; `rows_done` is the number of all rows done so far."""
        now = self._clock()
        retries = 0
        count_latency = self._latencies.add
        for call, finished in calls:
            retries += call.attempts - 1
            count_latency(call.elapsed_seconds)
            for row in finished:
                if row.result.verdict is not Verdict.DELIVERED:
                    self._count_failure(row.seq)
        newly_done = max(0, rows_done - self._rows_done)
        self._rows_done += newly_done
        self._retries += retries
        self._throughput.add(now - self._began_at, newly_done, retries)
        self._history.append((now, self._rows_done))
        if self._line is not None:
            self._line.show(self.snapshot(_LIVE_RATE_SECONDS))
        if now - self._logged_at >= LINE_EVERY_SECONDS:
            self._logged_at = now
            # DEBUG goes only into the log file: the terminal has the live line.
            level = logging.DEBUG if self._line else logging.INFO
            logger.log(level, "%s", progress_line(self.snapshot(LINE_EVERY_SECONDS)))

    def snapshot(self, over_seconds: float = LINE_EVERY_SECONDS) -> ProgressSnapshot:
        """Return the counts so far, and the rate over the last `over_seconds`."""
        now, rows_now = self._history[-1]
        then, rows_then = next((at, rows) for at, rows in self._history if at >= now - over_seconds)
        rate = (rows_now - rows_then) / (now - then) if now > then else 0.0
        return ProgressSnapshot(
            self._rows_done,
            self._rows_to_send,
            self._rows_failed,
            self._retries,
            rate,
            self._ceiling,
        )

    @property
    def measurements(self) -> Measurements:
        """The measurements so far, for the report."""
        return Measurements(
            self._ceiling,
            self._throughput.samples(),
            self._latencies.buckets(),
            self._latencies.slowest_seconds,
        )

    def _count_failure(self, seq: int) -> None:
        byte, bit = seq >> 3, 1 << (seq & 7)
        if byte >= len(self._failed):
            self._failed.extend(bytes(byte + 1 - len(self._failed)))
        if not self._failed[byte] & bit:
            self._failed[byte] |= bit
            self._rows_failed += 1


def progress_line(snapshot: ProgressSnapshot) -> str:
    """Return the log line of a snapshot."""
    parts = [
        f"{snapshot.rows_done:,} of {snapshot.rows_to_send:,} rows done"
        f" ({int(snapshot.share_done * 100)} %)",
        f"{snapshot.rows_per_second:,.1f} users/s, {snapshot.share_of_ceiling:.0%} of the limit",
    ]
    if snapshot.seconds_left is not None:
        parts.append(f"{clock_time(snapshot.seconds_left)} left")
    return ", ".join(parts) + f"; {snapshot.rows_failed:,} failed, {snapshot.retries:,} retries"
