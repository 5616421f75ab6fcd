"""Bulk mode: rows into batches, and a batch's answer back into one verdict a row.

Owns batching by count and bytes, the reading of `users/bulkUpdate` and `events/trackBulk`
answers (Iterable's `UserBulkUpdateListResponse`, `BulkTrackResponse`), and the splitting that
finds the bad rows of a batch refused whole. Sends through the client that it is given.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from iterable_api.rate_limiter import RateLimiter
from iterable_api.responses import EVENTS_TRACK_BULK, USERS_BULK_UPDATE
from records.outcomes import (
    CallResult,
    Finished,
    PendingRow,
    RequestKind,
    Verdict,
    event_may_follow,
)
from sync.dispatcher import CallReport, DelayedEvents, Report, Rows

logger = logging.getLogger(__name__)

# Iterable takes 4 MB; it does not say which kind of megabyte.
MAX_REQUEST_BYTES = 4_000_000
_ENVELOPE_BYTES = len(b'{"events":[]}')  # the longer of the two

# Of about half a megabyte each, its two requests together: 5 a second for 8 seconds a batch.
MAX_BATCHES_IN_FLIGHT = 40
_ROW_IN_PARAMS = re.compile(r"\b(?:users|events)\[([0-9]{1,9})\]")


@dataclass(frozen=True)
class BatchReading:
    """What an answer says: rows that are settled, and parts that have to be sent again."""

    settled: Mapping[int, CallResult] = field(default_factory=dict)  # by `PendingRow.seq`
    again: Sequence[Rows] = ()


def to_batches(
    rows: Iterator[PendingRow], batch_size: int, max_bytes: int = MAX_REQUEST_BYTES
) -> Iterator[Rows]:
    """Group rows into batches of at most `batch_size`, neither of whose requests is too large.

    The first row is a batch of its own. A row too large for any request is one too: Iterable
    says so itself, and nothing else suffers.
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


def read_batch_response(kind: RequestKind, rows: Rows, result: CallResult) -> BatchReading:
    """Say what a batch's answer means for each of its rows.

    Every row is settled or in exactly one part to send again; each such part is smaller than
    the batch, so that splitting ends. A row that was rejected by name is never sent again.
    """
    if result.verdict in (Verdict.UNAVAILABLE, Verdict.REFUSED):
        alike = replace(result, params=None)
        return BatchReading({row.seq: alike for row in rows})
    if result.verdict is Verdict.REJECTED:
        return _read_refused_whole(kind, rows, result)
    return _read_counts(rows, result)


def _read_counts(rows: Rows, result: CallResult) -> BatchReading:
    answer: dict[str, Any] = result.params
    succeeded, failed = answer["successCount"], answer["failCount"]
    by_email = {row.email.casefold(): row for row in rows}
    said = f"batch of {len(rows)}: successCount {succeeded}, failCount {failed}"
    settled: dict[int, CallResult] = {}
    for code, email in _named_failures(answer):
        row = by_email.get(email.strip().casefold())
        if row is not None and row.seq not in settled:
            settled[row.seq] = _row_result(result, Verdict.REJECTED, code, said)
    if answer.get("disallowedEventNames"):
        for row in rows:
            if row.seq not in settled:
                settled[row.seq] = _row_result(
                    result, Verdict.REJECTED, "disallowedEventNames", said
                )
    rest = [row for row in rows if row.seq not in settled]
    if succeeded == len(rest) and failed == len(settled):
        delivered = _row_result(result, Verdict.DELIVERED, "Success", said)
        settled.update((row.seq, delivered) for row in rest)
        return BatchReading(settled)
    if len(rows) > 1 and rest:
        return BatchReading(settled, _in_two(rest) if len(rest) == len(rows) else [rest])
    for row in rest:  # alone, and still no word on it
        verdict = Verdict.REJECTED if (succeeded, failed) == (0, 1) else Verdict.UNAVAILABLE
        settled[row.seq] = _row_result(result, verdict, "NotNamed", said)
    return BatchReading(settled)


def _read_refused_whole(kind: RequestKind, rows: Rows, result: CallResult) -> BatchReading:
    if len(rows) == 1:
        return BatchReading({rows[0].seq: result})
    named = _rows_named(rows, result.params)
    if named:
        settled = {row.seq: replace(result, params=why) for row, why in named}
        rest = [row for row in rows if row.seq not in settled]
        return BatchReading(settled, [rest] if rest else [])
    suspects = _rows_holding(kind, rows, result.params)
    if 0 < len(suspects) < len(rows):
        held = {row.seq for row in suspects}
        rest = [row for row in rows if row.seq not in held]
        return BatchReading({}, [rest, suspects])
    return BatchReading({}, _in_two(rows))


def _rows_named(rows: Rows, params: Any) -> list[tuple[PendingRow, Any]]:
    """Find the rows that a `BadJsonBody` names: `{"obj.users[1].preferUserId": why}`."""
    named: dict[int, Any] = {}
    for path, why in params.items() if isinstance(params, dict) else ():
        found = _ROW_IN_PARAMS.search(path)
        if found and int(found[1]) < len(rows):
            named.setdefault(int(found[1]), {path: why})
    return [(rows[index], why) for index, why in sorted(named.items())]


