"""Row-count guard: hold back a run whose query returns far fewer or far more rows than usual.

A filter that gets lost in the query would send to all customers at once; a plan that is renamed in
the source returns nothing. Compared are complete reads of completed runs (see `state.history`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from errors import SyncError
from reporting.formatting import counted
from state.history import RowCounts, RunHistory, to_history_entry

logger = logging.getLogger(__name__)

MIN_RUNS = 3
MIN_ROWS = 100  # in the largest of them: smaller numbers vary by a factor of three every day


class RowCountError(SyncError):
    """The query returned far fewer or far more rows than in the last runs."""


def compared_counts(history: RowCounts) -> Sequence[int]:
    """Return the row counts that a read is compared with; empty: it is not compared.

    A run that --ignore-guards let through is the only one until three more follow.
    """
    counts = history.counts
    if history.is_restarted:
        counts = counts if len(counts) > MIN_RUNS else counts[-1:]
    elif len(counts) < MIN_RUNS:
        return []
    return counts if max(counts) >= MIN_ROWS else []


def is_unusual(row_count: int, counts: Sequence[int], factor: float) -> bool:
    """Return whether a read has fewer rows than the smallest count / factor, or more than the
    largest x factor. With factor 0 the guard is off.
    """
    if not counts or not factor:
        return False
    return row_count * factor < min(counts) or row_count > max(counts) * factor


def describe_counts(counts: Sequence[int]) -> str:
    """Return what the compared runs had, for example "the last 9 runs had 24,100 to 25,300"."""
    least, most = min(counts), max(counts)
    runs = "the last run" if len(counts) == 1 else f"the last {len(counts):,} runs"
    return f"{runs} had {least:,}" + ("" if least == most else f" to {most:,}")


def explain_row_count(row_count: int, counts: Sequence[int]) -> str:
    """Return the message for an unusual number of rows."""
    return (
        f"The query returned {counted(row_count, 'row')}; {describe_counts(counts)}. If that is "
        "right, run once with --ignore-guards."
    )


class RowCountGuard:
    """The guard of one run. `factor` is ROWS_GUARD_FACTOR, 0 for off.

    With `is_complete_read` False (--limit) the guard does not apply, and the run's row count is not
    compared later. With `is_ignored` (--ignore-guards) and in a dry run it only warns.
    """

    def __init__(
        self, factor: float, *, is_complete_read: bool, is_ignored: bool, is_dry_run: bool
    ) -> None:
        self._factor = factor
        self._is_complete_read = is_complete_read
        self._is_ignored = is_ignored
        self._is_dry_run = is_dry_run
        self._was_overruled = False
        self.would_hold_back = False  # set in a dry run, whose read has an unusual number of rows

    def may_stop(self, history: RunHistory, now: datetime) -> bool:
        """Return whether there is anything to compare the read with."""
        return bool(self._compared(history, now))

    def check(self, row_count: int, history: RunHistory, now: datetime) -> None:
        """Raise RowCountError if the number of rows is unusual."""
        counts = self._compared(history, now)
        if not is_unusual(row_count, counts, self._factor):
            return
        if self._is_ignored:
            self._was_overruled = True
            logger.warning(
                "The query returned %s; %s. That is accepted (--ignore-guards).",
                counted(row_count, "row"),
                describe_counts(counts),
            )
        elif self._is_dry_run:
            self.would_hold_back = True
            problem = explain_row_count(row_count, counts)
            logger.warning("A run would send nothing: %s", problem)
        else:
            raise RowCountError(explain_row_count(row_count, counts))

    def history_entry(self) -> dict[str, bool]:
        """Return what later runs need to know of this one, for its entry in the history."""
        return to_history_entry(
            is_complete_read=self._is_complete_read, starts_row_counts=self._was_overruled
        )

    def _compared(self, history: RunHistory, now: datetime) -> Sequence[int]:
        if not self._factor or not self._is_complete_read:
            return []
        return compared_counts(history.row_counts(now))
