"""Bulk mode: rows in batches, which are sent and split until every request has a result."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from iterable_api.rate_limiter import RateLimiter
from iterable_api.responses import EVENTS_TRACK_BULK, USERS_BULK_UPDATE
from iterable_client import IterableClient
from records.outcomes import CallResult, Verdict, event_may_follow
from records.rows import Finished, PendingRow, RequestKind, Rows
from sync.bulk_responses import body_of, to_batch_result
from sync.dispatcher import CallReport, DelayedEvents, Report

logger = logging.getLogger(__name__)

# Iterable's limit is 4 MB. Its documentation does not define MB, so this is the smaller reading.
MAX_REQUEST_BYTES = 4_000_000
_ENVELOPE_BYTES = len(b'{"events":[]}')  # the longer of the two envelopes

# 5 batches a second x 8 seconds each. A batch takes about 0.5 MB of memory.
MAX_BATCHES_IN_FLIGHT = 40


def to_batches(
    rows: Iterator[PendingRow], batch_size: int, max_bytes: int = MAX_REQUEST_BYTES
) -> Iterator[Rows]:
    """Group rows into batches of at most `batch_size` rows and `max_bytes` per request.

    The first row is sent alone, and so is a row that exceeds `max_bytes`, so that Iterable rejects
    only that row.
    """
    batch: list[PendingRow] = []
    sizes = [_ENVELOPE_BYTES, _ENVELOPE_BYTES]
    is_first = True
    for row in rows:
        added = [len(row.profile or b"") + 1, len(row.event or b"") + 1]
        grown = [size + more for size, more in zip(sizes, added, strict=True)]
        if batch and (is_first or len(batch) >= batch_size or max(grown) > max_bytes):
            yield batch
            is_first, batch = False, []
            grown = [_ENVELOPE_BYTES + more for more in added]
        batch.append(row)
        sizes = grown
    if batch:
        yield batch


class BulkSender:
    """Sends a batch of rows: `users/bulkUpdate`, then `events/trackBulk`.

    With `delays_events` the events of delivered updates are sent later.
    """

    max_in_flight = MAX_BATCHES_IN_FLIGHT

    def __init__(
        self, client: IterableClient, *, batch_size: int = 1000, delays_events: bool = False
    ) -> None:
        self._client = client
        self._batch_size = batch_size
        self._delays_events = delays_events
        self._logged_lines: set[str] = set()

    def units(self, rows: Iterator[PendingRow]) -> Iterator[Rows]:
        return to_batches(rows, self._batch_size)

    def rate_limiter(self, unit: Rows) -> RateLimiter:
        has_profiles = any(row.profile is not None for row in unit)
        return self._client.rate_limiters[USERS_BULK_UPDATE if has_profiles else EVENTS_TRACK_BULK]

    def send(self, unit: Rows, report: Report, *, has_permit: bool) -> None:
        profiles = [row for row in unit if row.profile is not None]
        updates, may_continue = self._deliver(RequestKind.PROFILE, profiles, report, has_permit)
        if not may_continue:
            return
        events = [
            row
            for row in unit
            if row.event is not None
            and (row.seq not in updates or event_may_follow(updates[row.seq]))
        ]
        if self._delays_events:
            later = [row.seq for row in events if row.seq in updates and updates[row.seq].delivered]
            if later:
                report(DelayedEvents(later))
            delayed = set(later)
            events = [row for row in events if row.seq not in delayed]
        self._deliver(RequestKind.EVENT, events, report, has_permit and not profiles)

    def _deliver(
        self, kind: RequestKind, rows: Rows, report: Report, has_permit: bool
    ) -> tuple[dict[int, CallResult], bool]:
        """Send the rows' requests of one kind, in ever smaller batches, until each has a result.

        Return the results by `PendingRow.seq`, and whether further calls may be made.
        """
        send = (
            self._client.bulk_update_users
            if kind is RequestKind.PROFILE
            else self._client.bulk_track_events
        )
        settled: dict[int, CallResult] = {}
        parts: list[Rows] = [rows] if rows else []
        may_continue = True
        while parts and may_continue:
            part = parts.pop()
            bodies = [body_of(kind, row) for row in part]
            subject = f"{len(part)} rows from user {part[0].user_id}"
            call = send(bodies, subject, has_permit=has_permit)
            has_permit = False
            if not call.attempts:  # the run stopped before it was sent
                return settled, False
            batch_result = to_batch_result(kind, part, call)
            self._log_fields(kind, call)
            now = time.time()
            finished = [
                Finished(seq, kind, result, now) for seq, result in batch_result.settled.items()
            ]
            settled.update(batch_result.settled)
            parts.extend(reversed(batch_result.to_resend))
            may_continue = (
                report(CallReport(call, finished)) and call.verdict is not Verdict.REFUSED
            )
        return settled, may_continue

    def _log_fields(self, kind: RequestKind, call: CallResult) -> None:
        """Log the fields that Iterable dropped or created, the same list only once."""
        response = call.params if isinstance(call.params, dict) else {}
        for key, level, action in (
            ("filteredOutFields", logging.WARNING, "dropped unknown fields"),
            ("createdFields", logging.INFO, "created fields"),
        ):
            fields = response.get(key)
            listed = fields if isinstance(fields, list) else []
            names = ", ".join(sorted(name for name in listed if isinstance(name, str)))
            line = f"Iterable {action} of the {kind.value}s: {names}"
            if names and line not in self._logged_lines:
                self._logged_lines.add(line)
                logger.log(level, "%s", line)
