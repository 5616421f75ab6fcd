"""Public methods of the client against the sandbox: what they send and return."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import requests

from config.identity import IdentifyBy
from iterable_client import IterableClient
from records.mapping import RowMapping
from sandbox.iterable_api import IterableSandbox
from tests.support.golden import SARAH, SARAHS_EVENT, SARAHS_EVENT_ID, SARAHS_PROFILE, sarah
from tests.support.rows import API_KEY, unwaiting_client

SARAHS_EMAIL = SARAH["email"]


@pytest.fixture
def client(iterable: IterableSandbox) -> Iterator[IterableClient]:
    made = IterableClient(API_KEY, iterable.url, max_attempts=1)
    yield made
    made.close()


def response_of(status: int, body: bytes) -> requests.Response:
    """Return a real response of `requests`."""
    response = requests.Response()
    response.status_code = status
    response._content = body
    return response


class FakeResponse:
    """A minimal fake, such as a user's own test might pass in."""

    def __init__(self, status_code: int, body: Any) -> None:
        self.status_code = status_code
        self._body = body

    def json(self) -> Any:
        if isinstance(self._body, Exception):
            raise self._body
        return self._body


# Methods and defaults


def test_the_client_has_the_documented_methods_and_arguments() -> None:
    def arguments(call: Any) -> list[str]:
        return list(inspect.signature(call).parameters)

    assert arguments(IterableClient)[:2] == ["api_key", "base_url"]
    assert arguments(IterableClient.update_user)[1:] == ["email", "data_fields", "user_id"]
    assert arguments(IterableClient.track_event)[1:4] == ["email", "event_name", "data_fields"]
    assert arguments(IterableClient.process_user_record)[1:] == ["user_record"]
    assert arguments(IterableClient._handle_response)[1:] == ["response", "endpoint"]


def test_the_default_base_url_is_iterables() -> None:
    assert repr(IterableClient(API_KEY)) == "IterableClient('https://api.iterable.com')"


def test_the_default_rate_limits_are_iterables_documented_ones() -> None:
    rate_limiters = IterableClient(API_KEY).rate_limiters
    assert {endpoint: limiter.full_rate for endpoint, limiter in rate_limiters.items()} == {
        "users/update": 500,
        "events/track": 2000,
        "users/bulkUpdate": 5,
        "events/trackBulk": 10,
        "users/updateEmail": 10,  # not documented
    }


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ключ", "tab\t"])
def test_a_malformed_key_is_refused_without_appearing_in_the_error(key: str) -> None:
    with pytest.raises(ValueError, match="characters that are not allowed in a key") as caught:
        IterableClient(key)
    assert key not in str(caught.value)


# Single calls


def test_an_update_sends_email_and_fields_and_returns_the_response(
    client: IterableClient, iterable: IterableSandbox
) -> None:
    fields: Any = SARAHS_PROFILE["dataFields"]
    delivered, said = client.update_user(SARAHS_EMAIL, fields)
    assert delivered
    assert (said["code"], said["params"]) == ("Success", None)
    assert (said["verdict"], said["http_status"], said["attempts"]) == ("delivered", 200, 1)
    assert [(call.endpoint, call.body) for call in iterable.calls] == [
        ("users/update", SARAHS_PROFILE)
    ]


def test_an_event_sends_email_name_and_fields_only(
    client: IterableClient, iterable: IterableSandbox
) -> None:
    fields = {"page": "pricing", "browser": "desktop"}
    delivered, said = client.track_event(SARAHS_EMAIL, "page_view", fields)
    assert delivered
    assert said["code"] == "Success"
    (call,) = iterable.calls
    assert call.endpoint == "events/track"
    assert call.body == {"email": SARAHS_EMAIL, "eventName": "page_view", "dataFields": fields}


def test_an_event_with_an_id_that_is_sent_twice_exists_once(
    client: IterableClient, iterable: IterableSandbox
) -> None:
    for _ in range(2):
        client.track_event(
            SARAHS_EMAIL, "page_view", {}, event_id="page-view-1", created_at=1_768_314_645
        )
    assert iterable.calls[0].body == {
        "email": SARAHS_EMAIL,
        "eventName": "page_view",
        "dataFields": {},
        "id": "page-view-1",
        "createdAt": 1_768_314_645,
    }
    assert list(iterable.project.events) == ["page-view-1"]


