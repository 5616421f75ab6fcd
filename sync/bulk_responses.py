"""A batch's response -> one result a record, and the parts of the batch to send again.

Pure. Reads the responses of `users/bulkUpdate` and `events/trackBulk` (Iterable's schemas
`UserBulkUpdateListResponse` and `BulkTrackResponse`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from records.outcomes import CallResult, PendingRow, RequestKind, Verdict

Rows = Sequence[PendingRow]

_ROW_IN_PARAMS = re.compile(r"\b(?:users|events)\[([0-9]{1,9})\]")


@dataclass(frozen=True)
class BatchResult:
    """What an answer says: rows that are settled, and parts that have to be sent again."""

    settled: Mapping[int, CallResult] = field(default_factory=dict)  # by `PendingRow.seq`
    to_resend: Sequence[Rows] = ()


def to_batch_result(kind: RequestKind, rows: Rows, result: CallResult) -> BatchResult:
    """Say what a batch's answer means for each of its rows.

    Every row is settled or in exactly one part to send again; each such part is smaller than
    the batch, so that splitting ends. A row that was rejected by name is never sent again.
    """
    if result.verdict in (Verdict.UNAVAILABLE, Verdict.REFUSED):
        alike = replace(result, params=None)
        return BatchResult({row.seq: alike for row in rows})
    if result.verdict is Verdict.REJECTED:
        return _read_refused_whole(kind, rows, result)
    return _read_counts(rows, result)


def _read_counts(rows: Rows, result: CallResult) -> BatchResult:
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
        return BatchResult(settled)
    if len(rows) > 1 and rest:
        return BatchResult(settled, _split_in_two(rest) if len(rest) == len(rows) else [rest])
    for row in rest:  # alone, and still no word on it
        verdict = Verdict.REJECTED if (succeeded, failed) == (0, 1) else Verdict.UNAVAILABLE
        settled[row.seq] = _row_result(result, verdict, "NotNamed", said)
    return BatchResult(settled)


def _read_refused_whole(kind: RequestKind, rows: Rows, result: CallResult) -> BatchResult:
    if len(rows) == 1:
        return BatchResult({rows[0].seq: result})
    named = _rows_named(rows, result.params)
    if named:
        settled = {row.seq: replace(result, params=why) for row, why in named}
        rest = [row for row in rows if row.seq not in settled]
        return BatchResult(settled, [rest] if rest else [])
    suspects = _rows_holding(kind, rows, result.params)
    if 0 < len(suspects) < len(rows):
        held = {row.seq for row in suspects}
        rest = [row for row in rows if row.seq not in held]
        return BatchResult({}, [rest, suspects])
    return BatchResult({}, _split_in_two(rows))


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
        data_fields = orjson.loads(body_of(kind, row)).get("dataFields", {})
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


def body_of(kind: RequestKind, row: PendingRow) -> bytes:
    return (row.profile if kind is RequestKind.PROFILE else row.event) or b"{}"


def _split_in_two(rows: Rows) -> list[Rows]:
    middle = len(rows) // 2
    return [rows[:middle], rows[middle:]]