def _rows_holding(kind: RequestKind, rows: Rows, params: Any) -> Rows:
    """Find the rows with a value that a `RequestFieldsTypesMismatched` complains of."""
    errors = params.get("validationErrors") if isinstance(params, dict) else None
    if not isinstance(errors, dict):
        return []
    offending = {
        name: error["offendingValue"]
        for name, error in errors.items()
        if isinstance(error, dict) and "offendingValue" in error
    }
    held = []
    for row in rows:
        data_fields = orjson.loads(_body(kind, row)).get("dataFields", {})
        if any(
            name in data_fields and _same(data_fields[name], value)
            for name, value in offending.items()
        ):
            held.append(row)
    return held


def _same(ours: Any, theirs: Any) -> bool:
    """Compare by type too: to Python, 1 equals True."""
    return type(ours) is type(theirs) and bool(ours == theirs)


def _named_failures(answer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (list, e-mail) of each row that an answer names as failed."""
    lists = answer.get("failedUpdates")
    for name, emails in lists.items() if isinstance(lists, dict) else ():
        if name.endswith("Emails") and isinstance(emails, list):
            yield from ((f"failedUpdates.{name}", e) for e in emails if isinstance(e, str))
    deprecated = answer.get("invalidEmails")
    for email in deprecated if isinstance(deprecated, list) else ():
        if isinstance(email, str):
            yield "failedUpdates.invalidEmails", email


def _row_result(result: CallResult, verdict: Verdict, code: str, said: str) -> CallResult:
    return replace(result, verdict=verdict, code=code, message=said, params=None)


def _body(kind: RequestKind, row: PendingRow) -> bytes:
    return (row.profile if kind is RequestKind.PROFILE else row.event) or b"{}"


def _in_two(rows: Rows) -> list[Rows]:
    middle = len(rows) // 2
    return [rows[:middle], rows[middle:]]


class BulkCalls(Protocol):
    """What a bulk sender needs of the client."""

    paces: dict[str, RateLimiter]

    def bulk_update_users(
        self, users: Sequence[bytes], subject: str = "", *, has_permit: bool = False
    ) -> CallResult: ...

    def bulk_track_events(
        self, events: Sequence[bytes], subject: str = "", *, has_permit: bool = False
    ) -> CallResult: ...


class BulkSender:
    """One `users/bulkUpdate` and then one `events/trackBulk` a batch, split where need be."""

    max_in_flight = MAX_BATCHES_IN_FLIGHT

    def __init__(
        self, client: BulkCalls, *, batch_size: int = 1000, delays_events: bool = False
    ) -> None:
        self._client = client
        self._batch_size = batch_size
        self._holds_events_back = delays_events
        self._described: set[str] = set()

    def units(self, rows: Iterator[PendingRow]) -> Iterator[Rows]:
        return to_batches(rows, self._batch_size)

    def pace(self, unit: Rows) -> RateLimiter:
        has_profiles = any(row.profile is not None for row in unit)
        return self._client.paces[USERS_BULK_UPDATE if has_profiles else EVENTS_TRACK_BULK]

    def send(self, unit: Rows, report: Report, *, has_permit: bool) -> None:
        profiles = [row for row in unit if row.profile is not None]
        updates, goes_on = self._deliver(RequestKind.PROFILE, profiles, report, has_permit)
        if not goes_on:
            return
        events = [
            row
            for row in unit
            if row.event is not None
            and (row.seq not in updates or event_may_follow(updates[row.seq]))
        ]
        if self._holds_events_back:
            later = [row.seq for row in events if row.seq in updates and updates[row.seq].delivered]
            if later:
                report(DelayedEvents(later))
            waits = set(later)
            events = [row for row in events if row.seq not in waits]
        self._deliver(RequestKind.EVENT, events, report, has_permit and not profiles)

    def _deliver(
        self, kind: RequestKind, rows: Rows, report: Report, has_permit: bool
    ) -> tuple[dict[int, CallResult], bool]:
        """Send one half of a batch until each row has its verdict, or nothing may follow.

        Return what came of each row, and whether the run goes on.
        """
        send = (
            self._client.bulk_update_users
            if kind is RequestKind.PROFILE
            else self._client.bulk_track_events
        )
        settled: dict[int, CallResult] = {}
        parts: list[Rows] = [rows] if rows else []
        goes_on = True
        while parts and goes_on:
            part = parts.pop()
            bodies = [_body(kind, row) for row in part]
            subject = f"{len(part)} rows from user {part[0].user_id}"
            call = send(bodies, subject, has_permit=has_permit)
            has_permit = False
            if not call.attempts:
                return settled, False
            reading = read_batch_response(kind, part, call)
            self._tell_fields(kind, call)
            now = time.time()
            finished = [Finished(seq, kind, result, now) for seq, result in reading.settled.items()]
            settled.update(reading.settled)
            parts.extend(reversed(reading.again))
            goes_on = report(CallReport(call, finished)) and call.verdict is not Verdict.REFUSED
        return settled, goes_on

    def _tell_fields(self, kind: RequestKind, call: CallResult) -> None:
        """Tell once of fields that Iterable dropped or made."""
        answer = call.params if isinstance(call.params, dict) else {}
        for key, level, what in (
            ("filteredOutFields", logging.WARNING, "dropped unknown fields"),
            ("createdFields", logging.INFO, "created fields"),
        ):
            fields = answer.get(key)
            listed = fields if isinstance(fields, list) else []
            names = ", ".join(sorted(name for name in listed if isinstance(name, str)))
            line = f"Iterable {what} of the {kind.value}s: {names}"
            if names and line not in self._described:
                self._described.add(line)
                logger.log(level, "%s", line)
