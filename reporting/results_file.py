"""Results file: `integration_results_<local start time>.json`, and removal of old ones.

Rows are written as a stream, so memory use does not depend on their number.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson

from errors import SyncError
from records.outcomes import JSON, UNREACHABLE_CODES, Outcome, iso_time, row_entry
from records.rows import SettledRow
from reporting.atomic_file import create_file
from reporting.summary import RunSummary

_FILE_NAME = re.compile(r"integration_results_\d{8}_\d{6}(_\d+)?\.(json|html)")
_PART_NAME = re.compile(r"\.integration_results_\d{8}_\d{6}.*\.part")
_ABANDONED_AFTER_SECONDS = 3_600  # no run needs that long to write its rows


class ResultsError(SyncError):
    """The results file cannot be written; the message says why and what to do."""


def entries(rows: Iterable[SettledRow], why_not_attempted: str) -> Iterator[JSON]:
    """Yield the entries of `records[]`; `why_not_attempted` is the reason of unsent rows."""
    now = iso_time(datetime.now(timezone.utc))
    # Made once for all unchanged rows: saves a second for a million of them.
    unchanged = row_entry(None, None, Outcome.UNCHANGED, timestamp=now)
    for row in rows:
        if row.state.kind == Outcome.UNCHANGED:
            yield {**unchanged, "user_id": row.user_id, "email": row.email, "reason": row.reason}
            continue
        state, outcome, reason = row.state, row.state.outcome, row.reason
        if outcome is Outcome.NOT_ATTEMPTED:
            reason = why_not_attempted
        elif row.update_result and not row.event_result and not state.event_in_place:
            reason = _why_no_event(row.update_result, why_not_attempted)
        settled_at = row.settled_at
        yield row_entry(
            row.user_id,
            row.email,
            outcome,
            reason,
            _as_json(row.update_result),
            _as_json(row.event_result),
            now
            if settled_at is None
            else iso_time(datetime.fromtimestamp(settled_at, timezone.utc)),
        )


def _why_no_event(update_result: str, why_not_attempted: str) -> str:
    code = orjson.loads(update_result)["response"]["code"]
    if code in UNREACHABLE_CODES:
        return f"the event was not sent: {code} from users/update"
    return f"the event was not sent: {why_not_attempted}"


def _as_json(stored: str | None) -> Any:
    """Pass stored JSON text through without parsing it."""
    return None if stored is None else orjson.Fragment(stored)


def write_results(folder: Path, summary: RunSummary, records: Iterable[JSON]) -> Path:
    """Write the results file, mode 0600, and return its path. Raises ResultsError.

    Raises AssertionError if the records do not agree with the summary's counts.
    """
    started_at = datetime.fromisoformat(summary.started_at).astimezone()
    path = folder / started_at.strftime("integration_results_%Y%m%d_%H%M%S.json")
    try:
        return create_file(path, _lines(summary, records))
    except OSError as error:
        raise ResultsError(
            f"The results cannot be written to {folder} ({error.strerror or error}): free disk "
            "space or choose another RESULTS_DIR. The state file still has what was delivered."
        ) from error


def _lines(summary: RunSummary, records: Iterable[JSON]) -> Iterator[bytes]:
    head = orjson.dumps(summary.to_json(), option=orjson.OPT_INDENT_2)
    yield head.removesuffix(b"\n}") + b',\n  "records": ['
    counts = dict.fromkeys((outcome.value for outcome in Outcome), 0)
    separator = b"\n    "
    for record in records:
        counts[record["outcome"]] += 1
        yield separator + orjson.dumps(record)
        separator = b",\n    "
    yield b"\n  ]\n}\n"
    expected = {outcome.value: rows for outcome, rows in summary.counts.items()}
    if counts != expected:
        raise AssertionError(f"the records {counts} do not agree with the counts {expected}")


def remove_old_results(folder: Path, keep: int, just_written: Path) -> int:
    """Remove all but the `keep` newest results (0: keep all) and their reports; return how many.

    Files newer than the one just written come from a clock that was ahead: they are removed
    first, because they would count as the newest for years. Temporary files of killed runs are
    removed as well.
    """
    _remove_temporary_files(folder, just_written)
    if keep == 0:
        return 0
    removed = 0
    with contextlib.suppress(OSError):
        written_at = just_written.lstat().st_mtime_ns

        def rank(path: Path) -> tuple[bool, int, str]:
            modified_at = path.lstat().st_mtime_ns
            return modified_at <= written_at, modified_at, path.name

        ours = [path for path in folder.iterdir() if _FILE_NAME.fullmatch(path.name)]
        others = [path for path in ours if path.suffix == ".json" and path != just_written]
        for old in sorted(others, key=rank, reverse=True)[keep - 1 :]:
            with contextlib.suppress(OSError):  # for example a folder of that name
                old.unlink(missing_ok=True)
                removed += 1
                old.with_suffix(".html").unlink(missing_ok=True)
    return removed


def _remove_temporary_files(folder: Path, just_written: Path) -> None:
    with contextlib.suppress(OSError):
        oldest_at = just_written.lstat().st_mtime - _ABANDONED_AFTER_SECONDS
        for part in [path for path in folder.iterdir() if _PART_NAME.fullmatch(path.name)]:
            with contextlib.suppress(OSError):
                if part.lstat().st_mtime < oldest_at:
                    part.unlink()
