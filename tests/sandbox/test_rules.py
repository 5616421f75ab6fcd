"""The sandbox's rules: the types of fields, and the documented bodies."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.project import Project
from sandbox.request_schemas import body_problems
from sandbox.responses import ApiResponse

SARAH = "sarah.johnson@email.com"


def update(project: Project, **fields: Any) -> ApiResponse:
    return project.update_user({"email": SARAH, "dataFields": fields})


def event(event_id: str = "page-view-1", **fields: Any) -> dict[str, Any]:
    return {"email": SARAH, "eventName": "page_view", "id": event_id, "dataFields": fields}


def users(*emails: str, **fields: Any) -> dict[str, Any]:
    return {"users": [{"email": email, "dataFields": fields} for email in emails]}


def mismatches(answer: ApiResponse) -> dict[str, Any]:
    assert (answer.status, answer.body["code"]) == (400, "RequestFieldsTypesMismatched")
    errors: dict[str, Any] = answer.body["params"]["validationErrors"]
    return errors


# Field types


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        ("text", "other", True), ("text", 1, False), ("text", True, False), ("text", None, True),
        (1, 2, True), (1, 1.5, False), (1, "1", False), (1, True, False),
        (1.5, 2.5, True), (1.5, 2, True), (1.5, "x", False),
        (True, False, True), (True, 1, False), (True, "true", False),
        ({"a": 1}, {"a": 2}, True), ({"a": 1}, {"a": "x"}, False), ({"a": 1}, "x", False),
        (["a"], ["b", "c"], True), (["a"], [1], False), ([], "text", True), (["a"], "b", True),
        ("2026-01-13 14:30:45", "not a date", True),
    ],
)  # fmt: skip
def test_the_first_value_fixes_a_fields_type(first: object, second: object, fits: bool) -> None:
    project = Project()
    update(project, field=first)
    assert (update(project, field=second).status == 200) is fits


def test_a_mismatch_is_described_as_iterable_describes_it() -> None:
    project = Project()
    answer = update(project, signupDate="GGG")
    assert answer.body["msg"] == (
        "Project 10216: The request does not have the same data types as the data previously"
        " submitted. Field 'signupDate' already exists for type 'user' and has a data type of"
        " 'date' but possible types 'string, keyword' in the request."
    )
    assert mismatches(answer) == {
        "signupDate": {
            "incomingTypes": ["string", "keyword"],
            "expectedType": "date",
            "_type": "UnexpectedType",
            "offendingValue": "GGG",
            "category": "user",
        }
    }
    assert not project.users


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("2026-01-13 14:30:45", True), ("2026-01-13", True), ("2026-01-13 14:30:45 +00:00", True),
        ("2026-01-13T14:30:45.000Z", True), ("2026-01-13T14:30:45.123+02:00", True),
        ("2026-01-13T14:30:45", False), ("2026-01-13T14:30:45Z", False),
        ("2026-01-13T14:30:45.000", False), ("13/01/2026", False), ("", False),
    ],
)  # fmt: skip
def test_a_preset_date_field_takes_iterables_forms_only(text: str, fits: bool) -> None:
    project = Project(field_types={"page_view:timestamp": "date"})
    assert (project.track_event(event(timestamp=text)).status == 200) is fits


def test_event_fields_are_typed_per_event_name() -> None:
    project = Project(field_types={"seen": "date"})
    project.track_event(event(page="pricing"))
    other = {**event(event_id="e2", page=1), "eventName": "other"}
    assert project.track_event(other).status == 200
    assert "page" in mismatches(project.track_event(event(page=1)))
    assert "seen" in mismatches(project.track_event(event(seen="never")))
    assert "seen" in mismatches(update(project, seen="never"))


def test_one_clash_refuses_the_whole_batch_and_teaches_nothing() -> None:
    project = Project()
    batch = users(SARAH, "b@x.io", "c@x.io", age=1)
    batch["users"][1]["dataFields"] = {"age": "old", "new": True}
    batch["users"][2]["dataFields"] = {"age": "older"}
    answer = project.bulk_update_users(batch)
    assert mismatches(answer)["age"]["offendingValue"] == "old"
    assert not project.users
    assert update(project, age="now a text", new="too").status == 200


def test_a_clash_within_a_batch_of_events_refuses_it() -> None:
    project = Project()
    batch = {"events": [event(event_id="e1", page="x"), event(event_id="e2", page=2)]}
    assert mismatches(project.track_events(batch))["page"]["offendingValue"] == 2
    assert not project.events


def test_a_text_over_32000_characters_is_refused_and_one_of_32000_is_not() -> None:
    project = Project()
    for known in (False, True):
        assert update(project, bio="é" * 32_001).status == 400, known
        assert project.bulk_update_users(users(SARAH, bio="x" * 32_001)).status == 400, known
        assert update(project, bio="é" * 32_000).status == 200


def test_user_fields_are_listed_with_built_in_and_nested_ones() -> None:
    project = Project(field_types={"seen": "date"})
    update(project, age=1, address={"city": "Ghent"})
    fields = project.user_fields()["fields"]
    expected = {"email": "string", "profileUpdatedAt": "date", "seen": "date", "age": "long"}
    assert fields.items() >= {**expected, "address": "object", "address.city": "string"}.items()


def test_an_unknown_type_is_refused_as_a_preset() -> None:
    with pytest.raises(ValueError, match="age=number"):
        Project(field_types={"age": "number"})


# Bodies


@pytest.mark.parametrize(
    ("endpoint", "body", "problems"),
    [
        ("users/update", {"email": SARAH, "dataFields": {}, "unknown": 1}, {}),
        ("users/update", {"dataFields": {}}, {"obj.email": "String value expected"}),
        ("users/update", {"email": None}, {"obj.email": "String value expected"}),
        (
            "users/update",
            {"email": 1, "dataFields": [], "preferUserId": "yes"},
            {
                "obj.email": "String value expected",
                "obj.dataFields": "Object value expected",
                "obj.preferUserId": "Boolean value expected",
            },
        ),
        ("users/update", ["x"], {"obj": "Object value expected"}),
        ("events/track", {"email": SARAH}, {"obj.eventName": "String value expected"}),
        (
            "events/track",
            {"email": SARAH, "eventName": "x", "createdAt": "2026", "campaignId": True},
            {
                "obj.createdAt": "Number value expected",
                "obj.campaignId": "Number value expected",
            },
        ),
        ("users/bulkUpdate", {}, {"obj.users": "Array value expected"}),
        (
            "users/bulkUpdate",
            {"users": [{"email": SARAH}, {"email": SARAH, "preferUserId": "yes"}, 7]},
            {
                "obj.users[1].preferUserId": "Boolean value expected",
                "obj.users[2]": "Object value expected",
            },
        ),
        (
            "events/trackBulk",
            {"events": [{"email": SARAH, "eventName": "x", "createdAt": 1.5}]},
            {"obj.events[0].createdAt": "Number value expected"},
        ),
    ],
)
def test_body_problems_are_named_by_their_address(
    endpoint: str, body: object, problems: dict[str, str]
) -> None:
    assert body_problems(endpoint, body) == problems