@pytest.mark.parametrize(
    ("email", "fields"),
    [
        ("ann@x.io", {"email": "ann@x.io", "plan_type": "pro"}),
        (None, {"plan_type": "pro"}),
        ("", {"plan_type": "pro"}),
    ],
)
def test_calls_by_user_id_have_it_as_the_only_identifier(
    email: str | None, fields: dict[str, str]
) -> None:
    with IterableSandbox(project_type="userid") as iterable:
        client = IterableClient(API_KEY, iterable.url)
        assert client.update_user(email, {"plan_type": "pro"}, user_id="42")[0]
        assert client.track_event(email, "page_view", {"page": "pricing"}, user_id="42")[0]
        assert [call.body for call in iterable.calls] == [
            {"userId": "42", "dataFields": fields},
            {"userId": "42", "eventName": "page_view", "dataFields": {"page": "pricing"}},
        ]


@pytest.mark.parametrize("fields", [None, ["plan_type"]])
@pytest.mark.parametrize("user_id", [None, "42"])
def test_fields_that_are_no_dict_are_refused_for_each_identifier(
    client: IterableClient, fields: Any, user_id: str | None
) -> None:
    with pytest.raises(ValueError, match="data_fields must be a dict"):
        client.update_user("ann@x.io", fields, user_id=user_id)


@pytest.mark.parametrize(("email", "user_id"), [(None, None), (None, 42)])
def test_a_call_needs_an_identifier_that_is_text(
    client: IterableClient, email: Any, user_id: Any
) -> None:
    with pytest.raises(ValueError, match="must be text"):
        client.update_user(email, {}, user_id=user_id)
    with pytest.raises(ValueError, match="must be text"):
        client.track_event(email, "page_view", {}, user_id=user_id)


def test_a_rejected_call_returns_iterables_code_and_the_verdict(client: IterableClient) -> None:
    delivered, said = client.update_user("no address", {})
    assert not delivered
    assert (said["code"], said["http_status"]) == ("InvalidEmailAddressError", 400)
    assert said["verdict"] == "rejected"


def test_bulk_calls_send_the_bodies_of_single_calls(
    client: IterableClient, iterable: IterableSandbox
) -> None:
    users = client.bulk_update_users([b'{"email":"a@x.io"}', b'{"email":"B@x.io"}'])
    viewed = {"email": "a@x.io", "eventName": "page_view"}
    events = client.bulk_track_events([json.dumps(viewed).encode()] * 2)
    assert users.delivered
    assert [call.params["successCount"] for call in (users, events)] == [2, 2]
    assert [call.body for call in iterable.calls] == [
        {"users": [{"email": "a@x.io"}, {"email": "B@x.io"}]},
        {"events": [viewed, viewed]},
    ]


def test_calls_and_retries_are_counted(iterable: IterableSandbox) -> None:
    client, _stop = unwaiting_client(iterable.url)
    iterable.set_faults([{"fault": "status", "status": 503, "times": 1}])
    client.update_user(SARAHS_EMAIL, {})
    client.update_user(SARAHS_EMAIL, {})
    assert (client.call_count, client.retry_count) == (3, 1)


# One row


def test_a_row_is_sent_as_the_two_documented_payloads(
    client: IterableClient, iterable: IterableSandbox
) -> None:
    entry = client.process_user_record(dict(SARAH))
    assert [(call.endpoint, call.body) for call in iterable.calls] == [
        ("users/update", SARAHS_PROFILE),
        ("events/track", {**SARAHS_EVENT, "id": SARAHS_EVENT_ID}),
    ]
    assert (entry["user_id"], entry["email"]) == (1, SARAHS_EMAIL)
    assert (entry["outcome"], entry["overall_success"]) == ("successful", True)
    assert entry["reason"] is None
    assert entry["users_update"]["success"]
    assert entry["events_track"]["response"] == {
        "code": "Success",
        "msg": f"Event with id: {SARAHS_EVENT_ID} tracked.",
        "params": {"id": SARAHS_EVENT_ID},
    }


