"""Runs from MariaDB to the sandbox: what they send, remember, write and log."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from state.lock import RunLock
from tests.conftest import SourceDatabase
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import (
    add_user,
    add_users,
    check_project,
    email_of,
    event_of,
    profile_of,
    sent_calls,
)

NUMBERS = range(1, 41)


@pytest.fixture
def runs(mariadb: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    """Runs between a database with forty users and the sandbox."""
    add_users(mariadb.run_sql, NUMBERS)
    return Runs.between(tmp_path, mariadb, iterable)


# Delivery


@pytest.mark.parametrize("mode", ["per-user", "bulk"])
def test_the_first_run_delivers_all_rows_and_the_second_none(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    runs.settings["SYNC_MODE"] = mode
    first = runs.run()
    assert counts_of(first) == {"successful": 40}
    assert (first.summary.status, first.summary.mode, first.error) == ("completed", mode, None)
    check_project(iterable.project, NUMBERS)
    calls_before = len(iterable.calls)
    assert first.summary.api_calls == calls_before
    second = runs.run()
    assert counts_of(second) == {"unchanged": 40}
    assert second.summary.api_calls == 0
    assert len(iterable.calls) == calls_before


def test_only_what_changed_is_sent(
    runs: Runs, mariadb: SourceDatabase, iterable: IterableSandbox
) -> None:
    runs.run()
    iterable.reset()
    mariadb.run_sql("UPDATE customers SET first_name = 'Another' WHERE id = 7")
    mariadb.run_sql("UPDATE page_views SET location = 'Oslo' WHERE user_id = 8")
    assert counts_of(runs.run()) == {"successful": 2, "unchanged": 38}
    assert sorted((call.endpoint, call.email) for call in iterable.calls) == [
        ("events/track", email_of(8)),
        ("users/update", email_of(7)),
    ]


def test_the_results_account_for_invalid_rows_and_failures(
    runs: Runs, mariadb: SourceDatabase
) -> None:
    add_user(mariadb.run_sql, 50, "nobody")
    add_user(mariadb.run_sql, 51, None)
    add_user(mariadb.run_sql, 52, email_of(3).upper())
    with IterableSandbox(forgotten=[email_of(5)], conflict_emails=[email_of(6)]) as iterable:
        runs.settings["ITERABLE_API_BASE_URL"] = iterable.url
        report = runs.run()
    assert counts_of(report) == {
        **{"successful": 38, "partial_failures": 1, "total_failures": 1},
        **{"invalid": 2, "duplicates": 1},
    }
    assert report.summary.status == "completed_with_failures"
    by_id = {record["user_id"]: record for record in results_of(report)["records"]}
    assert by_id[3]["outcome"] == "duplicate"
    assert by_id[5]["reason"] == "the event was not sent: ForgottenUserError from users/update"
    assert by_id[6]["events_track"]["success"]
    assert by_id[50]["reason"] == "malformed e-mail address"
    assert by_id[52]["outcome"] == "successful"
    assert list(by_id) == [*NUMBERS, 50, 51, 52]


def test_a_limit_sends_the_first_rows_and_remembers_them(
    runs: Runs, iterable: IterableSandbox
) -> None:
    assert counts_of(runs.run(limit=5)) == {"successful": 5}
    check_project(iterable.project, range(1, 6))
    assert counts_of(runs.run(limit=7)) == {"successful": 2, "unchanged": 5}
    assert counts_of(runs.run()) == {"successful": 33, "unchanged": 7}
    check_project(iterable.project, NUMBERS)
    assert {user.applied_count for user in iterable.project.users.values()} == {1}


def test_a_full_refresh_sends_everything_again(runs: Runs, iterable: IterableSandbox) -> None:
    runs.run()
    assert counts_of(runs.run(full_refresh=True)) == {"successful": 40}
    check_project(iterable.project, NUMBERS)
    assert {event.applied_count for event in iterable.project.events.values()} == {2}


def test_events_can_be_delayed(runs: Runs, iterable: IterableSandbox) -> None:
    runs.settings["EVENT_DELAY_SECONDS"] = "0.2"
    assert counts_of(runs.run()) == {"successful": 40}
    calls = list(iterable.calls)
    # Other rows are sent in the meantime.
    first_calls = [call.endpoint for call in calls[:3]]
    assert first_calls == ["users/getFields", "users/update", "users/update"]
    updated_at = {call.email: call.at for call in calls if call.endpoint == "users/update"}
    events = [call for call in calls if call.endpoint == "events/track"]
    assert len(updated_at) == len(events) == 40
    assert all(event.at - updated_at[event.email] >= 0.2 for event in events)


# Dry runs


def test_a_dry_run_changes_nothing_anywhere(runs: Runs, iterable: IterableSandbox) -> None:
    runs.run(limit=10)
    before = runs.state_file.read_bytes()
    calls_before = len(iterable.calls)
    report = runs.run(dry_run=True)
    assert counts_of(report) == {"unchanged": 10, "not_attempted": 30}
    assert len(iterable.calls) == calls_before
    assert runs.state_file.read_bytes() == before
    assert len(runs.history()) == 1
    results = results_of(report)
    assert (results["dry_run"], results["status"]) == (True, "completed")
    assert {record["reason"] for record in results["records"][10:]} == {"dry run"}


def test_a_dry_run_with_a_limit_shows_the_payloads(runs: Runs) -> None:
    report = runs.run(dry_run=True, limit=2)
    assert counts_of(report) == {"not_attempted": 2}
    assert [endpoint for endpoint, _body in runs.payloads] == 2 * ["users/update", "events/track"]
    assert b"First1" in runs.payloads[0][1]
    assert not runs.state_file.exists()
    runs.payloads.clear()
    runs.run(dry_run=True)
    assert runs.payloads == []


def test_a_dry_run_is_possible_during_a_real_run(runs: Runs) -> None:
    with RunLock(runs.state_file):
        assert counts_of(runs.run(dry_run=True)) == {"not_attempted": 40}


# Log lines before the first call


def test_an_empty_result_is_warned_of_with_window_and_query_file(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    runs.settings["ENGAGEMENT_WINDOW_DAYS"] = "0.5"
    report = runs.run()
    assert (report.summary.status, report.summary.total_users) == ("completed", 0)
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "The query returned nothing for the last 0.5 days: check the plan and the pages in "
        "pro_users_recent_engagement.sql, and ENGAGEMENT_WINDOW_DAYS."
    ]
    assert iterable.calls == []


def test_changed_settings_are_warned_of_before_profiles_are_sent_again(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    runs.run()
    assert "USER_FIELDS" not in caplog.text
    runs.settings["USER_FIELDS"] = "first_name,plan=plan_type"
    runs.settings["EVENT_FIELDS"] = "page"
    caplog.set_level(logging.INFO)
    for dry_run in (True, False):
        caplog.clear()
        assert runs.run(dry_run=dry_run).summary.to_json()["total_users"] == 40
        assert "became different and are sent again: 40" in caplog.text
        assert "Events that are different now: 40" in caplog.text
    assert len(sent_calls(iterable)) == 3 * 40
    caplog.clear()
    assert counts_of(runs.run()) == {"unchanged": 40}
    assert "changed since" not in caplog.text
    assert iterable.project.users[email_of(1)].data_fields["plan"] == "pro"


def test_events_in_the_future_are_sent_with_a_warning(
    runs: Runs, mariadb: SourceDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    mariadb.run_sql(
        f"UPDATE page_views SET event_time = '{tomorrow:%F %T}' WHERE user_id IN (2, 9)"
    )
    assert counts_of(runs.run()) == {"successful": 40}
    assert "2 events lie in the future: is DB_TIMEZONE=UTC right?" in caplog.text


def test_the_log_has_the_counts_before_and_after_delivery(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    report = runs.run()
    said = [record.getMessage() for record in caplog.records if record.name == "sync.run"]
    run_id = report.summary.run_id
    assert said[0] == f"40 rows read, 40 to send (per-user mode, run {run_id})"
    assert said[-1].startswith("Run completed: 40 total users, 40 successful, 81 api calls, ")


# History


def test_every_run_has_an_entry_in_the_history(runs: Runs, iterable: IterableSandbox) -> None:
    first = runs.run(limit=3)
    iterable.set_faults([{"fault": "status", "status": 500, "email": email_of(9)}])
    second = runs.run()
    newest, oldest = runs.history()
    assert (oldest.run_id, oldest.status) == (first.summary.run_id, "completed")
    assert (newest.run_id, newest.status) == (second.summary.run_id, "completed_with_failures")
    assert newest.counts.items() >= second.summary.to_json().items()
    assert newest.finished_at is not None


def test_iterable_has_exactly_what_the_tables_hold(runs: Runs, iterable: IterableSandbox) -> None:
    runs.run(limit=1)
    (user,) = iterable.project.users.values()
    (event,) = iterable.project.events.values()
    assert (user.email, user.data_fields) == (email_of(1), profile_of(1))
    assert (event.email, event.data_fields) == (email_of(1), event_of(1))
