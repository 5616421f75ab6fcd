"""Checks of `--check` against past runs: the row-count guard, and what changed settings mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone

from commands.check.database import CheckedRows
from commands.check.line import CheckLine, failed, passed, warned
from config.settings import Settings
from state.database import StateError
from state.history import COMPARED_DAYS
from state.outbox import FillSummary, Outbox
from sync.changed_settings import changed_profiles_text, kept_events_text, renamed_events_text
from sync.guards import (
    MIN_ROWS,
    MIN_RUNS,
    compared_counts,
    describe_counts,
    explain_row_count,
    is_unusual,
)


def check_past_runs(settings: Settings, checked: CheckedRows) -> Iterator[CheckLine]:
    """Yield the lines; none where the state file cannot be read, as its own line says why."""
    try:
        with closing(Outbox(settings.state_file, read_only=True)) as outbox:
            history = outbox.history.row_counts(datetime.now(timezone.utc))
    except StateError:
        return
    yield _row_count_line(settings.rows_guard_factor, checked, compared_counts(history))
    if checked.filled is not None:
        yield from _changed_settings_lines(checked.filled, is_complete=checked.is_complete)


def _row_count_line(factor: float, checked: CheckedRows, counts: Sequence[int]) -> CheckLine:
    name = "row count"
    rows = f"{'' if checked.is_complete else 'more than '}{checked.row_count:,} rows"
    if not factor:
        return passed(name, f"{rows}; not compared, as ROWS_GUARD_FACTOR=0 switches the guard off")
    if not counts:
        return passed(
            name,
            f"{rows}; not compared, as that needs {MIN_RUNS} complete runs within {COMPARED_DAYS} "
            f"days, one of them with {MIN_ROWS} rows",
        )
    # Of a read that was not complete only the least number of rows is known.
    known_count = checked.row_count if checked.is_complete else max(checked.row_count, min(counts))
    if is_unusual(known_count, counts, factor):
        return failed(name, f"a run would send nothing. {explain_row_count(known_count, counts)}")
    return passed(name, f"{rows}; {describe_counts(counts)}")


def _changed_settings_lines(filled: FillSummary, *, is_complete: bool) -> Iterator[CheckLine]:
    part = "" if is_complete else f" (among the first {filled.total:,} rows)"
    if filled.changed_by_settings:
        yield warned("changes", changed_profiles_text(filled) + part)
    if filled.kept_events:
        yield passed("changes", kept_events_text(filled) + part)
    if filled.renamed_events:
        yield warned("changes", renamed_events_text(filled) + part)
