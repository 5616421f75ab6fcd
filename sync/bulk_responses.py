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

_LIST_NAMES = (("Emails", "email"), ("UserIds", "userId"))  # end of a list's name, what it lists
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
    counts = f"batch of {len(rows)}: successCount {succeeded}, failCount {failed}"
    settled: dict[int, CallResult] = {}
    unclear: dict[int, PendingRow] = {}  # rows of which one or more failed: the name fits several
    named = list(_named_failures(response))
    rows_of = _rows_by_identifier(kind, rows) if named else {}
    for code, name in named:
        found = rows_of.get(name, [])
        if len(found) > 1:
            unclear.update((row.seq, row) for row in found)
        elif found and found[0].seq not in settled:
            settled[found[0].seq] = _row_result(result, Verdict.REJECTED, code, counts)
    unclear = {seq: row for seq, row in unclear.items() if seq not in settled}
    names = response.get("disallowedEventNames") if kind is RequestKind.EVENT else None
    if isinstance(names, list) and names:
        for row in rows:
            name = orjson.loads(body_of(kind, row)).get("eventName")
            if name in names and row.seq not in settled:
                settled[row.seq] = _row_result(
                    result, Verdict.REJECTED, "disallowedEventNames", counts
                )
    if unclear:
        return _resend_unclear(rows, settled, unclear, result, counts)
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


def _resend_unclear(
    rows: Rows,
    settled: dict[int, CallResult],
    unclear: Mapping[int, PendingRow],
    result: CallResult,
    counts: str,
) -> BatchResult:
    """Send each row that may have failed again, alone; the others too if the counts disagree."""
    succeeded, failed = result.params["successCount"], result.params["failCount"]
    rest = [row for row in rows if row.seq not in settled and row.seq not in unclear]
    alone: list[Rows] = [[row] for row in unclear.values()]
    failed_of_unclear = failed - len(settled)
    if succeeded + failed == len(rows) and 0 < failed_of_unclear <= len(unclear):
        delivered = _row_result(result, Verdict.DELIVERED, "Success", counts)
        settled.update((row.seq, delivered) for row in rest)
        rest = []
    return BatchResult(settled, [*alone, *([rest] if rest else [])])


def _rows_by_identifier(kind: RequestKind, rows: Rows) -> dict[tuple[str, str], list[PendingRow]]:
    """Return the rows by each identifier that they carry, as `_named_failures` gives it.

    A row carries one at the top of its body, and may carry the other one among its fields.
    """
    found: dict[tuple[str, str], list[PendingRow]] = {}
    for row in rows:
        body = orjson.loads(body_of(kind, row))
        fields = body.get("dataFields")
        carried = (body, fields if kind is RequestKind.PROFILE and fields else {})
        for each in carried:
            for field_name in ("email", "userId"):
                if isinstance(text := each.get(field_name), str):
                    found.setdefault(_to_name(field_name, text), []).append(row)
    return found


def _to_name(field_name: str, text: str) -> tuple[str, str]:
    """Return an identifier in the form in which two names of one user are equal."""
    return field_name, to_comparable_email(text) if field_name == "email" else text


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


def _named_failures(response: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield (name of the list, identifier) of each row that a response names as failed."""
    lists = response.get("failedUpdates")
    # The lists at the top are deprecated, but still sent.
    for listed in (lists if isinstance(lists, dict) else {}, response):
        for name, texts in listed.items():
            field_name = next((f for end, f in _LIST_NAMES if name.endswith(end)), None)
            if field_name and isinstance(texts, list):
                for text in texts:
                    if isinstance(text, str):
                        yield f"failedUpdates.{name}", _to_name(field_name, text)


def _row_result(result: CallResult, verdict: Verdict, code: str, message: str) -> CallResult:
    return replace(result, verdict=verdict, code=code, message=message, params=None)


def body_of(kind: RequestKind, row: PendingRow) -> bytes:
    return (row.profile if kind is RequestKind.PROFILE else row.event) or b"{}"


def split_in_two(rows: Rows) -> list[Rows]:
    middle = len(rows) // 2
    return [rows[:middle], rows[middle:]]
