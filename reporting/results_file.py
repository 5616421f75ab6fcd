"""What a run leaves to read: the summary, the results file, the words on the console.

Owns the form of `integration_results_....json`, its safe writing and the tidying of old ones.
Rows arrive as a stream and leave as one: memory does not grow with them. Knows not how rows
were sent.
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
from records.outcomes import (
    JSON,
    UNREACHABLE_CODES,
    Outcome,
    SettledRow,
    iso_time,
    row_entry,
)
from reporting.atomic_file import create_file
from reporting.summary import RunSummary

_FILE_NAME = re.compile(r"integration_results_\d{8}_\d{6}(_\d+)?\.(json|html)")
_PART_NAME = re.compile(r"\.integration_results_\d{8}_\d{6}.*\.part")
_LEFT_BEHIND_SECONDS = 3_600  # no run takes so long to write down its rows


class ResultsError(SyncError):
    """The results file could not be written; the text says why and what to do."""


def entries(rows: Iterable[SettledRow], why_not_attempted: str) -> Iterator[JSON]:
    """Turn rows into entries of `records[]`; the text is the reason of what was not sent."""
    now = iso_time(datetime.now(timezone.utc))
    # What every unchanged row says alike, made once: a million of them take a second less.
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
    """Hand on JSON text as it is, unread."""
    return None if stored is None else orjson.Fragment(stored)


def write_results(folder: Path, summary: RunSummary, records: Iterable[JSON]) -> Path:
    """Write the results file and return its path: mode 0600, whole or not at all.

    Checks on the way that the records agree with the summary's counts. Raises ResultsError.
    """
    started_at = datetime.fromisoformat(summary.started_at).astimezone()
    path = folder / started_at.strftime("integration_results_%Y%m%d_%H%M%S.json")
    try:
        return create_file(path, _lines(summary, records))
    except OSError as error:
        raise ResultsError(
            f"The results cannot be written to {folder} ({error.strerror or error}): make room or "
            "choose another RESULTS_DIR. What was delivered is remembered all the same."
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
    """Remove all but the `keep` newest results (0 keeps all) and their reports; count them.

    What seems newer than the file that was just written is of a clock that was ahead: it goes
    before all others, and keeps no place for years. What a killed run left half written goes too.
    """
    _remove_left_behind(folder, just_written)
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
            with contextlib.suppress(OSError):  # a folder of that name, say: leave it
                old.unlink(missing_ok=True)
                removed += 1
                old.with_suffix(".html").unlink(missing_ok=True)
    return removed


def _remove_left_behind(folder: Path, just_written: Path) -> None:
    with contextlib.suppress(OSError):
        oldest_at = just_written.lstat().st_mtime - _LEFT_BEHIND_SECONDS
        for part in [path for path in folder.iterdir() if _PART_NAME.fullmatch(path.name)]:
            with contextlib.suppress(OSError):
                if part.lstat().st_mtime < oldest_at:
                    part.unlink()
