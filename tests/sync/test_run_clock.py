"""Runs while the system clock is changed or wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path

import pytest

from config.settings import Settings
from sandbox.iterable_api import IterableSandbox
from sync.run import Options, RunReport, SyncRun
from sync.signals import StopSignal
from tests.conftest import SourceDatabase
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import add_users, check_project

STARTED_AT = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
NUMBERS = range(1, 4)


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    add_users(embedded.run_sql, NUMBERS)
    return Runs.between(tmp_path, embedded, iterable)


def run_between(runs: Runs, *times: datetime) -> RunReport:
    """Run while the system clock has these times in turn, the last one until the end.

    Measured, a second passes from one look at the time to the next.
    """
    wall, seconds = _said(times), count()
    return SyncRun(
        Settings.from_environment(runs.settings),
        Options(),
        StopSignal(),
        now=lambda: next(wall),
        clock=lambda: float(next(seconds)),
    ).execute()


def _said(times: tuple[datetime, ...]) -> Iterator[datetime]:
    yield from times
    while True:
        yield times[-1]


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(days=-20_000), timedelta(days=99)])
def test_setting_the_clock_during_a_run_does_not_falsify_its_figures(
    runs: Runs, iterable: IterableSandbox, step: timedelta
) -> None:
    report = run_between(runs, STARTED_AT, STARTED_AT + step)
    assert counts_of(report) == {"successful": len(NUMBERS)}
    check_project(iterable.project, NUMBERS)
    head = results_of(report)
    assert (head["duration_seconds"], head["users_per_second"]) == (3.0, 3.0)
    assert datetime.fromisoformat(head["started_at"]) == STARTED_AT
    assert datetime.fromisoformat(head["finished_at"]) == STARTED_AT + step
    assert "in 3.0 s (3.0 users/s)" in "\n".join(report.lines())


def test_after_the_clock_was_set_back_the_last_run_is_still_the_newest(
    runs: Runs, iterable: IterableSandbox
) -> None:
    runs.settings["RESULTS_KEEP"] = "1"
    run_between(runs, STARTED_AT)
    calls = len(iterable.calls)
    report = run_between(runs, STARTED_AT - timedelta(days=1))
    assert counts_of(report) == {"unchanged": len(NUMBERS)}
    assert len(iterable.calls) == calls
    assert list(runs.folder.glob("integration_results_*")) == [report.results_path]
    assert [run.started_at[:10] for run in runs.history()] == ["2026-11-24", "2026-11-25"]


def test_events_in_the_future_are_counted_by_the_clock_of_the_run(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    """The views are of January 2026, which is in the future for a clock that is years behind."""
    report = run_between(runs, datetime(2020, 1, 1, tzinfo=timezone.utc))
    assert counts_of(report) == {"successful": len(NUMBERS)}
    warnings = [message for message in caplog.messages if "in the future" in message]
    assert warnings == ["3 events lie in the future: is DB_TIMEZONE=UTC right?"]
