"""The summary of a run: its counts, and the lines for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import orjson

from records.outcomes import COUNT_NAMES, JSON, Outcome, Verdict, iso_time, named_field
from records.rows import EMAIL_CHANGE, INVALID_ROW, Failure, RequestKind, SettledRow, common_reason
from reporting.formatting import counted

SCHEMA_VERSION = 1
# The keys of the results file before `records`, in order.
HEAD_KEYS = (
    *("schema_version", "run_id", "status", "reason", "dry_run", "mode"),
    *("started_at", "finished_at", "total_users", *COUNT_NAMES.values()),
    *("api_calls", "retries", "duration_seconds", "users_per_second", "sync", "failures"),
)
_FAILED = (Outcome.PARTIAL_FAILURE, Outcome.TOTAL_FAILURE, Outcome.INVALID)
_RETRIED = {Verdict.UNAVAILABLE.value, Verdict.REFUSED.value}  # by the next run
_SHOWN_FAILURES = 5
_ORDER = {"users/updateEmail": -1, "users/update": 0, "row": 1, "events/track": 2}
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
    users_per_second: float  # for whom something was sent, by the time of sending
    sync: str | None = None  # SYNC_NAME
    # Failed and invalid rows that were not known before this run, and those that were; rows that
    # failed before, and no longer.
    failures: Mapping[str, int] = field(
        default_factory=lambda: {"new": 0, "known": 0, "resolved": 0}
    )
    # The counts of what a setting turns on, by their key in the results file.
    added: Mapping[str, JSON] = field(default_factory=dict)

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
        return {**{key: values[key] for key in HEAD_KEYS}, **self.added}

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


@dataclass
class Sent:
    """How many users a run sent something for, and of which kind."""

    users: int = 0
    profiles: int = 0
    events: int = 0

    def add(self, has_profile: bool, has_event: bool, rows: int = 1) -> None:
        self.users += rows * (has_profile or has_event)
        self.profiles += rows * has_profile
        self.events += rows * has_event


class RunTally:
    """The outcomes and failures of the rows that are done so far."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(Outcome, 0)
        self.sent = Sent()
        self._failures: Counter[_Reason] = Counter()
        self._examples: dict[_Reason, int | str] = {}
        self._fields: dict[_Reason, str] = {}
        self._request_ids: dict[_Reason, str] = {}  # of the examples
        self._new_failures: Counter[_Reason] = Counter()
        self._new_examples: dict[_Reason, int | str] = {}
        self.new_count = self.known_count = 0  # failed and invalid rows

    def add(self, rows: Sequence[SettledRow]) -> None:
        """Count rows; each row only once."""
        for state, equal_rows in groupby(rows, key=attrgetter("state")):
            found = list(equal_rows)
            self.counts[state.outcome] += len(found)
            if not state.is_failure:
                self.sent.add(state.update is not None, state.event is not None, len(found))
            else:
                for row in found:
                    self.sent.add(_is_sent(row.update_result), _is_sent(row.event_result))
                    self._add_failure(row)

    def failures(self) -> list[Failure]:
        """Return the reasons why rows failed or were invalid, the most frequent first."""
        return _sorted_failures(self._failures, self._examples, self._fields, self._request_ids)

    def new_failures(self) -> list[Failure]:
        """Return the same of the failures that were not known before this run."""
        request_ids = {
            reason: request_id
            for reason, request_id in self._request_ids.items()
            if self._examples[reason] == self._new_examples.get(reason)
        }
        return _sorted_failures(self._new_failures, self._new_examples, self._fields, request_ids)

    def _add_failure(self, row: SettledRow) -> None:
        ages = row.ages()
        has_new = False
        for kind, reason, params, request_id in _reasons(row):
            is_new = kind not in ages or ages[kind].runs_failed == 1
            has_new |= is_new
            self._failures[reason] += 1
            self._new_failures[reason] += is_new
            if reason not in self._fields and (field_name := named_field(params)) is not None:
                self._fields[reason] = field_name
            if row.user_id is not None:
                if reason not in self._examples and request_id is not None:
                    self._request_ids[reason] = request_id
                self._examples.setdefault(reason, row.user_id)
                if is_new:
                    self._new_examples.setdefault(reason, row.user_id)
        if row.state.outcome in _FAILED:
            self.new_count += has_new
            self.known_count += not has_new


def _sorted_failures(
    counts: Mapping[_Reason, int],
    examples: Mapping[_Reason, int | str],
    fields: Mapping[_Reason, str],
    request_ids: Mapping[_Reason, str],
) -> list[Failure]:
    found = [
        Failure(*reason, rows, examples.get(reason), fields.get(reason), request_ids.get(reason))
        for reason, rows in counts.items()
        if rows
    ]
    # Of equally frequent ones the endpoints in the order of the requests.
    return sorted(found, key=lambda each: (-each.rows, _ORDER[each.endpoint], each.code or ""))


def _is_sent(result: str | None) -> bool:
    """Return whether this run attempted the request; a remembered result has no attempt."""
    return result is not None and orjson.loads(result)["attempts"] > 0


