"""Dispatcher: sends the first unit alone, then delivers the outbox in worker threads.

The calling thread gives units to the pool a tenth of a second before their calls may start, so the
number of threads adapts to rate x latency and needs no setting. It is the only thread that touches
the outbox; it records what the workers report, in short transactions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from math import ceil
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from errors import SyncError
from iterable_api.advice import explain_refusal
from iterable_api.responses import NO_API_RESPONSE
from iterable_client import IterableClient
from records.outcomes import CallResult, Verdict
from records.rows import Finished, PendingRow, RequestKind, Rows
from state.email_changes import EmailChange
from sync.email_changes import EmailMover, Moved
from sync.mass_rejection import MassRejection, RejectionGuard
from sync.worker_pool import WorkerPool

logger = logging.getLogger(__name__)

MAX_BLOCKED_ROWS = 3  # after so many, before the API has answered, Iterable itself is asked
# After a crash at most one second of finished work may be repeated; a busy machine is late.
COMMIT_EVERY_SECONDS = 0.25
GRACE_SECONDS = 2.5  # a graceful shutdown waits this long for the calls in flight

_TICK_SECONDS = 0.004
# So many seconds ahead of its permit a unit goes to a worker, which connects and waits for the
# permit itself: the calls then start in time while this thread records results.
_START_AHEAD_SECONDS = 0.1
_START_AHEAD_UNITS = 2  # more: at five a second one would wait for the handshake of another


class RunAborted(SyncError):
    """The delivery has to end early."""


class CallReport(NamedTuple):
    """A finished call, and the results of the requests in it."""

    call: CallResult
    finished: Sequence[Finished]


class Started(NamedTuple):
    """An attempt that is about to be sent."""

    kind: RequestKind
    rows: Rows
    attempt: int  # 1, 2, ...


class AttemptFailed(NamedTuple):
    """The attempt that was started last has failed; the request may be tried again."""


class DelayedEvents(NamedTuple):
    """Rows whose events are to be sent `EVENT_DELAY_SECONDS` from now."""

    seqs: Sequence[int]


class Done(NamedTuple):
    """A worker has finished its unit."""

    unit: Rows
    is_sent: bool  # False when the run stopped before the unit's first attempt


class Asked(NamedTuple):
    """Iterable was asked whether it can be reached: see `IterableClient.has_api_answered`."""


class Failed(NamedTuple):
    """A worker raised an exception: a bug."""

    error: BaseException


AnyReport = CallReport | DelayedEvents | Started | AttemptFailed
# Hands a worker's report to the dispatcher; returns False if no further call may be made.
Report = Callable[[AnyReport], bool]


class Sender(Protocol):
    """How rows become calls. A unit is what one worker sends: a row or a batch."""

    client: IterableClient
    guard: RejectionGuard
    max_in_flight: int  # units sent at the same time, each in a worker thread

    def units(self, rows: Iterator[PendingRow]) -> Iterator[Rows]:
        """Group the rows into units."""

    def endpoint(self, unit: Rows) -> str:
        """Return the endpoint of the unit's first call."""

    def send(self, unit: Rows, report: Report) -> None:
        """Make the calls of a unit and report each of them; runs in a worker thread."""


class RequestQueue(Protocol):
    """What is delivered: an `Outbox`, or the `ClearingQueue` of users who left."""

    def pending(self) -> Iterator[PendingRow]:
        """Yield the rows to send, in ascending order of `seq`."""

    def record(self, finished: Sequence[Finished]) -> None:
        """Store the results of requests, on the disk on return."""

    def events_of(self, seqs: Sequence[int]) -> list[PendingRow]:
        """Return these rows with their events only."""

    def rows_to_try_first(self) -> Mapping[RequestKind, Sequence[PendingRow]]:
        """Return rows of the kinds of request that the last run ended."""

    def accept_kind(self, kind: RequestKind) -> None:
        """Note that the rows that were tried first passed."""

    def end_kind(self, kind: RequestKind, code: str | None) -> None:
        """Note that this run sends no more requests of a kind."""


