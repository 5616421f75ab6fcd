"""Results file: `integration_results_<local start time>.json`, and removal of old ones."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from errors import SyncError
from records.outcomes import JSON, UNREACHABLE_CODES, Outcome, iso_time, row_entry
from records.rows import SettledRow
from reporting.atomic_file import NewFile, is_abandoned
from reporting.summary import RunSummary

logger = logging.getLogger(__name__)

_FILE_NAME = re.compile(r"integration_results_\d{8}_\d{6}(_\d+)?\.(json|html)")
_PART_NAME = re.compile(r"\.integration_results_\d{8}_\d{6}.*\.part")
_BEGINNING_BYTES = 1_000  # of a results file: it has the id of the run
_ABANDONED_AFTER_SECONDS = 60  # a report is not locked while it is written


class ResultsError(SyncError):
    """The results file cannot be written; the message says why and what to do."""


class ResultsFile:
    """The results file of one run, which is written while the run goes on.

    `with_email_changes`: each entry says what became of a changed address.
    Append each row once it is done, in the query's order; `finish` adds the head. After an error
    nothing more is written, and `finish` raises it as ResultsError.
    """

    def __init__(
        self, folder: Path, started_at: datetime, *, with_email_changes: bool = False
    ) -> None:
        self._with_email_changes = with_email_changes
        self._folder = folder
        self._path = folder / started_at.astimezone().strftime(
            "integration_results_%Y%m%d_%H%M%S.json"
        )
        self._file: NewFile | None = None  # opened with the first row
        self._rows = 0
        self._error: OSError | None = None

    def append(self, rows: Sequence[SettledRow], why_not_attempted: str = "") -> None:
        """Write the entries of these rows; `why_not_attempted` is the reason of unsent ones."""
        if self._error is None:
            lines = b"".join(
                _to_lines(rows, why_not_attempted, with_email_changes=self._with_email_changes)
            )
            try:
                self._opened().append(lines if self._rows else lines[1:])
            except OSError as error:
                self._error = error
                self.discard()
                logger.warning("%s The run goes on.", self._explain(error))
        self._rows += len(rows)

    def finish(self, summary: RunSummary, left: Sequence[JSON] | None = None) -> Path:
        """Complete the file, mode 0600, and return its path. Raises ResultsError.

        `left` are the entries of users who left the query's result.

        Raises AssertionError if the number of rows does not agree with the summary's counts.
        """
        try:
            if self._rows != summary.total_users:
                raise AssertionError(f"{self._rows} rows do not agree with {summary.counts}")
            if self._error is not None:
                raise self._error
            file = self._opened()
            file.append(b"\n  ]\n}\n")
            entries = {} if left is None else {"left": left}
            head = orjson.dumps({**summary.to_json(), **entries}, option=orjson.OPT_INDENT_2)
            return file.publish(head.removesuffix(b"\n}") + b',\n  "records": [')
        except OSError as error:
            raise ResultsError(self._explain(error)) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Close the file; if it is not finished, remove it."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # the disk is full
                self._file.close()
            self._file = None

    def _explain(self, error: OSError) -> str:
        return (
            f"The results cannot be written to {self._folder} ({error.strerror or error}): free "
            "disk space or choose another RESULTS_DIR. The state file still has what was delivered."
        )

    def _opened(self) -> NewFile:
        if self._file is None:
            self._file = NewFile(self._path)
        return self._file


def _to_lines(
    rows: Iterable[SettledRow], why_not_attempted: str, *, with_email_changes: bool
) -> Iterator[bytes]:
    """Yield the lines of `records[]`, each with the comma that separates it from the one before."""
    now = iso_time(datetime.now(timezone.utc))
    # A million rows of these two kinds are common, so all but the user is written only once.
    usual_ends = {
        outcome: orjson.dumps(row_entry(None, None, outcome, reason, timestamp=now))[
            len(b'{"user_id":null,"email":null') :
        ]
        for outcome, reason in (
            (Outcome.UNCHANGED, None),
            (Outcome.NOT_ATTEMPTED, why_not_attempted),
        )
    }
    if with_email_changes:
        usual_ends = {}
    for state, equal_rows in groupby(rows, key=attrgetter("state")):
        end = usual_ends.get(state.outcome)
        for row in equal_rows:
            if end is None:
                entry = _entry(row, why_not_attempted, now)
                if with_email_changes:
                    entry["email_change"] = _as_json(row.email_change)
                yield b",\n    " + orjson.dumps(entry)
            else:
                user_id, email = orjson.dumps(row.user_id), orjson.dumps(row.email)
                yield b',\n    {"user_id":%b,"email":%b%b' % (user_id, email, end)


def _entry(row: SettledRow, why_not_attempted: str, now: str) -> JSON:
    reason, settled_at = row.reason, row.settled_at
    if row.state.outcome is Outcome.NOT_ATTEMPTED and reason is None:
        reason = why_not_attempted
    if row.update_result and not row.event_result and row.state.lacks_event:
        why = "" if row.event_needed_profile else why_not_attempted
        reason = _why_no_event(row.update_result, why)
    elif row.event_result and not row.update_result and row.state.lacks_profile:
        reason = f"the profile was not sent: {why_not_attempted}"
    return row_entry(
        row.user_id,
        row.email,
        row.state.outcome,
        reason,
        _as_json(row.update_result),
        _as_json(row.event_result),
        now if settled_at is None else _utc_time(settled_at),
        *_age_of(row),
    )


def _age_of(row: SettledRow) -> tuple[str | None, int | None]:
    """Return since when and for how many runs a row has failed; of two requests the longer one."""
    ages = row.ages().values()
    if not ages:
        return None, None
    first_failed_at = min(age.first_failed_at for age in ages)
    return _utc_time(first_failed_at), max(age.runs_failed for age in ages)


def _utc_time(unix_seconds: float) -> str:
    return iso_time(datetime.fromtimestamp(unix_seconds, timezone.utc))


def _why_no_event(update_result: str, why_not_attempted: str) -> str:
    code = orjson.loads(update_result)["response"]["code"]
    if code in UNREACHABLE_CODES or not why_not_attempted:
        return f"the event was not sent: {code} from users/update"
    return f"the event was not sent: {why_not_attempted}"


def _as_json(stored: str | None) -> Any:
    """Pass stored JSON text through without parsing it."""
    return None if stored is None else orjson.Fragment(stored)


def find_results(folder: Path, run_id: str) -> Path | None:
    """Return the results file of a run, None if it is not in the folder."""
    with contextlib.suppress(OSError):
        files = sorted(kept_files(folder), key=attrgetter("modified_at_ns"), reverse=True)
        for file in files:
            with contextlib.suppress(OSError), file.path.open("rb") as opened:
                if b'"run_id": "%b"' % run_id.encode() in opened.read(_BEGINNING_BYTES):
                    return file.path
    return None


def records_in(path: Path) -> Iterator[JSON]:
    """Yield the entries of `records[]`, one by one: the file may be larger than the memory.

    Each stands in a line of its own. Raises ResultsError.
    """
    try:
        with path.open("rb") as file:
            has_begun = False
            for line in file:
                if has_begun and line.startswith(b"    {"):
                    yield orjson.loads(line.rstrip(b",\n"))
                has_begun = has_begun or line.startswith(b'  "records": [')
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise ResultsError(f"{path} cannot be read: {reason}.") from error


class KeptFile(NamedTuple):
    """A results file with its report, as one."""

    path: Path
    modified_at_ns: int
    size_bytes: int


def kept_files(folder: Path) -> list[KeptFile]:
    """Return the results files in the folder, in no order. Raises OSError."""
    names = {path.name: path for path in folder.iterdir() if _FILE_NAME.fullmatch(path.name)}
    found = []
    for path in names.values():
        if path.suffix != ".json":
            continue
        with contextlib.suppress(OSError):  # it is removed at this moment
            stats = path.lstat()
            report = names.get(path.with_suffix(".html").name)
            report_bytes = report.lstat().st_size if report else 0
            found.append(KeptFile(path, stats.st_mtime_ns, stats.st_size + report_bytes))
    return found


def remove_old_results(folder: Path, keep: int, just_written: Path, *, keep_bytes: int = 0) -> int:
    """Remove the oldest results files and their reports; return how many.

    The newest `keep` files stay, as far as they take no more than `keep_bytes` together; 0 sets no
    limit. The file just written always stays. Files newer than it come from a clock that was
    ahead: they are removed first, because they would count as the newest for years. Temporary
    files of killed runs are removed as well.
    """
    _remove_temporary_files(folder, just_written)
    removed = 0
    with contextlib.suppress(OSError):
        files = kept_files(folder)
        (newest,) = [file for file in files if file.path == just_written] or [
            KeptFile(just_written, just_written.lstat().st_mtime_ns, 0)
        ]

        def rank(file: KeptFile) -> tuple[bool, int, str]:
            is_plausible = file.modified_at_ns <= newest.modified_at_ns
            return is_plausible, file.modified_at_ns, file.path.name

        others = sorted((file for file in files if file != newest), key=rank, reverse=True)
        count, size_bytes = 1, newest.size_bytes
        for file in others:
            count += 1
            size_bytes += file.size_bytes
            if (keep and count > keep) or (keep_bytes and size_bytes > keep_bytes):
                with contextlib.suppress(OSError):  # for example a folder of that name
                    file.path.unlink(missing_ok=True)
                    removed += 1
                    file.path.with_suffix(".html").unlink(missing_ok=True)
    return removed


def _remove_temporary_files(folder: Path, just_written: Path) -> None:
    with contextlib.suppress(OSError):
        oldest_at = just_written.lstat().st_mtime - _ABANDONED_AFTER_SECONDS
        for part in [path for path in folder.iterdir() if _PART_NAME.fullmatch(path.name)]:
            with contextlib.suppress(OSError):
                if part.lstat().st_mtime < oldest_at and is_abandoned(part):
                    part.unlink()
