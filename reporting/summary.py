"""The summary of a run: its counts, and the lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import orjson

from records.outcomes import JSON, Failure, Outcome, RowState, iso_time

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunSummary:
    """The head of the results file, in its order. Times are ISO 8601 in UTC."""

    schema_version: int
    run_id: str
    status: str  # completed, completed_with_failures, interrupted, aborted
    reason: str | None
    dry_run: bool
    mode: str
    started_at: str
    finished_at: str
    total_users: int
    successful: int
    partial_failures: int
    total_failures: int
    unchanged: int
    invalid: int
    duplicates: int
    not_attempted: int
    api_calls: int
    retries: int
    duration_seconds: float
    users_per_second: float

    def to_json(self) -> JSON:
        return asdict(self)

    def to_text(self) -> str:
        """Return the head as JSON text, for `--json`."""
        return orjson.dumps(self.to_json(), option=orjson.OPT_INDENT_2).decode()

    def to_line(self) -> str:
        """Return the counts that are not zero in one line, for the log."""
        counts = {name: n for name, n in self.to_json().items() if type(n) is int and n}
        del counts["schema_version"]
        said = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items()]
        return ", ".join([*said, f"{self.duration_seconds:.1f} seconds"])


def summarize(
    *,
    run_id: str,
    status: str,
    reason: str | None,
    dry_run: bool,
    mode: str,
    started_at: datetime,
    finished_at: datetime,
    elapsed_seconds: float,
    tally: Iterable[tuple[RowState, int]],
    api_calls: int,
    retries: int,
) -> RunSummary:
    """Add up what the rows came to. A `completed` run with failed or invalid rows says so.

    `elapsed_seconds` is measured: the difference of the two times is not, where the clock was set
    in between.
    """
    counts = dict.fromkeys(Outcome, 0)
    for state, rows in tally:
        counts[state.outcome] += rows
    failed = (Outcome.PARTIAL_FAILURE, Outcome.TOTAL_FAILURE, Outcome.INVALID)
    if status == "completed" and any(counts[outcome] for outcome in failed):
        status = "completed_with_failures"
    total = sum(counts.values())
    seconds = max(elapsed_seconds, 0.001)
    return RunSummary(
        schema_version=SCHEMA_VERSION,
        run_id=run_id,
        status=status,
        reason=reason,
        dry_run=dry_run,
        mode=mode,
        started_at=iso_time(started_at),
        finished_at=iso_time(finished_at),
        total_users=total,
        successful=counts[Outcome.SUCCESSFUL],
        partial_failures=counts[Outcome.PARTIAL_FAILURE],
        total_failures=counts[Outcome.TOTAL_FAILURE],
        unchanged=counts[Outcome.UNCHANGED],
        invalid=counts[Outcome.INVALID],
        duplicates=counts[Outcome.DUPLICATE],
        not_attempted=counts[Outcome.NOT_ATTEMPTED],
        api_calls=api_calls,
        retries=retries,
        duration_seconds=round(seconds, 3),
        users_per_second=round((total - counts[Outcome.NOT_ATTEMPTED]) / seconds, 1),
    )


def summary_lines(
    summary: RunSummary, failures: Sequence[Failure], files: Sequence[Path]
) -> list[str]:
    """Word the end of a run for the operator."""
    status = summary.status.replace("_", " ")
    lines = [f"{'Dry run' if summary.dry_run else 'Run'} {status}", ""]
    named = {
        "users": summary.total_users,
        "successful": summary.successful,
        "partial failures": summary.partial_failures,
        "total failures": summary.total_failures,
        "unchanged": summary.unchanged,
        "invalid": summary.invalid,
        "duplicates": summary.duplicates,
        "not attempted": summary.not_attempted,
    }
    lines += [f"  {name:<17}{count:>11,}" for name, count in named.items()]
    lines += [
        "",
        f"  {summary.api_calls:,} API calls, {summary.retries:,} of them retries, in "
        f"{summary.duration_seconds:.1f} s ({summary.users_per_second:,.1f} users/s)",
    ]
    if failures:
        lines += ["", "  What failed, the commonest first:"]
        lines += [
            f"  {failure.rows:>9,} x {failure.endpoint}: {failure.code or failure.verdict}"
            f" (for example user {failure.example_user_id})"
            for failure in failures[:5]
        ]
    lines += ["", *(f"  {path}" for path in files)]
    if summary.dry_run:
        lines.append("  Nothing was sent. Without --dry-run the run is real.")
    elif summary.partial_failures or summary.total_failures or summary.not_attempted:
        lines.append("  What is missing is tried again by the next run.")
    return lines
