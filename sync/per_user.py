"""Per-user mode: for each row a call of `users/update`, then one of `events/track`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from iterable_api.responses import EVENTS_TRACK, USERS_UPDATE
from iterable_client import IterableClient
from records.outcomes import CallResult
from records.rows import Finished, PendingRow, RequestKind, Rows
from sync.dispatcher import AttemptFailed, CallReport, DelayedEvents, Report, Started
from sync.mass_rejection import RejectionGuard

MAX_ROWS_IN_FLIGHT = 1_200  # 500 users/s at 1 s a call need 1,000; each takes 60 kB of memory


class PerUserSender:
    """Sends a row. With `delays_events` the event of a delivered update is sent later."""

    max_in_flight = MAX_ROWS_IN_FLIGHT

    def __init__(
        self,
        client: IterableClient,
        *,
        delays_events: bool = False,
        guard: RejectionGuard | None = None,
    ) -> None:
        self.client = client
        self.guard = guard or RejectionGuard()
        self._delays_events = delays_events

    def units(self, rows: Iterator[PendingRow]) -> Iterator[Rows]:
        return ((row,) for row in rows)

    def endpoint(self, unit: Rows) -> str:
        return EVENTS_TRACK if unit[0].profile is None else USERS_UPDATE

    def send(self, unit: Rows, report: Report) -> None:
        (row,) = unit
        update: CallResult | None = None
        if row.profile is not None and self.guard.allows(RequestKind.PROFILE):
            update, may_continue = self._deliver(RequestKind.PROFILE, row, row.profile, report)
            if not may_continue:
                return
            if self._delays_events and update.delivered and row.event is not None:
                report(DelayedEvents([row.seq]))
                return
        if (
            row.event is not None
            and row.event_may_follow(update)
            and self.guard.allows(RequestKind.EVENT)
        ):
            self._deliver(RequestKind.EVENT, row, row.event, report)

    def _deliver(
        self, kind: RequestKind, row: PendingRow, body: bytes, report: Report
    ) -> tuple[CallResult, bool]:
        """Send one request and report it; return its result, and whether to go on."""
        call = self.client.call(
            USERS_UPDATE if kind is RequestKind.PROFILE else EVENTS_TRACK,
            body,
            f"user {row.user_id}",
            before_attempt=lambda number: (
                self.guard.allows(kind) and report(Started(kind, [row], number))
            ),
            after_failure=lambda: report(AttemptFailed()),
        )
        if not call.has_verdict:
            # It was not sent: the kind has ended in the meantime, or the run, or in an outage.
            return call, not self.guard.allows(kind)
        self.guard.add(kind, [(row, call)])
        return call, report(CallReport(call, [Finished(row.seq, kind, call, time.time())]))
