"""Mapping of a batch's response to a result for each row, or to smaller batches to send again.

Pure. Knows the responses of `users/bulkUpdate` and `events/trackBulk` (Iterable's schemas
`UserBulkUpdateListResponse` and `BulkTrackResponse`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from records.identity import to_comparable_email
from records.outcomes import CallResult, Verdict
from records.rows import PendingRow, RequestKind, Rows

_ROW_IN_PARAMS = re.compile(r"\b(?:users|events)\[([0-9]{1,9})\]")


@dataclass(frozen=True)
class BatchResult:
    """The results that a response gives for rows, and the parts of the batch to send again."""

    settled: Mapping[int, CallResult] = field(default_factory=dict)  # by `PendingRow.seq`
    to_resend: Sequence[Rows] = ()
    is_named: bool = False  # the response names the rows at fault, or a value that they have


def to_batch_result(kind: RequestKind, rows: Rows, result: CallResult) -> BatchResult:
    """Return what a batch's response means for its rows.

    Each row is either settled or in exactly one part to send again. A part is always smaller than
    the batch, so the splitting ends. A row that the response names as failed is not sent again.
    """
    if result.verdict in (Verdict.UNAVAILABLE, Verdict.REFUSED):
        same_for_all = replace(result, params=None)
        return BatchResult({row.seq: same_for_all for row in rows})
    if result.verdict is Verdict.REJECTED:
        return _split_rejected_batch(kind, rows, result)
    return _match_counts(kind, rows, result)


def _match_counts(kind: RequestKind, rows: Rows, result: CallResult) -> BatchResult:
    """Settle the rows of a processed batch if its counts agree with the failures that it names."""
    response: dict[str, Any] = result.params
    succeeded, failed = response["successCount"], response["failCount"]
    by_email = {to_comparable_email(row.email): row for row in rows}
    counts = f"batch of {len(rows)}: successCount {succeeded}, failCount {failed}"
    settled: dict[int, CallResult] = {}
    for code, email in _named_failures(response):
        row = by_email.get(to_comparable_email(email))
        if row is not None and row.seq not in settled:
            settled[row.seq] = _row_result(result, Verdict.REJECTED, code, counts)
    names = response.get("disallowedEventNames") if kind is RequestKind.EVENT else None
    if isinstance(names, list) and names:
        for row in rows:
            name = orjson.loads(body_of(kind, row)).get("eventName")
            if name in names and row.seq not in settled:
                settled[row.seq] = _row_result(
                    result, Verdict.REJECTED, "disallowedEventNames", counts
                )
    rest = [row for row in rows if row.seq not in settled]
    if succeeded == len(rest) and failed == len(settled):
        delivered = _row_result(result, Verdict.DELIVERED, "Success", counts)
        settled.update((row.seq, delivered) for row in rest)
        return BatchResult(settled)
    if len(rows) > 1 and rest:
        return BatchResult(settled, split_in_two(rest) if len(rest) == len(rows) else [rest])
    for row in rest:  # sent alone, and the response does not name it
        verdict = Verdict.REJECTED if (succeeded, failed) == (0, 1) else Verdict.UNAVAILABLE
        settled[row.seq] = _row_result(result, verdict, "NotNamed", counts)
    return BatchResult(settled)


def _split_rejected_batch(kind: RequestKind, rows: Rows, result: CallResult) -> BatchResult:
    if len(rows) == 1:
        return BatchResult({rows[0].seq: result})
    named = _rows_named(rows, result.params)
    if named:
        settled = {row.seq: replace(result, params=reason) for row, reason in named}
        rest = [row for row in rows if row.seq not in settled]
        return BatchResult(settled, [rest] if rest else [], is_named=True)
    suspects = _rows_with_offending_value(kind, rows, result.params)
    if 0 < len(suspects) < len(rows):
        suspect_seqs = {row.seq for row in suspects}
        rest = [row for row in rows if row.seq not in suspect_seqs]
        return BatchResult({}, [rest, suspects], is_named=True)
    return BatchResult({}, split_in_two(rows))


def _rows_named(rows: Rows, params: Any) -> list[tuple[PendingRow, Any]]:
    """Find the rows that `BadJsonBody` names: `{"obj.users[1].preferUserId": reason}`."""
    named: dict[int, Any] = {}
    for path, reason in params.items() if isinstance(params, dict) else ():
        match = _ROW_IN_PARAMS.search(path)
        if match and int(match[1]) < len(rows):
            named.setdefault(int(match[1]), {path: reason})
    return [(rows[index], reason) for index, reason in sorted(named.items())]


def _rows_with_offending_value(kind: RequestKind, rows: Rows, params: Any) -> Rows:
    """Find the rows with a value that `RequestFieldsTypesMismatched` names."""
    errors = params.get("validationErrors") if isinstance(params, dict) else None
    if not isinstance(errors, dict):
        return []
    offending = {
        name: error["offendingValue"]
        for name, error in errors.items()
        if isinstance(error, dict) and "offendingValue" in error
    }
    found = []
    for row in rows:
        data_fields = orjson.loads(body_of(kind, row)).get("dataFields", {})
        if any(
            name in data_fields and _is_same_value(data_fields[name], value)
            for name, value in offending.items()
        ):
            found.append(row)
    return found


def _is_same_value(ours: Any, theirs: Any) -> bool:
    """Compare types, too: in Python 1 == True."""
    return type(ours) is type(theirs) and bool(ours == theirs)


def _named_failures(response: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (name of the list, e-mail) of each row that a response names as failed."""
    lists = response.get("failedUpdates")
    for name, emails in lists.items() if isinstance(lists, dict) else ():
        if name.endswith("Emails") and isinstance(emails, list):
            yield from ((f"failedUpdates.{name}", e) for e in emails if isinstance(e, str))
    invalid_emails = response.get("invalidEmails")  # deprecated, but still sent
    for email in invalid_emails if isinstance(invalid_emails, list) else ():
        if isinstance(email, str):
            yield "failedUpdates.invalidEmails", email


def _row_result(result: CallResult, verdict: Verdict, code: str, message: str) -> CallResult:
    return replace(result, verdict=verdict, code=code, message=message, params=None)


def body_of(kind: RequestKind, row: PendingRow) -> bytes:
    return (row.profile if kind is RequestKind.PROFILE else row.event) or b"{}"


def split_in_two(rows: Rows) -> list[Rows]:
    middle = len(rows) // 2
    return [rows[:middle], rows[middle:]]
