"""`--failures [FILE.csv]`: the failing and invalid rows of the newest complete run, as CSV.

A line for each failing request: a row whose profile and event both failed has two. They come from
the results file; the history says which one, since a run with --limit saw only some rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from commands.console import print_line
from commands.export import csv_line, export_rows
from config.settings import Settings
from errors import ExitStatus, SyncError
from records.outcomes import JSON, Outcome
from reporting.formatting import counted
from reporting.results_file import find_results, records_in
from state.history import IS_COMPLETE_READ, PastRun
from state.outbox import Outbox

COLUMNS = (
    *("user_id", "email", "outcome", "endpoint", "http_status", "code", "message", "attempts"),
    *("request_id", "first_failed_at", "runs_failed"),
)
_CHUNK_ROWS = 1_000
_FAILED = {Outcome.PARTIAL_FAILURE.value, Outcome.TOTAL_FAILURE.value, Outcome.INVALID.value}
_ENDPOINTS: Mapping[str, str] = {"users_update": "users/update", "events_track": "events/track"}


class FailuresError(SyncError):
    """There is no run whose failing rows could be listed."""


def run_failures(settings: Settings, target: str) -> ExitStatus:
    """Write the rows to a file of mode 0600, or to standard output if `target` is `-`.

    Raises FailuresError, StateError and ExportError.
    """
    run, path = _newest_complete_run(settings)
    lines = (_to_rows(record) for record in records_in(path) if record["outcome"] in _FAILED)
    if target == "-":
        _print_rows(row for rows in lines for row in rows)
        return ExitStatus.OK
    count = export_rows(_in_chunks(row for rows in lines for row in rows), Path(target))
    print_line(f"{counted(count, 'failure')} of the run of {run.started_at} written to {target}")
    return ExitStatus.OK


def _newest_complete_run(settings: Settings) -> tuple[PastRun, Path]:
    """Return the newest run that read all rows and reached its end, and its results file."""
    with closing(Outbox(settings.state_file, read_only=True)) as outbox:
        runs = outbox.history.runs()
    run = next(
        (
            each
            for each in runs
            if each.status.startswith("completed") and each.counts.get(IS_COMPLETE_READ)
        ),
        None,
    )
    if run is None:
        raise FailuresError(
            f"{settings.state_file} knows no run that read all rows and reached its end: run a "
            "sync first."
        )
    path = find_results(settings.results_dir, run.run_id)
    if path is None:
        raise FailuresError(
            f"The results file of the run of {run.started_at} is no longer in "
            f"{settings.results_dir}: run a sync, or raise RESULTS_KEEP and RESULTS_KEEP_MB."
        )
    return run, path


def _to_rows(record: JSON) -> Iterator[Sequence[Any]]:
    """Yield the line of each failure of a row, in the order of `COLUMNS`."""
    who = [record["user_id"], record["email"], record["outcome"]]
    age = [record["first_failed_at"], record["runs_failed"]]
    has_request = False
    for key, endpoint in _ENDPOINTS.items():
        result = record[key]
        if result is not None and not result["success"]:
            has_request = True
            response = result["response"]
            yield [
                *(*who, endpoint, result["http_status"], response["code"], response.get("msg")),
                *(result["attempts"], result.get("request_id"), *age),
            ]
    if has_request:
        return
    change = record.get("email_change")
    if change is not None and change["outcome"] == "failed":
        yield [
            *(*who, "users/updateEmail", change["http_status"], change["code"]),
            *(record["reason"], None, None, *age),
        ]
    else:
        yield [*who, "row", None, None, record["reason"], None, None, *age]


def _in_chunks(rows: Iterator[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    """Yield the header as a first row, then the rows."""
    chunk: list[Sequence[Any]] = [COLUMNS]
    for row in rows:
        if len(chunk) == _CHUNK_ROWS:
            yield chunk
            chunk = []
        chunk.append(row)
    yield chunk


def _print_rows(rows: Iterator[Sequence[Any]]) -> None:
    out = sys.stdout.buffer
    try:
        out.write(csv_line(COLUMNS))
        for row in rows:
            out.write(csv_line(row))
        out.flush()
    except BrokenPipeError:  # `| head`
        sys.stdout = None  # nothing more is flushed at the exit
