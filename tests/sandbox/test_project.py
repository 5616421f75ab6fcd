"""The sandbox's Iterable project: what each call does to it, and what Iterable would answer."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.project import Project
from sandbox.responses import ApiResponse

SARAH = "sarah.johnson@email.com"


def project_at(unix_seconds: float = 1_768_314_645, **presets: Any) -> Project:
    return Project(clock=lambda: unix_seconds, **presets)


def update(project: Project, email: str = SARAH, **fields: Any) -> ApiResponse:
    return project.update_user({"email": email, "dataFields": fields})


def event(email: str = SARAH, event_id: str = "page-view-1", **fields: Any) -> dict[str, Any]:
    return {
        "email": email,
        "eventName": "page_view",
        "id": event_id,
        "createdAt": 1_768_314_645,
        "dataFields": fields,
    }


def users(*emails: str, **fields: Any) -> dict[str, Any]:
    return {"users": [{"email": email, "dataFields": fields} for email in emails]}


# Profiles


def test_an_update_merges_fields_and_null_clears_one() -> None:
    project = project_at()
    update(project, first_name="Sarah", plan_type="pro", candidate="yes")
    update(project, candidate=None, plan_type="free", never_there=None)
    assert project.users[SARAH].data_fields == {"first_name": "Sarah", "plan_type": "free"}
    assert project.users[SARAH].applied_count == 2


def test_a_user_is_found_in_any_letter_case_and_shown_as_first_sent() -> None:
    project = project_at()
    update(project, "Sarah.Johnson@Email.com", a=1)
    update(project, "SARAH.JOHNSON@EMAIL.COM", a=2)
    assert list(project.users) == [SARAH]
    profile = project.user_by_email("sarah.johnson@EMAIL.com")["user"]
    assert profile["email"] == "Sarah.Johnson@Email.com"
    assert profile["dataFields"]["a"] == 2
    assert profile["dataFields"]["profileUpdatedAt"] == "2026-01-13 14:30:45 +00:00"


def test_an_unknown_user_is_an_empty_object() -> None:
    assert project_at().user_by_email(SARAH) == {}


def test_nested_objects_are_overwritten_unless_merging_is_asked_for() -> None:
    project = project_at()
    update(project, settings={"mobile": True})
    update(project, settings={"email": True})
    assert project.users[SARAH].data_fields == {"settings": {"email": True}}
    body = {"email": SARAH, "mergeNestedObjects": True, "dataFields": {"settings": {"sms": False}}}
    project.update_user(body)
    assert project.users[SARAH].data_fields == {"settings": {"email": True, "sms": False}}


def test_an_update_names_the_fields_it_created() -> None:
    project = project_at()
    answer = update(project, first_name="Sarah", last_name=None)
    assert answer.body == {
        "msg": "User successfully created/updated. New fields created are: [first_name]",
        "code": "Success",
        "params": None,
    }
    assert "[]" in update(project, first_name="Sam").body["msg"]


def test_updates_that_change_nothing_are_counted() -> None:
    project = project_at()
    assert [update(project, a=value).repeated_count for value in (1, 1, 2, 2)] == [0, 1, 0, 1]
    assert project.unchanged_update_count == 2


# Events


def test_an_event_is_upserted_by_its_id() -> None:
    project = project_at()
    answers = [project.track_event(event(page=page)) for page in ("pricing", "pricing", "settings")]
    assert answers[0].body["params"] == {"id": "page-view-1"}
    assert [answer.repeated_count for answer in answers] == [0, 1, 0]
    assert list(project.events) == ["page-view-1"]
    assert project.events["page-view-1"].applied_count == 3
    assert project.events["page-view-1"].data_fields == {"page": "settings"}
    assert project.repeated_event_count == 1


def test_an_event_without_id_or_time_gets_both() -> None:
    project = project_at(1_700_000_000.7)
    answer = project.track_event({"email": SARAH, "eventName": "page_view"})
    stored = project.events[answer.body["params"]["id"]]
    assert (stored.created_at, stored.data_fields) == (1_700_000_000, {})


def test_an_id_that_another_persons_event_has_is_counted_as_a_collision() -> None:
    project = project_at()
    update(project)
    project.track_event(event(SARAH))
    assert len(project.events_of(SARAH, 30)["events"]) == 1
    project.track_event(event("other@email.com"))
    assert project.event_id_collision_count == 1
    assert project.events_of(SARAH, 30) == {"events": []}


@pytest.mark.parametrize("event_id", ["", "a b", "a_b", "x" * 513, "é"])
def test_an_event_id_of_other_characters_or_over_512_bytes_is_refused(event_id: str) -> None:
    project = project_at()
    single = project.track_event(event(event_id=event_id))
    bulk = project.track_events({"events": [event(event_id="fine"), event(event_id=event_id)]})
    assert single.status == bulk.status == 400
    assert not project.events


def test_events_are_listed_newest_first_up_to_the_limit() -> None:
    project = project_at()
    update(project)
    for second in (1, 3, 2):
        project.track_event({**event(event_id=f"e{second}"), "createdAt": second})
    listed = project.events_of(SARAH.upper(), 2)["events"]
    assert [each["id"] for each in listed] == ["e3", "e2"]
    assert listed[1]["createdAt"] == "1970-01-01 00:00:02 +00:00"


def test_a_created_at_in_milliseconds_is_kept_and_shown_as_it_came() -> None:
    project = project_at()
    update(project)
    project.track_event({**event(), "createdAt": 1_768_314_645_000})
    assert project.events_of(SARAH, 30)["events"][0]["createdAt"] == "1768314645000"


# Who and what is refused


@pytest.mark.parametrize(
    "email", ["", "000", "no-at.example.com", "two words@x.io", "a@nodot", "a@x.", "a@@x.io"]
)
def test_a_malformed_email_is_refused_singly(email: str) -> None:
    project = project_at()
    for answer in (update(project, email), project.track_event(event(email))):
        assert answer.status == 400
        assert answer.body == {
            "msg": f"Invalid email: {email}",
            "code": "InvalidEmailAddressError",
            "params": None,
        }


def test_preset_persons_are_refused_singly_each_for_its_reason() -> None:
    project = project_at(
        forgotten=["Gone@x.io"], invalid_emails=["odd@x.io"], conflict_emails=["two@x.io"],
        invalid_data_emails=["data@x.io"],
    )  # fmt: skip
    verdicts = {
        email: (answer.status, answer.body["code"])
        for email in ("gone@X.io", "odd@x.io", "two@x.io", "data@x.io")
        for answer in [update(project, email)]
    }
    assert verdicts == {
        "gone@X.io": (409, "ForgottenUserError"),
        "odd@x.io": (400, "InvalidEmailAddressError"),
        "two@x.io": (400, "EmailAlreadyExists"),
        "data@x.io": (400, "BadParams"),
    }
    forgotten_event = project.track_event(event("gone@x.io"))
    assert (forgotten_event.status, forgotten_event.body["code"]) == (400, "ForgottenUserError")
    assert not project.users
    assert not project.events


def test_a_disallowed_event_is_a_success_that_tracks_nothing() -> None:
    project = project_at(disallowed_events=["page_view"])
    answer = project.track_event(event())
    assert (answer.status, answer.body["code"], answer.applied_count) == (200, "Success", 0)
    assert "is disallowed from tracking" in answer.body["msg"]
    assert not project.events


# In bulk


def test_a_bulk_update_names_failed_rows_in_lower_case_and_applies_the_rest() -> None:
    project = project_at(forgotten=["gone@x.io"], invalid_data_emails=["data@x.io"])
    answer = project.bulk_update_users(users(SARAH, "Gone@X.io", "Sayan", "Data@x.io", a=1))
    assert answer.status == 200
    assert (answer.body["successCount"], answer.body["failCount"]) == (1, 3)
    assert answer.body["invalidEmails"] == ["sayan"]
    assert answer.body["createdFields"] == ["a"]
    failed = {name: emails for name, emails in answer.body["failedUpdates"].items() if emails}
    assert failed == {
        "invalidEmails": ["sayan"],
        "forgottenEmails": ["gone@x.io"],
        "invalidDataEmails": ["data@x.io"],
    }
    assert set(answer.body["failedUpdates"]) >= {"conflictEmails", "notFoundEmails"}
    assert list(project.users) == [SARAH]


def test_a_bulk_track_names_failed_persons_and_disallowed_event_names() -> None:
    project = project_at(forgotten=["gone@x.io"], disallowed_events=["secret"])
    refused = {**event("a@x.io", "e3"), "eventName": "secret"}
    batch = [event(SARAH, "e1"), event("Gone@x.io", "e2"), refused, event("Odd", "e4")]
    answer = project.track_events({"events": batch})
    assert (answer.body["successCount"], answer.body["failCount"]) == (1, 3)
    assert answer.body["disallowedEventNames"] == ["secret"]
    assert answer.body["failedUpdates"]["forgottenEmails"] == ["gone@x.io"]
    assert answer.body["failedUpdates"]["invalidEmails"] == ["odd"] == answer.body["invalidEmails"]
    assert list(project.events) == ["e1"]


def test_an_empty_batch_is_an_error_for_users_and_a_success_for_events() -> None:
    project = project_at()
    assert project.bulk_update_users({"users": []}).status == 400
    answer = project.track_events({"events": []})
    assert (answer.status, answer.body["successCount"], answer.body["failCount"]) == (200, 0, 0)


def test_sparse_bulk_responses_carry_the_two_counts_only() -> None:
    project = project_at(sparse_bulk_responses=True)
    answer = project.bulk_update_users(users(SARAH, "odd", a=1))
    assert answer.body == {"successCount": 1, "failCount": 1}


def test_dropped_fields_are_named_and_not_stored() -> None:
    project = project_at(drop_unknown_fields=True, field_types={"plan_type": "string"})
    answer = project.bulk_update_users(users(SARAH, plan_type="pro", colour="red"))
    assert answer.body["filteredOutFields"] == ["colour"]
    assert answer.body["createdFields"] == []
    assert project.users[SARAH].data_fields == {"plan_type": "pro"}
    asked_for = project.bulk_update_users({**users(SARAH, colour="red"), "createNewFields": True})
    assert asked_for.body["createdFields"] == ["colour"]
