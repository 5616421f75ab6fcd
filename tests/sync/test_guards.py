"""Row-count guard: a query that returns far fewer or far more rows than in the last runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from state.history import RowCounts
from state.outbox import Outbox
from sync.guards import compared_counts, explain_row_count, is_unusual
from tests.conftest import SourceDatabase
from tests.support.past_runs import add_past_runs
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import add_user, add_users, check_project

NUMBERS = range(1, 13)


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    """Runs between a database with twelve users and the sandbox."""
    add_users(embedded.run_sql, NUMBERS)
    return Runs.between(tmp_path, embedded, iterable)


def calls_of(iterable: IterableSandbox) -> int:
    return len(iterable.calls)


# What is unusual


@pytest.mark.parametrize(
    ("row_count", "is_held_back"),
    [
        *((8_034, False), (8_033, True), (0, True)),
        *((75_900, False), (75_901, True), (24_500, False)),
    ],
)
def test_the_factor_counts_from_the_smallest_and_the_largest_run(
    row_count: int, is_held_back: bool
) -> None:
    assert is_unusual(row_count, [25_300, 24_100, 24_900], 3.0) is is_held_back


@pytest.mark.parametrize("row_count", [0, 1, 10**9])
def test_a_factor_of_0_or_no_history_holds_nothing_back(row_count: int) -> None:
    assert not is_unusual(row_count, [25_300, 24_100], 0.0)
    assert not is_unusual(row_count, [], 3.0)


def test_a_history_with_empty_runs_holds_no_small_number_back() -> None:
    assert not is_unusual(0, [24_000, 0, 24_000], 3.0)


@pytest.mark.parametrize(
    ("counts", "compared"),
    [
        ([], []),
        ([200, 300], []),  # two runs
        ([99, 40, 60], []),  # too small
        ([100, 40, 60], [100, 40, 60]),
    ],
)
def test_only_three_runs_of_some_size_are_compared(counts: list[int], compared: list[int]) -> None:
    assert compared_counts(RowCounts(counts, is_restarted=False)) == compared


@pytest.mark.parametrize(
    ("counts", "compared"),
    [
        ([500], [500]),
        ([450, 500], [500]),
        ([150, 450, 500], [500]),
        ([150, 160, 450, 500], [150, 160, 450, 500]),
        ([12], []),  # too small
    ],
)
def test_an_accepted_run_is_the_only_history_until_three_more_follow(
    counts: list[int], compared: list[int]
) -> None:
    assert compared_counts(RowCounts(counts, is_restarted=True)) == compared


def test_the_message_says_what_came_what_was_usual_and_what_to_do() -> None:
    usual = [*range(24_100, 24_108), 25_300]
    assert explain_row_count(12, usual) == (
        "The query returned 12 rows; the last 9 runs had 24,100 to 25,300. If that is right, run "
        "once with --ignore-guards."
    )
    assert explain_row_count(1, [500]).startswith("The query returned 1 row; the last run had 500.")
    assert "0 rows; the last 3 runs had 500." in explain_row_count(0, [500, 500, 500])


# Runs


def test_a_renamed_plan_returned_nothing_and_the_run_succeeded(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    runs.run()
    add_past_runs(runs, [150, 120, 130])
    embedded.run_sql("UPDATE customers SET plan_type = 'professional'")
    calls_before = calls_of(iterable)
    report = runs.run()
    assert (report.summary.status, counts_of(report)) == ("aborted", {})
    assert str(report.error) == report.summary.reason == explain_row_count(0, [12, 150, 120, 130])
    assert calls_of(iterable) == calls_before
    assert report.summary.api_calls == 0


def test_a_lost_filter_sent_to_all_customers(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_past_runs(runs, [100, 110, 105])
    add_users(embedded.run_sql, range(13, 341))
    report = runs.run()
    assert counts_of(report) == {"not_attempted": 340}
    assert {record["reason"] for record in results_of(report)["records"]} == {"the run was aborted"}
    assert "340 rows; the last 3 runs had 100 to 110." in str(report.error)
    assert report.lines()[-1] == "  Nothing was sent."
    assert calls_of(iterable) == 0


def memory_of(runs: Runs) -> list[object]:
    outbox = Outbox(runs.state_file, read_only=True)
    try:
        return outbox._database.execute("SELECT * FROM delivered ORDER BY user_key").fetchall()
    finally:
        outbox.close()


def test_a_run_that_the_guard_stops_leaves_the_memory_as_it_was(runs: Runs) -> None:
    runs.run()
    before = memory_of(runs)
    assert len(before) == 12
    with_history_of(runs, [400] * 3)
    runs.settings |= {"USER_FIELDS": "first_name", "EVENT_FIELDS": "page"}
    assert runs.run(full_refresh=True).summary.status == "aborted"
    assert memory_of(runs) == before


def test_invalid_rows_are_news_only_once_a_run_has_noted_them(
    runs: Runs, embedded: SourceDatabase
) -> None:
    # Otherwise each of the runs that the guard stops, 144 a day, would be a mail.
    add_user(embedded.run_sql, 13, None)
    with_history_of(runs, [400] * 3)
    for _ in range(2):
        report = runs.run()
        assert counts_of(report) == {"invalid": 1, "not_attempted": 12}
        assert len(report.failures) == 1
        assert not report.new_failures
    accepted = runs.run(ignore_guards=True)
    assert accepted.new_failures == accepted.failures == report.failures
    assert not runs.run().new_failures


def with_history_of(runs: Runs, row_counts: Sequence[int]) -> None:
    """Let the history have these runs only."""
    outbox = Outbox(runs.state_file)
    outbox._database.execute("DELETE FROM runs")
    outbox.close()
    add_past_runs(runs, row_counts)


def test_a_first_run_and_one_after_older_versions_are_not_guarded(runs: Runs) -> None:
    assert counts_of(runs.run()) == {"successful": 12}
    outbox = Outbox(runs.state_file)
    outbox._database.execute("DELETE FROM runs")
    for number in range(3):  # entries of version 1.2.0
        at = datetime.now(timezone.utc)
        outbox.history.begin(f"old-{number}", "per-user", at)
        outbox.history.end(f"old-{number}", at, "completed", None, {"total_users": 5_000})
    outbox.close()
    assert counts_of(runs.run()) == {"unchanged": 12}


@pytest.mark.parametrize(
    ("status", "days_ago", "is_complete_read"),
    [
        ("aborted", 1.0, True),
        ("interrupted", 1.0, True),
        ("completed", 14.1, True),
        ("completed", 1.0, False),
    ],
)
def test_only_completed_runs_of_14_days_with_a_complete_read_are_compared(
    runs: Runs, status: str, days_ago: float, is_complete_read: bool
) -> None:
    add_past_runs(
        runs, [5_000] * 3, status=status, days_ago=days_ago, is_complete_read=is_complete_read
    )
    assert counts_of(runs.run()) == {"successful": 12}


def test_an_empty_run_of_a_clock_that_was_ahead_switched_the_guard_off_for_a_year(
    runs: Runs,
) -> None:
    add_past_runs(runs, [5_000] * 3)
    add_past_runs(runs, [0], days_ago=-365)
    add_past_runs(runs, [5_000], days_ago=0.1)
    assert runs.run().summary.status == "aborted"


def test_with_a_clock_that_is_behind_all_runs_are_compared(runs: Runs) -> None:
    add_past_runs(runs, [5_000] * 3, days_ago=-20_000)
    assert runs.run().summary.status == "aborted"


def test_completed_runs_with_failures_are_compared(runs: Runs) -> None:
    add_past_runs(runs, [5_000] * 3, status="completed_with_failures", days_ago=13.9)
    assert runs.run().summary.status == "aborted"


def test_runs_with_a_limit_are_neither_guarded_nor_compared(runs: Runs) -> None:
    add_past_runs(runs, [5_000] * 3)
    assert counts_of(runs.run(limit=5)) == {"successful": 5}
    assert "12 rows; the last 3 runs had 5,000." in str(runs.run().error)


def test_a_dry_run_warns_and_is_not_compared(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    add_past_runs(runs, [5_000] * 3)
    report = runs.run(dry_run=True)
    assert (report.summary.status, counts_of(report)) == ("completed", {"not_attempted": 12})
    assert "A run would send nothing: The query returned 12 rows; the last 3 runs" in caplog.text
    assert report.lines()[0] == (
        "Dry run completed: nothing would be sent, because the number of rows is unusual"
    )
    assert len(runs.history()) == 3


def test_a_factor_of_0_switches_the_guard_off(runs: Runs) -> None:
    add_past_runs(runs, [5_000] * 3)
    runs.settings["ROWS_GUARD_FACTOR"] = "0"
    assert counts_of(runs.run()) == {"successful": 12}


def test_the_warning_of_an_empty_result_stays_where_the_guard_does_not_apply(
    runs: Runs, embedded: SourceDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    embedded.run_sql("DELETE FROM page_views")
    assert runs.run().summary.status == "completed"  # without history
    assert "The query returned nothing" in caplog.text
    caplog.clear()
    with_history_of(runs, [5_000] * 3)
    assert "0 rows; the last 3 runs had 5,000." in str(runs.run().error)
    assert "The query returned nothing" not in caplog.text


def test_ignore_guards_lets_one_run_through_which_is_the_only_history_until_three_more_follow(
    runs: Runs,
    embedded: SourceDatabase,
    iterable: IterableSandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add_users(embedded.run_sql, range(13, 121))  # 120 users
    add_past_runs(runs, [5_000, 5_100, 5_050])
    assert runs.run().summary.status == "aborted"
    caplog.set_level(logging.WARNING)
    assert counts_of(runs.run(ignore_guards=True)) == {"successful": 120}
    assert "120 rows; the last 3 runs had 5,000 to 5,100. That is accepted" in caplog.text
    embedded.run_sql("DELETE FROM page_views WHERE user_id > 39")
    report = runs.run()
    assert "39 rows; the last run had 120." in str(report.error)  # not 5,000
    add_users(embedded.run_sql, range(121, 202))
    for _ in range(3):
        assert counts_of(runs.run(ignore_guards=False))["unchanged"] >= 39
    embedded.run_sql("DELETE FROM page_views WHERE user_id > 39")
    assert "39 rows; the last 4 runs had 120." in str(runs.run().error)
    check_project(iterable.project, range(1, 202))


def test_ignore_guards_without_need_starts_no_new_history(runs: Runs) -> None:
    add_past_runs(runs, [30, 101, 33])
    assert counts_of(runs.run(ignore_guards=True)) == {"successful": 12}
    with_guard = runs.run()
    assert with_guard.error is None
    outbox = Outbox(runs.state_file, read_only=True)
    found = outbox.history.row_counts(datetime.now(timezone.utc))
    outbox.close()
    assert found == RowCounts([12, 12, 33, 101, 30], is_restarted=False)


def test_quiet_weekends_are_never_held_back() -> None:
    week = [9_800, 9_700, 9_900, 9_850, 9_750, 4_000, 4_100]
    counts: list[int] = []
    for row_count in 6 * week:
        compared = compared_counts(RowCounts(counts[-1:-15:-1], is_restarted=False))
        assert not is_unusual(row_count, compared, 3.0)
        counts.append(row_count)
