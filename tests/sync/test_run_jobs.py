"""Runs of other jobs: profiles or events alone, other names, fields that Iterable does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from errors import ConfigError
from sandbox.iterable_api import IterableSandbox
from sync.announcement import BARE_USERS
from sync.dry_run import FIELDS_REQUEST
from sync.field_types import FieldTypesError
from tests.conftest import SourceDatabase
from tests.support.runs import Runs, counts_of, results_of
from tests.support.users import (
    QUERY_WITH_SCORE,
    add_users,
    email_of,
    event_of,
    profile_of,
    sent_calls,
)

NUMBERS = range(1, 11)
MODES = pytest.mark.parametrize("mode", ["per-user", "bulk"])


@pytest.fixture
def runs(embedded: SourceDatabase, iterable: IterableSandbox, tmp_path: Path) -> Runs:
    add_users(embedded.run_sql, NUMBERS)
    return Runs.between(tmp_path, embedded, iterable)


def endpoints(iterable: IterableSandbox, *, after: int = 0) -> set[str]:
    return {call.endpoint for call in sent_calls(iterable, after=after)}


def options_in(body: dict[str, Any]) -> dict[str, Any]:
    names = ("createNewFields", "mergeNestedObjects")
    return {name: body[name] for name in names if name in body}


def options_of(iterable: IterableSandbox, endpoint: str) -> dict[str, Any]:
    """Return the options in the bodies of these calls, which must all have the same."""
    found = [options_in(call.body) for call in iterable.calls if call.endpoint == endpoint]
    assert all(options == found[0] for options in found)
    return found[0]


def assert_next_run_sends_nothing(runs: Runs, iterable: IterableSandbox) -> None:
    calls = len(iterable.calls)
    assert counts_of(runs.run()) == {"unchanged": 10}
    assert len(iterable.calls) == calls


# Profiles or events alone


@MODES
def test_profiles_alone_are_sent_once_and_no_event_is_judged(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    runs.settings |= {"SEND": "profiles", "SYNC_MODE": mode}
    first = runs.run()
    assert counts_of(first) == {"successful": 10}
    assert {r["events_track"] is None for r in results_of(first)["records"]} == {True}
    assert endpoints(iterable) <= {"users/update", "users/bulkUpdate"}
    assert not iterable.project.events
    assert_next_run_sends_nothing(runs, iterable)


@MODES
def test_events_alone_are_sent_once_though_no_profile_was_ever_delivered(
    runs: Runs, iterable: IterableSandbox, mode: str
) -> None:
    for number in NUMBERS:  # another program makes the profiles
        iterable.project.update_user({"email": email_of(number), "dataFields": {}})
    runs.settings |= {"SEND": "events", "SYNC_MODE": mode}
    first = runs.run()
    assert counts_of(first) == {"successful": 10}
    assert {r["users_update"] is None for r in results_of(first)["records"]} == {True}
    assert endpoints(iterable) <= {"events/track", "events/trackBulk"}
    assert len(iterable.project.events) == 10
    assert_next_run_sends_nothing(runs, iterable)


def test_the_other_kind_is_sent_as_soon_as_it_is_asked_for(
    runs: Runs, iterable: IterableSandbox
) -> None:
    runs.settings["SEND"] = "profiles"
    runs.run()
    runs.settings["SEND"] = "profiles,events"
    calls = len(iterable.calls)
    assert counts_of(runs.run()) == {"successful": 10}
    assert endpoints(iterable, after=calls) == {"events/track"}
    runs.settings["SEND"] = "profiles"
    assert counts_of(runs.run()) == {"unchanged": 10}
    runs.settings["SEND"] = "profiles,events"
    assert_next_run_sends_nothing(runs, iterable)


def test_events_for_users_whom_iterable_may_not_know_follow_their_first_profile(
    runs: Runs, iterable: IterableSandbox
) -> None:
    """An e-mail-based project keeps no event of an unknown address."""
    runs.settings["SEND"] = "events"
    assert counts_of(runs.run()) == {"successful": 10}
    assert not iterable.project.users
    runs.settings["SEND"] = "profiles,events"
    assert counts_of(runs.run()) == {"successful": 10}
    assert len(iterable.project.events) == 10
    assert iterable.project.event_id_collision_count == 0
    assert counts_of(runs.run()) == {"unchanged": 10}


@pytest.mark.parametrize(
    ("send", "kind"), [("profiles", "users_update"), ("events", "events_track")]
)
def test_a_rejected_request_is_a_total_failure_where_it_is_the_only_one(
    runs: Runs, send: str, kind: str
) -> None:
    with IterableSandbox(forgotten=[email_of(10)]) as iterable:
        runs.settings |= {"SEND": send, "ITERABLE_API_BASE_URL": iterable.url}
        report = runs.run()
        again = runs.run()
    record = results_of(report)["records"][-1]
    assert (record["outcome"], record["reason"]) == ("total_failure", None)
    assert record[kind]["response"]["code"] == "ForgottenUserError"
    # It is remembered.
    assert results_of(again)["records"][-1]["outcome"] == "total_failure"
    assert again.summary.api_calls == 0


def test_a_profile_sync_needs_no_event_column_and_no_window(
    runs: Runs, iterable: IterableSandbox
) -> None:
    runs.with_query("SELECT id, email, first_name, last_name FROM customers ORDER BY id")
    runs.settings |= {"SEND": "profiles", "PROFILE_FLAG": "", "USER_FIELDS": "first_name,last_name"}
    assert counts_of(runs.run()) == {"successful": 10}
    assert iterable.project.users[email_of(3)].data_fields == {
        "first_name": "First3",
        "last_name": "Last3",
    }


def test_a_missing_column_of_what_is_not_sent_is_no_problem_but_that_of_the_other_is(
    runs: Runs,
) -> None:
    runs.with_query("SELECT id, email, first_name, last_name FROM customers ORDER BY id")
    runs.settings["SEND"] = "profiles"
    with pytest.raises(ConfigError) as raised:
        runs.run()
    assert [problem.split("'")[1] for problem in raised.value.problems] == [
        "plan_type",
        "candidate",
    ]
    assert all(problem.endswith("out of USER_FIELDS") for problem in raised.value.problems)


def test_an_empty_profile_sync_names_no_window(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs.with_query("SELECT id, email FROM customers WHERE id < 0")
    runs.settings |= {"SEND": "profiles", "USER_FIELDS": ""}
    runs.run()
    assert "The query returned nothing: check the filter in query.sql." in caplog.messages


def test_a_dry_run_counts_only_what_is_sent(runs: Runs) -> None:
    runs.settings["SEND"] = "profiles"
    assert "10 profiles would be sent, about 1 s" in runs.run(dry_run=True).lines()[0]
    runs.settings["SEND"] = "events"
    line = runs.run(dry_run=True).lines()[0]
    assert ": 10 events would be sent, about 1 s" in line


def test_a_failure_of_what_is_not_sent_is_neither_judged_nor_resolved(runs: Runs) -> None:
    with IterableSandbox(field_types={"first_name": "long"}) as iterable:
        runs.settings |= {"ITERABLE_API_BASE_URL": iterable.url, "MAX_REJECTED_PERCENT": "100"}
        assert counts_of(runs.run(ignore_guards=True)) == {"partial_failures": 10}
        runs.settings["SEND"] = "events"
        alone = runs.run()
        assert alone.summary.failures == {"new": 0, "known": 0, "resolved": 0}
        runs.settings["SEND"] = "profiles,events"
        assert runs.run(ignore_guards=True).summary.failures["known"] == 10


def test_events_that_iterable_dropped_follow_a_profile_that_was_delivered_alone(
    runs: Runs, iterable: IterableSandbox
) -> None:
    """They counted as delivered."""
    runs.settings["SEND"] = "events"
    runs.run()  # Iterable does not know the addresses
    runs.settings["SEND"] = "profiles"
    runs.run()
    runs.settings["SEND"] = "profiles,events"
    calls = len(iterable.calls)
    assert counts_of(runs.run()) == {"successful": 10}
    assert endpoints(iterable, after=calls) == {"events/track"}


def test_a_run_of_the_other_kind_forgot_the_note_of_a_mass_rejection(
    runs: Runs, embedded: SourceDatabase
) -> None:
    add_users(embedded.run_sql, range(11, 501))
    with IterableSandbox(field_types={"first_name": "long"}) as iterable:
        runs.settings |= {"ITERABLE_API_BASE_URL": iterable.url, "SEND": "profiles"}
        runs.run(ignore_guards=True)
        runs.settings["SEND"] = "events"
        runs.run()
        runs.settings["SEND"] = "profiles"
        assert runs.run(ignore_guards=True).summary.api_calls <= 21  # 20 rows and getFields


def test_what_is_sent_does_not_decide_which_of_two_rows_is_used(runs: Runs) -> None:
    runs.with_query(
        "SELECT c.id, c.email, n.x AS first_name, n.pg AS page, p.event_time FROM customers c"
        " JOIN page_views p ON p.user_id = c.id JOIN (SELECT 'a' AS x, 'k' AS pg UNION ALL"
        " SELECT 'b', 'l' UNION ALL SELECT 'c', 'm') n ORDER BY c.id, n.x"
    )
    runs.settings |= {"USER_FIELDS": "first_name", "EVENT_FIELDS": "page"}
    runs.run()
    for send in ("profiles", "profiles,events"):
        runs.settings["SEND"] = send
        assert counts_of(runs.run()) == {"unchanged": 10, "duplicates": 20}


def test_changed_addresses_are_counted_where_only_events_are_sent(
    runs: Runs, embedded: SourceDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    runs.settings["SEND"] = "events"
    runs.run()
    embedded.run_sql("UPDATE customers SET email = 'new@example.com' WHERE id = 3")
    runs.run()
    assert [text for text in caplog.messages if text.startswith("1 user with another e-mail")]


# Names


def test_only_events_that_take_the_setting_count_as_renamed(
    runs: Runs, embedded: SourceDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    runs.with_query(
        "SELECT c.id, c.email, 'own' AS event_name, p.event_time"
        " FROM customers c JOIN page_views p ON p.user_id = c.id ORDER BY c.id"
    )
    runs.settings |= {"USER_FIELDS": "", "EVENT_FIELDS": ""}
    runs.run()
    embedded.run_sql("UPDATE page_views SET event_time = '2026-02-01' WHERE user_id = 1")
    runs.settings["EVENT_NAME"] = "another"
    assert counts_of(runs.run()) == {"successful": 1, "unchanged": 9}
    assert not [text for text in caplog.messages if "EVENT_NAME changed" in text]


def test_a_flag_that_was_never_delivered_was_the_one_to_clear(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    runs.settings |= {"ON_LEAVE": "clear", "PROFILE_FLAG": "on_trial"}
    runs.run()
    rejected = {"fault": "status", "status": 400, "code": "BadParams"}
    iterable.set_faults([{**rejected, "endpoint": "users/update", "email": email_of(3)}])
    runs.settings["PROFILE_FLAG"] = "in_trial"
    assert counts_of(runs.run()) == {"successful": 9, "partial_failures": 1}
    iterable.set_faults([])
    embedded.run_sql("DELETE FROM page_views WHERE user_id IN (3, 4)")
    runs.run()
    fields = iterable.project.users[email_of(3)].data_fields
    assert (fields["on_trial"], fields.get("in_trial")) == (False, None)
    assert iterable.project.users[email_of(4)].data_fields["in_trial"] is False


def test_another_event_name_is_another_event_and_is_said(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    runs.run()
    runs.settings["EVENT_NAME"] = "pricing_view"
    assert counts_of(runs.run()) == {"successful": 10}
    said = [message for message in caplog.messages if message.startswith("EVENT_NAME changed")]
    assert said == [
        "EVENT_NAME changed since the last run. The events of the former name stay in Iterable. "
        "Users who have one and get an event of the new name: 10"
    ]
    names = sorted(event.event_name for event in iterable.project.events.values())
    assert names == ["page_view"] * 10 + ["pricing_view"] * 10
    caplog.clear()
    assert counts_of(runs.run()) == {"unchanged": 10}
    assert not [message for message in caplog.messages if "EVENT_NAME" in message]


def test_rows_have_event_names_of_their_own(runs: Runs, iterable: IterableSandbox) -> None:
    runs.with_query(
        "SELECT c.id, c.email, IF(c.id % 2, 'odd', NULL) AS event_name, p.event_time"
        " FROM customers c JOIN page_views p ON p.user_id = c.id ORDER BY c.id"
    )
    runs.settings |= {"USER_FIELDS": "", "EVENT_FIELDS": "", "EVENT_NAME": "even"}
    assert counts_of(runs.run()) == {"successful": 10}
    names = {str(event.email): event.event_name for event in iterable.project.events.values()}
    assert names == {email_of(n): "odd" if n % 2 else "even" for n in NUMBERS}
    assert counts_of(runs.run()) == {"unchanged": 10}


def test_another_flag_sends_the_profiles_again_and_is_named(
    runs: Runs, iterable: IterableSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    runs.run()
    runs.settings["PROFILE_FLAG"] = "on_pricing_page"
    calls = len(iterable.calls)
    assert counts_of(runs.run()) == {"successful": 10}
    assert endpoints(iterable, after=calls) == {"users/update"}
    assert (
        "PROFILE_FLAG changed since the last run. Profiles that became different and are sent "
        "again: 10"
    ) in caplog.messages
    assert iterable.project.users[email_of(1)].data_fields == {
        **profile_of(1),
        "on_pricing_page": True,
    }


def test_a_renamed_flag_is_the_one_that_is_cleared(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox
) -> None:
    runs.settings |= {"ON_LEAVE": "clear", "PROFILE_FLAG": "on_trial", "SEND": "profiles"}
    runs.run()
    embedded.run_sql("DELETE FROM page_views WHERE user_id = 3")
    runs.settings["PROFILE_FLAG"] = "in_trial"
    runs.run()
    gone = iterable.project.users[email_of(3)].data_fields
    assert (gone["on_trial"], gone.get("in_trial")) == (False, None)
    assert iterable.project.users[email_of(4)].data_fields["in_trial"] is True


def test_constants_reach_iterable(runs: Runs, iterable: IterableSandbox) -> None:
    runs.settings |= {
        "USER_FIELDS": 'first_name,last_name,plan_type,candidate,source:="mysql"',
        "EVENT_FIELDS": 'page,browser=device,location,candidate,tags:=["a","b"]',
    }
    assert counts_of(runs.run()) == {"successful": 10}
    assert iterable.project.users[email_of(1)].data_fields == {**profile_of(1), "source": "mysql"}
    events = {str(event.email): event.data_fields for event in iterable.project.events.values()}
    assert events[email_of(2)] == {**event_of(2), "tags": ["a", "b"]}
    runs.settings["EVENT_FIELDS"] = 'page,browser=device,location,candidate,tags:=["c"]'
    assert counts_of(runs.run()) == {"unchanged": 10}


# Fields that Iterable does not have


def test_new_fields_are_left_to_the_project_by_default(
    runs: Runs, iterable: IterableSandbox
) -> None:
    report = runs.run()
    for call in sent_calls(iterable):
        assert not {"createNewFields", "mergeNestedObjects"} & set(call.body)
    assert "dropped_fields" not in results_of(report)


@pytest.mark.parametrize("value", [True, False])
def test_bodies_say_what_is_to_become_of_new_fields(
    runs: Runs, iterable: IterableSandbox, value: bool
) -> None:
    runs.settings |= {"CREATE_NEW_FIELDS": str(value), "MERGE_NESTED_OBJECTS": "true"}
    runs.run()
    option, merge = {"createNewFields": value}, {"mergeNestedObjects": True}
    assert options_of(iterable, "users/update") == {**option, **merge}
    assert options_of(iterable, "events/track") == option
    runs.settings["SYNC_MODE"] = "bulk"
    runs.run(full_refresh=True)
    bodies = {call.endpoint: call.body for call in sent_calls(iterable)}
    assert [*bodies["users/bulkUpdate"]] == ["createNewFields", "users"]
    assert bodies["users/bulkUpdate"]["createNewFields"] is value
    assert {str(options_in(user)) for user in bodies["users/bulkUpdate"]["users"]} == {str(merge)}
    assert [*bodies["events/trackBulk"]] == ["events"]
    assert {str(options_in(each)) for each in bodies["events/trackBulk"]["events"]} == {str(option)}


@MODES
def test_dropped_fields_are_said_and_end_with_status_3(
    runs: Runs, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    runs.settings |= {"CREATE_NEW_FIELDS": "false", "SYNC_MODE": mode}
    report = runs.run()
    results = results_of(report)
    profile = ["candidate", "first_name", "last_name", "plan_type", "recent_page_view"]
    event = ["browser", "candidate", "location", "page", "timestamp"]
    assert results["dropped_fields"] == {
        "profiles": profile,
        "events": event if mode == "bulk" else None,
    }
    assert results["status"] == "completed_with_failures"
    assert counts_of(report) == {"successful": 10}
    said = "Fields that Iterable does not have, and dropped: of profiles: candidate, first_name"
    assert any(said in line for line in report.lines())
    # For --quiet, which prints new warnings.
    warned = f"Iterable dropped unknown fields of the profiles: {', '.join(profile)}"
    assert warned in caplog.messages


def test_no_field_was_dropped_where_nothing_was_delivered(runs: Runs) -> None:
    fault = {"fault": "status", "status": 401, "endpoint": "users/update"}
    with IterableSandbox(faults=[fault]) as iterable:
        runs.settings |= {"ITERABLE_API_BASE_URL": iterable.url, "CREATE_NEW_FIELDS": "false"}
        report = runs.run()
    assert results_of(report)["dropped_fields"]["profiles"] == []
    assert not [line for line in report.lines() if "and dropped" in line]


def test_what_was_dropped_is_not_known_where_iterable_does_not_list_its_fields(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    fault = {"fault": "status", "status": 403, "endpoint": "users/getFields"}
    with IterableSandbox(faults=[fault]) as iterable:
        runs.settings |= {"ITERABLE_API_BASE_URL": iterable.url, "CREATE_NEW_FIELDS": "false"}
        results = results_of(runs.run())
    assert results["dropped_fields"] == {"profiles": None, "events": None}
    assert (
        "Which profile fields Iterable drops is not known (CREATE_NEW_FIELDS=false)."
        in caplog.messages
    )


def test_one_changed_row_of_another_type_ended_every_later_run(
    runs: Runs, embedded: SourceDatabase
) -> None:
    """The types are compared before the first delivery of a mapping only."""
    types = dict.fromkeys(("first_name", "last_name", "plan_type", "candidate"), "string")
    types |= {"recent_page_view": "boolean", "score": "long"}
    with IterableSandbox(field_types=types) as iterable:
        runs.settings |= {
            "ITERABLE_API_BASE_URL": iterable.url,
            "USER_FIELDS": "first_name,last_name,plan_type,candidate,score",
            "CREATE_NEW_FIELDS": "false",
        }
        runs.with_query(QUERY_WITH_SCORE.format("IF(c.last_name = 'bad', c.last_name, NULL)"))
        assert counts_of(runs.run()) == {"successful": 10}
        embedded.run_sql("UPDATE customers SET last_name = 'bad' WHERE id = 3")
        embedded.run_sql("UPDATE page_views SET event_time = '2026-02-02' WHERE user_id = 5")
        report = runs.run()
        assert report.error is None
        assert counts_of(report) == {"successful": 1, "partial_failures": 1, "unchanged": 8}


@MODES
def test_clearing_a_flag_created_the_field_that_was_to_be_dropped(
    runs: Runs, embedded: SourceDatabase, iterable: IterableSandbox, mode: str
) -> None:
    runs.settings |= {"CREATE_NEW_FIELDS": "false", "SYNC_MODE": mode, "ON_LEAVE": "clear"}
    runs.run()
    embedded.run_sql("DELETE FROM page_views WHERE user_id = 3")
    runs.run()
    assert iterable.project.users[email_of(3)].data_fields == {}


def test_a_first_run_of_a_few_rows_does_not_switch_the_guard_of_field_types_off(
    runs: Runs, embedded: SourceDatabase
) -> None:
    embedded.run_sql("UPDATE customers SET first_name = NULL WHERE id = 1")
    with IterableSandbox(field_types={"first_name": "long"}) as iterable:
        runs.settings["ITERABLE_API_BASE_URL"] = iterable.url
        assert counts_of(runs.run(only=("1",))) == {"successful": 1}
        assert isinstance(runs.run().error, FieldTypesError)


def test_a_dry_run_says_that_a_run_asks_for_the_fields(runs: Runs) -> None:
    runs.settings["CREATE_NEW_FIELDS"] = "false"
    runs.run()
    assert FIELDS_REQUEST in runs.run(dry_run=True, full_refresh=True).lines()
    runs.settings["SYNC_MODE"] = "bulk"
    assert FIELDS_REQUEST not in runs.run(dry_run=True, full_refresh=True).lines()


def test_fields_that_the_project_drops_are_in_the_results_and_no_failure(
    runs: Runs,
) -> None:
    with IterableSandbox(drop_unknown_fields=True) as iterable:
        runs.settings |= {"ITERABLE_API_BASE_URL": iterable.url, "SYNC_MODE": "bulk"}
        report = runs.run()
    results = results_of(report)
    assert results["status"] == "completed"
    assert "plan_type" in results["dropped_fields"]["profiles"]


def test_created_fields_drop_nothing(runs: Runs) -> None:
    runs.settings |= {"CREATE_NEW_FIELDS": "true", "SYNC_MODE": "bulk"}
    results = results_of(runs.run())
    assert results["dropped_fields"] == {"profiles": [], "events": []}
    assert results["status"] == "completed"


def test_another_setting_for_new_fields_sends_nothing_again(
    runs: Runs, iterable: IterableSandbox
) -> None:
    runs.run()
    runs.settings |= {"CREATE_NEW_FIELDS": "true", "MERGE_NESTED_OBJECTS": "true"}
    assert_next_run_sends_nothing(runs, iterable)


# Events for users who may not exist


def test_events_alone_by_user_id_warn_of_users_without_a_profile(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    with IterableSandbox(project_type="userid") as iterable:
        runs.settings |= {
            "ITERABLE_API_BASE_URL": iterable.url,
            "IDENTIFY_BY": "userid",
            "SEND": "events",
        }
        assert counts_of(runs.run()) == {"successful": 10}
        assert len(iterable.project.events) == 10
        assert {str(user.data_fields) for user in iterable.project.users.values()} == {"{}"}
        assert caplog.messages.count(BARE_USERS) == 1
        caplog.clear()
        assert counts_of(runs.run()) == {"unchanged": 10}
        assert BARE_USERS not in caplog.messages
