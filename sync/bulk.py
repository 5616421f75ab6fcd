"""Bulk mode: rows in batches, which are sent and split until every request has a result."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from iterable_api.responses import EVENTS_TRACK_BULK, USERS_BULK_UPDATE
from iterable_client import IterableClient
from records.outcomes import CallResult, Verdict
from records.rows import Finished, PendingRow, RequestKind, Rows
from sync.bulk_responses import BatchResult, body_of, split_in_two, to_batch_result
from sync.dispatcher import (
    MAX_BLOCKED_ROWS,
    AttemptFailed,
    CallReport,
    DelayedEvents,
    Report,
    Started,
)
from sync.dropped_fields import DroppedFields
from sync.mass_rejection import SAMPLE_ROWS, RejectionGuard, choose_sample

logger = logging.getLogger(__name__)

# Iterable's limit is 4 MB. Its documentation does not define MB, so this is the smaller reading.
MAX_REQUEST_BYTES = 4_000_000
_ENVELOPE_BYTES = len(b'{"events":[]}')  # the longer of the two envelopes
_OPTION_BYTES = len(b'"createNewFields":false,')

# 5 batches a second x 8 seconds each. A batch takes about 0.5 MB of memory.
MAX_BATCHES_IN_FLIGHT = 40

# A part of a batch that was split without an answer. Two attempts tell a passing error from a row
# that breaks every batch; a part that is split needlessly costs two more calls. The row at fault
# stands alone after log2(n) parts, and then has all of `MAX_ATTEMPTS`.
_ATTEMPTS_OF_A_PART = 2
_MAX_UNANSWERED_PARTS = 8  # in a row: an outage after all, so the circuit breaker opens


def to_batches(
    rows: Iterator[PendingRow],
    batch_size: int,
    max_bytes: int = MAX_REQUEST_BYTES,
    *,
    has_option: bool = False,
) -> Iterator[Rows]:
    """Group rows into batches of at most `batch_size` rows and `max_bytes` per request.

    `has_option`: the body says what is to become of new fields.

    A row that exceeds `max_bytes` is sent alone, so that Iterable rejects only that row.
    """
    max_bytes -= _OPTION_BYTES * has_option
    batch: list[PendingRow] = []
    sizes = [_ENVELOPE_BYTES, _ENVELOPE_BYTES]
    for row in rows:
        added = [len(row.profile or b"") + 1, len(row.event or b"") + 1]
        grown = [size + more for size, more in zip(sizes, added, strict=True)]
        if batch and (len(batch) >= batch_size or max(grown) > max_bytes):
            yield batch
            batch = []
            grown = [_ENVELOPE_BYTES + more for more in added]
        batch.append(row)
        sizes = grown
    if batch:
        yield batch


class _Part(NamedTuple):
    """Rows to send in one batch."""

    rows: Rows
    is_unanswered: bool = False  # part of a batch that got no answer


class BulkSender:
    """Sends a batch of rows: `users/bulkUpdate`, then `events/trackBulk`.

    With `delays_events` the events of delivered updates are sent later.
    """

    max_in_flight = MAX_BATCHES_IN_FLIGHT

    def __init__(
        self,
        client: IterableClient,
        *,
        batch_size: int = 1000,
        delays_events: bool = False,
        guard: RejectionGuard | None = None,
        dropped_fields: DroppedFields | None = None,
    ) -> None:
        self.client = client
        self.guard = guard or RejectionGuard()
        self._dropped_fields = DroppedFields() if dropped_fields is None else dropped_fields
        self._batch_size = batch_size
        self._delays_events = delays_events
        self._logged_lines: set[str] = set()

    def units(self, rows: Iterator[PendingRow]) -> Iterator[Rows]:
        has_option = self.client.create_new_fields is not None
        return to_batches(rows, self._batch_size, has_option=has_option)

    def endpoint(self, unit: Rows) -> str:
        has_profiles = any(row.profile is not None for row in unit)
        return USERS_BULK_UPDATE if has_profiles else EVENTS_TRACK_BULK

    def send(self, unit: Rows, report: Report) -> None:
        profiles = [row for row in unit if row.profile is not None]
        updates, may_continue = self._deliver(RequestKind.PROFILE, [profiles], report)
        if not may_continue:
            return
        events = [
            row
            for row in unit
            if row.event is not None and row.event_may_follow(updates.get(row.seq))
        ]
        if self._delays_events:
            later = [row.seq for row in events if row.seq in updates and updates[row.seq].delivered]
            if later:
                report(DelayedEvents(later))
            delayed = set(later)
            events = [row for row in events if row.seq not in delayed]
        self._deliver(RequestKind.EVENT, [events], report)

    def _deliver(
        self,
        kind: RequestKind,
        batches: Sequence[Rows],
        report: Report,
        *,
        is_sample: bool = False,
    ) -> tuple[dict[int, CallResult], bool]:
        """Send the rows' requests of one kind, in ever smaller batches, until each has a result.

        Return the results by `PendingRow.seq`, and whether further calls may be made. When the kind
        ends, the other rows have no result. `is_sample`: the rows are not counted here.
        """
        is_profile = kind is RequestKind.PROFILE
        send = self.client.bulk_update_users if is_profile else self.client.bulk_track_events
        endpoint = USERS_BULK_UPDATE if is_profile else EVENTS_TRACK_BULK
        settled: dict[int, CallResult] = {}
        parts = deque(_Part(rows) for rows in batches if rows)
        is_counted = not is_sample
        needs_sample = self.guard.judges(kind) and not is_sample
        refused_count = 0
        unanswered_in_a_row = blocked_alone = 0
        began_at = unanswered_since = self.client.now()  # of the last call; of those in a row
        while parts and self.guard.allows(kind):
            if blocked_alone >= MAX_BLOCKED_ROWS and not self.client.has_api_answered:
                self.client.is_answering(began_at)  # perhaps only these rows are blocked
                if not self.client.has_api_answered:
                    return settled, False  # the dispatcher ends the run
            part, is_unanswered = parts.popleft()
            began_at = self.client.now()
            call = send(
                [body_of(kind, row) for row in part],
                f"{len(part)} rows from user {part[0].user_id}",
                max_attempts=_ATTEMPTS_OF_A_PART if is_unanswered and len(part) > 1 else None,
                before_attempt=partial(self._before_attempt, report, kind, part),
                after_failure=partial(report, AttemptFailed()),
                is_suspect=is_unanswered and unanswered_in_a_row < _MAX_UNANSWERED_PARTS,
            )
            if not call.has_verdict:  # it was not sent: the kind or the run ended, or an outage
                return settled, not self.guard.allows(kind)
            batch_result = self._to_result(kind, part, call)
            self._log_fields(kind, call)
            now = time.time()
            finished = [
                Finished(seq, kind, result, now) for seq, result in batch_result.settled.items()
            ]
            settled.update(batch_result.settled)
            if is_counted:
                settled_rows = [row for row in part if row.seq in batch_result.settled]
                self.guard.add(kind, [(row, settled[row.seq]) for row in settled_rows])
            is_now_unanswered = call.verdict is Verdict.UNAVAILABLE
            # In turns, not one half to its end: the other half shows that Iterable still answers.
            parts.extend(
                _Part(each, is_unanswered or is_now_unanswered) for each in batch_result.to_resend
            )
            if not report(CallReport(call, finished)) or (
                call.verdict is Verdict.REFUSED and not call.is_blocked
            ):
                return settled, False
            is_refused = call.verdict is Verdict.REJECTED and not call.is_blocked
            refused_count += is_refused and len(part) > 1
            if (
                needs_sample
                and is_refused
                and batch_result.to_resend
                and not _is_too_large(call)
                and not (batch_result.is_named and refused_count == 1)
            ):
                needs_sample = False
                rest, is_counted, may_continue = self._send_sample(kind, parts, report, settled)
                if not may_continue:
                    return settled, False
                parts = rest
            blocked_alone += call.is_blocked and len(part) == 1
            if not (is_unanswered and is_now_unanswered):
                unanswered_in_a_row = 0
                continue
            unanswered_since = unanswered_since if unanswered_in_a_row else began_at
            unanswered_in_a_row += 1
            if unanswered_in_a_row == _MAX_UNANSWERED_PARTS:
                cause = f"HTTP {call.http_status}" if call.http_status else str(call.code)
                self.client.breakers.open(endpoint, cause, unanswered_since)
        return settled, True

    def _send_sample(
        self,
        kind: RequestKind,
        parts: deque[_Part],
        report: Report,
        settled: dict[int, CallResult],
    ) -> tuple[deque[_Part], bool, bool]:
        """Send some rows of a batch that was refused whole alone, before it is split.

        If most are rejected, the kind ends. Return the parts without these rows, whether their rows
        are to be counted, and whether further calls may be made.
        """
        rows = sorted(row for part in parts for row in part.rows)
        if len(rows) < SAMPLE_ROWS:
            return parts, True, True
        sample = choose_sample(rows)
        with self.guard.sampling(kind):
            alone, may_continue = self._deliver(
                kind, [[row] for row in sample], report, is_sample=True
            )
            results = [(row, alone[row.seq]) for row in sample if row.seq in alone]
            is_estimated = self.guard.add_sample(kind, results, len(rows))
        settled.update(alone)
        sent = {row.seq for row in sample}
        others = (
            part._replace(rows=[row for row in part.rows if row.seq not in sent]) for part in parts
        )
        return deque(part for part in others if part.rows), not is_estimated, may_continue

    def _to_result(self, kind: RequestKind, part: Rows, call: CallResult) -> BatchResult:
        """Return the results of the rows; a batch that fails as a whole is to be sent in parts."""
        if len(part) == 1:
            return to_batch_result(kind, part, call)
        if call.is_blocked:
            if self.client.has_api_answered:
                return BatchResult({}, split_in_two(part))
            alone, rest = part[:MAX_BLOCKED_ROWS], part[MAX_BLOCKED_ROWS:]
            return BatchResult({}, [*([row] for row in alone), *([rest] if rest else [])])
        if (
            call.verdict is Verdict.UNAVAILABLE
            and call.http_status != 429
            and not self.client.is_stopped
        ):
            return BatchResult({}, split_in_two(part))
        return to_batch_result(kind, part, call)

    def _log_fields(self, kind: RequestKind, call: CallResult) -> None:
        """Log the fields that Iterable dropped or created, the same list only once."""
        response = call.params if isinstance(call.params, dict) else {}
        for key, level, action in (
            ("filteredOutFields", logging.WARNING, "dropped unknown fields"),
            ("createdFields", logging.INFO, "created fields"),
        ):
            fields = response.get(key)
            listed = [
                name
                for name in (fields if isinstance(fields, list) else [])
                if isinstance(name, str)
            ]
            if key == "filteredOutFields":
                self._dropped_fields.add(kind, listed)
            names = ", ".join(sorted(listed))
            line = f"Iterable {action} of the {kind.value}s: {names}"
            if names and line not in self._logged_lines:
                self._logged_lines.add(line)
                logger.log(level, "%s", line)

    def _before_attempt(self, report: Report, kind: RequestKind, rows: Rows, attempt: int) -> bool:
        return self.guard.allows(kind) and report(Started(kind, rows, attempt))


def _is_too_large(call: CallResult) -> bool:
    """Return whether a batch was refused for its size, which says nothing about its rows."""
    return call.http_status == 413 or call.code == "BatchTooLarge"
