"""The table `runs`: start, end, status and counts of past runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from records.outcomes import COUNT_NAMES
from state.database import state_errors

RUNNING, KILLED = "running", "killed"
UNFINISHED = "the run did not finish"  # the reason of a killed run
KEPT_RUNS = 1_000  # a week of runs, one every ten minutes
# The keys of `PastRun.counts` that are printed, in this order.
PRINTED_COUNTS = ("total_users", *COUNT_NAMES.values())


class PastRun(NamedTuple):
    """One row of the table. Times are ISO 8601 in UTC."""

    run_id: str
    mode: str
    started_at: str
    finished_at: str | None
    status: str
    reason: str | None
    counts: dict[str, Any]


class RunHistory:
    """The table in an open state file. Raises StateError."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database

    def begin(self, run_id: str, mode: str, started_at: datetime) -> None:
        """Add a run; earlier runs that are still marked as running were killed."""
        with state_errors(self._path):
            self._database.execute(
                "UPDATE runs SET status = ?, reason = ? WHERE status = ?",
                (KILLED, UNFINISHED, RUNNING),
            )
            self._database.execute(
                "INSERT INTO runs VALUES (?, ?, ?, NULL, ?, NULL, '{}')",
                (run_id, mode, started_at.isoformat(timespec="seconds"), RUNNING),
            )
            self._database.execute(
                "DELETE FROM runs WHERE rowid <= (SELECT max(rowid) FROM runs) - ?",
                (KEPT_RUNS,),
            )

    def end(
        self,
        run_id: str,
        finished_at: datetime,
        status: str,
        reason: str | None,
        counts: dict[str, Any],
    ) -> None:
        """Store how a run ended."""
        with state_errors(self._path):
            self._database.execute(
                "UPDATE runs SET finished_at = ?, status = ?, reason = ?, counts = ?"
                " WHERE run_id = ?",
                (
                    finished_at.isoformat(timespec="seconds"),
                    status,
                    reason,
                    orjson.dumps(counts).decode(),
                    run_id,
                ),
            )

    def runs(self) -> list[PastRun]:
        """Return the past runs, the newest first."""
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT run_id, mode, started_at, finished_at, status, reason, counts"
                " FROM runs ORDER BY rowid DESC"
            )
            return [_to_past_run(row) for row in found]


def _to_past_run(row: Sequence[Any]) -> PastRun:
    """Validate one row of the table: a value that no run writes means that the file is damaged."""
    try:
        run = PastRun._make((*row[:-1], orjson.loads(row[-1])))
        datetime.fromisoformat(run.started_at)
        texts = [run.run_id, run.mode, run.status, run.finished_at or "", run.reason or ""]
        numbers = [run.counts.get(name, 0) for name in (*PRINTED_COUNTS, "duration_seconds")]
    except (ValueError, TypeError, AttributeError):
        raise sqlite3.DatabaseError("malformed run in the history") from None
    if {type(text) for text in texts} != {str} or {type(n) for n in numbers} - {int, float}:
        raise sqlite3.DatabaseError("malformed run in the history")
    return run