def test_an_invalid_row_is_not_sent(client: IterableClient, iterable: IterableSandbox) -> None:
    entry = client.process_user_record(sarah(email="nobody"))
    assert (entry["outcome"], entry["overall_success"]) == ("invalid", False)
    assert entry["reason"] == "malformed e-mail address"
    assert (entry["users_update"], entry["events_track"]) == (None, None)
    assert iterable.calls == []


def test_columns_that_a_row_lacks_count_as_null(
    client: IterableClient, iterable: IterableSandbox
) -> None:
    few = {name: SARAH[name] for name in ("email", "first_name", "event_time")}
    assert client.process_user_record(few)["outcome"] == "successful"
    update, event = iterable.calls
    assert update.body["dataFields"] == {"first_name": "Sarah", "recent_page_view": True}
    assert event.body["dataFields"] == {"timestamp": "2026-01-13 14:30:45"}
    assert client.process_user_record({})["reason"] == "no e-mail address"


def test_a_row_whose_event_is_rejected_is_a_partial_failure() -> None:
    with IterableSandbox(disallowed_events=["page_view"]) as iterable:
        entry = IterableClient(API_KEY, iterable.url).process_user_record(dict(SARAH))
    assert (entry["outcome"], entry["overall_success"]) == ("partial_failure", False)
    assert (entry["users_update"]["success"], entry["events_track"]["success"]) == (True, False)


def test_the_event_of_a_row_by_user_id_follows_only_a_delivered_update() -> None:
    to_mapping = partial(RowMapping, identify_by=IdentifyBy.USER_ID)
    with IterableSandbox(project_type="hybrid") as iterable:
        iterable.project.update_user({"userId": "other", "dataFields": {"email": SARAHS_EMAIL}})
        client = IterableClient(API_KEY, iterable.url, to_mapping=to_mapping)
        assert client.process_user_record(sarah(email=None))["outcome"] == "successful"
        entry = client.process_user_record(sarah(id=2))
        assert entry["users_update"]["response"]["code"] == "EmailAlreadyExists"
        assert (entry["outcome"], entry["events_track"]) == ("total_failure", None)
        assert set(iterable.project.users) == {"other", "1"}


def test_the_event_is_sent_although_the_update_was_rejected(iterable: IterableSandbox) -> None:
    iterable.set_faults([{"fault": "status", "status": 400, "endpoint": "users/update"}])
    entry = IterableClient(API_KEY, iterable.url).process_user_record(dict(SARAH))
    assert entry["outcome"] == "partial_failure"
    assert entry["events_track"]["success"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"forgotten": [SARAHS_EMAIL]}, "ForgottenUserError"),
        ({"invalid_emails": [SARAHS_EMAIL]}, "InvalidEmailAddressError"),
        ({"api_key": "another-key"}, "BadApiKey"),
    ],
)
def test_no_event_is_sent_to_a_user_that_cannot_be_reached(
    options: dict[str, Any], code: str
) -> None:
    with IterableSandbox(**options) as iterable:
        entry = IterableClient(API_KEY, iterable.url).process_user_record(dict(SARAH))
        assert [call.endpoint for call in iterable.calls] == ["users/update"]
    assert entry["outcome"] == "total_failure"
    assert entry["users_update"]["response"]["code"] == code
    assert entry["events_track"] is None


def test_a_client_accepts_a_mapping_of_its_own(iterable: IterableSandbox) -> None:
    client = IterableClient(
        API_KEY, iterable.url, to_mapping=lambda columns: RowMapping(columns, send_nulls=True)
    )
    client.process_user_record(sarah(candidate=None))
    assert iterable.calls[0].body["dataFields"]["candidate"] is None


# Responses passed in


