"""Pending rows and senders for tests of `Dispatcher` and `PerUserSender`: no file, no network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from iterable_api.circuit_breaker import CircuitBreakers
from iterable_api.rate_limiter import RateLimiter
from iterable_api.responses import EVENTS_TRACK, USERS_UPDATE
from iterable_client import IterableClient
from records.outcomes import CallResult
from records.rows import Finished, PendingRow, RequestKind, Rows
from state.outbox import Outbox
from sync.dispatcher import CallReport, DelayedEvents, Report
from sync.per_user import PerUserSender
from tests.support.rows import call_result, email_of

Sending = Callable[[Rows, Report], object]


def waiting_row(number: int, profile: bytes | None = b"profile") -> PendingRow:
    return PendingRow(number, number, email_of(number), profile, b"event")


class RowsInMemory(Outbox):
    """An outbox without a file."""

    def __init__(self, count: int) -> None:
        self._rows = [waiting_row(number) for number in range(count)]
        self.recorded: list[Finished] = []
        self.record_count = 0

    def pending(self) -> Iterator[PendingRow]:
        return iter(self._rows)

    def rows_to_try_first(self) -> dict[RequestKind, list[PendingRow]]:
        return {}

    def events_of(self, seqs: Iterable[int]) -> list[PendingRow]:
        return [self._rows[seq]._replace(profile=None) for seq in seqs]

    def record(self, finished: Sequence[Finished]) -> None:
        self.recorded.extend(finished)
        self.record_count += 1


class NotedCalls(IterableClient):
    """A client that records every call and returns a result at once."""

    def __init__(self, result: CallResult | None = None) -> None:
        self.rate_limiters = {USERS_UPDATE: RateLimiter(500), EVENTS_TRACK: RateLimiter(2_000)}
        self.breakers = CircuitBreakers()
        self.calls: list[tuple[str, bytes, str]] = []
        self._result = result or call_result()
        self.has_api_answered = True

    def call(self, endpoint: str, body: bytes, subject: str = "", **_: Any) -> CallResult:
        self.calls.append((endpoint, body, subject))
        return self._result


class ScriptedSender(PerUserSender):
    """A sender that calls a function of the test for each row."""

    def __init__(self, send: Sending, max_in_flight: int = 100) -> None:
        super().__init__(NotedCalls())
        self._send = send
        self.max_in_flight = max_in_flight
        self.sent: list[Rows] = []

    def send(self, unit: Rows, report: Report) -> None:
        self.sent.append(unit)
        self._send(unit, report)


class SeenStop(threading.Event):
    """A stop event that records when the dispatcher has seen it."""

    def __init__(self) -> None:
        super().__init__()
        self.was_seen = threading.Event()
        self._dispatcher = threading.current_thread()

    def is_set(self) -> bool:
        is_set = super().is_set()
        if is_set and threading.current_thread() is self._dispatcher:
            self.was_seen.set()
        return is_set


def report_of(call: CallResult, unit: Rows) -> CallReport:
    return CallReport(call, [Finished(row.seq, RequestKind.PROFILE, call, 0.0) for row in unit])


def delivered(unit: Rows, report: Report) -> None:
    report(report_of(call_result(), unit))


def hold_back(unit: Rows, report: Report) -> None:
    delivered(unit, report)
    if unit[0].profile is not None:
        report(DelayedEvents([unit[0].seq]))
