"""Batches of users, bulk responses to them, and the result of each row that follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from records.outcomes import CallResult, Verdict
from records.rows import PendingRow, RequestKind
from sync.bulk_responses import BatchResult, to_batch_result
from tests.support.fake_bulk_client import row

REJECTED = "rejected"
DELIVERED = "delivered"


def batch(count: int) -> list[PendingRow]:
    """Return rows 0 to count-1: User.0@Example.com and so on."""
    return [row(seq) for seq in range(count)]


def counted(succeeded: int, failed: int, **more: Any) -> CallResult:
    body = {"successCount": succeeded, "failCount": failed, **more}
    return CallResult(Verdict.DELIVERED, 200, None, "", body, attempts=2, elapsed_seconds=0.5)


def refused_whole(code: str, params: Any = None, status: int = 400) -> CallResult:
    return CallResult(Verdict.REJECTED, status, code, "the batch was refused", params)


def read(
    rows: Sequence[PendingRow], call: CallResult, kind: RequestKind = RequestKind.PROFILE
) -> BatchResult:
    """Return a batch's result; each row must be either settled or in one smaller part."""
    reading = to_batch_result(kind, rows, call)
    again = [row.seq for part in reading.to_resend for row in part]
    assert sorted([*reading.settled, *again]) == [row.seq for row in rows]
    assert all(0 < len(part) < len(rows) for part in reading.to_resend)
    return reading


def codes(reading: BatchResult) -> dict[int, tuple[str, str | None]]:
    return {seq: (call.verdict.value, call.code) for seq, call in sorted(reading.settled.items())}


def again(reading: BatchResult) -> list[list[int]]:
    return [[row.seq for row in part] for part in reading.to_resend]
