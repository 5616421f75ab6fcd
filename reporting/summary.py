"""The summary of a run: its counts, and the lines for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from records.outcomes import COUNT_NAMES, JSON, Outcome, Verdict, iso_time, named_field
from records.rows import SHARED_EVENT_ID, Failure, SettledRow

SCHEMA_VERSION = 1
# The keys of the results file before `records`, in order.
HEAD_KEYS = (
    *("schema_version", "run_id", "status", "reason", "dry_run", "mode"),
    *("started_at", "finished_at", "total_users", *COUNT_NAMES.values()),
    *("api_calls", "retries", "duration_seconds", "users_per_second"),
)
_FAILED = (Outcome.PARTIAL_FAILURE, Outcome.TOTAL_FAILURE, Outcome.INVALID)
_RETRIED = (Outcome.PARTIAL_FAILURE, Outcome.TOTAL_FAILURE, Outcome.NOT_ATTEMPTED)
_SHOWN_FAILURES = 5
_ORDER = {"users/update": 0, "row": 1, "events/track": 2}
_Reason = tuple[str, str, str | None]  # endpoint, verdict and code, as in `Failure`


@dataclass(frozen=True)
class RunSummary:
    """The counts and times of one run. Times are ISO 8601 in UTC."""

    run_id: str
    status: str  # completed, completed_with_failures, interrupted, aborted
    reason: str | None
    dry_run: bool
    mode: str
    started_at: str
    finished_at: str
    counts: Mapping[Outcome, int]  # of rows; holds every outcome
    api_calls: int  # attempts, retries included
    retries: int
    duration_seconds: float
    users_per_second: float

    @property
    def total_users(self) -> int:
        return sum(self.counts.values())

    def to_json(self) -> JSON:
        """Return the head of the results file, its keys in order."""
        values = {
            **vars(self),
            "schema_version": SCHEMA_VERSION,
            "total_users": self.total_users,
            **{COUNT_NAMES[outcome]: rows for outcome, rows in self.counts.items()},
        }
        return {key: values[key] for key in HEAD_KEYS}

    def to_text(self) -> str:
        """Return the head as JSON text, for `--json`."""
        return orjson.dumps(self.to_json(), option=orjson.OPT_INDENT_2).decode()

    def to_line(self) -> str:
        """Return the counts that are not zero in one line, for the log."""
        numbers = {
            "total users": self.total_users,
            **self.named_counts(),
            "api calls": self.api_calls,
            "retries": self.retries,
        }
        counted = [f"{number:,} {name}" for name, number in numbers.items() if number]
        return ", ".join([*counted, f"{self.duration_seconds:.1f} seconds"])

    def named_counts(self) -> dict[str, int]:
        return {COUNT_NAMES[each].replace("_", " "): self.counts[each] for each in Outcome}


class RunTally:
    """The outcomes and failures of the rows that are done so far."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(Outcome, 0)
        self._failures: Counter[_Reason] = Counter()
        self._examples: dict[_Reason, int | str] = {}
        self._fields: dict[_Reason, str | None] = {}  # of the first row

    def add(self, rows: Sequence[SettledRow]) -> None:
        """Count rows; each row only once."""
        states = Counter(row.state for row in rows)
        for state, count in states.items():
            self.counts[state.outcome] += count
        if any(state.is_failure for state in states):
            for row in rows:
                self._add_failure(row)

    def failures(self) -> list[Failure]:
        """Return the reasons why rows failed or were invalid, the most frequent first."""
        found = [
            Failure(*reason, rows, self._examples.get(reason), self._fields.get(reason))
            for reason, rows in self._failures.items()
        ]
        # Of equally frequent ones the endpoints in the order of the requests.
        return sorted(found, key=lambda each: (-each.rows, _ORDER[each.endpoint], each.code or ""))

    def _add_failure(self, row: SettledRow) -> None:
        for reason, params in _reasons(row):
            self._failures[reason] += 1
            if reason not in self._fields:
                self._fields[reason] = named_field(params)
            if row.user_id is not None:
                self._examples.setdefault(reason, row.user_id)


