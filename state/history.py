"""The table `runs`: start, end, status and counts of past runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from records.outcomes import COUNT_NAMES
from state.database import state_errors

RUNNING, KILLED = "running", "killed"
UNFINISHED = "the run did not finish"  # the reason of a killed run
# At least so many runs are kept, and all of the days whose row counts are compared.
KEPT_RUNS = 1_000
COMPARED_DAYS = 14
# Keys of `PastRun.counts` beside those of the results file. Runs of before version 1.3.0 lack them.
IS_COMPLETE_READ = "is_complete_read"
STARTS_ROW_COUNTS = "starts_row_counts"
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


class RowCounts(NamedTuple):
    """The row counts of complete reads, the newest first."""

    counts: Sequence[int]
    is_restarted: bool  # the last one is of a run that --ignore-guards let through


def to_history_entry(*, is_complete_read: bool, starts_row_counts: bool) -> dict[str, bool]:
    """Return what `row_counts` needs to know of a run, for the `counts` of `RunHistory.end`."""
    return {IS_COMPLETE_READ: is_complete_read, STARTS_ROW_COUNTS: starts_row_counts}


class RunHistory:
    """The table in an open state file. Raises StateError."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database

    def begin(self, run_id: str, mode: str, started_at: datetime) -> float | None:
        """Add a run; earlier runs that are still marked as running were killed.

        Returns the start of the first of these in unix seconds, None if there are none.
        """
        with state_errors(self._path):
            (killed_run,) = self._database.execute(
                "SELECT min(CAST(started_at AS TEXT)) FROM runs WHERE status = ?", (RUNNING,)
            ).fetchone()
            try:
                killed_at = datetime.fromisoformat(killed_run).timestamp() if killed_run else None
            except (ValueError, OverflowError):
                raise sqlite3.DatabaseError("malformed run in the history") from None
            self._database.execute(
                "UPDATE runs SET status = ?, reason = ? WHERE status = ?",
                (KILLED, UNFINISHED, RUNNING),
            )
            self._database.execute(
                "INSERT INTO runs VALUES (?, ?, ?, NULL, ?, NULL, '{}')",
                (run_id, mode, started_at.isoformat(timespec="seconds"), RUNNING),
            )
            self._database.execute(
                "DELETE FROM runs WHERE rowid <= (SELECT max(rowid) FROM runs) - ?"
                " AND ifnull(started_at, '') < ?",
                (KEPT_RUNS, _compared_since(started_at)),
            )
        return killed_at

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

    def row_counts(self, now: datetime) -> RowCounts:
        """Return how many rows the completed runs of the last 14 days read.

        Left out are dry runs, incomplete reads, and all runs before the newest one that
        --ignore-guards let through. So are runs of a clock that was ahead, once a later run had the
        right time: the query returns nothing for a window in the future.
        """
        counts: list[int] = []
        has_right_time = False
        with state_errors(self._path):
            found = self._database.execute(
                "SELECT started_at > ?, json_extract(counts, '$.total_users'),"
                " json_extract(counts, ?) FROM runs"
                " WHERE status IN ('completed', 'completed_with_failures') AND started_at >= ?"
                " AND json_extract(counts, ?) ORDER BY rowid DESC",
                (
                    _as_started_at(now),
                    f"$.{STARTS_ROW_COUNTS}",
                    _compared_since(now),
                    f"$.{IS_COMPLETE_READ}",
                ),
            )
            for is_in_the_future, row_count, starts_row_counts in found:
                if is_in_the_future and has_right_time:
                    continue
                has_right_time = has_right_time or not is_in_the_future
                if type(row_count) is not int:
                    raise sqlite3.DatabaseError("malformed run in the history")
                counts.append(row_count)
                if starts_row_counts:
                    return RowCounts(counts, is_restarted=True)
        return RowCounts(counts, is_restarted=False)


def _compared_since(now: datetime) -> str:
    """Return the start of the compared days as `started_at` is written."""
    return _as_started_at(now - timedelta(days=COMPARED_DAYS))


def _as_started_at(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds")


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