def _reasons(row: SettledRow) -> Iterable[tuple[str, _Reason, Any, str | None]]:
    """Yield kind (as in `FailureAges`), reason, `params` and request id of each failure."""
    if row.state.outcome is Outcome.INVALID:
        yield INVALID_ROW, ("row", "invalid", common_reason(row.reason)), None, None
    if row.state.outcome is Outcome.TOTAL_FAILURE and row.email_change:
        change = orjson.loads(row.email_change)
        yield EMAIL_CHANGE, ("users/updateEmail", "rejected", change["code"]), None, None
    for kind, endpoint, verdict, result in (
        (RequestKind.PROFILE, "users/update", row.state.update, row.update_result),
        (RequestKind.EVENT, "events/track", row.state.event, row.event_result),
    ):
        if result is not None and verdict not in (None, Verdict.DELIVERED):
            entry = orjson.loads(result)
            response = entry["response"]
            reason = (endpoint, str(verdict), response["code"])
            yield kind.value, reason, response.get("params"), entry.get("request_id")


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
    new_failures: int = 0,
    known_failures: int = 0,
    resolved_failures: int = 0,
    users_sent: int = 0,
    sending_seconds: float = 0.0,
    sync: str | None = None,
    added: Mapping[str, JSON] | None = None,
    has_other_failures: bool = False,
) -> RunSummary:
    """Summarize a run; `completed` becomes `completed_with_failures` where rows failed.

    So it does where a run, other than a dry run, did not attempt every row, and with
    `has_other_failures`, for what is no row of the query.

    `elapsed_seconds` and `sending_seconds` come from a monotonic clock: the difference of the two
    times would be wrong if the system clock was set during the run.
    """
    left_rows_out = not dry_run and counts[Outcome.NOT_ATTEMPTED] > 0
    if status == "completed" and (has_failures(counts) or left_rows_out or has_other_failures):
        status = "completed_with_failures"
    seconds = max(elapsed_seconds, 0.001)
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
        users_per_second=round(users_sent / max(sending_seconds, 0.001), 1),
        sync=sync,
        failures={
            "new": new_failures,
            "known": known_failures,
            "resolved": resolved_failures,
        },
        added=added or {},
    )


def summary_lines(
    summary: RunSummary,
    failures: Sequence[Failure],
    files: Sequence[Path],
    left_out: Sequence[str] = (),
    *,
    notes: Sequence[str] = (),
    is_held_back: bool = False,
) -> list[str]:
    """Return the lines that the terminal shows at the end of a run.

    `notes` say what else happened. `failures` are sorted, the most frequent first; `left_out` says
    which requests were not sent.
    `is_held_back` means that a guard let nothing be sent, as it would the next time.
    """
    status = summary.status.replace("_", " ")
    name = f" of {summary.sync}" if summary.sync else ""
    lines = [f"{'Dry run' if summary.dry_run else 'Run'}{name} {status}", ""]
    named = {"users": summary.total_users, **summary.named_counts()}
    lines += [f"  {name:<17}{count:>11,}" for name, count in named.items()]
    lines += _failure_lines(summary.failures)
    lines += [
        "",
        f"  {_calls_text(summary)} in {summary.duration_seconds:.1f} s"
        f" ({summary.users_per_second:,.1f} users/s)",
    ]
    if failures:
        lines += ["", "  Failures by reason:"]
        lines += map(failure_line, failures[:_SHOWN_FAILURES])
    lines += ["", *(f"  {line}" for line in notes)] if notes else []
    lines += [f"  {line}" for line in left_out]
    lines += ["", *(f"  {path}" for path in files)]
    if summary.dry_run:
        lines.append("  Nothing was sent. Run without --dry-run to send.")
    elif is_held_back:
        lines.append("  Nothing was sent.")
    else:
        lines += _next_lines(summary, failures, left_out)
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


def _next_lines(
    summary: RunSummary, failures: Sequence[Failure], left_out: Sequence[str]
) -> list[str]:
    verdicts = {failure.verdict for failure in failures}
    if left_out:
        return ["  The next run first tries some of the rows that were left out."]
    lines = []
    if verdicts & _RETRIED or summary.counts[Outcome.NOT_ATTEMPTED]:
        lines.append("  The next run retries what did not get through.")
    if Verdict.REJECTED in verdicts:
        lines.append(
            "  What Iterable rejected is sent again when it changes, or after REJECTED_RETRY_HOURS."
        )
    if summary.counts[Outcome.INVALID]:
        lines.append("  Invalid rows are skipped until they are corrected in the database.")
    return lines


def _failure_lines(failures: Mapping[str, int]) -> list[str]:
    failed, resolved = failures["new"] + failures["known"], failures["resolved"]
    lines = [f"  {failed:,} failed ({failures['new']:,} new)"] if failed else []
    if resolved:
        are = "failure of an earlier run is" if resolved == 1 else "failures of earlier runs are"
        lines.append(f"  {resolved:,} {are} resolved")
    return ["", *lines] if lines else []


def _calls_text(summary: RunSummary) -> str:
    calls = counted(summary.api_calls, "API call")
    if not summary.retries:
        return calls
    return f"{calls} ({summary.retries:,} {'retry' if summary.retries == 1 else 'retries'})"
