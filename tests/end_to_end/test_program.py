"""`python main.py` as a process, between a database and the sandbox: requests and results file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sandbox.iterable_api import IterableSandbox
from tests.conftest import SourceDatabase
from tests.support.program import Program, counts_of
from tests.support.users import (
    add_user,
    add_users,
    check_project,
    email_of,
    event_of,
    profile_of,
    sent_calls,
)

SAMPLE_ROW = (
    "INSERT INTO customers (id, email, first_name, last_name, plan_type, candidate) VALUES"
    " (1, 'sarah.johnson@email.com', 'Sarah', 'Johnson', 'pro', 'yes'); INSERT INTO page_views"
    " (user_id, page, device, browser, location, event_time) VALUES"
    " (1, 'pricing', 'desktop', 'Chrome', 'San Francisco, CA', '2026-01-13 14:30:45')"
)
HEAD = (
    *("schema_version", "run_id", "status", "reason", "dry_run", "mode"),
    *("started_at", "finished_at", "total_users", "successful", "partial_failures"),
    *("total_failures", "unchanged", "invalid", "duplicates", "not_attempted"),
    *("api_calls", "retries", "duration_seconds", "users_per_second", "sync", "failures"),
    "records",
)


@pytest.fixture
def program(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Program:
    """The program between the embedded MySQL and the sandbox."""
    return Program.between(tmp_path / "run", embedded, iterable)


def test_the_sample_row_becomes_the_two_payloads_of_the_contract(
    source: SourceDatabase, iterable: IterableSandbox, tmp_path: Path
) -> None:
    source.run_sql(SAMPLE_ROW)
    ending = Program.between(tmp_path, source, iterable).run()
    assert ending.status == 0, ending.output
    update, event = sent_calls(iterable)
    assert update.endpoint == "users/update"
    assert update.body == {
        "email": "sarah.johnson@email.com",
        "dataFields": {
            "first_name": "Sarah",
            "last_name": "Johnson",
            "plan_type": "pro",
            "recent_page_view": True,
            "candidate": "yes",
        },
    }
    event_id = event.body.pop("id")
    assert re.fullmatch(r"[A-Za-z0-9-]{1,64}", event_id)
    assert event.endpoint == "events/track"
    assert event.body == {
        "email": "sarah.johnson@email.com",
        "eventName": "page_view",
        "createdAt": 1768314645,
        "dataFields": {
            "page": "pricing",
            "browser": "desktop",
            "location": "San Francisco, CA",
            "timestamp": "2026-01-13 14:30:45",
            "candidate": "yes",
        },
    }


def test_every_row_is_delivered_and_recorded_in_the_results_file(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, range(1, 31))
    ending = program.run()
    assert ending.status == 0, ending.output
    check_project(iterable.project, range(1, 31))
    results = program.results
    assert tuple(results) == HEAD
    assert counts_of(results) == {"successful": 30}
    assert (results["schema_version"], results["status"]) == (1, "completed")
    assert (results["reason"], results["dry_run"], results["mode"]) == (None, False, "per-user")
    assert (results["api_calls"], results["retries"]) == (61, 0)  # users/getFields, too
    assert results["started_at"].endswith("+00:00")
    first = results["records"][0]
    event_id = first["events_track"]["response"]["params"]["id"]
    assert iterable.project.events[event_id].email == email_of(1)
    assert first.pop("timestamp") <= results["finished_at"]
    assert first["events_track"].pop("response")["code"] == "Success"
    assert first["users_update"].pop("response")["code"] == "Success"
    for key in ("events_track", "users_update"):
        assert len(first[key].pop("request_id")) == 32
    call = {"success": True, "verdict": "delivered", "http_status": 200, "attempts": 1}
    assert first == {
        "user_id": 1,
        "email": email_of(1),
        "outcome": "successful",
        "overall_success": True,
        "reason": None,
        "first_failed_at": None,
        "runs_failed": None,
        "users_update": call,
        "events_track": call,
    }


def test_valid_invalid_and_rejected_rows_get_their_outcomes(
    mariadb: SourceDatabase, tmp_path: Path
) -> None:
    retried = {"fault": "status", "status": 502, "endpoint": "events/track", "times": 1}
    add_users(mariadb.run_sql, [1, 2])
    add_user(mariadb.run_sql, 3, "not-an-email")
    add_user(mariadb.run_sql, 4, None)
    add_user(mariadb.run_sql, 5, "nulls@example.com", first_name=None)
    add_user(mariadb.run_sql, 6, "li@example.com", first_name="小龙")
    add_user(mariadb.run_sql, 7, "rocket@example.com", first_name="Amélie 🚀")
    add_user(mariadb.run_sql, 8, "rejected@example.com")
    add_user(mariadb.run_sql, 9, "forgotten@example.com")
    with IterableSandbox(
        invalid_data_emails=["rejected@example.com"],
        forgotten=["forgotten@example.com"],
        faults=[{**retried, "email": email_of(2)}],
    ) as iterable:
        program = Program.between(tmp_path, mariadb, iterable)
        ending = program.run()
    assert ending.status == 3, ending.output
    results = program.results
    assert results["status"] == "completed_with_failures"
    assert counts_of(results) == {
        "successful": 5,
        "partial_failures": 1,
        "total_failures": 1,
        "invalid": 2,
    }
    by_id = {row["user_id"]: row for row in results["records"]}
    assert by_id[2]["events_track"]["attempts"] == 2
    assert results["retries"] == 1
    assert by_id[3]["reason"] == "malformed e-mail address"
    assert (by_id[4]["reason"], by_id[4]["email"]) == ("no e-mail address", None)
    # A rejected profile does not keep the event from being sent.
    assert by_id[8]["outcome"] == "partial_failure"
    assert by_id[8]["users_update"]["verdict"] == "rejected"
    assert by_id[8]["events_track"]["success"] is True
    # A forgotten user gets no event either.
    assert by_id[9]["outcome"] == "total_failure"
    assert by_id[9]["events_track"] is None
    assert "ForgottenUserError" in by_id[9]["reason"]

    users = iterable.project.users
    assert users["nulls@example.com"].data_fields == {"plan_type": "pro", "recent_page_view": True}
    assert users["li@example.com"].data_fields["first_name"] == "小龙"
    assert users["rocket@example.com"].data_fields["first_name"] == "Amélie 🚀"
    nulls = next(e for e in iterable.project.events.values() if e.email == "nulls@example.com")
    assert set(nulls.data_fields) == {"page", "timestamp"}
    assert "ERROR - 4xx Client Error from users/update: Status 400" in program.log
    assert "4xx Client Error from users/update: Status 409" in program.log
    assert "WARNING - 5xx Server Error from events/track: Status 502" in program.log
    assert "1 x row: malformed e-mail address (for example user 3)" in ending.stdout


def test_bulk_mode_sends_batches_and_records_each_failure_on_its_row(
    embedded: SourceDatabase, tmp_path: Path
) -> None:
    add_users(embedded.run_sql, range(1, 31))
    add_user(embedded.run_sql, 40, "forgotten@example.com")
    add_user(embedded.run_sql, 41, "malformed@example.com")
    with IterableSandbox(
        forgotten=["forgotten@example.com"], invalid_emails=["malformed@example.com"]
    ) as iterable:
        program = Program.between(
            tmp_path,
            embedded,
            iterable,
            SYNC_MODE="bulk",
            BULK_BATCH_SIZE="10",
            BULK_UPDATE_RPS="100",
            TRACK_BULK_RPS="100",
        )
        ending = program.run()
        endpoints = {call.endpoint for call in sent_calls(iterable)}
    assert ending.status == 3, ending.output
    assert endpoints == {"users/bulkUpdate", "events/trackBulk"}
    assert counts_of(program.results) == {"successful": 30, "total_failures": 2}
    assert program.results["mode"] == "bulk"
    check_project(iterable.project, range(1, 31))
    failed = {row["user_id"]: row["users_update"] for row in program.results["records"][30:]}
    assert failed[40]["response"]["code"] == "failedUpdates.forgottenEmails"
    assert failed[41]["response"]["code"] == "failedUpdates.invalidEmails"


def test_a_field_added_to_the_settings_is_sent(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, [1])
    assert program.run().status == 0
    ending = program.run(settings={"USER_FIELDS": "first_name,surf=browser"})
    assert ending.status == 0, ending.output
    assert "became different and are sent again: 1" in ending.stderr
    assert len(sent_calls(iterable)) == 3
    assert sent_calls(iterable)[2].body["dataFields"] == {
        "first_name": "First1",
        "surf": "Chrome",
        "recent_page_view": True,
    }


def test_of_two_rows_of_one_user_the_one_with_the_latest_event_wins(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_user(embedded.run_sql, 1, " Dana@Example.com ", first_name="Old")
    add_user(embedded.run_sql, 2, "dana@example.com", first_name="New")
    assert program.run().status == 0
    assert counts_of(program.results) == {"successful": 1, "duplicates": 1}
    assert program.results["records"][0]["reason"].startswith("the same e-mail as user 2")
    assert iterable.project.users["dana@example.com"].data_fields["first_name"] == "New"
    assert len(iterable.project.events) == 1


def test_a_query_without_rows_is_a_warning_and_no_error(program: Program) -> None:
    ending = program.run()
    assert ending.status == 0
    assert "The query returned nothing for the last 18000 days" in ending.stderr
    assert (program.results["total_users"], program.results["records"]) == (0, [])


def test_events_in_the_future_are_sent_with_a_warning(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, [1, 2])
    embedded.run_sql("UPDATE page_views SET event_time = '2037-01-01 00:00:00' WHERE user_id = 2")
    ending = program.run()
    assert ending.status == 0
    assert "1 events lie in the future: is DB_TIMEZONE=UTC right?" in ending.stderr
    assert len(iterable.project.events) == 2


def test_null_fields_are_cleared_in_iterable_only_with_send_nulls(
    program: Program, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    add_users(embedded.run_sql, [1])
    assert program.run().status == 0
    embedded.run_sql("UPDATE customers SET last_name = NULL WHERE id = 1")
    assert program.run().status == 0
    assert iterable.project.users[email_of(1)].data_fields == profile_of(1)
    assert program.run(settings={"SEND_NULLS": "true"}).status == 0
    cleared = iterable.project.users[email_of(1)].data_fields
    assert "last_name" not in cleared
    (event,) = iterable.project.events.values()
    assert event.data_fields == event_of(1)
