"""The three types of project: what names a user, what is unique, and who is created by what."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.project import Project, ProjectType
from sandbox.responses import ApiResponse, UnknownUserResponse

ANN, BOB = "ann@example.com", "bob@example.com"


def update(project: Project, **body: Any) -> ApiResponse:
    return project.update_user({"dataFields": {}, **body})


def track(project: Project, event_id: str = "e-1", **named: Any) -> ApiResponse:
    return project.track_event(
        {**named, "eventName": "page_view", "id": event_id, "createdAt": 1, "dataFields": {}}
    )


def outcome(response: ApiResponse) -> tuple[int, str]:
    return response.status, response.body["code"]


@pytest.mark.parametrize("project_type", list(ProjectType))
def test_a_body_with_both_identifiers_at_the_top_is_refused(project_type: ProjectType) -> None:
    project = Project(project_type=project_type)
    assert outcome(update(project, email=ANN, userId="1")) == (400, "BadParams")
    assert outcome(track(project, email=ANN, userId="1")) == (400, "BadParams")
    assert not project.users
    assert not project.events


@pytest.mark.parametrize(
    ("project_type", "named", "expected"),
    [
        ("email", {"userId": "1"}, (400, "UnknownUserIdError")),
        ("email", {"userId": "1", "preferUserId": True}, (200, "Success")),
        ("userid", {"email": ANN}, (400, "BadParams")),
        ("userid", {"userId": "1"}, (200, "Success")),
        ("hybrid", {"email": ANN}, (200, "Success")),
        ("hybrid", {"userId": "1"}, (200, "Success")),
    ],
)
def test_an_update_creates_whom_the_project_type_lets_it_create(
    project_type: str, named: dict[str, Any], expected: tuple[int, str]
) -> None:
    project = Project(project_type=project_type)
    assert outcome(update(project, **named)) == expected
    assert len(project.users) == (expected[0] == 200)


def test_only_in_hybrid_projects_both_identifiers_are_unique() -> None:
    by_email = {"userId": "1", "dataFields": {"email": ANN}}
    again = {"userId": "2", "dataFields": {"email": ANN.upper()}}
    project = Project(project_type="userid")
    assert outcome(update(project, **by_email)) == outcome(update(project, **again))
    hybrid = Project(project_type="hybrid")
    assert outcome(update(hybrid, **by_email)) == (200, "Success")
    assert outcome(update(hybrid, **again)) == (400, "EmailAlreadyExists")
    taken = {"email": BOB, "dataFields": {"userId": "1"}}
    assert outcome(update(hybrid, **taken)) == (409, "UserIdAlreadyExists")
    assert list(hybrid.users) == ["1"]


def test_a_batch_names_a_conflicting_user_by_the_identifier_in_its_fields() -> None:
    project = Project(project_type="hybrid")
    users = [{"userId": str(n), "dataFields": {"email": ANN}} for n in (1, 2)]
    response = project.bulk_update_users({"users": users})
    assert (response.body["successCount"], response.body["failCount"]) == (1, 1)
    assert response.body["failedUpdates"]["conflictEmails"] == [ANN]
    assert list(project.users) == ["1"]


@pytest.mark.parametrize("user_id", ["", "x" * 53, "é", "a\tb", "end "])
def test_a_user_id_that_iterable_documents_as_malformed_is_refused(user_id: str) -> None:
    project = Project(project_type="userid")
    assert outcome(update(project, userId=user_id)) == (400, "InvalidUserIdError")
    bulk = project.bulk_update_users({"users": [{"userId": user_id, "dataFields": {}}]})
    assert bulk.body["failedUpdates"]["invalidUserIds"] == [user_id]


def test_a_forgotten_user_id_is_refused_singly_and_in_a_batch() -> None:
    project = Project(project_type="userid", forgotten=["gone-1"])
    assert outcome(update(project, userId="gone-1")) == (409, "ForgottenUserError")
    assert outcome(track(project, userId="gone-1")) == (400, "ForgottenUserError")
    bulk = project.bulk_update_users({"users": [{"userId": "gone-1", "dataFields": {}}]})
    assert bulk.body["failedUpdates"]["forgottenUserIds"] == ["gone-1"]
    assert project.users == {}


@pytest.mark.parametrize("project_type", ["userid", "hybrid"])
def test_an_event_by_an_unknown_user_id_creates_a_bare_user(project_type: str) -> None:
    project = Project(project_type=project_type)
    assert outcome(track(project, userId="1")) == (200, "Success")
    assert project.users["1"].is_bare
    update(project, userId="1")
    assert not project.users["1"].is_bare


def test_an_event_by_an_unknown_email_is_an_event_of_nobody() -> None:
    project = Project()
    assert outcome(track(project, email=ANN)) == (200, "Success")
    update(project, email=ANN)
    assert project.events_of(ANN, 10) == {"events": []}
    track(project, email=ANN)
    assert [each["id"] for each in project.events_of(ANN, 10)["events"]] == ["e-1"]


# users/updateEmail


def test_a_changed_address_takes_profile_and_events_along() -> None:
    project = Project()
    update(project, email=ANN, dataFields={"plan": "pro"})
    track(project, email=ANN)
    moved = project.update_email({"currentEmail": ANN.upper(), "newEmail": BOB})
    assert outcome(moved) == (200, "Success")
    assert list(project.users) == [BOB]
    assert project.user_by_email(BOB)["user"]["dataFields"]["plan"] == "pro"
    assert [each["email"] for each in project.events_of(BOB, 10)["events"]] == [BOB]
    assert project.user_by_email(ANN) == {}


@pytest.mark.parametrize(
    ("current", "new", "expected"),
    [
        ("nobody@example.com", "new@example.com", (400, "UnknownEmailError")),
        (ANN, BOB, (400, "EmailAlreadyExists")),
        (ANN, "gone@example.com", (409, "EmailAlreadyExists")),
        (ANN, "no address", (400, "InvalidEmailAddressError")),
    ],
)
def test_an_address_that_cannot_be_changed_stays(
    current: str, new: str, expected: tuple[int, str]
) -> None:
    project = Project(forgotten=["gone@example.com"])
    update(project, email=ANN)
    update(project, email=BOB)
    response = project.update_email({"currentEmail": current, "newEmail": new})
    assert outcome(response) == expected
    assert ("forgotten" in response.body["msg"]) == (new == "gone@example.com")
    assert sorted(project.users) == [ANN, BOB]


def test_an_unknown_address_can_be_answered_as_bad_params() -> None:
    response = Project(says_bad_params=True).update_email({"currentEmail": ANN, "newEmail": BOB})
    assert outcome(response) == (400, "BadParams")
    assert "No user" in response.body["msg"]


@pytest.mark.parametrize("project_type", ["userid", "hybrid"])
def test_addresses_are_changed_so_only_in_email_based_projects(project_type: str) -> None:
    project = Project(project_type=project_type)
    response = project.update_email({"currentEmail": ANN, "newEmail": BOB})
    assert outcome(response) == (400, "BadParams")


def test_the_shortest_wait_after_a_changed_address_is_noted() -> None:
    now = [100.0]
    project = Project(clock=lambda: now[0])
    update(project, email=ANN)
    project.update_email({"currentEmail": ANN, "newEmail": BOB})
    assert project.shortest_wait_after_email_change is None
    for now[0] in (170.0, 161.5):
        track(project, email=BOB)
    assert project.shortest_wait_after_email_change == 61.5


# Reading


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("empty", (200, None)),
        ("404", (404, "NotFound")),
        ("code", (400, "error.users.noUserWithIdExists")),
        ("text", (400, "BadParams")),
    ],
)
def test_an_unknown_user_id_is_answered_in_one_of_four_ways(
    how: str, expected: tuple[int, str | None]
) -> None:
    project = Project(project_type="userid", unknown_user_response=UnknownUserResponse(how))
    response = project.user_by_user_id("1")
    assert (response.status, response.body.get("code")) == expected
    update(project, userId="1", dataFields={"email": ANN})
    assert project.user_by_user_id("1").body["user"]["email"] == ANN


@pytest.mark.parametrize(
    ("project_type", "emails", "user_ids"),
    [("email", 200, 400), ("userid", 400, 200), ("hybrid", 200, 200)],
)
def test_the_lists_of_forgotten_users_hint_at_the_type_of_project(
    project_type: str, emails: int, user_ids: int
) -> None:
    project = Project(project_type=project_type, forgotten=[ANN, "id-1"])
    assert project.forgotten_users("email").status == emails
    assert project.forgotten_users("userId").status == user_ids


def test_an_address_that_a_user_gave_up_is_free_for_another() -> None:
    project = Project(project_type="hybrid")
    update(project, email=ANN, dataFields={"userId": "1"})
    update(project, userId="1", dataFields={"email": BOB})
    assert update(project, email=ANN).status == 200
    assert sorted(str(user.email) for user in project.users.values()) == [ANN, BOB]


def test_a_user_id_that_was_given_up_takes_no_events_along() -> None:
    project = Project(project_type="userid")
    track(project, "e-1", userId="1")
    update(project, userId="1", dataFields={"userId": "2"})
    track(project, "e-2", userId="1")
    for user_id, event_id in (("2", "e-1"), ("1", "e-2")):
        listed = project.events_of(user_id, 10, "userId")["events"]
        assert [event["id"] for event in listed] == [event_id]


@pytest.mark.parametrize(
    ("project_type", "field", "names", "code"),
    [
        ("userid", "userId", ("1", "2"), "UserIdAlreadyExists"),
        ("hybrid", "userId", ("1", "2"), "UserIdAlreadyExists"),
        ("hybrid", "email", (ANN, BOB), "EmailAlreadyExists"),
    ],
)
def test_a_user_does_not_take_the_name_of_another(
    project_type: str, field: str, names: tuple[str, str], code: str
) -> None:
    project = Project(project_type=project_type)
    for name in names:
        update(project, **{field: name})
    response = update(project, **{field: names[0], "dataFields": {field: names[1]}})
    assert response.body["code"] == code
    assert sorted(project.users) == sorted(names)