@pytest.mark.parametrize("is_real", [True, False], ids=["requests.Response", "fake"])
@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, {"code": "Success", "msg": "", "params": None}, "delivered"),
        (200, {"code": "BadParams", "msg": "", "params": None}, "rejected"),
        (200, {"code": "Success", "msg": "Event x is disallowed from tracking."}, "rejected"),
        (400, {"code": "InvalidEmailAddressError", "msg": "Invalid email"}, "rejected"),
        (401, {"code": "BadApiKey", "msg": "Invalid API key"}, "refused"),
        (429, {"code": "RateLimitExceeded", "msg": "Rate limit exceeded"}, "unavailable"),
        (502, {"code": "GenericError", "msg": ""}, "unavailable"),
        (500, {"code": "Success", "msg": ""}, "unavailable"),
        (200, None, "unavailable"),
    ],
)
def test_a_response_passed_in_gets_the_verdict_of_a_received_one(
    client: IterableClient,
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: Any,
    verdict: str,
    is_real: bool,
) -> None:
    response: Any = FakeResponse(status, ValueError("no JSON") if body is None else body)
    if is_real:
        response = response_of(status, json.dumps(body).encode() if body else b"<html>")
    delivered, said = client._handle_response(response, "events/track")
    assert delivered == (verdict == "delivered") == (caplog.messages == [])
    assert (said["verdict"], said["http_status"], said["attempts"]) == (verdict, status, 1)
    assert said["code"] == (body["code"] if body else "not an API response")


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (400, "4xx Client Error from users/update: Status 400"),
        (502, "5xx Server Error from users/update: Status 502"),
    ],
)
def test_an_error_without_a_message_is_logged_as_documented(
    client: IterableClient, caplog: pytest.LogCaptureFixture, status: int, line: str
) -> None:
    client._handle_response(response_of(status, b"{}"), "users/update")
    assert caplog.messages == [line]
    assert caplog.records[0].levelname == "ERROR"


def test_a_fake_response_whose_body_is_not_json_is_not_an_api_response(
    client: IterableClient,
) -> None:
    response: Any = FakeResponse(200, {"code": "Success", "params": object()})
    assert client._handle_response(response, "users/update")[1]["code"] == "not an API response"


def test_the_key_is_redacted_in_a_response_passed_in(client: IterableClient) -> None:
    body = b'{"code":"GenericError","msg":"your request: Api-Key: %b"}' % API_KEY.encode()
    _delivered, said = client._handle_response(response_of(400, body), "users/update")
    assert said["msg"] == "your request: Api-Key: [api key]"


# Values without a JSON form


@pytest.mark.parametrize(
    ("email", "fields", "reason"),
    [
        ("ann@example.com", {"a": object()}, "field 'a' is of type object"),
        ("ann@example.com", {"a": [b"x"]}, "field 'a' is binary"),
        ("ann@example.com", {"a": float("nan")}, "field 'a' is nan"),
        ("ann@example.com", {"a": 2**64}, "field 'a' is a whole number that does not fit"),
        ("ann@example.com", {"a": "\ud800"}, "a text is not valid Unicode"),
        ("\ud800@example.com", {}, "a text is not valid Unicode"),
        (None, {}, "email must be text"),
        ("ann@example.com", ["a"], "data_fields must be a dict"),
    ],
)
def test_a_value_without_a_json_form_was_a_type_error(
    iterable: IterableSandbox, email: Any, fields: Any, reason: str
) -> None:
    client = IterableClient(API_KEY, iterable.url)
    with pytest.raises(ValueError, match=reason):
        client.update_user(email, fields)
    with pytest.raises(ValueError, match=reason.replace("email", "email, eventName")):
        client.track_event(email, "page_view", fields)
    assert list(iterable.calls) == []


@pytest.mark.parametrize("created_at", [1.5, float("nan"), "1768314645", True])
def test_a_created_at_that_is_no_whole_number_is_a_value_error(
    iterable: IterableSandbox, created_at: Any
) -> None:
    client = IterableClient(API_KEY, iterable.url)
    with pytest.raises(ValueError, match="created_at must be whole unix seconds"):
        client.track_event("ann@example.com", "page_view", {}, created_at=created_at)


def test_field_names_that_are_no_texts_become_texts(iterable: IterableSandbox) -> None:
    client = IterableClient(API_KEY, iterable.url)
    fields: Any = {1: "one"}
    assert client.update_user("ann@example.com", fields)[0]
    assert iterable.project.users["ann@example.com"].data_fields == {"1": "one"}
