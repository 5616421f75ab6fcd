"""Drains the outbox through the client: many calls at once, the first row alone, a polite stop.

The dispatcher (the caller's thread) takes a permit from the endpoint's pace and then hands the
work to a thread, so that the threads in use follow rate x latency by themselves: nothing to
tune. It alone touches the outbox, and records what the threads report in short transactions.
Knows no SQL and no HTTP; outbox and sender arrive as arguments.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from errors import SyncError
from iterable_api.rate_limiter import RateLimiter
from records.outcomes import CallResult, Finished, PendingRow, Verdict
from state.outbox import Outbox
from sync.worker_pool import WorkerPool

logger = logging.getLogger(__name__)

ERROR_BUDGET = 20  # calls in a row that stay unavailable end the run
COMMIT_EVERY_SECONDS = 0.5  # of finished work at risk in a crash; the contract allows 1 s
GRACE_SECONDS = 2.5  # for the calls in flight when the run is asked to stop

_TICK_SECONDS = 0.004  # two permits at 500 a second: half the wake-ups of one each


class RunAborted(SyncError):
    """The run has to stop before its end; the text says why and what to do."""


class CallReport(NamedTuple):
    """What a thread says after a call: the call, and what it means for each row of it."""

    call: CallResult
    finished: Sequence[Finished]


class DelayedEvents(NamedTuple):
    """Events to be sent `EVENT_DELAY_SECONDS` after their updates were accepted."""

    seqs: Sequence[int]


class Done(NamedTuple):
    """A thread is through with its unit of rows."""

    rows: int  # 0 where a stop came before the first call


class Failed(NamedTuple):
    """A thread gave up its unit of rows because of a bug."""

    error: BaseException


Report = Callable[[CallReport | DelayedEvents], bool]  # False: make no further call
Rows = Sequence[PendingRow]


class Sender(Protocol):
    """How rows become calls: one by one, or in bulk."""

    max_in_flight: int  # units at once, each in a thread of its own

    def units(self, rows: Iterator[PendingRow]) -> Iterator[Rows]:
        """Group the rows into what is sent together; the first unit is the first row alone."""

    def pace(self, unit: Rows) -> RateLimiter:
        """Return the pace of the unit's first call."""

    def send(self, unit: Rows, report: Report, *, has_permit: bool) -> None:
        """Make a unit's calls, reporting each; runs in a thread of its own."""


