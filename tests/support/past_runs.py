"""Runs in the history that a test did not make, for the guard that compares row counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Protocol

from state.history import to_history_entry
from state.outbox import Outbox


class HasStateFile(Protocol):
    @property
    def state_file(self) -> Path: ...


def add_past_runs(
    runs: HasStateFile,
    row_counts: Sequence[int],
    *,
    status: str = "completed",
    days_ago: float = 1,
    is_complete_read: bool = True,
) -> None:
    """Add runs to the history, in this order."""
    at = datetime.now(timezone.utc) - timedelta(days=days_ago)
    outbox = Outbox(runs.state_file)
    for row_count in row_counts:
        run_id = f"past-{len(outbox.history.runs())}"
        entry = to_history_entry(is_complete_read=is_complete_read, starts_row_counts=False)
        outbox.history.begin(run_id, "per-user", at)
        outbox.history.end(run_id, at, status, None, {"total_users": row_count, **entry})
    outbox.close()
