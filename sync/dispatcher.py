"""Dispatcher: delivers the outbox in worker threads, after the first row alone.

The calling thread takes a permit from the endpoint's rate limiter before it submits work to the
pool, so the number of threads adapts to rate x latency and needs no setting. It is the only thread
that touches the outbox; it records what the workers report, in short transactions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from errors import SyncError
from iterable_api.advice import explain_refusal
from iterable_api.rate_limiter import RateLimiter
from records.outcomes import CallResult, Verdict
from records.rows import Finished, PendingRow, Rows
from state.outbox import Outbox
from sync.worker_pool import WorkerPool

logger = logging.getLogger(__name__)

ERROR_BUDGET = 20  # unavailable calls in a row that end the run
COMMIT_EVERY_SECONDS = 0.5  # after a crash, at most this much work (1 s is allowed) is repeated
GRACE_SECONDS = 2.5  # a graceful shutdown waits this long for the calls in flight

_TICK_SECONDS = 0.004  # at 500/s two permits: half as many wake-ups as one a permit


class RunAborted(SyncError):
    """The delivery has to end early."""


class CallReport(NamedTuple):
    """A finished call, and the results of the requests in it."""

    call: CallResult
    finished: Sequence[Finished]


class DelayedEvents(NamedTuple):
    """Rows whose events are to be sent `EVENT_DELAY_SECONDS` from now."""

    seqs: Sequence[int]


class Done(NamedTuple):
    """A worker has finished its unit."""

    rows: int  # 0 when the run stopped before the unit's first call


class Failed(NamedTuple):
    """A worker raised an exception: a bug."""

    error: BaseException


# Hands a worker's report to the dispatcher; returns False if no further call may be made.
Report = Callable[[CallReport | DelayedEvents], bool]


class Sender(Protocol):
    """How rows become calls. A unit is what one worker sends: a row or a batch."""

    max_in_flight: int  # units sent at the same time, each in a worker thread

    def units(self, rows: Iterator[PendingRow]) -> Iterator[Rows]:
        """Group the rows into units; the first unit is the first row alone."""

    def rate_limiter(self, unit: Rows) -> RateLimiter:
        """Return the rate limiter of the unit's first call."""

    def send(self, unit: Rows, report: Report, *, has_permit: bool) -> None:
        """Make the calls of a unit and report each of them; runs in a worker thread."""


class Dispatcher:
    """One delivery of an outbox. Setting `stop` starts a graceful shutdown.

    `on_progress(calls, rows_done)` gets the calls that finished since the last time, and the number
    of rows done so far.
    """

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
        self._rows_done = 0
        self._recorded_at = time.monotonic()
        self._unavailable_in_a_row = 0
        self._is_aborted = False  # if True, workers make no further call, even for a started row

    def run(self) -> None:
        """Send all pending rows; return early if `stop` is set. Raises RunAborted."""
        units = self._sender.units(self._outbox.pending())
        try:
            first = next(units, None)
            if first is not None:
                self._start(first, has_permit=False)
                while self._in_flight and not self._stop.is_set():
                    time.sleep(_TICK_SECONDS)
                    self._check_reports()
            self._send_as_permitted(units)
        except BaseException:
            self._is_aborted = True
            self._stop.set()
            raise
        finally:
            self._shut_down()

    def _send_as_permitted(self, units: Iterator[Rows]) -> None:
        unit = next(units, None)
        while not self._stop.is_set():
            self._start_delayed_events()
            wait_seconds = _TICK_SECONDS
            tick_ends_at = time.monotonic() + _TICK_SECONDS  # even if permits are left
            while unit is not None and self._in_flight < self._sender.max_in_flight:
                wait_seconds = self._sender.rate_limiter(unit).try_acquire()
                if wait_seconds > 0:
                    break
                self._start(unit, has_permit=True)
                unit = next(units, None)
                if time.monotonic() >= tick_ends_at:
                    break
            if unit is None and not self._in_flight and not self._delayed:
                return
            time.sleep(min(max(wait_seconds, _TICK_SECONDS), 0.05))
            self._check_reports()

    def _start(self, unit: Rows, *, has_permit: bool) -> None:
        self._in_flight += 1
        self._pool.start(self._send, unit, has_permit, then=self._reports.put)

    def _send(self, unit: Rows, has_permit: bool) -> Done | Failed:
        try:
            if self._stop.is_set():
                return Done(0)
            self._sender.send(unit, self._report, has_permit=has_permit)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            return Failed(error)
        return Done(len(unit))

    def _report(self, report: CallReport | DelayedEvents) -> bool:
        self._reports.put(report)
        return not self._is_aborted

    def _start_delayed_events(self) -> None:
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            if self._in_flight >= self._sender.max_in_flight:
                return
            _due_at, seqs = self._delayed.popleft()
            self._start(self._outbox.events_of(seqs), has_permit=False)

    def _check_reports(self) -> None:
        """Process the workers' reports; raise the first problem that has to end the run."""
        if (problem := self._process_reports()) is not None:
            raise problem

    def _process_reports(self) -> BaseException | None:
        """Process the workers' reports, record them when due, and return the first problem."""
        problem: BaseException | None = None
        while not self._reports.empty():
            report = self._reports.get()
            if isinstance(report, Done):
                self._in_flight -= 1
                self._rows_done += report.rows
            elif isinstance(report, Failed):
                self._in_flight -= 1
                problem = problem or report.error
            elif isinstance(report, CallReport):
                self._unrecorded.append(report)
                problem = problem or self._reason_to_abort(report.call)
            else:
                self._rows_done -= len(report.seqs)
                due_at = time.monotonic() + self._event_delay_seconds
                self._delayed.append((due_at, report.seqs))
        if time.monotonic() - self._recorded_at >= COMMIT_EVERY_SECONDS:
            self._record()
        return problem

    def _record(self) -> None:
        self._recorded_at = time.monotonic()
        self._outbox.record([finished for call in self._unrecorded for finished in call.finished])
        # Emptied only now: if recording fails, `_shut_down` tries once more.
        calls, self._unrecorded = self._unrecorded, []
        self._on_progress(calls, self._rows_done)

    def _reason_to_abort(self, call: CallResult) -> RunAborted | None:
        """Update the error budget; return why the run has to end after this call, or None."""
        if call.verdict is Verdict.REFUSED:
            return RunAborted(explain_refusal(call.http_status, call.code, call.message))
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

    def _shut_down(self) -> None:
        """Wait up to `GRACE_SECONDS` for the calls in flight, then record all results."""
        deadline = time.monotonic() + GRACE_SECONDS
        bug: BaseException | None = None
        try:
            while self._in_flight and time.monotonic() < deadline:
                time.sleep(_TICK_SECONDS)
                problem = self._process_reports()
                if isinstance(problem, RunAborted):
                    logger.debug("During shutdown: %s", problem)
                else:
                    bug = bug or problem
        finally:
            self._pool.close()
            self._record()
        if bug is not None:
            raise bug