class Dispatcher:
    """One drain of an outbox. `run` returns when all is sent or `stop` is set."""

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        stop: threading.Event,
        *,
        event_delay_seconds: float = 0.0,
        on_progress: Callable[[Sequence[CallReport], int], None] = lambda _calls, _rows_done: None,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._stop = stop
        self._event_delay_seconds = event_delay_seconds
        self._on_progress = on_progress
        self._pool = WorkerPool("delivery", sender.max_in_flight)
        self._reports: SimpleQueue[CallReport | DelayedEvents | Done | Failed] = SimpleQueue()
        self._in_flight = 0
        self._delayed: deque[tuple[float, Sequence[int]]] = deque()
        self._unrecorded: list[CallReport] = []
        self._rows_done = 0  # nothing more will be sent for them
        self._recorded_at = time.monotonic()
        self._unavailable_in_a_row = 0
        self._is_aborted = False  # rows in flight are not even finished then

    def run(self) -> None:
        """Send everything that is pending. Raises RunAborted; the rest can be sent next time."""
        units = self._sender.units(self._outbox.pending())
        try:
            first = next(units, None)
            if first is not None:
                self._start(first, has_permit=False)
                while self._in_flight and not self._stop.is_set():
                    time.sleep(_TICK_SECONDS)
                    self._collect()
            self._deliver(units)
        except BaseException:
            self._is_aborted = True
            self._stop.set()
            raise
        finally:
            self._finish()

    def _deliver(self, units: Iterator[Rows]) -> None:
        unit = next(units, None)
        while not self._stop.is_set():
            self._send_held_back()
            wait_seconds = _TICK_SECONDS
            tick_ends_at = time.monotonic() + _TICK_SECONDS  # whatever the pace would still allow
            while unit is not None and self._in_flight < self._sender.max_in_flight:
                wait_seconds = self._sender.pace(unit).try_acquire()
                if wait_seconds > 0:
                    break
                self._start(unit, has_permit=True)
                unit = next(units, None)
                if time.monotonic() >= tick_ends_at:
                    break
            if unit is None and not self._in_flight and not self._delayed:
                return
            time.sleep(min(max(wait_seconds, _TICK_SECONDS), 0.05))
            self._collect()

    def _start(self, unit: Rows, *, has_permit: bool) -> None:
        self._in_flight += 1
        self._pool.submit(self._send, unit, has_permit).add_done_callback(self._report_end)

    def _send(self, unit: Rows, has_permit: bool) -> Done:
        if self._stop.is_set():
            return Done(0)
        self._sender.send(unit, self._report, has_permit=has_permit)
        return Done(len(unit))

    def _report_end(self, sending: Future[Done]) -> None:
        error = sending.exception()
        self._reports.put(sending.result() if error is None else Failed(error))

    def _report(self, report: CallReport | DelayedEvents) -> bool:
        self._reports.put(report)
        return not self._is_aborted

    def _send_held_back(self) -> None:
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            if self._in_flight >= self._sender.max_in_flight:
                return
            _due_at, seqs = self._delayed.popleft()
            self._start(self._outbox.events_of(seqs), has_permit=False)

    def _collect(self) -> None:
        """Take in what the threads reported, and raise what has to end the run."""
        if (trouble := self._take_in()) is not None:
            raise trouble

    def _take_in(self) -> BaseException | None:
        """Take in what the threads reported, record it in time, and return the first trouble."""
        trouble: BaseException | None = None
        while not self._reports.empty():
            report = self._reports.get()
            if isinstance(report, Done):
                self._in_flight -= 1
                self._rows_done += report.rows
            elif isinstance(report, Failed):
                self._in_flight -= 1
                trouble = trouble or report.error
            elif isinstance(report, CallReport):
                self._unrecorded.append(report)
                trouble = trouble or self._judge(report.call)
            else:
                self._rows_done -= len(report.seqs)
                due_at = time.monotonic() + self._event_delay_seconds
                self._delayed.append((due_at, report.seqs))
        if time.monotonic() - self._recorded_at >= COMMIT_EVERY_SECONDS:
            self._record()
        return trouble

    def _record(self) -> None:
        self._recorded_at = time.monotonic()
        self._outbox.record([finished for call in self._unrecorded for finished in call.finished])
        calls, self._unrecorded = self._unrecorded, []  # kept where that failed
        self._on_progress(calls, self._rows_done)

    def _judge(self, call: CallResult) -> RunAborted | None:
        """Say what ends the run: nothing more will be accepted, or nobody answers any more."""
        if call.verdict is Verdict.REFUSED:
            return RunAborted(_why_refused(call))
        if call.verdict is not Verdict.UNAVAILABLE:
            self._unavailable_in_a_row = 0
            return None
        self._unavailable_in_a_row += 1
        if self._unavailable_in_a_row < ERROR_BUDGET or self._stop.is_set():
            return None
        return RunAborted(
            f"{ERROR_BUDGET} calls in a row failed after all their attempts (the last: "
            f"{call.http_status or call.code}). Iterable seems to be down: run again later."
        )

    def _finish(self) -> None:
        """Let the calls in flight come home, for a while, and write down what they brought."""
        deadline = time.monotonic() + GRACE_SECONDS
        bug: BaseException | None = None
        try:
            while self._in_flight and time.monotonic() < deadline:
                time.sleep(_TICK_SECONDS)
                trouble = self._take_in()
                if isinstance(trouble, RunAborted):
                    logger.debug("while stopping: %s", trouble)
                else:
                    bug = bug or trouble
        finally:
            self._pool.close()
            self._record()
        if bug is not None:
            raise bug


def _why_refused(call: CallResult) -> str:
    if call.http_status in (401, 403):
        return (
            f"Iterable refused the API key (HTTP {call.http_status} {call.code}): check that "
            "ITERABLE_API_KEY is a server-side key of this project, and ITERABLE_API_BASE_URL its "
            "data centre (EU projects: https://api.eu.iterable.com)."
        )
    if call.http_status is None:
        return f"{call.message}: check ITERABLE_API_BASE_URL and REQUESTS_CA_BUNDLE."
    return (
        f"ITERABLE_API_BASE_URL does not lead to Iterable's API (HTTP {call.http_status}): "
        "it should be https://api.iterable.com or https://api.eu.iterable.com."
    )