class _OpenRows:
    """Finds the first row that is not done, by the first `seq` of each unit in flight or delayed.

    Two units may have the same one: a batch in flight, and the events of its first rows.
    """

    def __init__(self) -> None:
        self._seqs: list[int] = []  # a heap: with delayed events there may be a million
        self._removed: Counter[int] = Counter()  # those of the heap that count no more

    def add(self, seq: int) -> None:
        heappush(self._seqs, seq)

    def remove(self, seq: int) -> None:
        self._removed[seq] += 1

    def first(self) -> int | None:
        while self._seqs and (seq := self._seqs[0]) in self._removed:
            heappop(self._seqs)
            self._removed[seq] -= 1
            if not self._removed[seq]:
                del self._removed[seq]
        return self._seqs[0] if self._seqs else None


class Dispatcher:
    """One delivery of an outbox. Setting `stop` starts a graceful shutdown.

    `on_progress(calls, rows_done)` gets the calls that finished since the last time, and the number
    of rows done so far. `on_recorded(seq)` is called after results were recorded: all rows before
    `seq` are done. It is not called during the shutdown.
    """

    def __init__(
        self,
        outbox: RequestQueue,
        sender: Sender,
        stop: threading.Event,
        *,
        event_delay_seconds: float = 0.0,
        moves: EmailMover | None = None,
        on_progress: Callable[[Sequence[CallReport], int], None] = lambda _calls, _rows_done: None,
        on_recorded: Callable[[int], None] = lambda _seq: None,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._stop = stop
        self._event_delay_seconds = event_delay_seconds
        self._moves = moves
        self._due_rows: list[tuple[float, int]] = []  # a heap: due time and seq of moved rows
        self._moved: set[int] = set()  # rows that are open until all their requests are done
        self._on_progress = on_progress
        self._on_recorded = on_recorded
        self._pool = WorkerPool("delivery", sender.max_in_flight)
        self._reports: SimpleQueue[CallReport | DelayedEvents | Done | Moved | Asked | Failed] = (
            SimpleQueue()
        )
        self._in_flight = 0
        self._open = _OpenRows()
        self._next_seq = 0  # no row before it will be started
        self._delayed: deque[tuple[float, Sequence[int]]] = deque()
        self._unrecorded: list[CallReport] = []
        self._rows_done = 0
        self._recorded_at = time.monotonic()
        self._has_verdict = False  # whether any call has one, other than blocked
        self._blocked: list[CallReport] = []  # before the API has answered: not judged yet
        self._blocked_at = 0.0  # the client's time when the first one was noted
        self._has_asked = False  # whether Iterable itself was asked about them
        self._is_aborted = False  # if True, workers make no further call, even for a started row
        self._under_way: dict[int, Started] = {}  # by thread
        self._waiting: set[int] = set()  # threads whose unit has not made its first attempt
        self._waiting_count = 0  # units that were started and have made no attempt
        self._is_closed = False  # if True, results are ignored: the requests have one already
        self._is_all_blocked = False  # whether the run ends because no request gets through
        self._starting = threading.Lock()
        self._is_trying_first = False
        self._ended_count = 0  # kinds of request that the guard has ended

    def run(self) -> None:
        """Send all pending rows; return early if `stop` is set. Raises RunAborted."""
        try:
            self._open_moves()
            self._try_first()
            units = self._sender.units(self._sender.guard.wanted(self._outbox.pending()))
            self._send_alone(units)
            self._send_as_permitted(units)
        except BaseException:
            self._forbid_attempts()
            self._stop.set()
            raise
        finally:
            self._shut_down()

    def _try_first(self) -> None:
        """Send, each alone, some rows of a kind that the last run ended, and judge by them."""
        rows_of_kind = self._outbox.rows_to_try_first()
        if not rows_of_kind:
            return
        rows = sorted({row.seq: row for rows in rows_of_kind.values() for row in rows}.values())
        logger.info(
            "Iterable rejected most %ss in the last run: %s of these rows are sent first.",
            "s and ".join(kind.value for kind in rows_of_kind),
            len(rows),
        )
        units: Iterator[Rows] = iter([[row] for row in rows])
        self._is_trying_first = True
        self._send_alone(units)
        self._send_as_permitted(units)
        self._is_trying_first = False
        self._record()
        for kind in () if self._stop.is_set() else rows_of_kind:
            if self._sender.guard.accepts(kind):
                self._outbox.accept_kind(kind)
        self._check_reports()

    def _send_alone(self, units: Iterator[Rows]) -> None:
        """Send the first unit, and another one as long as a proxy or firewall has blocked all.

        The others wait only for a first verdict that is not `refused`, not for the unit's end: that
        would be a round trip more, and where a batch is split it may take many minutes. In an
        outage the circuit breaker holds them back instead.
        """
        is_blocked = True
        while is_blocked and (unit := next(units, None)) is not None and not self._stop.is_set():
            self._start(unit)
            while (
                self._in_flight
                and not self._has_verdict
                and not self._sender.client.breakers.have_opened
                and not self._stop.is_set()
            ):
                time.sleep(_TICK_SECONDS)
                self._check_reports()
            is_blocked = bool(self._blocked) and not self._in_flight

    def _send_as_permitted(self, units: Iterator[Rows]) -> None:
        unit = next(units, None)
        while not self._stop.is_set():
            self._start_delayed_events()
            self._start_moves()
            self._start_due_rows()
            while unit is not None and self._may_start(unit):
                self._start(unit)
                unit = next(units, None)
            is_delayed = not self._is_trying_first and (self._delayed or self._has_moves)
            if unit is None and not self._in_flight and not is_delayed:
                if not self._blocked:
                    return
                self._ask_iterable()
            time.sleep(_TICK_SECONDS)
            self._check_reports()

    # Users who get another address before their row is sent

    def _open_moves(self) -> None:
        if self._moves is not None:
            waiting = self._moves.waiting
            self._moved.update(self._moves.seqs, (seq for seq, _seconds in waiting))
            for seq in self._moved:
                self._open.add(seq)
            for seq, seconds in waiting:
                self._add_due_row(seq, seconds)

    @property
    def _has_moves(self) -> bool:
        return bool(self._due_rows) or (self._moves is not None and not self._moves.is_over)

    def _start_moves(self) -> None:
        if self._moves is None or self._is_trying_first:
            return
        for change in self._moves.next_moves(is_alone=not self._has_verdict):
            self._in_flight += 1
            if (why := self._moves.why_blocked(change)) is not None:
                self._reports.put(self._moves.blocked(change, why))
            else:
                self._pool.start(self._move, self._moves, change, then=self._reports.put)

    @staticmethod
    def _move(moves: EmailMover, change: EmailChange) -> Moved | Failed:
        try:
            return moves.send(change)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            return Failed(error)

    def _settle_move(self, moves: EmailMover, moved: Moved) -> RunAborted | None:
        self._in_flight -= 1
        seq = moved.change.seq
        seconds = moves.settle(moved)
        if seconds is None:
            self._rows_done += moved.call.has_verdict
            if moved.call.has_verdict:
                self._close_moved(seq)
        else:
            self._add_due_row(seq, seconds)
        self._has_verdict |= not moved.call.is_blocked
        return self._reason_to_abort(moved.call)

    def _add_due_row(self, seq: int, seconds: float) -> None:
        """Let a row start so long from now, with those that are due shortly before it."""
        together = self._moves.together_seconds if self._moves is not None else 0.0
        due_at = time.monotonic() + seconds
        if together:
            due_at = ceil(due_at / together) * together
        heappush(self._due_rows, (due_at, seq))

    def _start_due_rows(self) -> None:
        if self._is_trying_first or self._in_flight >= self._sender.max_in_flight:
            return
        seqs = []
        while self._due_rows and self._due_rows[0][0] <= time.monotonic():
            seqs.append(heappop(self._due_rows)[1])
        if not seqs or self._moves is None:
            return
        rows = list(self._sender.guard.wanted(iter(self._moves.rows_of(seqs))))
        for unit in self._sender.units(iter(rows)):
            self._start(unit, is_delayed=True)
        for seq in set(seqs) - {row.seq for row in rows}:  # its requests have ended
            self._rows_done += 1
            self._close_moved(seq)

    def _close_moved(self, seq: int) -> None:
        if seq in self._moved:
            self._moved.discard(seq)
            self._open.remove(seq)

    def _may_start(self, unit: Rows) -> bool:
        """Return whether to start another unit: few of them may wait for their permit."""
        if self._in_flight >= self._sender.max_in_flight:
            return False
        endpoint = self._sender.endpoint(unit)
        breakers = self._sender.client.breakers
        if breakers.is_open(endpoint):
            return not self._waiting_count and breakers.lacks_a_probe(endpoint)
        rate = self._sender.client.rate_limiters[endpoint].rate
        return self._waiting_count < rate * _START_AHEAD_SECONDS + _START_AHEAD_UNITS

    def _start(self, unit: Rows, *, is_delayed: bool = False) -> None:
        self._in_flight += 1
        with self._starting:
            self._waiting_count += 1
        self._open.add(unit[0].seq)
        if not (is_delayed or self._is_trying_first):  # else it is not the next one in order
            self._next_seq = max(self._next_seq, unit[-1].seq + 1)
        self._pool.start(self._send, unit, then=self._reports.put)

    def _send(self, unit: Rows) -> Done | Failed:
        thread = threading.get_ident()
        self._waiting.add(thread)
        try:
            if not self._stop.is_set():
                self._sender.send(unit, self._report)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            return Failed(error)
        finally:
            with self._starting:
                is_sent = thread not in self._waiting
                self._waits_no_more(thread)
        with self._starting:
            self._under_way.pop(thread, None)  # its last attempts met only an outage
        return Done(unit, is_sent)

    def _waits_no_more(self, thread: int) -> None:
        if thread in self._waiting:
            self._waiting.discard(thread)
            self._waiting_count -= 1

    def _report(self, report: AnyReport) -> bool:
        thread = threading.get_ident()
        with self._starting:
            if isinstance(report, Started):
                if self._is_aborted:
                    return False
                self._under_way[thread] = report
            elif isinstance(report, AttemptFailed):
                self._under_way.pop(thread, None)
            elif not self._is_closed:
                self._reports.put(report)
                if isinstance(report, CallReport):
                    self._under_way.pop(thread, None)
            self._waits_no_more(thread)
            return not self._is_aborted

    def _forbid_attempts(self) -> None:
        """Let no attempt start from now on; those under way go on."""
        with self._starting:
            self._is_aborted = True

    def _ask_iterable(self) -> None:
        """Ask Iterable itself whether it can be reached: perhaps only these rows are blocked."""
        if not self._has_asked:
            self._has_asked = True
            self._in_flight += 1
            self._pool.start(self._ask, then=self._reports.put)

    def _ask(self) -> Asked | Failed:
        try:
            self._sender.client.is_answering(self._blocked_at)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            return Failed(error)
        return Asked()

    def _all_blocked(self) -> RunAborted:
        self._is_all_blocked = True
        return RunAborted(explain_refusal(self._blocked[0].call.http_status, NO_API_RESPONSE, ""))

    def _start_delayed_events(self) -> None:
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            if self._in_flight >= self._sender.max_in_flight:
                return
            _due_at, seqs = self._delayed.popleft()
            self._start(self._outbox.events_of(seqs), is_delayed=True)
            self._open.remove(min(seqs))

    def _check_reports(self) -> None:
        """Process the workers' reports; raise the first problem that has to end the run."""
        if (problem := self._process_reports()) is not None:
            raise problem
        if not self._stop.is_set() and (reason := self._sender.client.breakers.watch()):
            raise RunAborted(reason)

    def _process_reports(self) -> BaseException | None:
        """Process the workers' reports, record them when due, and return the first problem."""
        problem: BaseException | None = None
        while not self._reports.empty():
            report = self._reports.get()
            if isinstance(report, Done):
                self._in_flight -= 1
                self._open.remove(report.unit[0].seq)
                for row in report.unit if self._moved else ():
                    self._close_moved(row.seq)
                self._rows_done += len(report.unit) * report.is_sent
            elif isinstance(report, Failed):
                self._in_flight -= 1
                problem = problem or report.error
            elif isinstance(report, Asked):
                self._in_flight -= 1
                has_answered = self._sender.client.has_api_answered
                if self._blocked and not has_answered and not self._stop.is_set():
                    problem = problem or self._all_blocked()
            elif isinstance(report, Moved):
                if self._moves is not None:
                    reason = self._settle_move(self._moves, report)
                    problem = problem or reason
            elif isinstance(report, CallReport):
                reason = self._judge(report)
                problem = problem or reason
            else:
                if not self._sender.guard.allows(RequestKind.EVENT):
                    continue
                self._rows_done -= len(report.seqs)
                due_at = time.monotonic() + self._event_delay_seconds
                self._delayed.append((due_at, report.seqs))
                self._open.add(min(report.seqs))
        if self._blocked and self._sender.client.has_api_answered:
            self._record_blocked_as(Verdict.REJECTED)
        for ended in self._sender.guard.ended[self._ended_count :]:
            self._end_kind(ended)
        if time.monotonic() - self._recorded_at >= COMMIT_EVERY_SECONDS:
            self._record()
        return problem

    def _end_kind(self, ended: MassRejection) -> None:
        """Say and note at once that no more requests of a kind are sent in this run."""
        self._ended_count += 1
        logger.warning("Mass rejection: %s", ended)
        self._store_results()  # no row that is left out may be taken out of the outbox before
        self._outbox.end_kind(ended.kind, ended.code)
        if ended.kind is RequestKind.EVENT:
            for _due_at, seqs in self._delayed:
                self._open.remove(min(seqs))
                self._rows_done += len(seqs)
            self._delayed.clear()

    def _record(self) -> None:
        self._store_results()
        if not self._stop.is_set():
            self._on_recorded(self._first_open_seq())

    def _store_results(self) -> None:
        self._recorded_at = time.monotonic()
        self._outbox.record([finished for call in self._unrecorded for finished in call.finished])
        # Emptied only now: if recording fails, `_shut_down` tries once more.
        calls, self._unrecorded = self._unrecorded, []
        self._on_progress(calls, self._rows_done)

    def _first_open_seq(self) -> int:
        """Return the `seq` before which every row is done and recorded."""
        seqs = [finished.seq for report in self._blocked for finished in report.finished]
        if (first_open := self._open.first()) is not None:
            seqs.append(first_open)
        return min([*seqs, self._next_seq])

    def _judge(self, report: CallReport) -> RunAborted | None:
        """Keep a report to be recorded; return why the run has to end after it, or None."""
        self._has_verdict |= not report.call.is_blocked
        if not report.call.is_blocked:
            self._unrecorded.append(report)
            return self._reason_to_abort(report.call)
        if not self._blocked:
            self._blocked_at = self._sender.client.now()
        self._blocked.append(report)
        if self._sender.client.has_api_answered:
            self._record_blocked_as(Verdict.REJECTED)
            return None
        blocked_rows = {finished.seq for each in self._blocked for finished in each.finished}
        if len(blocked_rows) >= MAX_BLOCKED_ROWS:
            self._ask_iterable()
        return None

    def _record_blocked_as(self, verdict: Verdict) -> None:
        """Settle the requests that were blocked before the API had answered anything."""
        for call, rows in self._blocked:
            finished = [row._replace(result=replace(row.result, verdict=verdict)) for row in rows]
            self._unrecorded.append(CallReport(replace(call, verdict=verdict), finished))
        self._blocked = []

    def _reason_to_abort(self, call: CallResult) -> RunAborted | None:
        """Return why the run has to end after this call, or None."""
        if call.verdict is not Verdict.REFUSED or call.is_blocked:
            return None
        has_answered = self._sender.client.has_api_answered
        return RunAborted(
            explain_refusal(
                call.http_status, call.code, call.message, api_has_answered=has_answered
            )
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
            self._forbid_attempts()
            self._pool.close()
            self._account_for_the_rest()
            self._record()
        if bug is not None:
            raise bug

    def _account_for_the_rest(self) -> None:
        """Give a result to the requests that are under way or blocked when the run ends."""
        with self._starting:
            self._is_closed = True
            under_way = list(self._under_way.values())
        if (problem := self._process_reports()) is not None:
            logger.debug("During shutdown: %r", problem)
        self._record_blocked_as(Verdict.REFUSED if self._is_all_blocked else Verdict.UNAVAILABLE)
        for kind, rows, attempt in under_way:
            result = CallResult(
                Verdict.UNAVAILABLE,
                None,
                "ResponseNotAwaited",
                "The run ended while this request was under way; its response was not waited for.",
                attempts=attempt,
            )
            now = time.time()
            finished = [Finished(row.seq, kind, result, now) for row in rows]
            self._unrecorded.append(CallReport(result, finished))
