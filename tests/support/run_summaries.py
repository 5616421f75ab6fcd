"""Summaries of runs for tests."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from records.outcomes import Outcome
from records.rows import RowState
from reporting.summary import RunSummary, summarize

SUMMARY = RunSummary(
    run_id="20260113T143045Z-3fa2c1",
    status="completed",
    reason=None,
    dry_run=False,
    mode="per-user",
    started_at="2026-01-13T14:30:45.000+00:00",
    finished_at="2026-01-13T14:31:45.500+00:00",
    counts={
        Outcome.SUCCESSFUL: 1_000_001,
        Outcome.PARTIAL_FAILURE: 2,
        Outcome.TOTAL_FAILURE: 3,
        Outcome.UNCHANGED: 999_990,
        Outcome.INVALID: 1,
        Outcome.DUPLICATE: 2,
        Outcome.NOT_ATTEMPTED: 1,
    },
    api_calls=2_000_012,
    retries=7,
    duration_seconds=60.5,
    users_per_second=33_057.8,
    failures={"new": 2, "known": 4, "resolved": 1},
)

HEAD = [
    *("schema_version", "run_id", "status", "reason", "dry_run", "mode", "started_at"),
    *("finished_at", "total_users", "successful", "partial_failures", "total_failures"),
    *("unchanged", "invalid", "duplicates", "not_attempted", "api_calls", "retries"),
    *("duration_seconds", "users_per_second", "sync", "failures"),
]
COUNTS = HEAD[9:16]
STARTED_AT = datetime(2026, 1, 13, 14, 30, 45, 250_000, tzinfo=timezone.utc)
TO_SEND = RowState(None, False, False, None, None)
STATE_OF = {
    Outcome.SUCCESSFUL: TO_SEND._replace(update="delivered", event="delivered"),
    Outcome.PARTIAL_FAILURE: TO_SEND._replace(update="delivered", event="rejected"),
    Outcome.TOTAL_FAILURE: TO_SEND._replace(update="unavailable", event="rejected"),
    Outcome.UNCHANGED: TO_SEND._replace(kind="unchanged"),
    Outcome.INVALID: TO_SEND._replace(kind="invalid"),
    Outcome.DUPLICATE: TO_SEND._replace(kind="duplicate"),
    Outcome.NOT_ATTEMPTED: TO_SEND,
}


SENT = (Outcome.SUCCESSFUL, Outcome.PARTIAL_FAILURE, Outcome.TOTAL_FAILURE)


def counts_of(*outcomes: Outcome) -> dict[Outcome, int]:
    return {outcome: outcomes.count(outcome) for outcome in Outcome}


def summary_of(*outcomes: Outcome, **changes: Any) -> RunSummary:
    arguments: dict[str, Any] = {
        "run_id": "20260113T143045Z-abc",
        "status": "completed",
        "reason": None,
        "dry_run": False,
        "mode": "per-user",
        "started_at": STARTED_AT,
        "finished_at": STARTED_AT + timedelta(seconds=2.5),
        "elapsed_seconds": 2.5,
        "counts": counts_of(*outcomes),
        "api_calls": 3,
        "retries": 1,
        "users_sent": sum(outcome in SENT for outcome in outcomes),
        "sending_seconds": 2.0,
    }
    return summarize(**{**arguments, **changes})
