"""News of a run, for `--quiet`: lines about what no earlier run has printed."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from logger_config import redact
from records.rows import Failure
from reporting.summary import failure_line

MAX_FAILURE_LINES = 20  # heading and file included
MAX_WARNING_LINES = 20
_NUMBER = re.compile(r"[0-9]+(?:[.,:][0-9]+)*")
_LETTERS = re.compile(r"[A-Za-z]{2}")


class WarningCollector(logging.Handler):
    """Keeps the warnings of a run, of those that differ in their numbers only the first.

    Failed attempts are not among them: they are reported as failures of rows.
    """

    def __init__(self, *, redact_emails: bool = False) -> None:
        super().__init__(logging.WARNING)
        self._redact_emails = redact_emails
        self.warnings: dict[str, str] = {}  # the text by its form without numbers

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning, unless it is about a failed attempt or for the log file only."""
        if not hasattr(record, "failure") and not hasattr(record, "file_only"):
            text = redact(record.getMessage(), emails=self._redact_emails)
            self.warnings.setdefault(_form_of(record), text)


def collect_warnings(*, redact_emails: bool = False) -> None:
    """Collect the warnings of the whole program from now on, whatever the level of its log."""
    root = logging.getLogger()
    root.addHandler(WarningCollector(redact_emails=redact_emails))
    root.setLevel(min(root.level, logging.WARNING))


def collected_warnings() -> Mapping[str, str]:
    """Return the text of each warning since `collect_warnings`, by its form without numbers."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, WarningCollector):
            return dict(handler.warnings)
    return {}


def _form_of(record: logging.LogRecord) -> str:
    """Return what a warning has in common with later ones that say the same."""
    template = str(record.msg)
    says_something = _LETTERS.search(template.replace("%s", ""))
    return f"{record.name} {template if says_something else without_numbers(record.getMessage())}"


def without_numbers(text: str) -> str:
    """Return a text with `#` for each number: counts and times change from run to run."""
    return _NUMBER.sub("#", text)


def failure_news(failures: Sequence[Failure], results_path: Path | None) -> Iterator[str]:
    """Yield the lines about failures that are new, the most frequent first; none if there are none.

    At most `MAX_FAILURE_LINES`, whatever the number of reasons.
    """
    if not failures:
        return
    yield "New failures by reason:"
    room = MAX_FAILURE_LINES - 1 - (results_path is not None)
    shown = failures if len(failures) <= room else failures[: room - 1]
    for failure in shown:
        yield failure_line(failure)
    if len(shown) < len(failures):
        rest = failures[len(shown) :]
        yield f"  {sum(each.rows for each in rest):>9,} x {len(rest):,} other reasons"
    if results_path is not None:
        yield f"Each of these rows is in {results_path}"


def resolved_news(
    resolved: int, still_failing: int, *, runs_again: bool, is_complete: bool
) -> Iterator[str]:
    """Yield the line that says that something works again; none where nothing does.

    `runs_again` means that the run reached its end after others had not, `is_complete` that it
    reached its end and had all rows: without that nobody knows whether all is well.
    """
    news = ["a run reached its end again"] if runs_again else []
    if resolved:
        failures = "1 failure is" if resolved == 1 else f"{resolved:,} failures are"
        news.append(f"{failures} resolved")
    if not news:
        return
    text = " and ".join(news)
    if still_failing:
        rows = "1 row still fails" if still_failing == 1 else f"{still_failing:,} rows still fail"
        yield f"{text.capitalize()}; {rows}."
    else:
        yield f"All is well again: {text}." if is_complete else f"{text.capitalize()}."


def warning_news(warnings: Sequence[str], log_file: Path | None) -> Iterator[str]:
    """Yield a line for each warning, at most `MAX_WARNING_LINES`."""
    shown = warnings if len(warnings) <= MAX_WARNING_LINES else warnings[: MAX_WARNING_LINES - 1]
    for text in shown:
        yield f"Warning: {text}"
    if len(shown) < len(warnings):
        where = "" if log_file is None else f": see {log_file}"
        yield f"{len(warnings) - len(shown):,} more warnings{where}"
