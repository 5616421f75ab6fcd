"""The past runs, as `--history` shows them: when, how long, counts, ending.

Owns the table `runs` of the state file. Knows nothing of rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from records.outcomes import COUNT_NAMES
from state.database import state_errors

KEPT_RUNS = 1_000  # a run every ten minutes for a week


class PastRun(NamedTuple):
    """A run as `--history` shows it. Times are ISO 8601 in UTC."""

    run_id: str
    mode: str
    started_at: str
    finished_at: str | None
    status: str
    reason: str | None
    counts: dict[str, Any]


class RunHistory:
    """The history in an open state file."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database

    def begin(self, run_id: str, mode: str, started_at: datetime) -> None:
        """Enter a run in the history; one that never came to its end was killed."""
        with state_errors(self._path):
            self._database.execute(
                "UPDATE runs SET status = 'killed', reason = 'it never came to its end'"
                " WHERE status = 'running'"
            )
            self._database.execute(
                "INSERT INTO runs VALUES (?, ?, ?, NULL, 'running', NULL, '{}')",
                (run_id, mode, started_at.isoformat(timespec="seconds")),
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
        """Enter how a run ended."""
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
    """Read one row of the table; what no run of ours wrote is damage."""
    try:
        run = PastRun._make((*row[:-1], orjson.loads(row[-1])))
        datetime.fromisoformat(run.started_at)
        described = [run.run_id, run.mode, run.status, run.finished_at or "", run.reason or ""]
        counted = [run.counts.get(name, 0) for name in (*_COUNTS, "duration_seconds")]
    except (ValueError, TypeError, AttributeError):
        raise sqlite3.DatabaseError("malformed run in the history") from None
    if {type(text) for text in described} != {str} or {type(n) for n in counted} - {int, float}:
        raise sqlite3.DatabaseError("malformed run in the history")
    return run


_COUNTS = ("total_users", *COUNT_NAMES.values())


def history_lines(runs: Sequence[PastRun]) -> list[str]:
    """Word the past runs, a line each; counts of zero are left out."""
    lines = []
    for run in runs:
        seconds = run.counts.get("duration_seconds")
        counted = [
            f"{run.counts[name]:,} {name.replace('_', ' ')}"
            for name in _COUNTS
            if run.counts.get(name)
        ]
        lines.append(
            f"{run.started_at[:19].replace('T', ' ')} UTC  {run.mode:<8}  {run.status:<23}"
            + ("" if seconds is None else f"  {seconds:,.1f} s  ")
            + ", ".join(counted)
            + (f"  ({run.reason})" if run.reason else "")
        )
    return lines or ["No run yet."]