def _reasons(row: SettledRow) -> Iterable[tuple[_Reason, Any]]:
    """Yield each reason why a row failed, with the `params` of Iterable's response."""
    if row.state.outcome is Outcome.INVALID:
        reason = row.reason or ""
        code = SHARED_EVENT_ID if reason.startswith(SHARED_EVENT_ID) else reason
        yield ("row", "invalid", code), None
    for endpoint, verdict, result in (
        ("users/update", row.state.update, row.update_result),
        ("events/track", row.state.event, row.event_result),
    ):
        if result is not None and verdict not in (None, Verdict.DELIVERED):
            response = orjson.loads(result)["response"]
            yield (endpoint, str(verdict), response["code"]), response.get("params")


def has_failures(counts: Mapping[Outcome, int]) -> bool:
    """Tell whether any row failed or was invalid."""
    return failed_rows(counts) > 0


def failed_rows(counts: Mapping[Outcome, int]) -> int:
    """Return how many rows failed or were invalid."""
    return sum(counts[outcome] for outcome in _FAILED)


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
    counts: Mapping[Outcome, int],
    api_calls: int,
    retries: int,
) -> RunSummary:
    """Summarize a run; `completed` becomes `completed_with_failures` where rows failed.

    `elapsed_seconds` comes from a monotonic clock: the difference of the two times would be wrong
    if the system clock was set during the run.
    """
    if status == "completed" and has_failures(counts):
        status = "completed_with_failures"
    seconds = max(elapsed_seconds, 0.001)
    settled = sum(counts.values()) - counts[Outcome.NOT_ATTEMPTED]
    return RunSummary(
        run_id=run_id,
        status=status,
        reason=reason,
        dry_run=dry_run,
        mode=mode,
        started_at=iso_time(started_at),
        finished_at=iso_time(finished_at),
        counts=counts,
        api_calls=api_calls,
        retries=retries,
        duration_seconds=round(seconds, 3),
        users_per_second=round(settled / seconds, 1),
    )


def summary_lines(
    summary: RunSummary, failures: Sequence[Failure], files: Sequence[Path]
) -> list[str]:
    """Return the lines that the terminal shows at the end of a run.

    `failures` are sorted, the most frequent first.
    """
    status = summary.status.replace("_", " ")
    lines = [f"{'Dry run' if summary.dry_run else 'Run'} {status}", ""]
    named = {"users": summary.total_users, **summary.named_counts()}
    lines += [f"  {name:<17}{count:>11,}" for name, count in named.items()]
    lines += [
        "",
        f"  {_calls_text(summary)} in {summary.duration_seconds:.1f} s"
        f" ({summary.users_per_second:,.1f} users/s)",
    ]
    if failures:
        lines += ["", "  Failures by reason:"]
        lines += map(failure_line, failures[:_SHOWN_FAILURES])
    lines += ["", *(f"  {path}" for path in files)]
    if summary.dry_run:
        lines.append("  Nothing was sent. Run without --dry-run to send.")
    elif any(summary.counts[outcome] for outcome in _RETRIED):
        lines.append("  The next run retries what did not get through.")
    return lines


def failure_line(failure: Failure) -> str:
    """Return the line of a reason why rows failed."""
    field = f", field {failure.field}" if failure.field else ""
    user_id = failure.example_user_id
    example = "" if user_id is None else f" (for example user {user_id})"
    return (
        f"  {failure.rows:>9,} x {failure.endpoint}: {failure.code or failure.verdict}{field}"
        f"{example}"
    )


def _calls_text(summary: RunSummary) -> str:
    calls = f"{summary.api_calls:,} API call{'' if summary.api_calls == 1 else 's'}"
    if not summary.retries:
        return calls
    return f"{calls} ({summary.retries:,} {'retry' if summary.retries == 1 else 'retries'})"
