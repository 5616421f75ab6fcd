"""`--quiet`: print only what earlier runs have not printed, and remember what this one has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType

from commands.console import print_error
from config.settings import Settings
from errors import ExitStatus, SyncError, mark_as_printed
from reporting.news import (
    collected_warnings,
    failure_news,
    resolved_news,
    warning_news,
    without_numbers,
)
from reporting.summary import failed_rows
from state.database import StateError
from state.lock import RunInProgressError
from state.news import PrintedNews, hash_of, read_printed_news, write_printed_news
from state.project import OtherAddressError
from sync.field_types import FieldTypesError
from sync.run import Options, RunReport
from sync.signals import Interrupted

# What ended a run is printed again after this time.
PRINT_AGAIN_SECONDS = 3_600.0


class RunNews:
    """A context manager around a run, which sets `report` where the run gets that far.

    With `prints` it prints the news at the end of the block, and marks an error that was printed
    less than an hour ago, so that `main` does not print it. Where the state file cannot be used,
    everything is news. A dry run remembers nothing.
    """

    def __init__(
        self,
        settings: Settings,
        options: Options,
        *,
        prints: bool,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.report: RunReport | None = None
        self._settings = settings
        self._options = options
        self._prints = prints
        self._now = now

    def __enter__(self) -> RunNews:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        printed, is_readable = PrintedNews(), False
        if self._has_state_file(error):
            with suppress(StateError):
                printed = read_printed_news(self._settings.state_file)
                is_readable = True
        is_completed = self.report is not None and error is None
        warnings = self._warnings(
            printed, is_complete=is_completed and self._options.is_complete_read
        )
        endings, is_ended = dict(printed.endings), printed.is_ended
        if self._prints:
            for line in self._lines(printed, error, is_completed=is_completed):
                print_error(line)
            endings = self._endings(printed)
            if error is not None and not _is_about_settings(error):
                reason = hash_of(_reason_of(error))
                if reason in endings:
                    mark_as_printed(error)
                else:
                    endings[reason] = self._now()
                    is_ended = is_ended or not isinstance(error, Interrupted)
            is_ended = is_ended and not is_completed
        news = PrintedNews(warnings, endings, is_ended)
        if news != printed and is_readable and not self._options.dry_run:
            with suppress(StateError):  # the next run tells it again
                write_printed_news(self._settings.state_file, news)

    def _has_state_file(self, error: BaseException | None) -> bool:
        """Return whether the run found the state file in order; a damaged one is never written."""
        if isinstance(error, StateError):
            return isinstance(error, (RunInProgressError, OtherAddressError))
        return self.report is not None or not isinstance(error, Interrupted)

    def _lines(
        self, printed: PrintedNews, error: BaseException | None, *, is_completed: bool
    ) -> Iterator[str]:
        report = self.report
        if report is not None:
            yield from failure_news(report.new_failures, report.results_path)
            yield from resolved_news(
                report.summary.failures["resolved"],
                failed_rows(report.summary.counts),
                runs_again=is_completed and printed.is_ended and not self._options.dry_run,
                is_complete=is_completed and self._options.is_complete_read,
            )
        new = [
            text
            for form, text in collected_warnings().items()
            if hash_of(form) not in printed.warnings
        ]
        if isinstance(error, SyncError):  # "... Reading again from the first row."
            new = [text for text in new if not any(line in text for line in error.lines)]
        yield from warning_news(new, self._settings.log_file)

    def _warnings(self, printed: PrintedNews, *, is_complete: bool) -> dict[str, float]:
        """Return the warnings to compare the next run with.

        A run that did not get to all of its work keeps those of the run before.
        """
        found = {hash_of(form): self._now() for form in collected_warnings()}
        known = {
            form: at for form, at in printed.warnings.items() if form in found or not is_complete
        }
        return {**found, **known}

    def _endings(self, printed: PrintedNews) -> dict[str, float]:
        """Return the endings that were printed within the last hour."""
        now = self._now()
        return {
            reason: at
            for reason, at in printed.endings.items()
            if 0 <= now - at < PRINT_AGAIN_SECONDS
        }


def _is_about_settings(error: BaseException) -> bool:
    """Return whether an error is always printed: nothing runs until somebody corrects the settings.

    A guard is printed like any other reason why a run ended.
    """
    return (
        isinstance(error, SyncError)
        and error.exit_status == ExitStatus.BAD_SETTINGS
        and not isinstance(error, FieldTypesError)
    )


def _reason_of(error: BaseException) -> str:
    if isinstance(error, (SyncError, Interrupted)):
        return without_numbers(str(error))
    return type(error).__name__  # a bug: its text may be different every time
